"""What is the PiT space's own."""

import pytest

from tvt_ray.vits.pit import PiTArch, PiTSpace

ARCH = PiTArch(32, (2, 6, 4), (2, 4, 8), 4)


def test_every_choice_makes_a_shape():
    others = [
        PiTArch(24, (2, 6, 4), (2, 4, 8), 4),
        PiTArch(32, (2, 4, 6), (2, 4, 8), 4),
        PiTArch(32, (2, 6, 4), (2, 4, 4), 4),
        PiTArch(32, (2, 6, 4), (2, 4, 8), 6),
    ]
    assert len({PiTSpace().shape(arch) for arch in (ARCH, *others)}) == 5


def test_a_description_is_by_stages():
    assert PiTSpace().describe(ARCH) == "widths 64 128 256, depth 2 6 4, heads 2 4 8, ratio 4"


def test_a_tables_columns_are_by_stages():
    columns = {"widths": "64 128 256", "depth": "2 6 4", "heads": "2 4 8", "ratio": "4"}
    assert PiTSpace().columns(ARCH) == columns


def test_ids_never_change_between_versions():
    assert PiTSpace().arch_id(ARCH) == "pit-b32-d2.6.4-h2.4.8-m4-1fb6aebc4156"


def test_heads_never_fall_and_each_divides_the_next():
    triples = PiTSpace(num_heads=(2, 3, 4)).head_triples
    assert triples == ((2, 2, 2), (2, 2, 4), (2, 4, 4), (3, 3, 3), (4, 4, 4))


def entry(**changes):
    return {"base_dim": 16, "depth": [2, 6, 4], "num_heads": [2, 4, 8], "mlp_ratio": 4, **changes}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (entry(space="autoformer"), "belongs to"),
        (entry(num_heads=[8, 4, 2]), "num_heads"),
        (entry(depth=[2, 6]), "3 numbers"),
        (entry(base_dim=20), "base_dim is 20, allowed: 16, 24, 32, 40"),
    ],
)
def test_wrong_architectures_are_refused_with_the_choices(entry, message):
    with pytest.raises(ValueError, match=message):
        PiTSpace().from_json(entry)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 300}, "patch_size 300 is larger than image_size 224"),
        ({"depth": ((1, 0, 1),)}, "triple of positive block counts"),
        ({"depth": ((1, 1, 1), (1, 1, 1))}, "each once"),
        ({"base_dim": ()}, "at least one"),
    ],
)
def test_impossible_spaces_cannot_be_written(settings, message):
    with pytest.raises(ValueError, match=message):
        PiTSpace(**settings)


def test_features_are_doublings_by_stage():
    features = PiTSpace().features(PiTArch(16, (2, 8, 4), (2, 4, 4), 4))
    shape = {"base_dim": 4, "depth_1": 1, "depth_2": 3, "depth_3": 2, "heads_1": 1, "heads_2": 2, "heads_3": 2}
    assert features == pytest.approx({**shape, "mlp_ratio": 2})
