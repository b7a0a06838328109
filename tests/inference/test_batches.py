"""Images of files and folders, in order, a batch at a time."""

import pytest

from tests.data.samples import picture
from tvt_ray.data.given import images_at
from tvt_ray.data.pixels import WHITE
from tvt_ray.errors import UsageError
from tvt_ray.inference import BATCH_SIZE, predict, predictions


class Brightness:
    """Names an image by its mean level."""

    background = WHITE

    def __init__(self):
        self.sizes = []

    def transform(self, image):
        return image.getpixel((0, 0))

    def classify(self, batch):
        self.sizes.append(len(batch))
        return [(str(pixel), 1.0) for pixel in batch]


def test_what_cannot_be_read_leaves_the_others_their_labels(tmp_path):
    count = 2 * BATCH_SIZE + 3
    for number in range(count):
        picture(number).save(tmp_path / f"{number:03}.png")
    broken = [0, 5, BATCH_SIZE - 1, BATCH_SIZE, count - 1]
    for number in broken:
        (tmp_path / f"{number:03}.png").write_bytes(b"no image")
    student = Brightness()
    found = list(predictions(student, images_at([tmp_path])[0]))
    assert [each.image for each in found] == [f"{tmp_path}/{number:03}.png" for number in range(count)]
    for number, each in enumerate(found):
        if number in broken:
            assert (each.label, each.probability) == (None, None)
            assert each.error.startswith(f"corrupt image {tmp_path}/{number:03}.png")
        else:
            assert (each.label, each.error) == (str(picture(number).getpixel((0, 0))), None)
    assert student.sizes == [BATCH_SIZE - 3, BATCH_SIZE - 1, 2]


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (found,) = predictions(Brightness(), images_at([tmp_path])[0])
    assert found.label is None


def test_an_image_that_was_named_itself_has_to_be_readable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"corrupt image .*a\.png"):
        list(predictions(Brightness(), images_at([tmp_path / "a.png"])[0]))
    with pytest.raises(UsageError, match=r"there is no .*none\.png; .* has a\.png"):
        images_at([tmp_path / "none.png"])


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="holds no images"):
        images_at([tmp_path])


def test_python_s_images_go_through_in_batches():
    student, images = Brightness(), [picture(number) for number in range(BATCH_SIZE + 1)]
    assert predict(student, images) == [(str(image.getpixel((0, 0))), 1.0) for image in images]
    assert student.sizes == [BATCH_SIZE, 1]
    assert predict(student, []) == []
    assert predict(student, images[3]) == [(str(images[3].getpixel((0, 0))), 1.0)]
