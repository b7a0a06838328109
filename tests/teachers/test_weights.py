"""From a file's content to one state, and from a state into a network."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_empty, build_teacher
from tvt_ray.teachers.cifar_resnet import CifarResNet
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Backbone, Teacher
from tvt_ray.teachers.weights import WRAPPERS, bare_names, candidates, class_names_in, load_weights, read_state

STATE = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.ones(2), "norm.num_batches_tracked": torch.tensor(3)}
OTHER = {key: value + 1 for key, value in STATE.items()}
TRAINING = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}, "epoch": 3, "lr": 0.1}


@pytest.fixture
def read(tmp_path):
    """What a file with that content is read as, and what was told of it."""

    def save_and_read(content):
        torch.save(content, tmp_path / "t.pth")
        notes = []
        state = read_state(tmp_path / "t.pth", notes.append)
        return state, [note.removeprefix(f"teacher weights: {tmp_path / 't.pth'}: ") for note in notes]

    return save_and_read


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def prefixed(prefix, state=STATE):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", [STATE, {"state_dict": STATE}, {"model": {"net": STATE}}], ids=["1", "2", "3"])
def test_a_state_may_stand_under_wrappers_beside_a_trainings_own_entries(read, wrapper, inner):
    state, notes = read({**TRAINING, wrapper: inner, "args": argparse.Namespace(lr=0.1)})
    assert same(state, STATE)
    assert not notes


def test_a_wrappers_name_may_also_be_a_plain_value(read):
    assert same(read({"model": "resnet20", "state_dict": STATE})[0], STATE)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "_orig_mod.module.", "model.net."],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_prefixes_of_every_name_are_left_out_in_every_format(prefix, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    save_file(prefixed(prefix), path) if suffix == "safetensors" else torch.save(prefixed(prefix), path)
    assert same(read_state(path), STATE)


def test_a_prefix_of_some_names_is_a_part_of_them():
    names = ["module.conv.weight", "module.conv.bias", "fc.weight"]
    assert list(bare_names(names).values()) == names


def test_a_part_that_was_compiled_has_its_own_name():
    assert bare_names(["layer1._orig_mod.0.weight", "fc.weight"]) == {
        "layer1._orig_mod.0.weight": "layer1.0.weight",
        "fc.weight": "fc.weight",
    }


@pytest.mark.parametrize(
    ("entries", "taken"),
    [
        ({"model_ema": STATE}, "model_ema"),
        ({"state_dict_ema": STATE}, "state_dict_ema"),
        ({"ema_state_dict": STATE}, "ema_state_dict"),
        ({"EMA": {"module": prefixed("module."), "decay": 0.99, "updates": torch.tensor(3)}}, "EMA.module"),
        ({"model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.")}}, "model_ema"),
    ],
)
def test_a_moving_average_is_taken_before_what_it_averages_and_that_is_said(read, entries, taken):
    state, notes = read({"model": OTHER, **entries, **TRAINING})
    assert same(state, STATE)
    assert notes == [f"the moving averages (EMA) under {taken} are taken; not those under model"]
    assert read(entries)[1] == [f"the moving averages (EMA) under {taken} are taken"]


def test_what_torch_averages_is_read(read):
    averaged = AveragedModel(nn.Linear(2, 3))
    state, _ = read({"model_ema": averaged.state_dict()})
    assert same(state, averaged.module.state_dict())


def test_an_average_without_weights_is_none(read):
    for average in ({"decay": torch.tensor(0.99)}, None, 0.99):
        state, notes = read({"model": STATE, "ema": average})
        assert same(state, STATE)
        assert not notes
    assert same(read({"model": STATE, "schema": OTHER})[0], STATE)


@pytest.mark.parametrize("average", [nn.Linear(2, 3), [torch.ones(3)]], ids=["module", "list"])
def test_an_average_that_is_not_read_is_named(read, average):
    state, notes = read({"model": STATE, "ema": average})
    assert same(state, STATE)
    assert notes == ["the moving averages (EMA) under ema are no state dict and not read; other weights are taken"]


def test_of_several_networks_one_is_taken_and_that_is_said(read):
    state, notes = read({"student": OTHER, "teacher": OTHER, "net": STATE})
    assert same(state, STATE)
    assert notes == ["the weights under net are taken; not those under teacher, student"]


def test_entries_that_are_no_tensors_are_counted(read):
    state, notes = read({**STATE, "epoch": 3, "name": "best"})
    assert same(state, STATE)
    assert notes == ["2 of 5 entries are no tensors and left out (such as epoch)"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_that_is_said(read, dtype):
    state, notes = read({key: value.to(dtype) if value.ndim else value for key, value in STATE.items()})
    assert same(state, STATE)
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert notes == [f"2 of 3 tensors are {str(dtype).removeprefix('torch.')}; converted to float32"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, r"holds no state dict \(names to tensors\); its keys are epoch, lr; where it was"),
        ({"best": torch.tensor(0.9)}, "holds no state dict"),
        ({3: torch.ones(2)}, "its keys are 3;"),
        ({}, "its keys are none;"),
        ([3], "holds no state dict .*, but a list;"),
        (torch.ones(2), "but a Tensor;"),
        (
            nn.Linear(2, 2),
            r"holds a whole pickled object \(torch\.nn\.modules\.linear\.Linear\), not its weights;",
        ),
        ({"model": nn.Linear(2, 2), "epoch": 3}, r"whole pickled object \(torch\.nn\.modules\.linear\.Linear\)"),
        ({"ema": nn.ReLU(), "args": argparse.Namespace()}, r"whole pickled object \(torch\.nn\.modules.*ReLU\)"),
        ({"weight": torch.eye(2).to_sparse()}, r"quantized, sparse, complex or without data \(such as weight\)"),
        ({"weight": torch.ones(2, dtype=torch.complex64)}, "quantized, sparse, complex"),
        ({"weight": torch.ones(2, device="meta")}, "quantized, sparse, complex"),
    ],
)
def test_a_file_without_a_state_is_refused_in_one_line(read, tmp_path, content, message):
    with pytest.raises(UsageError, match=message) as error:
        read(content)
    assert str(error.value).startswith(f"{tmp_path / 't.pth'} cannot be read as weights: it ")
    assert "\n" not in str(error.value)


def test_a_modules_weights_are_read_where_they_stand_beside_it(read):
    assert same(read({"model": nn.Linear(2, 2), "state_dict": STATE})[0], STATE)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    save_file(CifarResNet(20, 5).state_dict(), tmp_path / "t.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    cases = [
        (TeacherSettings(name="resnet56", weights=tmp_path / "t.safetensors"), 5, "does not fit teacher resnet56"),
        (TeacherSettings(weights=tmp_path / "t.safetensors"), 3, "knows 5 classes, the dataset has 3"),
        (TeacherSettings(weights=tmp_path / "absent.safetensors"), 5, "there is no file"),
        (TeacherSettings(weights=tmp_path / "junk.safetensors"), 5, "cannot be read"),
        (TeacherSettings(name="timm:resnet19"), 5, "resnet18"),
    ]
    for settings, num_classes, message in cases:
        with pytest.raises(UsageError, match=message) as error:
            build_teacher(settings, num_classes)
        assert "\n" not in str(error.value)


class Small(Backbone):
    """Its classifier comes first, and all of its names have a prefix that wrappers use, too."""

    def __init__(self, num_classes, width=4):
        super().__init__()
        self.net = nn.ModuleDict()
        self.net["classifier"] = nn.Linear(width, num_classes)
        self.net["conv"] = nn.Conv2d(3, width, 3)
        self.net["norm"] = nn.BatchNorm2d(width)


PATH = "t.pth"


def load(state, num_classes=5):
    teacher = Teacher("small", Small(num_classes), num_classes, 32)
    load_weights(teacher, {bare: state[key] for key, bare in bare_names(state).items()}, PATH)
    return teacher.backbone.state_dict()


def test_a_network_whose_own_names_have_a_prefix_is_filled():
    state = Small(5).state_dict()
    assert all(key.startswith("net.") for key in state)
    assert same(load(state), state)
    assert same(load(prefixed("module.", state)), state)


def test_the_number_of_batches_may_be_missing_or_too_many():
    state = Small(5).state_dict()
    counter = "net.norm.num_batches_tracked"
    assert load({key: value for key, value in state.items() if key != counter})[counter] == 0
    load({**state, "net.conv.num_batches_tracked": torch.tensor(3)})


@pytest.mark.parametrize("num_classes", [3, 4, 1000])
def test_other_classes_are_told_wherever_the_classifier_stands(num_classes):
    with pytest.raises(UsageError, match=rf"^t\.pth: the teacher knows {num_classes} classes, the dataset has 5; give"):
        load(Small(num_classes).state_dict())


def test_another_width_is_no_other_number_of_classes():
    with pytest.raises(UsageError, match=r"not fit teacher small: net\.classifier\.weight is \(5, 6\), not \(5, 4\)"):
        load(Small(5, width=6).state_dict())
    with pytest.raises(UsageError, match=r"does not fit teacher small: net\.classifier\.weight is"):
        load(Small(3, width=6).state_dict())
    with pytest.raises(UsageError, match="does not fit teacher small"):
        load(Small(4, width=6).state_dict(), num_classes=4)  # as many classes as channels


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value):
    state = Small(5).state_dict()
    state["net.conv.weight"][1, 0, 0, 0] = value
    state["net.conv.bias"][0] = value
    with pytest.raises(UsageError, match=r"NaN or infinite, in 2 of 9 tensors \(such as net\.conv\.weight\)"):
        load(state)


def test_weights_that_are_integers_are_refused():
    state = Small(5).state_dict()
    state["net.conv.weight"] = state["net.conv.weight"].to(torch.int8)
    with pytest.raises(UsageError, match=r"weights, in 1 of 9 tensors \(such as net\.conv\.weight\): quantised"):
        load(state)


def test_names_that_do_not_fit_are_counted_with_an_example_each():
    state = {**Small(5).state_dict(), "a": torch.ones(1)}
    with pytest.raises(UsageError, match=r"^t\.pth does not fit teacher small: 1 unknown \(such as a\)$"):
        load(state)
    del state["net.conv.weight"], state["net.conv.bias"]
    with pytest.raises(UsageError, match=r": 2 missing \(such as net\.conv\.weight\), 1 unknown \(such as a\)$"):
        load(state)


# What fits a network, whatever a script put before or beside --------------------------------------------------------

NUM_CLASSES = 5


def resnet(seed=0):
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in CifarResNet(20, NUM_CLASSES).state_dict().items()}


def under(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def inside(part, state):
    return {key.replace("layer1.", f"layer1.{part}."): value for key, value in state.items()}


def fitting(content):
    return candidates(content, lambda state: build_empty(TeacherSettings(name="resnet20"), NUM_CLASSES, state))


HEADLESS = {key: value for key, value in resnet().items() if not key.startswith("linear")}
FORMS = {
    "a criterion beside": under("model.", resnet()) | {"criterion.weight": torch.ones(3)},
    "Lightning's": {"state_dict": under("net.", resnet()) | {"loss_fn.pos_weight": torch.ones(3)}, "epoch": 3},
    "Fabric's": under("_forward_module.", resnet()),
    "FSDP's": under("_fsdp_wrapped_module.", resnet()),
    "fastai's": {"model": under("0.model.", resnet()), "opt": {}},
    "robustness'": {"model": under("normalizer.", {"mean": torch.zeros(3)}) | under("model.", resnet())},
    "compiled inside": inside("_orig_mod", resnet()),
    "checkpointed inside": inside("_checkpoint_wrapped_module", resnet()),
    "of MMPretrain": {
        "state_dict": under("backbone.", HEADLESS)
        | {"head.fc.weight": resnet()["linear.weight"], "head.fc.bias": resnet()["linear.bias"]}
    },
    "in a list": [resnet(), {"epoch": 1}],
    "in a list under a key": {"models": [resnet()]},
    "under any key": {"whatever": resnet()},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_whatever_a_script_put_around_them(form):
    (found,) = fitting(FORMS[form])
    assert same(found.state, resnet())


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"state_dict": under("encoder_q.", resnet()) | under("encoder_k.", resnet(1))}, {"encoder_q", "encoder_k"}),
        ({"params": resnet(), "params_ema": resnet(1)}, {"params", "params_ema"}),
    ],
)
def test_all_that_fit_are_found(content, places):
    assert {each.place.removeprefix("state_dict.") for each in fitting(content)} == places


def test_what_lacks_a_part_or_has_two_heads_does_not_fit():
    assert fitting(HEADLESS) == []
    assert fitting({key: value for key, value in resnet().items() if "running_mean" not in key}) == []
    heads = {"a.weight": torch.ones(5, 64), "b.weight": torch.ones(5, 64), "c": torch.ones(5)}
    assert fitting(HEADLESS | heads) == []


def test_shards_are_read_by_their_index(tmp_path):
    state, names = resnet(), sorted(resnet())
    shards = {"a.safetensors": names[:40], "b.safetensors": names[40:]}
    for shard, held in shards.items():
        save_file({name: state[name].contiguous() for name in held}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for place in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert same(
            build_teacher(TeacherSettings(name="resnet20", weights=place), NUM_CLASSES).backbone.network.state_dict(),
            state,
        )
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UsageError, match=r"there is no file .*b\.safetensors"):
        build_teacher(TeacherSettings(weights=tmp_path), NUM_CLASSES)
    index["weight_map"]["linear.bias"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="is no index of weights"):
        build_teacher(TeacherSettings(weights=tmp_path), NUM_CLASSES)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"class_to_idx": {"b": 1, "a": 0}}, ("a", "b")),
        ({"classes": ["b", "a"], "model": {}}, ("b", "a")),
        ({"meta": {"CLASSES": ["x", "y"]}}, ("x", "y")),
        ({"config": {"id2label": {"0": "x", "1": "y"}}}, ("x", "y")),
        ({"class_to_idx": {"b": 0, "a": 7}}, None),
        ({"classes": 10}, None),
        ([], None),
    ],
)
def test_what_a_file_calls_its_classes(content, names):
    assert class_names_in(content) == names


def test_content_that_holds_itself_or_one_part_many_times_is_searched_once():
    """A pickle of some hundred bytes may: followed along each way it is of 2^40 parts, or without an end."""
    loop = {"state_dict": resnet()}
    loop["self"] = loop
    assert len(fitting(loop)) == 1
    part = {"model": resnet()}
    for _ in range(40):
        part = {"a": part, "b": part}
    assert len(fitting(part)) == 1
    deep = [resnet()]
    for _ in range(5_000):
        deep = [deep]
    assert fitting(deep) == []
