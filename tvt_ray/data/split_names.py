"""Which split of a dataset the name of a folder or a file means."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")

# As people call them, in any case.
WORDS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "dev", "valset", "devset"),
    "test": ("test", "testing", "eval", "testset"),
}
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}

_SHARD = re.compile(r"[-_.]\d+[-_.]of[-_.]\d+.*$")  # train-00000-of-00012-3f2a…


def split_of(name: str) -> str | None:
    """train, val or test; None for a name that says none of them, or two.

    The name is one of `WORDS`, or begins or ends with one and anything but a letter between: Train, my_train,
    Test_images, images-val, val2017, train-00000-of-00012. A file's name comes without its ending.
    """
    word = word_of(name)
    return None if word is None else _SPLIT_OF[word]


def word_of(name: str) -> str | None:
    """The word that says it, as in `WORDS`."""
    letters = [part for part in re.split(r"[\W\d_]+", _SHARD.sub("", name).lower()) if part]
    words = [word for word in dict.fromkeys(letters[:1] + letters[-1:]) if word in _SPLIT_OF]
    return words[0] if len({_SPLIT_OF[word] for word in words}) == 1 else None
