"""Students whose stem begins as the teacher's first stages, taught on beside it: a real small ConvNet of timm's."""

import pytest
import torch

from tests.distillation.conftest import few, only, same, train
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.training.kept import Kept
from tvt_ray.training.learner import WorkerContext
from tvt_ray.vits.vit import ViTArch, ViTSpace

pytestmark = pytest.mark.slow  # a network of timm's, or many fits

NETWORK = "mobilenetv3_small_050"
SPACE = ViTSpace(
    image_size=32,
    embed_dim=(24,),
    depth=(1, 2),
    head_dim=(12,),
    mlp_ratio=(2,),
    patch_size=(8,),
    stem=("patch", "stage1", "stage2"),
    backbone=NETWORK,
)
SETTINGS = DistillSettings(
    epochs=5,
    batch_size=32,
    lr=2e-3,
    warmup_epochs=1,
    num_views=2,
    stem_frozen_epochs=3,
    ema_decay=0.9,
    loss={"weights": {"cross_entropy": 1.0, "guidance": 0, "logits": 1.0, "features": 1.0}},
    augment=AugmentSettings(scale=(0.6, 1.0), hflip=0, auto_augment=None, random_erasing=0),
)
STEM2 = ViTArch(24, 1, 2, 2, 8, "stage2", "mean")


@pytest.fixture(scope="module")
def lender():
    torch.manual_seed(3)
    return build_teacher(TeacherSettings(name=f"timm:{NETWORK}", pretrained=False, image_size=48), 10).freeze()


@pytest.fixture
def make(digits, lender):
    inputs = DistillInputs(few(digits.train, 64), few(digits.val, 20), few(digits.test, 20), lender)

    def make(*archs, **changes):
        settings = SETTINGS.with_(changes)
        tasks = [DistillTask(SPACE, arch, 10, settings) for arch in archs or (STEM2,)]
        return Cohort(tasks, inputs, WorkerContext(torch.device("cpu")))

    return make


def near(ours, theirs):
    """Equal but for the last bits of what was computed among other images."""
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in theirs)


def trunk_of(cohort):
    return {key: value.clone() for key, value in only(cohort).student.trunk.state_dict().items()}


def test_the_stem_begins_with_the_teacher_s_weights_and_learns_at_its_own_rate(make, lender):
    cohort = make()
    theirs = lender.backbone.network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in trunk_of(cohort).items())
    cohort.run_epoch()
    rates = {group.get("lr_scale", 1.0): group["lr"] for group in only(cohort).optimizer.param_groups}
    assert rates[0.1] == pytest.approx(0.1 * rates[1.0])
    groups = [id(parameter) for group in only(cohort).optimizer.param_groups for parameter in group["params"]]
    assert sorted(groups) == sorted(map(id, only(cohort).guided.parameters()))


def test_frozen_stages_stay_until_their_epochs_are_over_and_statistics_for_ever(make):
    cohort = make()
    begun = trunk_of(cohort)
    for _ in range(3):
        cohort.run_epoch()
        assert same(trunk_of(cohort), begun)
    cohort.run_epoch()
    moved = trunk_of(cohort)
    assert not torch.equal(moved["conv_stem.weight"], begun["conv_stem.weight"])
    assert all(torch.equal(moved[key], begun[key]) for key in begun if "running" in key)


def test_the_first_stages_may_stay_for_ever(make):
    cohort, whole = make(stem_frozen_stages=1), make()
    begun = trunk_of(cohort)
    for each in (cohort, whole):
        train(each)
    moved = {key for key, value in trunk_of(cohort).items() if not torch.equal(value, begun[key])}
    assert moved
    assert all(key.startswith("blocks.1.") for key in moved)
    images, trunk = torch.randn(2, 3, 32, 32), only(cohort).student.trunk.eval()
    assert torch.allclose(trunk(images), trunk.blocks(trunk.bn1(trunk.conv_stem(images))), atol=1e-5)
    groups = [each for group in only(cohort).optimizer.param_groups for each in group["params"]]
    assert all(each.requires_grad for each in groups)
    assert len(groups) < sum(len(group["params"]) for group in only(whole).optimizer.param_groups)
    all_of_them = make(stem_frozen_stages=7)  # a student has two
    train(all_of_them)
    assert same(trunk_of(all_of_them), begun)


