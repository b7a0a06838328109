"""Which split a name means."""

import pytest

from tvt_ray.data.split_names import SPLITS, WORDS, split_of, word_of


@pytest.mark.parametrize(("split", "word"), [(split, word) for split, words in WORDS.items() for word in words])
def test_every_word_says_its_split_in_any_case_whole_as_prefix_and_as_suffix(split, word):
    for name in (word, word.upper(), word.title(), f"my_{word}", f"images-{word}", f"{word}_images", f"{word} set"):
        assert split_of(name) == split
        assert word_of(name) == word
    for name in (f"x{word}", f"{word}s", f"my_{word}_images"):
        assert split_of(name) is None


def test_the_words_are_those_that_people_use():
    assert tuple(WORDS) == SPLITS == ("train", "val", "test")
    assert {"train", "training"} <= set(WORDS["train"])
    assert {"val", "valid", "validation", "dev"} <= set(WORDS["val"])
    assert {"test", "testing", "eval"} <= set(WORDS["test"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00012", "train"),
        ("train-00000-of-00001-a09b74b3ef9c3b56", "train"),
        ("my_train-00003-of-00012", "train"),
        ("partial-train", "train"),
        ("val2017", "val"),
        ("Test_images", "test"),
        ("dev.clean", "val"),
        ("поезд-train", "train"),
        ("trainé", None),
        ("locomotive", None),
        ("train_test", None),
        ("train_training", "train"),
        ("0000", None),
        ("", None),
    ],
)
def test_names_as_they_are_met(name, split):
    assert split_of(name) == split
