"""One class under two names: Unicode's forms, case and blanks."""

import unicodedata

import pytest

from tvt_ray.data.names import alike, one_form, unify
from tvt_ray.errors import UsageError

NFC, NFD = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("other", ["Cat", "cat ", " cat", "CAT"])
def test_names_that_differ_in_case_or_blanks_are_asked_for_merged_or_kept(other):
    names = {"train": ["cat", other, "dog"]}
    with pytest.raises(UsageError, match=rf"place: 'cat' and '{other}' differ in case or blanks alone; --set data\.me"):
        unify(names, None, "place")
    classes, notes = unify(names, True, "place")
    assert classes["train"] == {"cat": "cat", other: "cat", "dog": "dog"}
    assert notes == [f"'cat' and '{other}' are read as one class (data.merge_names)"]
    classes, notes = unify(names, False, "place")
    assert classes["train"] == {"cat": "cat", other: other, "dog": "dog"}
    assert not notes


def test_two_forms_of_unicode_are_one_class():
    assert NFC != NFD
    classes, notes = unify({"train": [NFD, "arc", NFC]}, None, "place")
    assert classes["train"] == {NFD: NFC, NFC: NFC, "arc": "arc"}
    assert notes == [f"the class {NFC} is there in 2 forms of Unicode: they are read as one"]
    assert unify({"train": [NFD, NFC]}, False, "place")[0]["train"] == {NFD: NFC, NFC: NFC}


def test_another_split_may_write_the_names_otherwise():
    names = {"train": [NFC, "Cat"], "test": [NFD, "cat "], "val": ["Cat", "cow"]}
    classes, notes = unify(names, None, "place")
    assert classes["test"] == {NFD: NFC, "cat ": "Cat"}
    assert classes["val"] == {"Cat": "Cat", "cow": "cow"}  # a class that train lacks stays, for who refuses it
    assert notes == ["test calls the class Cat 'cat ': it is read as one"]
    assert unify(names, False, "place")[0]["test"] == {NFD: NFC, "cat ": "cat "}


def test_names_are_compared_as_they_are_seen():
    assert alike(" Red  Fox") == alike("red fox") != alike("redfox")
    assert one_form(NFD) == NFC