def test_drawn_stages_are_not_the_teacher_s_and_learn_as_all_else_does(make, lender):
    cohort = make(stem="drawn")
    begun = trunk_of(cohort)
    assert not torch.equal(begun["conv_stem.weight"], lender.backbone.network.state_dict()["conv_stem.weight"])
    cohort.run_epoch()
    assert all("lr_scale" not in group for group in only(cohort).optimizer.param_groups)
    assert not torch.equal(trunk_of(cohort)["conv_stem.weight"], begun["conv_stem.weight"])
    assert not torch.equal(trunk_of(cohort)["bn1.running_mean"], begun["bn1.running_mean"])


def test_what_is_kept_of_views_changes_nothing_but_time(make):
    kept, anew = make(), make()
    anew.kept = Kept(keeps=False)
    states = [only(train(each)).kept().state_dict() for each in (kept, anew)]
    assert near(*states)
    assert len(kept.kept._of) == 2 * 2 * 64  # teacher and stem, two views of each image
    half = make()
    half.kept = Kept(keeps=True, limit=kept.kept.used // 3)
    assert near(only(train(half)).kept().state_dict(), states[0])
    assert 0 < len(half.kept._of) < 2 * 2 * 64


def test_an_epoch_whose_views_are_known_reads_no_image(make):
    cohort = make()
    cohort.run_epoch()
    cohort.run_epoch()
    loader, cohort.loader = cohort.loader, None  # which nothing could iterate over
    cohort.run_epoch()
    cohort.loader = loader
    cohort.run_epoch()  # the stem trains: images are read again
    assert cohort.epoch == 4


def test_a_training_that_is_gone_on_with_ends_as_one_that_was_not_interrupted(make):
    straight, begun, later = make(), make(), make()
    train(straight)
    for _ in range(2):
        begun.run_epoch()
    later.load_state_dict(begun.state_dict())
    assert near(only(train(later)).kept().state_dict(), only(straight).kept().state_dict())


def test_a_student_that_inherits_may_learn_beside_one_that_does_not(digits, lender):
    inputs = DistillInputs(few(digits.train, 64), few(digits.val, 20), few(digits.test, 20), lender)
    drawn = SETTINGS.with_(stem="drawn", stem_frozen_epochs=0)
    tasks = [DistillTask(SPACE, STEM2, 10, SETTINGS), DistillTask(SPACE, STEM2, 10, drawn, label="drawn")]
    together = train(Cohort(tasks, inputs, WorkerContext(torch.device("cpu"))))
    alone = train(Cohort(tasks[:1], inputs, WorkerContext(torch.device("cpu"))))
    name = SPACE.arch_id(STEM2)
    assert near(together.learners[name].kept().state_dict(), only(alone).kept().state_dict())
    assert together.learners["drawn"].trunk is None
    assert not together.learners["drawn"].student.trunk.inherited


def test_who_learns_beside_changes_nothing_whatever_its_stem(make):
    other, plain = ViTArch(24, 2, 2, 2, 8, "stage1", "mean"), ViTArch(24, 1, 2, 2, 8, "patch", "token")
    together, alone = train(make(STEM2, other, plain)), train(make())
    name = SPACE.arch_id(STEM2)
    assert same(together.learners[name].kept().state_dict(), only(alone).kept().state_dict())


def test_timing_a_cohort_trains_its_stems_and_leaves_all_as_it_was(make):
    cohort = make()
    before = {key: value.clone() for key, value in only(cohort).student.state_dict().items()}
    cohort.measure(2)
    assert same(only(cohort).student.state_dict(), before)
    assert only(cohort).frozen_stem
