from PIL import Image

from tests.data.samples import write_class_folders
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.verify import verify_images


def test_a_whole_dataset_is_decoded_once(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args: opened.append(args) or 1 / 0)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    assert not opened


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
