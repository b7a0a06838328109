from pathlib import Path

import pytest
from pydantic import ValidationError

from tvt_ray.data.pixels import MAX_PIXELS, Decoding
from tvt_ray.data.settings import DataSettings


def test_paths_are_absolute_whatever_the_current_folder_is_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    settings = DataSettings(name="imagefolder:photos", root="store")
    assert (settings.name, settings.root) == (f"imagefolder:{tmp_path}/photos", tmp_path / "store")
    assert DataSettings().root == tmp_path / "data"
    settings = DataSettings(name="parquet:~/a:b", root="~/store")
    assert (settings.name, settings.root) == ("parquet:/home/me/a:b", Path("/home/me/store"))
    monkeypatch.chdir("/")
    assert DataSettings(**settings.model_dump(mode="json")) == settings
    assert [DataSettings(name=name).name for name in ("digits", "imagefolder:", "parquet:s3://b/d")] == [
        "digits",
        "imagefolder:",
        "parquet:s3://b/d",
    ]


def test_decoding_is_pils_on_white_unless_it_is_set():
    assert DataSettings().decoding == Decoding((255, 255, 255), MAX_PIXELS)
    assert DataSettings(background="#010203", max_pixels=9).decoding == Decoding((1, 2, 3), 9)
    with pytest.raises(ValidationError, match="a colour is written as in white"):
        DataSettings(background="whitish")
    with pytest.raises(ValidationError, match="greater than 0"):
        DataSettings(max_pixels=0)
