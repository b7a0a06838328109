"""The examples of docs/extending.md do what the page says."""

import importlib
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.extending.examples import variant
from tvt_ray.cli.main import run, script_parser
from tvt_ray.cluster.trials import make_callbacks
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.distillation.losses import LossSettings, distillation_loss
from tvt_ray.errors import UsageError
from tvt_ray.exports import EXPORTS, StudentCard, write_trained
from tvt_ray.exports.folder import load_student
from tvt_ray.proxies import PROXIES
from tvt_ray.runs.inputs import make_task
from tvt_ray.scoring.reader import Reader
from tvt_ray.scoring.rows import verified
from tvt_ray.scoring.scores import FULL, Calibration, find_score
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import save_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, train_teacher
from tvt_ray.vits import build_student
from tvt_ray.vits.budget import Budget, Limits
from tvt_ray.vits.pieces import Cost


def test_a_proxy_of_a_plugin_is_read_and_is_a_score(plugins, digits):
    config = variant(plugins, score={"name": "spectral_sum", "readings": "score"})
    assert config.score.to_read == ("spectral_sum",)
    assert find_score("spectral_sum").readings == ("spectral_sum",)
    arch = config.space.sample(random.Random(0))
    row = Reader(make_task(config, digits, teacher=None)).read(arch)
    student = build_student(config.space, arch, 10, config.seed)
    linears = [layer.weight.detach() for layer in student.modules() if isinstance(layer, torch.nn.Linear)]
    expected = sum(np.linalg.svd(weight.numpy(), compute_uv=False)[0] for weight in linears)
    assert row.readings["spectral_sum"] == pytest.approx(expected, rel=1e-5)
    assert Calibration.from_rows([row]).score("spectral_sum", row) == row.readings["spectral_sum"]


def test_a_score_of_a_plugin_is_the_sum_that_it_says(plugins, digits):
    config = variant(plugins, score={"name": "wide_and_shallow", "readings": "score"})
    reader = Reader(make_task(config, digits, teacher=None))
    rows = reader.read_all([config.space.sample(random.Random(seed)) for seed in range(8)])
    assert {row.status for row in rows} == {"ok"}
    sizes, depths = np.log([row.params for row in rows]), np.array([row.depth for row in rows])
    expected = 2 * (sizes - sizes.mean()) / sizes.std() - 0.5 * (depths - depths.mean()) / depths.std()
    calibration = Calibration.from_rows(rows)
    assert [calibration.score("wide_and_shallow", row) for row in rows] == pytest.approx(expected.tolist())


def test_a_dataset_of_a_plugin_is_split_as_any(plugins):
    data = load_dataset(DataSettings(name="stripes"))
    assert data.class_names == ("upright", "level")
    assert (len(data.train), len(data.val), len(data.test)) == (144, 16, 40)
    with pytest.raises(UsageError, match="'stripes' takes no path"):
        load_dataset(DataSettings(name="stripes:here"))


@pytest.mark.slow
def test_a_teacher_of_a_plugin_is_trained_and_its_weights_load(plugins, tmp_path):
    settings, data = TeacherSettings(name="three_stages", image_size=16), load_dataset(DataSettings(name="stripes"))
    teacher, val_acc = train_teacher(settings, TeacherTraining(epochs=8, hflip=0), data)
    assert val_acc > 75  # chance is 50
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    again = build_teacher(settings.model_copy(update={"weights": tmp_path / "teacher.safetensors"}), 2)
    images = torch.randn(2, 3, 32, 32)
    (ours, maps), (theirs, _) = teacher.freeze()(images), again(images)
    assert torch.equal(ours, theirs)
    assert [tuple(each.shape) for each in maps] == [(2, 8, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2)]


