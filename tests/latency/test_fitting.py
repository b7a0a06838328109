"""Fits of synthetic times, whose terms are known."""

import math

import numpy as np
import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.latency.design import parts_of
from tvt_ray.latency.fitting import fit_parts, fit_whole, part_terms, relative_error
from tvt_ray.latency.profile import Error, PartFit
from tvt_ray.vits.vit import ViTSpace

WIDE = ViTSpace(image_size=32, embed_dim=(48, 96, 192), depth=(2, 3), patch_size=(4, 8), head_dim=(24, 48))


def test_times_that_are_sums_of_the_terms_are_found_again():
    known = dict(zip(PartFit.model_fields, (0.03, 0.02, 0.4, 0.7), strict=True))
    blocks = [part for part in parts_of(WIDE) if part.kind == "block"]
    times = {part: float(np.dot(list(known.values()), part_terms(part))) for part in blocks}
    assert dict(fit_parts(times)["block"]) == pytest.approx(known, rel=1e-6)


def test_every_kind_has_its_own_fit():
    parts = parts_of(WIDE)
    fits = fit_parts({part: {"block": 2.0}.get(part.kind, 1.0) for part in parts})
    assert fits.keys() == {"patches", "conv_stem", "block", "head"}
    assert fits["block"].ms == pytest.approx(2)
    assert fits["head"].ms == pytest.approx(1)


def test_nothing_is_ever_faster_for_being_larger():
    """Times that fall with size: the overhead alone is left."""
    blocks = [part for part in parts_of(WIDE) if part.kind == "block"]
    fit = fit_parts({part: 1 / math.sqrt(part.cost.flops) for part in blocks})["block"]
    assert fit.ms > 0
    assert (fit.ms_per_mflop, fit.ms_per_mparam, fit.ms_per_mvalue) == (0, 0, 0)


def test_a_single_part_is_fitted_too():
    part = parts_of(SMALL_SPACES["pit"])[0]
    fit = fit_parts({part: 0.5})[part.kind]
    assert np.dot(list(dict(fit).values()), part_terms(part)) == pytest.approx(0.5)


def test_students_are_a_line_of_their_parts():
    fit = fit_whole([1, 2, 5], [1.5, 2.6, 5.9])
    assert (fit.ms, fit.per_parts_ms) == (pytest.approx(0.4), pytest.approx(1.1))


def test_errors_are_relative_to_what_was_measured():
    assert relative_error([1.25, 2, 2], [1, 4, 2]) == Error(num=3, median=0.25, worst=0.5)
