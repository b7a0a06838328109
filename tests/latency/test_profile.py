import json
import os

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import OTHER, synthetic_profile
from tvt_ray.errors import UsageError
from tvt_ray.latency.profile import Device, _cpu_name, default_path, load_profile, this_device
from tvt_ray.storage.locations import cache_folder


def test_this_machine_is_itself():
    device = this_device("cpu")
    assert device == this_device("cpu")
    assert (device.kind, device.cores) == ("cpu", os.cpu_count())
    assert device.name.strip() == device.name != ""


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(UsageError, match="one of cpu, cuda; got 'tpu'"):
        this_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UsageError, match="no CUDA device that PyTorch can use; choices: cpu"):
        this_device("cuda")


def test_a_processor_is_called_what_the_system_says(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\n")
    assert _cpu_name(tmp_path / "cpuinfo") == "Some CPU @ 3 GHz"
    assert _cpu_name(tmp_path / "missing")


def test_a_device_says_what_it_is():
    assert str(Device(kind="cuda", name="Some GPU", cores=8)) == "Some GPU (cuda, 8 cores)"


SPACE = SMALL_SPACES["vit"]


def test_a_profile_goes_to_a_file_and_back(space, tmp_path):
    profile = synthetic_profile(space)
    profile.save(tmp_path / "new" / "p.json")
    assert load_profile(tmp_path / "new" / "p.json") == profile


def test_the_file_says_how_it_was_measured(tmp_path):
    synthetic_profile(SPACE).save(tmp_path / "p.json")
    stored = json.loads((tmp_path / "p.json").read_text())
    assert (stored["format"], stored["backend"], stored["threads"]) == (1, "torch", 1)
    assert stored["device"].keys() == {"kind", "name", "cores"}
    assert [batch["batch_size"] for batch in stored["batches"]] == [1, 4]
    assert stored["batches"][0]["error"]["num"] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"is no latency profile of format 1 \(found: 2\)"),
        ({"threads": 0}, "is damaged .threads: Input should be greater than 0"),
        ({"space": {"name": "cnn"}}, "is damaged .space: Value error, unknown search space 'cnn'"),
        ({"backend": "onnx"}, "is damaged .backend: Input should be 'torch'"),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(change, message, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**synthetic_profile(SPACE).model_dump(mode="json"), **change}))
    with pytest.raises(UsageError, match=message):
        load_profile(path)


@pytest.mark.parametrize("text", ["", "[1]", '"x"', "{", '{"format": 1}'])
def test_what_is_no_json_object_is_one_line(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UsageError, match="tvt profile") as error:
        load_profile(tmp_path / "p.json")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"there is no latency profile .*p\.json; tvt profile makes one"):
        load_profile(tmp_path / "p.json")


def test_a_batch_size_that_was_not_measured_is_refused():
    profile = synthetic_profile(SPACE)
    assert profile.batch(4).batch_size == 4
    with pytest.raises(UsageError, match="no batch size 8; choices: 1, 4, or profile anew"):
        profile.batch(8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 64}, "space.image_size is 32 there and 64 here"),
        ({"depth": (2,)}, r"space.depth is \[2, 3\] there and \[2\] here"),
    ],
)
def test_a_profile_of_another_space_is_refused(changed, message):
    profile = synthetic_profile(SPACE)
    profile.check_space(SPACE, "p.json")
    with pytest.raises(UsageError, match=f"p.json is of another space: {message}"):
        profile.check_space(SPACE.model_copy(update=changed), "p.json")
    with pytest.raises(UsageError, match=r"space\.name is vit there and pit here"):
        profile.check_space(SMALL_SPACES["pit"], "p.json")


def test_every_device_and_space_has_a_place_of_its_own_in_the_cache():
    devices = OTHER, OTHER.model_copy(update={"kind": "cuda"}), OTHER.model_copy(update={"cores": 4})
    places = [default_path(device, space) for device in devices for space in SMALL_SPACES.values()]
    assert len(set(places)) == len(places)
    assert {path.parent for path in places} == {cache_folder() / "latency"}
    assert places[0].name.startswith("cpu-another-processor-autoformer-")
