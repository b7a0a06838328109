import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.parquet_rows import choose_columns, stated_names
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError


@pytest.fixture
def write(tmp_path):
    """A file with these columns and metadata."""

    def write(*names, **metadata):
        table = pa.table([pa.array([1])] * len(names), names=list(names)).replace_schema_metadata(metadata or None)
        pq.write_table(table, tmp_path / "d.parquet")
        return tmp_path / "d.parquet"

    return write


def features(**columns):
    return json.dumps({"info": {"features": columns}})


def choose(path, **settings):
    return choose_columns([path], DataSettings(**settings))


def test_columns_are_found_by_their_usual_names(write):
    for label in ("label", "labels", "fine_label"):
        for image in ("image", "img"):
            found = choose(write("id", image, label))
            assert (found.image, found.label, found.class_names, found.notes) == (image, label, None, ())


def test_of_several_the_first_is_taken_with_its_own_names_and_that_is_said(write):
    fine, coarse = {"names": ["asp", "bee"]}, {"names": ["animal"]}
    path = write("img", "fine_label", "label", huggingface=features(fine_label=fine, label=coarse))
    found = choose(path)
    assert (found.label, found.class_names) == ("label", ("animal",))
    assert found.notes == ("the column label holds the labels; data.label_column chooses another: fine_label",)
    found = choose(path, label_column="fine_label")
    assert (found.label, found.class_names, found.notes) == ("fine_label", ("asp", "bee"), ())


def test_names_of_another_column_are_no_names_of_this_one(write):
    path = write("img", "fine_label", "label", huggingface=features(fine_label={"names": ["asp", "bee"]}))
    assert choose(path).class_names is None


def test_settings_choose_any_column(write):
    found = choose(write("picture", "kind", "label"), image_column="picture", label_column="kind")
    assert (found.image, found.label) == ("picture", "kind")


def test_the_only_column_that_hugging_face_calls_an_image_or_a_label_is_taken(write):
    marked = features(photo={"_type": "Image"}, plant={"_type": "ClassLabel", "names": ["fern"]}, id={"_type": "Value"})
    found = choose(write("id", "photo", "plant", huggingface=marked))
    assert (found.image, found.label, found.class_names) == ("photo", "plant", ("fern",))
    two = features(photo={"_type": "Image"}, a={"_type": "ClassLabel"}, b={"_type": "ClassLabel"})
    with pytest.raises(UsageError, match="a column named label or labels is needed; got photo, a, b"):
        choose(write("photo", "a", "b", huggingface=two))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("image", "kind"), {}, r"label or labels is needed; got image, kind; data\.label_column names"),
        (("picture", "label"), {}, r"image or img is needed; got picture, label; data\.image_column names another"),
        (("image", "label"), {"label_column": "x"}, r"has no column 'x' \(data\.label_column\); it has image, label"),
        (("image", "label"), {"image_column": "x"}, r"has no column 'x' \(data\.image_column\); it has image, label"),
    ],
)
def test_columns_that_are_not_there_are_one_line_with_those_that_are(write, names, settings, message):
    with pytest.raises(UsageError, match=message) as error:
        choose(write(*names), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [("p,q", ("p", "q")), ("p, q", ("p", "q")), ('["p, q", "r"]', ("p, q", "r")), ("[1, 2]", ("1", "2"))],
)
def test_class_names_are_json_or_have_commas_between(write, text, names):
    assert choose(write("image", "label", class_names=text)).class_names == names


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"huggingface": "{"}, "the metadata 'huggingface' is no JSON: "),
        ({"huggingface": b"\xff"}, "the metadata 'huggingface' is no JSON: "),
        ({"class_names": "[oops"}, "the metadata 'class_names' is no JSON: "),
        ({"class_names": "[[1], 2]"}, "class names in the metadata are a list of texts; got"),
        ({"huggingface": features(label={"names": "ant"})}, "class names in the metadata are a list of texts; got ant"),
        ({"huggingface": features(label={"names": {"0": "a"}})}, "are a list of texts; got {'0': 'a'}"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_broken_metadata_is_one_line(write, metadata, message):
    with pytest.raises(UsageError, match=rf"d\.parquet: .*{message}") as error:
        choose(write("image", "label", **metadata))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "3", '{"info": null}', '{"info": {"features": [1]}}', features(label=3)])
def test_metadata_of_other_kinds_says_nothing(write, text):
    path = write("image", "label", huggingface=text)
    assert stated_names(path, pq.read_schema(path), "label") is None


def test_what_is_no_parquet_is_one_line(tmp_path):
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk")
    with pytest.raises(UsageError, match=r"junk\.parquet cannot be read as Parquet: ") as error:
        choose(tmp_path / "junk.parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("broken", ["image", "label", "other"])
def test_a_column_whose_name_is_no_text_is_one_line(write, broken):
    path = write("image", "label", "other")
    path.write_bytes(path.read_bytes().replace(broken.encode(), b"\xf2" + broken.encode()[1:]))
    with pytest.raises(UsageError, match=r"\.parquet cannot be read as Parquet: .*utf-8") as error:
        choose(path)
    assert "\n" not in str(error.value)


def test_images_that_a_file_names_lie_in_the_dataset_or_where_the_user_says(tmp_path):
    """A file of somebody else's could name any image that this user has."""
    data, private = tmp_path / "data", tmp_path / "private"
    for folder in (data / "images", private):
        folder.mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.png")

    def named(place):
        places = [f"images/{number}.png" for number in range(11)] + [place]
        pq.write_table(pa.table({"image": places, "label": [number % 2 for number in range(12)]}), data / "d.parquet")
        return data

    settings = {"name": f"parquet:{named('images/../images/11.png')}"}
    assert len(load_dataset(DataSettings(**settings)).train)
    for place in ("../private/0.png", str(private / "0.png")):
        named(place)
        with pytest.raises(
            UsageError, match=r"row 11 names .*0\.png, which is outside of the dataset's folder; .*image_root"
        ):
            load_dataset(DataSettings(**settings))
        assert len(load_dataset(DataSettings(**settings, image_root=private)).train)
