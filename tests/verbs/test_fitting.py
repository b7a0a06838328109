"""What a fit finds out beside the search: where to cut the teacher, how to learn, and what else one could use."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tvt_ray.data.survey import name_of
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import StudentCard, save_student
from tvt_ray.planning.facts import DataFacts, Speeds, steps_per_epoch
from tvt_ray.planning.inherited import LEAST_STEPS
from tvt_ray.planning.recipe import START_S
from tvt_ray.quality.statistics import wilson
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import checked_limits
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.scoring.rows import unread
from tvt_ray.scoring.scores import Calibration
from tvt_ray.teachers.labels import Growth
from tvt_ray.verbs.bodies import NUM_BODIES, choose_body
from tvt_ray.verbs.choices import AUGMENTATIONS, LOSSES, OTHERS, RATES, choose, choose_augmentation, decide, other
from tvt_ray.verbs.compare import Contest, choose_contenders
from tvt_ray.verbs.cuts import affordable_stems, choose_cut
from tvt_ray.verbs.fit import LEAST_SHARE, Planned, use_time_left
from tvt_ray.verbs.init import check_start
from tvt_ray.verbs.labels import report_labels
from tvt_ray.verbs.report import found_by_fit
from tvt_ray.verbs.rivals import Rival, advise, compare_with_rivals, how_taught
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import SURE, behind, likelihoods, middle_arch, pick, quadratic, short_task, train_shortly
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import build_student
from tvt_ray.vits.trunks import num_stages_of

ensure_torchvision()
import timm  # noqa: E402

pytestmark = pytest.mark.slow  # a network of timm's, or many fits

NETWORK = "mobilenetv3_small_050"
COLOURS = {"fern": (60, 140, 60), "rose": (190, 60, 80), "sky": (90, 130, 220)}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Coloured noise of three classes, and a ConvNet's file: random weights, whose features tell colours apart."""
    folder = tmp_path_factory.mktemp("fitting")
    rng = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(24):
            pixels = rng.normal(colour, 50, (40, 44, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{i}.png")
    torch.manual_seed(0)
    save_file(timm.create_model(NETWORK).state_dict(), folder / "weights.safetensors")
    return {
        "data": {"name": f"imagefolder:{folder / 'photos'}", "val_fraction": 0.2},
        "teacher": {"name": f"timm:{NETWORK}", "pretrained": str(folder / "weights.safetensors"), "image_size": 48},
        "space": {
            "name": "vit",
            "image_size": 32,
            "embed_dim": [24, 36],
            "depth": [1, 2],
            "head_dim": [12],
            "mlp_ratio": [2],
            "patch_size": [8],
            "stem": ["stage1", "stage2"],
            "backbone": NETWORK,
            "pool": ["mean"],
        },
        "distill": {
            "batch_size": 16,
            "lr": 2e-3,
            "stem_frozen_epochs": 2,
            "num_views": 2,
            "ema_decay": 0.9,
            "augment": {"hflip": 0.5},
            "loss": {"weights": {"cross_entropy": 1.0, "guidance": 0.0, "logits": 1.0, "features": 1.0}},
        },
    }


@pytest.fixture
def session(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Session.open(RunConfig().with_(asked), tmp_path / "run") as opened:
        opened.begin()
        yield opened


def test_the_last_cut_is_where_students_begin_unless_another_is_surely_better(session, capsys):
    cuts = choose_cut(session)
    assert [cut.stem for cut in cuts] == ["stage1", "stage2"]
    (stem,) = session.config.space.stem
    best = next(cut for cut in cuts if cut.stem == stem)
    if stem == "stage1":
        assert best.log_likelihood > cuts[1].log_likelihood
    assert session.folder.config().space.stem == (best.stem,)
    assert f"students begin with {best.stem}" in capsys.readouterr().err
    for cut in cuts:
        assert cut.test_acc == pytest.approx(100 * np.mean(cut.test_hits))
        assert len(cut.test_hits) == len(session.data.test)
        assert cut.test_acc > 100 / 3  # colours are told apart by any stage
    before = session.config
    assert [cut.stem for cut in choose_cut(session)] == ["stage1", "stage2"]  # read, not computed
    assert session.config == before


def test_a_cut_that_the_budget_does_not_hold_is_none(session):
    small = session.config.with_(budget={"max_params": 9000})
    session.config = small
    within = affordable_stems(session.limits, ["stage1", "stage2"])
    assert within == ["stage1"]
    choose_cut(session)
    assert session.config.space.stem == ("stage1",)
    session.config = small.with_(budget={"max_params": 100})
    with pytest.raises(UsageError, match="no architecture of this space meets"):
        _ = session.limits


def test_ways_to_learn_are_compared_and_what_is_chosen_is_the_run_s(session, monkeypatch, capsys):
    monkeypatch.setattr("tvt_ray.verbs.choices.NUM_STEPS", 12)
    before = session.config.distill
    choices = choose(session, seconds=1e6)
    assert len(choices.ways) == len(AUGMENTATIONS) * len(LOSSES) + len(RATES) + len(OTHERS)
    others = [way for way in choices.ways if way.setting != "as planned"]
    assert {way.setting for way in others} == {*RATES, *OTHERS}
    assert {(way.augmentation, way.loss) for way in others} == {("as planned", "labels, logits and features")}
    assert choices.chosen.items() >= other(before, ()).get(choices.setting, {}).items()
    assert choices.ways[0].behind == 0
    assert session.config.distill.loss.weights == LOSSES[choices.loss]
    assert session.config.distill.augment.hflip == (0 if "no flips" in choices.augmentation else 0.5)
    assert (session.config.distill.augment.auto_augment is None) or "gentle" not in choices.augmentation
    assert session.folder.config().distill == session.config.distill
    assert f"augmentation {choices.augmentation!r}, loss by {choices.loss}" in capsys.readouterr().err
    assert choose(session, seconds=1e6).ways == choices.ways


def test_each_change_is_decided_by_itself_over_all_losses():
    rng = np.random.default_rng(0)
    planned = rng.normal(-1, 0.5, 80)
    found = {
        (name, loss, "as planned"): planned + gain + more + rng.normal(0, 0.05, 80)
        for name, gain in (("as planned", 0), ("no flips", 0.3), ("gentle", -0.2))
        for loss, more in (("both", 0), ("labels", 0.2))
    }
    assert decide(found) == (("no flips",), "labels", "as planned")
    settings = {("as planned", "both", name): planned + gain for name, gain in (("slow", 0.1), ("fast", 0.4))}
    assert decide({**found, **settings}) == (("no flips",), "labels", "fast")
    same = {way: planned + rng.normal(0, 0.05, 80) - (way[0] != "as planned") for way in found}
    assert decide(same).augmentations == ()
    worse = {way: planned - (way[1] == "labels") for way in found}
    assert decide(worse) == ((), "both", "as planned")


def test_without_time_for_a_second_augmentation_losses_alone_are_compared(session, monkeypatch):
    monkeypatch.setattr("tvt_ray.verbs.choices.NUM_STEPS", 4)
    choices = choose(session, seconds=0)
    assert {way.augmentation for way in choices.ways} == {"as planned"}
    assert {way.loss for way in choices.ways} == set(LOSSES)


def test_from_chance_the_augmentation_is_chosen_before_the_teacher_is_trained(session, monkeypatch, capsys):
    monkeypatch.setattr("tvt_ray.verbs.choices.TEACHER_STEPS", 6)
    assert choose_augmentation(session) is None  # the teacher is frozen
    teacher = {**session.config.teacher.model_dump(mode="json"), "pretrained": False}
    session.config = session.config.with_(teacher=teacher, teacher_training={"batch_size": 16})
    assert choose_augmentation(session, given=("augment",)) is None
    choices = choose_augmentation(session)
    assert {way.augmentation for way in choices.ways} == set(AUGMENTATIONS)
    config = session.config
    assert config.distill.augment.model_dump(mode="json") == choices.chosen["augment"]
    assert config.teacher_training.augment == config.distill.augment.with_(auto_augment=None)
    assert session.folder.config() == config
    assert f"choices: augmentation {choices.augmentation!r}" in capsys.readouterr().err
    assert choose_augmentation(session).ways == choices.ways
    assert session.config == config


def test_sine_positions_are_refused_and_not_tried_where_widths_do_not_allow_them(session):
    odd = session.config.with_(space={"embed_dim": [30], "head_dim": [10]}, distill={"positions": "sine"})
    with pytest.raises(UsageError, match=r"every embed_dim is a multiple of 4; vit has 30$"):
        check_start(odd)
    with pytest.raises(UsageError, match=r"pit has a map of positions$"):
        check_start(odd.with_(space={"name": "pit", "image_size": 32, "patch_size": 8, "stride": 4}))
    tried = other(session.config.distill, (), sine=False)
    assert "conditioned attention" in tried
    assert not any("positions" in change for change in tried.values())


def read_rows(session):
    """As a search leaves them, without Ray."""
    space = session.config.space
    rows = []
    for number, arch in enumerate(space.enumerate()):
        row = unread(space, arch, 3, 0)
        rows.append(dataclasses.replace(row, readings={"rank_sum": 1.0 + number, "log_norm": 2.0 * number}))
    session.folder.rows().append(rows)
    Calibration.from_rows(rows).save(session.folder.calibration_file)
    return rows


def test_the_body_is_the_score_s_first_unless_another_is_surely_better(session, monkeypatch, capsys):
    monkeypatch.setattr("tvt_ray.verbs.bodies.NUM_STEPS", 12)
    rows = read_rows(session)
    bodies = choose_body(session)
    assert 2 <= len(bodies) <= NUM_BODIES + 1
    assert len({body.arch_id for body in bodies}) == len(bodies)
    assert {body.arch_id for body in bodies} <= {row.arch_id for row in rows}
    by_role = {body.role: body for body in bodies if body.role}
    assert {"first by its score", "smallest", "middle"} <= by_role.keys()
    assert by_role["smallest"].params == min(row.params for row in rows)
    chosen = bodies[0]
    assert chosen.behind == 0
    if chosen.role != "first by its score":
        assert by_role["first by its score"].behind >= SURE
    assert f"bodies: {chosen.arch_id} reaches" in capsys.readouterr().err
    assert choose_body(session) == bodies
    (session.folder.path / "bodies.json").unlink()
    monkeypatch.setattr("tvt_ray.verbs.bodies.candidates", lambda session: [(rows[0], "first by its score")])
    assert choose_body(session) == ()
    (session.folder.path / "bodies.json").write_text(json.dumps([dataclasses.asdict(body) for body in bodies]))
    assert [line[0] for line in found_by_fit(session.folder).bodies] == [body.arch_id for body in bodies]


def test_the_epochs_are_those_that_the_time_left_holds(session, monkeypatch, capsys):
    """Of all weights: views and frozen epochs stay as they were planned."""
    row = read_rows(session)[0]
    speeds = Speeds(0.0, student_step_s=0.5, arch_s=0.01, test_s=10, view_step_s=2.0, frozen_step_s=0.1)
    monkeypatch.setattr("tvt_ray.verbs.fit.with_students_speed", lambda speeds, config, data, arch: speeds)
    session.config = session.config.with_(distill={"stem_frozen_epochs": 5})
    data = session.data
    facts = DataFacts(len(data.train), len(data.val), 3, 48, False)
    plan = SimpleNamespace(seconds={"distill": 150.0})
    planned = Planned(session.config, plan, data, facts, speeds, minutes=8)
    per_epoch = steps_per_epoch(len(data.train), 16)
    frozen_s = per_epoch * (2 * 2.0 + 3 * 0.1)
    for spent in (100, 300):
        use_time_left(session, planned, row.arch_id, spent)
        steps = int((8 * 60 - spent - START_S - 10 - frozen_s) / 0.5)
        assert session.config.distill.epochs == 5 + steps // per_epoch
        assert session.folder.config() == session.config
        said = capsys.readouterr().err
        assert f"fit: {session.config.distill.epochs} epochs of the student" in said
        assert "longer" not in said
    use_time_left(session, planned, row.arch_id, 1000)  # it has three fifths of what was planned all the same
    steps = int((LEAST_SHARE * 150 - frozen_s) / 0.5)
    assert session.config.distill.epochs == 5 + steps // per_epoch > 5 + LEAST_STEPS // per_epoch
    assert "the student gets 90 s, beyond the minutes" in capsys.readouterr().err
    before = session.config
    use_time_left(session, planned, row.arch_id, 1000)
    assert (session.config, capsys.readouterr().err.count("epochs")) == (before, 0)


def test_what_the_user_set_stays(session, monkeypatch):
    monkeypatch.setattr("tvt_ray.verbs.choices.NUM_STEPS", 4)
    session.config = session.config.with_(distill={"augment": {"hflip": 0.25}, "loss": {"temperature": 3.0}})
    before = session.config.distill
    choices = choose(session, 1e6, given=("loss",))
    assert {way.loss for way in choices.ways} == {"as given"}
    assert session.config.distill.loss == before.loss
    assert not {"lr", "start"} & {key for change in other(before, ("lr", "start")).values() for key in change}
    (session.folder.path / "choices.json").unlink()
    session.config = session.config.with_(distill={"augment": before.augment})
    choices = choose(session, 1e6, given=("augment", "lr", "weight_decay", "start"))
    assert {way.augmentation for way in choices.ways} == {"as given"}
    assert session.config.distill.augment == before.augment
    (session.folder.path / "choices.json").unlink()
    assert choose(session, 1e6, given=("augment", "loss", "lr", "weight_decay", "start")) is None


def test_the_middle_of_the_space_is_by_parameters(session):
    space, limits = session.config.space, session.limits
    params = sorted(space.cost(arch, 3).params for arch in space.enumerate() if limits.admit(arch))
    assert space.cost(middle_arch(session), 3).params == params[len(params) // 2]


def test_likelihoods_are_at_the_temperature_that_suits_a_network():
    labels = torch.tensor([0, 1, 0, 1, 1])
    logits = torch.tensor([[2.0, 0], [0, 1.0], [1.0, 0], [0.5, 0], [0, 3.0]])
    plain, sharp = likelihoods(logits, labels), likelihoods(20 * logits, labels)
    assert plain.mean() >= -torch.nn.functional.cross_entropy(logits, labels).item()
    assert sharp.mean() < plain.mean()  # the range of temperatures has an end
    assert np.allclose(likelihoods(2 * logits, labels).mean(), plain.mean(), atol=1e-2)


def test_no_single_image_decides_by_brier_s_score():
    labels = torch.tensor([0, 1] * 20)
    good = torch.nn.functional.one_hot(labels, 2).float() * 4
    odd = good.clone()
    odd[0] = torch.tensor([-60.0, 60.0])  # sure, and wrong
    scores = quadratic(good, labels)
    assert scores.shape == (40,)
    assert scores.max() <= 1
    assert quadratic(odd, labels).min() >= -1
    assert scores.mean() - quadratic(odd, labels).mean() < 0.2
    assert (likelihoods(good, labels) - likelihoods(odd, labels)).mean() > 0.3
    assert np.allclose(quadratic(3 * good, labels), scores, atol=0.02)  # at the temperature that suits it


def test_what_was_planned_stays_unless_another_way_is_surely_better():
    rng = np.random.default_rng(0)
    planned = rng.normal(-1, 0.5, 50)
    ways = {("a", "x"): planned, ("b", "x"): planned + rng.normal(0.005, 0.5, 50), ("c", "x"): planned + 0.3}
    assert pick(ways) == ("c", "x")
    assert pick({key: ways[key] for key in list(ways)[:2]}) == ("a", "x")
    assert behind(planned, planned) == 0


def trained(session, folder):
    """A student with drawn weights, as a training would leave it."""
    from safetensors.torch import save

    space = session.config.space
    arch = next(space.enumerate())
    student = build_student(space, arch, 3, seed=0)
    results = {"epochs": 1, "val_acc": None, "test_acc": 30.0, "teacher_test_acc": 90.0}
    card = StudentCard(space, arch, session.data.class_names, results)
    save_student(folder, card, save({k: v.contiguous() for k, v in student.state_dict().items()}), [])
    return TrainedStudent.read(folder)


def test_a_student_stands_beside_what_everyone_has(session, tmp_path):
    cuts = choose_cut(session)
    student = trained(session, tmp_path / "student")
    assert student.val_acc is None
    found = compare_with_rivals(session, student, cuts)
    by_name = {each.name: each for each in found.rivals}
    assert list(by_name) == ["student", "majority", "teacher", "cut"]
    count = len(session.data.test)
    assert by_name["majority"].test_acc == pytest.approx(100 / 3, abs=3)
    for each in found.rivals:
        assert each.test_acc_ci95 == wilson(round(each.test_acc * count / 100), count)
        if each.name != "student":
            assert each.ahead == pytest.approx(by_name["student"].test_acc - each.test_acc)
            low, high = each.ahead_ci95
            assert low <= each.ahead <= high
    teacher = by_name["teacher"]
    assert teacher.params == sum(parameter.numel() for parameter in session.teacher.parameters())
    assert teacher.mbytes == pytest.approx(4e-6 * teacher.params)
    assert teacher.ms > 0
    assert found.advice.startswith("Take neither yet")
    stored = json.loads((session.folder.path / "rivals.json").read_text())
    assert stored["advice"] == found.advice
    shown = found_by_fit(RunFolder(session.folder.path))
    assert [line[0] for line in shown.rivals] == [each.title for each in found.rivals]
    assert [line[0] for line in shown.cuts] == ["stage1", "stage2"]
    assert shown.advice == found.advice


def test_stages_without_blocks_and_the_whole_teacher_are_rivals_by_the_same_recipe(session):
    space = session.config.space
    row = unread(space, next(space.enumerate()), 3, 0)
    contest = Contest(session.config, session.folder, [row], row, 3, guided=True)
    found, left_out = choose_contenders(contest, ["blockless", "whole"])
    assert not left_out
    blockless, whole = found["blockless"], found["whole"]
    assert (blockless.arch.depth, blockless.arch.stem, blockless.arch.patch_size) == (0, "stage1", 8)
    assert (whole.arch.depth, whole.arch.stem, whole.arch.patch_size) == (0, f"stage{num_stages_of(NETWORK)}", 32)
    assert len({each.label for each in found.values()}) == 3
    cost = blockless.space.cost(blockless.arch, 3)
    student = build_student(blockless.space, blockless.arch, 3, seed=0).eval()
    assert cost.params == sum(parameter.numel() for parameter in student.parameters())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = student.patch_embed(images) + student.pos_embed
        assert torch.allclose(student(images), student.head(student.fc_norm(tokens.mean(1))), atol=1e-5)
    task = short_task(session, session.config.distill, blockless.arch, "blockless", 4)
    logits, labels = train_shortly(session, [dataclasses.replace(task, space=blockless.space)])
    assert logits["blockless"].shape == (len(labels), 3)
    guided = {"distill": {"loss": {"weights": {"guidance": 1.0}}}}
    with pytest.raises(UsageError, match="guidance compares blocks, of which this student has none"):
        choose_contenders(dataclasses.replace(contest, config=session.config.with_(guided)), ["blockless"])


def test_what_nothing_can_be_read_of_is_not_searched(session):
    without = session.config.with_(space={"depth": [0]})
    with pytest.raises(UsageError, match="has no blocks to search"):
        checked_limits(without, 3, None)
    with pytest.raises(UsageError, match="depth 0 is for stems of stages"):
        session.config.with_(space={"depth": [0], "stem": ["patch"]})
    with pytest.raises(UsageError, match="positive numbers"):
        session.config.with_(space={"depth": [0, 1]})


def test_a_fit_says_which_labels_look_wrong_before_students_learn_from_them(session, capsys):
    train = session.data.train
    wrong = [int(np.flatnonzero(train.labels == label)[0]) for label in range(3)]
    train.all_labels[train.indices[wrong]] = (train.labels[wrong] + 1) % 3
    report_labels(session)
    stored = json.loads((session.folder.path / "labels.json").read_text())
    assert stored["network"] == NETWORK
    names = {name_of(session.data, "train", place) for place in wrong}
    assert stored["num_suspects"] >= 1
    assert {each["image"] for each in stored["suspects"]} <= names
    assert (session.folder.path / "suspect_labels.png").is_file()
    said = capsys.readouterr().err
    assert all(f"labels: {line}" in said for line in stored["sentences"])
    assert found_by_fit(session.folder).labels == stored["sentences"]
    report_labels(session)  # once
    assert "labels:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("teacher", "method", "said"),
    [
        ({"name": "timm:resnet10t", "pretrained": False}, "auto", "trained from scratch"),
        ({"name": "timm:resnet10t"}, "auto", "frozen, with a linear head"),
        ({"name": "timm:resnet10t"}, "all", "all of it trained further"),
        ({"name": "resnet56", "weights": "/weights.pt"}, "auto", "as given"),
        ({"name": "resnet20"}, "auto", "trained from scratch"),
    ],
)
def test_what_became_of_the_teacher_is_said(teacher, method, said):
    config = RunConfig().with_(teacher=teacher, teacher_training={"method": method})
    assert how_taught(config) == said


def rival(name, ahead=None, interval=None, params=1000, ms=2.0, accuracy=80.0):
    return Rival(name, name, accuracy, (0.0, 100.0), ahead, interval, params, None, ms)


@pytest.mark.parametrize(
    ("teacher", "cut", "said"),
    [
        ((2.0, (0.5, 3.5)), (9.0, (5.0, 12.0)), "Take the student: +2.0 points beside the teacher"),
        ((-1.0, (-3.0, 1.0)), (9.0, (5.0, 12.0)), "Take the student: as good as the teacher within the interval"),
        ((-6.0, (-9.0, -3.0)), (9.0, (5.0, 12.0)), "Take the teacher where its size allows it: -6.0 points"),
        ((2.0, (0.5, 3.5)), (0.5, (-2.0, 3.0)), "the ViT's blocks add nothing sure"),
    ],
)
def test_the_advice_is_what_the_intervals_say(teacher, cut, said):
    rivals = [
        rival("student", params=300, ms=1.0),
        rival("majority", 40.0, (30.0, 50.0)),
        rival("teacher", *teacher),
        rival("cut", *cut),
    ]
    assert said in advise(rivals)
    assert "30% of its size, 50% of its time for an image" in advise(rivals)


@pytest.mark.parametrize(
    ("low", "said"),
    [(84.0, "More images would help most: twice as many"), (82.0, "More images would help: twice"), (79.0, "")],
)
def test_the_advice_says_what_more_images_are_worth(low, said):
    rivals = [rival("student", params=300), rival("majority", 40.0, (30.0, 50.0)), rival("teacher", 3.0, (0.5, 3.5))]
    advice = advise(rivals, Growth(60.0, 70.0, 80.0, 85.0, (low, 90.0)))
    assert said in advice
    assert ("images" in advice) == bool(said)


def test_a_student_that_is_no_better_than_the_largest_class_is_advised_against():
    rivals = [rival("student"), rival("majority", 1.0, (-2.0, 4.0)), rival("teacher", -9.0, (-12.0, -6.0))]
    assert advise(rivals).startswith("Take neither yet")


def test_a_damaged_file_of_a_fit_is_one_line(session):
    (session.folder.path / "rivals.json").write_text('{"rivals": 3}')
    with pytest.raises(UsageError, match="is damaged"):
        found_by_fit(session.folder)
