"""Heads on frozen features: by hand, by scikit-learn itself, and on a real network of timm's."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from tvt_ray.errors import UsageError
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.head import (
    NUM_FOLDS,
    VIEWS,
    Features,
    choose_head,
    classifier_of,
    fit,
    fit_path,
    fold_of,
    gather,
    num_features,
    num_views,
    teach_head,
)
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.training import TeacherTraining, teacher_accuracy, train_teacher, trains_head

pytestmark = pytest.mark.slow  # a network of timm's, or many fits

NETWORK = "timm:mobilenetv3_small_050"


def clusters(num_classes=3, each=20, channels=5, seed=0, spread=0.7):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, channels)) * 2 + 7
    labels = np.repeat(np.arange(num_classes), each)
    return (centres[labels] + spread * rng.normal(size=(len(labels), channels))).astype(np.float32), labels


@pytest.mark.parametrize(("num_classes", "channels"), [(3, 5), (2, 5), (3, 100), (2, 100)])
def test_a_head_is_scikit_learn_s_on_standardised_features(num_classes, channels):
    """More channels than images too, where it is fitted in the span of the images."""
    inputs, labels = clusters(num_classes, channels=channels)
    weight, bias = fit(inputs, labels, 0.1, num_classes)
    standard = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-6)
    model = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6).fit(standard, labels)
    logits = inputs @ weight.T + bias
    assert np.allclose(softmax(logits, axis=1), model.predict_proba(standard), atol=5e-3)


def test_a_path_of_strengths_ends_where_each_strength_does():
    inputs, labels = clusters(4, channels=30, spread=3.0)
    strengths = (1e-3, 1e-2, 1e-1)
    for strength, (weight, bias) in zip(strengths, fit_path(inputs, labels, strengths, 4), strict=True):
        alone, alone_bias = fit(inputs, labels, strength, 4)
        shares, expected = (softmax(inputs @ w.T + b, axis=1) for w, b in ((weight, bias), (alone, alone_bias)))
        assert np.allclose(shares, expected, atol=5e-3)


def test_of_many_images_fewer_views_are_looked_at():
    assert [num_views(count) for count in (100, 500, 501, 833, 834, 10_000)] == [2, 2, 1, 1, 0, 0]
    assert [num_features(count) for count in (100, 600, 900)] == [500, 1800, 900]


def test_a_class_without_images_is_never_named():
    inputs, labels = clusters()
    weight, bias = fit(inputs, np.where(labels == 2, 3, labels), 1.0, 5)
    assert set((inputs @ weight.T + bias).argmax(1)) == {0, 1, 3}
    with pytest.raises(UsageError, match="images of two classes or more"):
        fit(inputs, np.zeros(len(inputs), int), 1.0, 5)


def test_folds_hold_each_class_alike_and_every_image_once():
    labels = np.repeat(np.arange(3), (40, 8, 1))
    folds = fold_of(labels, seed=0)
    assert set(folds) == set(range(NUM_FOLDS))
    assert np.bincount(folds[labels == 0]).tolist() == [10, 10, 10, 10]
    assert np.bincount(folds[labels == 1]).tolist() == [2, 2, 2, 2]
    assert np.array_equal(folds, fold_of(labels, seed=0))
    assert not np.array_equal(folds, fold_of(labels, seed=1))


def test_strength_and_views_are_those_that_validate_best():
    inputs, labels = clusters(channels=40, each=8, spread=3.0)
    rng = np.random.default_rng(0)
    near = inputs[:, None] + 3 * rng.normal(size=(len(inputs), 6, 40)).astype(np.float32)
    noise = np.repeat(rng.permutation(inputs)[:, None], 6, axis=1)  # of other images: they teach what is wrong
    head = choose_head(Features(inputs, {"crops": near, "crops and flips": noise}, labels), 3)
    assert head.views in ("none", "crops")
    assert head.cv_acc > 60
    alone = choose_head(Features(inputs, {}, labels), 3)
    assert alone.views == "none"
    assert alone.cv_acc <= 100
    assert np.allclose(alone.logits(inputs), inputs @ alone.weight.T + alone.bias)


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    return build_teacher(TeacherSettings(name=NETWORK, pretrained=False, image_size=48), 10).freeze()


def test_features_are_what_the_classifier_reads(frozen):
    images = torch.randn(3, 3, 32, 32)
    classifier = classifier_of(frozen)
    with torch.no_grad():
        logits, maps, features = frozen.outputs(images, with_features=True)
        assert torch.allclose(classifier(frozen.features(images)), frozen(images)[0], atol=1e-5)
        assert torch.allclose(features, frozen.features(images), atol=1e-6)
    assert features.shape == (3, classifier.in_features)
    assert torch.equal(logits, frozen(images)[0])
    assert len(maps) == 3


def test_views_differ_and_come_again(frozen, digits):
    split = digits.train.take(np.arange(6))
    first, again = (gather(frozen.features, split, 48, "test", seed=1) for _ in range(2))
    assert first.views.keys() == {name for name in VIEWS if VIEWS[name] is not None}
    assert np.array_equal(first.views["crops"], again.views["crops"])
    assert first.views["crops"].shape[:2] == (6, 2)
    assert not np.array_equal(first.views["crops"][:, 0], first.views["crops"][:, 1])
    assert np.array_equal(first.labels, split.labels)


def test_a_teacher_with_a_head_names_more_than_luck_and_its_backbone_stays(frozen, digits, capsys):
    split, others = digits.train.take(np.arange(150)), digits.test.take(np.arange(100))
    before = {key: value.clone() for key, value in frozen.state_dict().items() if "classifier" not in key}
    head = teach_head(frozen, split, seed=0, device=torch.device("cpu"))
    assert teacher_accuracy(frozen, others) > 30  # random features; one of ten by luck
    assert all(torch.equal(value, frozen.state_dict()[key]) for key, value in before.items())
    said = capsys.readouterr().err
    assert "its head learned from the features of 150 images" in said
    assert f"C {head.strength:g}, {head.cv_acc:.1f} % by cross-validation" in said


def test_pretrained_teachers_get_a_head_and_others_train(tmp_path, digits, frozen, capsys):
    from safetensors.torch import save_file

    weights = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in frozen.backbone.network.state_dict().items()}, weights)
    settings = TeacherSettings(name=NETWORK, pretrained=weights, image_size=48)
    assert trains_head(settings, TeacherTraining())
    assert not trains_head(settings, TeacherTraining(method="all"))
    assert not trains_head(TeacherSettings(name=NETWORK, pretrained=False), TeacherTraining())
    assert not trains_head(TeacherSettings(), TeacherTraining())
    with pytest.raises(UsageError, match="method=head is for a teacher with pretrained weights; resnet20 has none"):
        trains_head(TeacherSettings(), TeacherTraining(method="head"))
    few = dataclasses.replace(digits, train=digits.train.take(np.arange(60)), val=digits.val.take(np.arange(20)))
    teacher, val_acc = train_teacher(settings, TeacherTraining(), few)
    assert 0 <= val_acc <= 100
    assert not teacher.training
    assert "is frozen; its head learned" in capsys.readouterr().err
