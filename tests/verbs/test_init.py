"""What `distill.init` may name; weights are looked at before anything is trained, and count for what a student is."""

import json
import random

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import SMALL_SPACES, call
from tests.exports.conftest import CLASSES, write_folder
from tests.vits.expanded import same
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import load_data
from tvt_ray.verbs.distill import distill
from tvt_ray.verbs.fit import plan_fit
from tvt_ray.verbs.init import begin_as_they_can, check_init, check_init_setting, read_source, tell_of_init
from tvt_ray.verbs.refine import refine
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.trainings import check_student_folder, recipe_of, settings_of
from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.weight_selection import heads_of

SPACE = SMALL_SPACES["autoformer"]
LARGER = AutoFormerSpace(
    image_size=32, patch_size=8, embed_dim=(24, 48), depth=(2, 4), num_heads=(3, 4), mlp_ratio=(2.0,)
)


@pytest.fixture
def larger(tmp_path):
    """A student's folder that is large enough for all of SPACE."""
    return write_folder(tmp_path / "larger", LARGER, LARGER.largest_arch(2), class_names=("ants", "bees"), seed=1)


@pytest.fixture
def smaller(tmp_path):
    """One that is not: of its smallest architecture."""
    smallest = min(SPACE.enumerate(), key=lambda arch: SPACE.cost(arch, 2).params)
    return write_folder(tmp_path / "smaller", SPACE, smallest, class_names=("ants", "bees"))


def load_init(config):
    return None if config.distill.init is None else read_source(config.distill.init)


def check(student_folder, config):
    """As a session checks what it goes on with."""
    with Session.open(config, student_folder.parent / "run", resume=True) as session:
        check_student_folder(student_folder, session)