def test_a_loss_of_a_plugin_is_a_term_of_the_loss(plugins):
    config = variant(plugins, distill={"loss": {"weights": {"relations": 0.5}}})
    assert config.distill.loss.terms == {"cross_entropy": 1, "guidance": 2.5, "relations": 0.5}
    ours, theirs = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0))
    labels, settings = torch.arange(6), LossSettings(weights={"cross_entropy": 1, "relations": 0.5})
    terms = distillation_loss((ours, ()), (theirs, ()), labels, settings)
    cosines = [F.cosine_similarity(each[:, None], each[None], dim=2) for each in (ours, theirs)]
    assert terms["relations"].item() == pytest.approx((cosines[0] - cosines[1]).square().mean().item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx(terms["cross_entropy"].item() + 0.5 * terms["relations"].item())
    alike = distillation_loss((ours, ()), (3 * ours, ()), labels, settings)
    assert alike["relations"].item() == pytest.approx(0, abs=1e-6)


def test_a_searcher_of_a_plugin_climbs_and_finds_everything(plugins, plain):
    algorithm = build_algorithm(SearchSettings(searcher="climb"), plain, seed=0)
    sampler = Sampler(algorithm, Limits(plain, Budget(), 10), seed=0)
    found = []
    while (arch := sampler.ask()) is not None:
        found.append(arch)
        sampler.tell(arch, (float(arch.width * arch.depth),))
    assert len(found) == len(set(found)) == plain.size()
    assert algorithm.best == (256.0, plain.largest_arch(10))


def test_a_callback_of_a_plugin_hears_of_architectures_as_of_trials(plugins, capsys):
    (records,) = make_callbacks(["records"])
    for arch_id, score in (("first", 1.0), ("worse", 0.5), ("better", 1.25)):
        records.on_trial_result(1, [], SimpleNamespace(trial_id=arch_id), {"score": score})
    assert capsys.readouterr().out.split() == ["1.000", "first", "1.250", "better"]


def test_a_space_of_a_plugin_has_all_that_a_space_promises(plain):
    archs = list(plain.enumerate())
    assert len(archs) == len(set(archs)) == plain.size()
    for arch in archs:
        assert arch in plain
        assert plain.decode(plain.encode(arch)) == arch
        assert plain.from_json(json.loads(json.dumps(plain.to_json(arch)))) == arch
        assert plain.mutate(arch, random.Random(0)) != arch
    costs = [plain.cost(arch, 10) for arch in archs]
    assert plain.smallest(10) == Cost(min(c.params for c in costs), min(c.flops for c in costs))
    assert plain.largest(10) == Cost(max(c.params for c in costs), max(c.flops for c in costs))


def test_costs_of_a_space_of_a_plugin_are_those_of_the_built_student(plain):
    for arch in plain.enumerate():
        student = build_student(plain, arch, 7, seed=0)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            student(torch.zeros(1, 3, plain.image_size, plain.image_size))
        built = Cost(sum(p.numel() for p in student.parameters()), counter.get_total_flops() // 2)
        assert plain.cost(arch, 7) == built


def test_a_space_of_a_plugin_becomes_rows_by_every_proxy(plugins, digits):
    config = variant(plugins, space={"name": "plain"}, score={"proxies": list(PROXIES)})
    teacher = build_teacher(TeacherSettings(name="three_stages", image_size=16), 10).freeze()
    arch = config.space.sample(random.Random(0))
    row = Reader(make_task(config, digits, teacher)).read(arch)
    assert row.error is None
    assert row.readings.keys() == PROXIES.keys()
    assert set(row.readings) >= {*FULL, "spectral_sum"}
    assert (row.space, row.arch, row.depth) == ("plain", {"width": arch.width, "depth": arch.depth}, arch.depth)
    assert verified(row, config.space) == row


def test_a_student_of_a_plugin_gives_the_same_maps_in_fused_kernels(plain):
    student = build_student(plain, plain.largest_arch(10), 10, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, fused = (student.feature_maps(images, (0, 3), fused=fused) for fused in (False, True))
    for block in (0, 3):
        assert exact[block].shape == (2, 64, 4, 4)
        assert torch.allclose(exact[block], fused[block], atol=1e-5)


def test_an_export_of_a_plugin_is_written_before_what_says_that_the_student_is_complete(plain, tmp_path):
    arch = plain.largest_arch(2)
    student = build_student(plain, arch, 2, seed=0)
    card = StudentCard(plain, arch, ("upright", "level"), {"test_acc": 87.5})
    assert "summary" in EXPORTS
    write_trained(tmp_path, card, save(student.state_dict()), [{"epoch": 1}, {"epoch": 2}])
    lines = (tmp_path / "summary.txt").read_text().splitlines()
    assert lines[0] == "plain-w64-d4"
    assert lines[-1] == "87.50 % on the test images after 2 epochs."
    again, images = load_student(tmp_path), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images), student(images))


def test_a_command_from_outside_prints_what_it_counts(plain, tmp_path, capsys):
    command, arch = importlib.import_module("my_command"), tmp_path / "arch.json"
    arch.write_text('{"width": 64, "depth": 4}')
    argv = ["--arch", str(arch), "--set", "plugins=[my_space]", "--set", "space={name: plain}"]
    cost = plain.cost(plain.largest_arch(10), 10)
    assert run(script_parser("my_command.py", command.add), argv) == 0
    assert capsys.readouterr().out == f"{cost.params:,} parameters, {cost.flops:,} multiply-accumulates\n"
    assert run(script_parser("my_command.py", command.add), [*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"params": cost.params, "flops": cost.flops}
    arch.write_text('{"width": 65, "depth": 4}')
    assert run(script_parser("my_command.py", command.add), argv) == 2
    assert "width is 65, allowed: 32, 48, 64" in capsys.readouterr().err
