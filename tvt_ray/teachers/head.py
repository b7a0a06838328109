"""A teacher whose weights others trained, taught as practitioners do first: frozen, with a linear head on its features.

The head is a multinomial logistic regression on standardised features. Its strength, and whether it also learns from
augmented views, are chosen by cross-validation on the training images: the images that validate have no part in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import AugmentSettings, eval_tensor, train_transform
from tvt_ray.errors import UsageError
from tvt_ray.progress import Meter, say
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.loaders import AugmentedSplit, generators_as_they_were
from tvt_ray.training.pace import autocast, fast_precision

BATCH = 32  # images at a time
NUM_FOLDS = 4  # of cross-validation, fewer where a class has fewer images
STRENGTHS = tuple(10.0**power for power in range(-4, 1))  # C of scikit-learn: the inverse of the penalty
NUM_VIEWS = 2  # augmented views of each image, beside the image itself, at most
MANY = 2500  # images and views: of more, fewer views are looked at; what they teach, more images do
# What views may be of: nothing, shifts and scales, or mirror images too. Which of them helps depends on the dataset.
VIEWS: dict[str, AugmentSettings | None] = {
    "none": None,
    "crops": AugmentSettings(scale=(0.5, 1.0), hflip=0, auto_augment=None, random_erasing=0),
    "crops and flips": AugmentSettings(scale=(0.5, 1.0), hflip=0.5, auto_augment=None, random_erasing=0),
}


@dataclass(frozen=True)
class Features:
    """What a frozen network makes of images: (N, C), of each image by itself and of augmented views of it."""

    plain: NDArray[np.float32]
    views: dict[str, NDArray[np.float32]]  # by name in VIEWS: (N, views, C)
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A linear classifier on features as they are: standardisation is a part of its weights."""

    weight: NDArray[np.float32]  # (classes, C)
    bias: NDArray[np.float32]
    strength: float
    views: str  # that it also learned from
    cv_acc: float  # percent, by cross-validation on what it learned from
    log_likelihoods: NDArray[np.float64]  # in the same, of each image's label

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) -> (N, classes)."""
        return features @ self.weight.T + self.bias


def classifier_of(teacher: Teacher) -> nn.Linear | None:
    """The teacher's classifier where it is one Linear on pooled features."""
    network: Any = teacher.backbone.network
    found = network.get_classifier() if hasattr(network, "get_classifier") else None
    return found if isinstance(found, nn.Linear) else None


