"""What belongs together stays on one side of a split that is carved, and is named where one's own splits share it."""

import functools
import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import samples
from tests.data.samples import encode
from tests.data.test_near import scene
from tvt_ray.data.datasets import recarved
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.survey import find_duplicates
from tvt_ray.errors import UsageError

load, refused = (functools.partial(call, "imagefolder") for call in (samples.load, samples.refused))
CLASSES = ("a", "b")


def write_clips(root, clips=8, frames=5, name="clip{clip}_{frame}.png"):
    """Of each class so many clips, whose frames differ by a pixel."""
    for label, each in enumerate(CLASSES):
        (root / each).mkdir(parents=True)
        for clip, frame in itertools.product(range(clips), range(frames)):
            image = scene(100 * label + clip)
            image.putpixel((frame, 0), (255, 0, 0))
            image.save(root / each / name.format(clip=clip, frame=frame))
    return root


def clips_of(split):
    return {str(split.source.encoded[i]).rpartition("_")[0] for i in split.indices}


def test_frames_of_a_clip_stay_on_one_side(tmp_path):
    data = load(write_clips(tmp_path / "d"))
    clips = [clips_of(split) for split in data.splits.values()]
    assert [a & b for a, b in itertools.combinations(clips, 2)] == [set()] * 3
    assert sum(map(len, clips)) == 16
    assert len(data.test) == pytest.approx(16, abs=5)
    for split in data.splits.values():
        assert set(split.labels) == {0, 1}
    assert data.notes == (
        "80 images like another, or said to be of one group, such as a/clip0_0.png and a/clip0_1.png: a split that is "
        "carved keeps them on one side",
    )


def test_the_split_is_the_same_each_time_and_another_by_another_seed(tmp_path):
    write_clips(tmp_path / "d")
    tests = [load(tmp_path / "d", split_seed=seed).test.indices.tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    data = load(tmp_path / "d")
    again = recarved(data, data.settings.model_copy(update={"val_fraction": 0.3}))
    assert again.test.indices.tolist() == tests[0]
    assert not clips_of(again.val) & clips_of(again.train)


def test_a_dataset_without_copies_is_carved_as_before(tmp_path):
    """By the share of each class alone: 10 of 50, then 4 of 40."""
    for label, each in enumerate(CLASSES):
        (tmp_path / each).mkdir()
        for number in range(25):
            scene(100 * label + number).save(tmp_path / each / f"{number}.png")
    data = load(tmp_path)
    assert [len(split) for split in data.splits.values()] == [36, 4, 10]
    assert data.notes == ()


def test_a_class_of_one_group_is_parted_rather_than_lost(tmp_path):
    write_clips(tmp_path / "d", clips=1, frames=9)
    data = load(tmp_path / "d")
    assert all(set(split.labels) == {0, 1} for split in data.splits.values())


def test_copies_in_ones_own_splits_are_counted_and_named(tmp_path):
    for split, kind in (("train", "png"), ("test", "jpg")):
        for label, each in enumerate(CLASSES):
            (tmp_path / split / each).mkdir(parents=True)
            for number in range(12):
                scene(100 * label + number).save(tmp_path / split / each / f"{number}.{kind}")
    data = load(tmp_path)
    found = find_duplicates(data)
    assert (found.between_splits.num_images, found.alike_between_splits.num_images) == (0, 24)
    assert found.alike_between_splits.example == ("test/a/0.jpg", "train/a/0.png")
    assert any(
        note.startswith("24 images of validation or test nearly as in training, such as test/a/0.jpg")
        for note in data.notes
    )


@pytest.mark.parametrize("pattern", [r"patient(\d+)", r"patient\d+"])
def test_a_pattern_of_paths_says_what_belongs_together(tmp_path, pattern):
    for label, each in enumerate(CLASSES):
        (tmp_path / each).mkdir()
        for number in range(40):
            scene(100 * label + number).save(tmp_path / each / f"patient{number // 4}_{number}.png")
    data = load(tmp_path, group_by=pattern)
    patients = [
        {name.rpartition("/")[2].partition("_")[0] for name in clips_of(split)} for split in data.splits.values()
    ]
    assert [a & b for a, b in itertools.combinations(patients, 2)] == [set()] * 3
    assert "data.group_by person is no column, and in no part of the name a/patient0_0.png" in refused(
        tmp_path, group_by="person"
    )


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_column_says_what_belongs_together(tmp_path, kind):
    labels, patients = [i % 2 for i in range(60)], [f"p{i // 6}" for i in range(60)]
    if kind == "parquet":
        table = {"image": [encode(scene(i)) for i in range(60)], "label": labels, "patient": patients}
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        data = samples.load("parquet", tmp_path, group_by="patient")
    else:
        for number in range(60):
            scene(number).save(tmp_path / f"{number}.png")
        rows = [f"{i}.png,{'ab'[labels[i]]},{patients[i]}" for i in range(60)]
        (tmp_path / "t.csv").write_text("\n".join(["file,label,patient", *rows]))
        data = load(tmp_path, labels=tmp_path / "t.csv", group_by="patient")
    held = [{patients[i] for i in split.indices} for split in data.splits.values()]
    assert [a & b for a, b in itertools.combinations(held, 2)] == [set()] * 3


def test_what_is_found_is_kept_and_found_again_where_it_was_damaged(tmp_path, monkeypatch):
    write_clips(tmp_path / "d")
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = load(tmp_path / "d").test.indices.tolist()
    (file,) = (tmp_path / "cache").rglob("*.near")
    file.write_bytes(file.read_bytes()[:-8])
    assert load(tmp_path / "d").test.indices.tolist() == before
    assert len(file.read_bytes()) == 8 * 80


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a pattern or a column's name; got '\\('"):
        DataSettings(group_by="(")


def test_arrays_have_no_names():
    with pytest.raises(
        UsageError, match=r"data\.group_by groups images by their names; those of dataset 'digits' have none"
    ):
        samples.load_dataset(DataSettings(group_by="x"))
    assert samples.load_dataset(DataSettings()).train.groups is None
