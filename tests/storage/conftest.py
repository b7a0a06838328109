"""A remote folder: one of pyarrow's filesystems over local files, which goes the way of S3 and GCS."""

import pyarrow.fs as pafs
import pytest

from tvt_ray.storage.locations import RemotePath


@pytest.fixture
def remote(tmp_path):
    return RemotePath(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "bucket/run", "s3://bucket/run")


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path, remote):
    """A folder that is not there yet, on either kind of store; on this machine it is bucket/run in tmp_path."""
    return remote if request.param == "remote" else tmp_path / "bucket" / "run"