def fast(see: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """The same in the precision and memory layout that the device is made for, of images that lie anywhere."""

    def seen(images: Tensor) -> Tensor:
        with autocast(fast_precision("auto", device), device):
            return see(images.to(device).contiguous(memory_format=torch.channels_last))

    return seen


@torch.inference_mode()
def features_of(
    see: Callable[[Tensor], Tensor],
    split: Split,
    size: int,
    augment: AugmentSettings | None = None,
    num_views: int = 1,
    seed: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> NDArray[np.float32]:
    """What `see` gives of a split's images at `size` pixels: (N, C); of augmented views of them (N, views, C)."""
    views: Callable[[list[int]], Tensor]
    if augment is None:

        def views(places: list[int]) -> Tensor:
            return torch.stack([eval_tensor(split[place][0], size) for place in places])
    else:
        augmented = AugmentedSplit(split, train_transform(augment, size), seed)

        def views(places: list[int]) -> Tensor:
            return augmented.__getitems__([(view, place) for place in places for view in range(num_views)])[0]

    found = []
    for start in range(0, len(split), BATCH):
        places = list(range(start, min(start + BATCH, len(split))))
        parts = [see(part) for part in torch.split(views(places), BATCH)]
        found.append(torch.cat(parts).float().cpu().numpy())
        advance(len(places) * num_views)
    features = np.concatenate(found)
    return features if augment is None else features.reshape(len(split), num_views, -1)


def num_views(num_images: int) -> int:
    """Of each image and each kind: as many as MANY allows, at most NUM_VIEWS."""
    kinds = sum(augment is not None for augment in VIEWS.values())
    return max(0, min(NUM_VIEWS, (MANY // num_images - 1) // kinds))


def num_features(num_images: int) -> int:
    """Images and views that a head is chosen on."""
    return num_images * (1 + num_views(num_images) * sum(augment is not None for augment in VIEWS.values()))


def gather(see: Callable[[Tensor], Tensor], split: Split, size: int, title: str, seed: int = 0) -> Features:
    """All features that a head is chosen on."""
    with generators_as_they_were(), Meter(title, num_features(len(split)), "images") as meter:
        plain, number = features_of(see, split, size, advance=meter.advance), num_views(len(split))
        views = {
            name: features_of(see, split, size, augment, number, seed, meter.advance)
            for name, augment in VIEWS.items()
            if augment is not None and number
        }
    return Features(plain, views, split.labels)


def choose_head(features: Features, num_classes: int, seed: int = 0) -> Head:
    """The head whose log-likelihood is best by cross-validation. An image and its views are in one fold."""
    folds = fold_of(features.labels, seed)
    found = {
        (views, strength): judged
        for views in ("none", *features.views)
        for strength, judged in zip(STRENGTHS, _left_out(features, views, folds, num_classes), strict=True)
    }
    (views, strength), (logs, accuracy) = max(found.items(), key=lambda each: float(each[1][0].mean()))
    inputs, labels = _learned_from(features, views, np.ones(len(features.labels), bool))
    weight, bias = fit(inputs, labels, strength, num_classes)
    return Head(weight, bias, strength, views, accuracy, logs)


def fold_of(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Which fold each image is in: each class is spread over all of them as evenly as it goes."""
    folds, rng = np.empty(len(labels), np.int64), np.random.default_rng(seed)
    for turn, label in enumerate(np.unique(labels)):
        places = rng.permutation(np.flatnonzero(labels == label))
        folds[places] = (np.arange(len(places)) + turn) % NUM_FOLDS
    return folds


def _learned_from(
    features: Features, views: str, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (n, C) and labels (n,) of the chosen images and of their views."""
    inputs, labels = [features.plain[chosen]], [features.labels[chosen]]
    if views in features.views:
        of_views = features.views[views][chosen]
        inputs.append(of_views.reshape(-1, of_views.shape[-1]))
        labels.append(np.repeat(labels[0], of_views.shape[1]))
    return np.concatenate(inputs), np.concatenate(labels)


def _left_out(
    features: Features, views: str, folds: NDArray[np.int64], num_classes: int
) -> list[tuple[NDArray[np.float64], float]]:
    """Of each of STRENGTHS: the log-likelihood of each label, left out, (N,), and the accuracy in percent."""
    logs, hits = np.zeros((len(STRENGTHS), len(folds))), np.zeros((len(STRENGTHS), len(folds)), bool)
    for fold in range(NUM_FOLDS):
        out = folds == fold
        if not out.any() or out.all():
            continue
        inputs, labels = _learned_from(features, views, ~out)
        for place, (weight, bias) in enumerate(fit_path(inputs, labels, STRENGTHS, num_classes)):
            own = log_softmax(features.plain[out] @ weight.T + bias, axis=1)
            logs[place, out] = own[np.arange(len(own)), features.labels[out]]
            hits[place, out] = own.argmax(1) == features.labels[out]
    return [(each, 100 * float(right.mean())) for each, right in zip(logs, hits, strict=True)]


Linear: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]  # weight (classes, C), bias (classes,)


def fit(inputs: NDArray[np.float32], labels: NDArray[np.int64], strength: float, num_classes: int) -> Linear:
    """Weight (classes, C) and bias (classes,) on features as they are, by scikit-learn's logistic regression.

    A class without images gets the lowest logit of all. A penalty on squares lets weights lie in the span of what is
    learned from, so fewer images than channels are turned into as many coordinates, which changes nothing but time.
    """
    return fit_path(inputs, labels, (strength,), num_classes)[0]


def fit_path(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], strengths: Sequence[float], num_classes: int
) -> list[Linear]:
    """As `fit`, for each of some rising strengths; each begins where the one before ended.

    On one thread: the matrices are small, and threads that wait for a busy machine's others take a hundred times as
    long.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    known = np.unique(labels)
    if len(known) < 2:
        raise UsageError("a teacher's head needs images of two classes or more to learn from")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it ended before the last digit
        mean, deviation = inputs.mean(0), inputs.std(0) + 1e-6
        standard = (inputs - mean) / deviation
        basis = _span(standard)
        coordinates = standard if basis is None else standard @ basis
        model, found = LogisticRegression(max_iter=200, tol=1e-3, warm_start=True), []
        for strength in strengths:
            model.set_params(C=strength).fit(coordinates, labels)
            coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
            if len(known) == 2:  # of which scikit-learn has one row
                coefficients = np.concatenate([-coefficients, coefficients]) / 2
                intercepts = np.concatenate([-intercepts, intercepts]) / 2
            if basis is not None:
                coefficients = coefficients @ basis.T
            weight = np.zeros((num_classes, inputs.shape[1]), np.float32)
            bias = np.full(num_classes, intercepts.min() - 10, np.float32)
            weight[known] = coefficients / deviation
            bias[known] = intercepts - (coefficients / deviation) @ mean
            found.append((weight, bias))
    return found


def _span(inputs: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Orthonormal directions (C, n) in which n images differ; None where there are no fewer images than channels."""
    if len(inputs) >= inputs.shape[1]:
        return None
    basis: NDArray[np.float32] = np.linalg.svd(inputs, full_matrices=False)[2].T
    return basis


def teach_head(teacher: Teacher, split: Split, seed: int, device: torch.device) -> Head:
    """Gives the teacher's classifier the weights of the head that is chosen on a split, and says which."""
    classifier = classifier_of(teacher)
    assert classifier is not None
    teacher.to(device).freeze()
    see = fast(teacher.features, device)
    features = gather(see, split, teacher.image_size, f"teacher {teacher.name}", seed)
    teacher.cpu()
    head = choose_head(features, teacher.num_classes, seed)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.bias.copy_(torch.from_numpy(head.bias))
    views = "" if head.views == "none" else f" and of {num_views(len(split))} views ({head.views})"
    say(
        f"teacher: {teacher.name} is frozen; its head learned from the features of {len(split):,} images{views} at "
        f"{teacher.image_size} pixels (C {head.strength:g}, {head.cv_acc:.1f} % by cross-validation)"
    )
    return head