def files_of(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("verb", [distill, refine])
def test_weights_that_are_too_small_are_refused_before_anything_begins(verb, photos, config_of, run_folder, smaller):
    before = files_of(run_folder)
    largest = max(run_folder.rows().read(), key=lambda row: row.params)
    config = config_of(photos, distill={"init": str(smaller)})
    which = {"arch_id": largest.arch_id} if verb is distill else {}
    with pytest.raises(
        UsageError,
        match=r"^distill\.init: .* is too small for autoformer-.*: it has \d+ [a-z ]+, autoformer-.* has \d+; ",
    ) as e:
        verb(run_folder.path, settings=config, **which)
    assert "\n" not in str(e.value)
    assert files_of(run_folder) == before


def test_the_commands_end_with_a_line_and_2(run_folder, smaller, capsys, tmp_path):
    for command in ("distill", "refine"):
        code, _, err = call(capsys, command, "--run-dir", run_folder.path, "--init", tmp_path / "none")
        assert code == 2
        assert f"error: distill.init: there is no file or folder {tmp_path / 'none'}" in err.splitlines()[-1]


def test_a_search_that_trains_afterwards_and_a_fit_look_at_it_first(photos, config_of, tmp_path, capsys):
    pit = write_folder(tmp_path / "pit", SMALL_SPACES["pit"])
    with pytest.raises(UsageError, match="a student of the space pit takes weights of a PiT"):
        check_init_setting(config_of(photos, distill={"init": str(pit)}))
    words = ["search", "--dataset", f"imagefolder:{photos}", "--run-dir", tmp_path / "new", "--init", pit]
    code, _, err = call(capsys, *words, "--distill-top-k", 1)
    assert (code, (tmp_path / "new").exists()) == (2, False)
    assert "distill.init" in err
    with pytest.raises(UsageError, match="a student of the space pit takes weights of a PiT"):
        plan_fit({"data": {"name": f"imagefolder:{photos}"}, "distill": {"init": str(pit)}})


def test_all_of_a_run_fits_into_a_vit_that_is_larger(photos, config_of, run_folder, larger):
    config = config_of(photos, distill={"init": str(larger)})
    check_init_setting(config)
    check_init(load_init(config), config, run_folder.rows().read())
    check_init(None, config, run_folder.rows().read())


def test_it_is_said_of_each_student_what_is_filled(photos, config_of, larger, capsys):
    config = config_of(photos, distill={"init": str(larger)})
    arch = SPACE.sample(random.Random(0))
    count = 12 * arch.depth + 8  # class token, positions, and two of patches, norm and classifier
    tell_of_init(load_init(config), [DistillTask(SPACE, arch, 2, config.distill)])
    told = capsys.readouterr().err
    assert f"init: {SPACE.arch_id(arch)}: {count} of {count} tensors from {larger} (vit, 4 blocks of 48" in told
    tell_of_init(None, [DistillTask(SPACE, arch, 2, config.distill)])
    assert capsys.readouterr().err == ""


def test_a_recipe_holds_the_content_of_the_weights_and_not_their_place(photos, config_of, larger, tmp_path):
    copy = larger.rename(tmp_path / "moved")
    other = write_folder(tmp_path / "other", LARGER, LARGER.largest_arch(2), class_names=("ants", "bees"), seed=2)
    moved, changed = (config_of(photos, distill={"init": str(folder)}) for folder in (copy, other))
    data, plain = load_data(moved), config_of(photos)
    named = config_of(photos, distill={"init": str(larger)})  # where it was
    hashes = [recipe_of(config, data, load_init(config)) for config in (plain, moved, changed)]
    assert len(set(hashes)) == 3
    assert recipe_of(named, data, load_init(moved)) == hashes[1]


def test_the_recipe_of_a_run_without_such_weights_is_what_it_was_before_there_were_any(photos, config_of):
    """Its hash is of the settings without that key, and without those that came later still."""
    import hashlib

    config = config_of(photos)
    data = load_data(config)
    sections = config.model_dump(mode="json", include={"distill", "teacher", "teacher_training"})
    assert sections["distill"].pop("init") is None
    for key in config.distill.later - {"init"}:
        del sections["distill"][key]
    assert sections["teacher_training"].pop("method") == "auto"
    del sections["distill"]["seed"]
    text = json.dumps({**sections, "fingerprint": data.fingerprint()}, sort_keys=True)
    assert recipe_of(config, data) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_training_goes_on_with_the_same_weights_alone(photos, config_of, larger, tmp_path):
    config = config_of(photos, distill={"init": str(larger)})
    init, folder = load_init(config), tmp_path / "student"
    folder.mkdir()
    (folder / "distill.json").write_text(json.dumps(settings_of(config.distill, init)))
    check(folder, config)
    with pytest.raises(UsageError, match=rf"distill\.init is None here and weights {init.digest} there"):
        check(folder, config_of(photos))
    other = write_folder(tmp_path / "other", LARGER, LARGER.largest_arch(2), class_names=("ants", "bees"), seed=2)
    with pytest.raises(UsageError, match=rf"distill\.init is weights .* here and weights {init.digest} there"):
        check(folder, config_of(photos, distill={"init": str(other)}))


def test_a_folder_from_before_there_was_such_a_setting_is_gone_on_with(photos, config_of, tmp_path):
    config = config_of(photos)
    settings = config.distill.model_dump(mode="json")
    del settings["init"]
    (tmp_path / "distill.json").write_text(json.dumps(settings))
    check(tmp_path, config)


def test_who_searched_with_it_refines_and_distils_with_it(photos, config_of, larger, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(config_of(photos, distill={"init": str(larger)}))
    assert folder.config().distill.init == str(larger)
    assert torch.is_tensor(load_init(folder.config()).state["pos_embed"])


def test_rivals_that_the_weights_do_not_fit_begin_with_what_is_drawn(photos, config_of, smaller, capsys):
    config, pit = config_of(photos, distill={"init": str(smaller)}), SMALL_SPACES["pit"]
    small, large = (pick(SPACE.enumerate(), key=lambda arch: SPACE.cost(arch, 2).params) for pick in (min, max))
    archs = {"small": (SPACE, small), "large": (SPACE, large), "pit": (pit, pit.largest_arch(2))}
    tasks = {name: DistillTask(space, arch, 2, config.distill) for name, (space, arch) in archs.items()}
    begun = begin_as_they_can(load_init(config), {**tasks, "again": tasks["large"]})
    drawn = {name: task.settings.init is None for name, task in begun.items()}
    assert drawn == {"small": False, "large": True, "pit": True, "again": True}
    told = capsys.readouterr().err
    assert told.count(f"init: {SPACE.arch_id(large)} begins with what is drawn: {smaller} (vit") == 1
    assert f"init: {pit.arch_id(pit.largest_arch(2))} begins with what is drawn" in told
    assert begin_as_they_can(None, tasks) == tasks


@pytest.mark.parametrize("space", SMALL_SPACES.values(), ids=SMALL_SPACES)
def test_a_students_folder_tells_heads_and_classes(space, tmp_path):
    folder = write_folder(tmp_path / "student", space)
    student, source = load_student(folder).student, read_source(str(folder))
    assert same(source.state, student.state_dict())
    assert (source.class_names, source.num_heads) == (CLASSES, heads_of(student))
    assert read_source(str(folder / "model.safetensors")).digest == source.digest


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_holds_a_state_dict_and_says_nothing_of_heads(name, tmp_path, capsys):
    space = SMALL_SPACES["vit"]
    state, path = build_student(space, space.sample(random.Random(0)), 3, seed=0).state_dict(), tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save({"model": state}, path)
    source = read_source(str(path))
    assert same(source.state, {key: value for key, value in state.items() if not key.startswith("head.")})
    assert "does not say what heads it has; they are taken to have 64 channels each" in capsys.readouterr().err


def put(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


LOSS = {"criterion.weight": torch.ones(7), "queue": torch.ones(3, 5)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {**put("net.encoder.", state), **LOSS}},
        lambda state: {"epoch": 3, "nets": [{"anything.at.all.": torch.ones(2)}, put("module.vit.", state) | LOSS]},
        lambda state: {"teacher": put("module.backbone.", state) | {"module.head.mlp.0.weight": torch.ones(2)}},
        lambda state: put("student._orig_mod.", state) | {"loss.center": torch.ones(1, 4)},
    ],
)
def test_a_vit_is_found_by_the_names_of_its_blocks_whatever_stands_before_or_beside(wrap, tmp_path, capsys):
    space = SMALL_SPACES["vit"]
    state = build_student(space, space.sample(random.Random(0)), 3, seed=0).state_dict()
    source = read_source(str(written(tmp_path / "w.ckpt", wrap(state))))
    assert same(source.state, {key: value for key, value in state.items() if not key.startswith("head.")})


def test_of_two_vits_in_a_file_one_is_taken_and_named(tmp_path, capsys):
    space = SMALL_SPACES["vit"]
    one, other = (build_student(space, space.sample(random.Random(0)), 3, seed=seed).state_dict() for seed in (0, 1))
    path = written(tmp_path / "dino.pth", {"student": put("backbone.", one), "teacher": put("backbone.", other)})
    source = read_source(str(path))
    assert torch.equal(source.state["pos_embed"], other["pos_embed"])
    assert "weights under teacher.backbone are taken; not those under student.backbone" in capsys.readouterr().err


def written(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda p: p / "nothing",
            r"there is no file or folder .*nothing; give timm:NAME, a file, or a student's folder",
        ),
        (lambda p: p, r"holds no trained student: there is no arch\.json"),
        (lambda p: written(p / "cnn.pth", {"conv1.weight": torch.ones(1)}), r"is no ViT: it has no blocks\.0"),
        (lambda p: written(p / "list.pth", [1, 2]), "holds no state dict"),
        (lambda p: "timm:resnet18", "timm:resnet18 is no ViT; timm:vit_tiny_patch16_224 is one"),
        (lambda p: "timm:vit_tiny_patch16_225", "timm has no model 'vit_tiny_patch16_225'; near: vit_tiny_patch16_224"),
        (lambda p: "timm:vit_tiny_patch16_224.nobody", "timm has no weights 'nobody' of vit_tiny_patch16_224"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(make, told, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=told) as error:
        read_source(str(make(tmp_path)))
    assert str(error.value).startswith("distill.init: ")
    assert "\n" not in str(error.value)


def test_nothing_of_a_pickle_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    path = written(tmp_path / "evil.pth", {"state_dict": Evil()})
    with pytest.raises(UsageError):
        read_source(str(path))
    assert not (tmp_path / "opened").exists()


def test_without_a_network_timms_weights_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = torch.random.get_rng_state()
    with pytest.raises(
        UsageError, match=r"the weights of timm:vit_tiny_patch16_224 could not be downloaded \(.*local"
    ) as e:
        read_source("timm:vit_tiny_patch16_224")
    assert "\n" not in str(e.value)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_path_in_the_settings_is_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DistillSettings(init="weights.pth").init == str(tmp_path / "weights.pth")
    assert DistillSettings(init="timm:vit_tiny_patch16_224").init == "timm:vit_tiny_patch16_224"
    with pytest.raises(ValueError, match="init is timm:NAME, a file"):
        DistillSettings(init="")
