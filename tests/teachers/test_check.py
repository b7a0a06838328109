"""Which networks may teach, and at which size: real networks, run on blank images."""

import pytest
import torch
from torch import nn

from tvt_ray.errors import UsageError
from tvt_ray.teachers import TEACHERS, check_maps
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.teachers.teacher import Backbone, Teacher

LARGE = pytest.mark.parametrize("is_large", [False, True], ids=["in full", "shapes alone"])


def check(name, is_large=True, **settings):
    return check_maps(TeacherSettings(name=name, **settings), is_large)


@pytest.mark.parametrize("name", ["resnet20", "resnet110", "timm:resnet18", "timm:convnext_atto"])
def test_cnns_with_stages_may_teach(name):
    assert check(name).name == name


@LARGE
def test_images_as_small_as_a_network_takes(is_large):
    check("timm:resnet18", is_large, image_size=16)  # maps of 2, 1 and 1 pixels
    with pytest.raises(UsageError, match=r"^images of 8 pixels are too small for timm:resnet18: its stage maps"):
        check("timm:resnet18", is_large, image_size=8)


def test_a_network_of_shapes_alone_has_no_numbers():
    assert all(parameter.is_meta for parameter in check("timm:resnet18").parameters())


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:mixer_s32_224"])
def test_a_network_whose_maps_get_no_coarser_is_refused(name):
    with pytest.raises(UsageError, match=rf"^{name} cannot teach: its maps are all \d+ pixels wide, as a ViT's are"):
        check(name, pretrained=False)


def test_a_vit_that_others_trained_may_teach_at_any_size_of_whole_patches():
    assert check("timm:vit_tiny_patch16_224").image_size == 224
    assert check("timm:vit_tiny_patch16_224", image_size=64).image_size == 64


@pytest.mark.parametrize(("name", "size"), [("timm:levit_128s", 96)])
def test_a_size_that_a_network_does_not_take_is_told_with_its_own(name, size):
    with pytest.raises(UsageError) as error:
        check(name, image_size=size)
    line = str(error.value)
    assert line.startswith(f"{name} does not take images of {size} pixels (")
    assert line.endswith("); its own size is 224: set teacher.image_size to that, or leave it out")
    assert "\n" not in line


class Made(Backbone):
    """Maps of given sizes."""

    def __init__(self, sizes, fails_without_numbers=False):
        super().__init__()
        self.sizes, self.fails_without_numbers = sizes, fails_without_numbers
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        if self.fails_without_numbers:
            images.mean().item()
        if not self.sizes:
            raise RuntimeError("no\nsuch size")
        pooled = images.mean((2, 3))
        return self.head(pooled), tuple(images.new_zeros(len(images), 3, size, size) for size in self.sizes)


@pytest.fixture
def build(monkeypatch):
    def add(*sizes, **options):
        row = lambda settings, num_classes, state: Teacher("made", Made(sizes, **options), num_classes, 32)  # noqa: E731
        monkeypatch.setitem(TEACHERS, "made", row)

    return add


@LARGE
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 4), "made gives 2 stage maps; a teacher gives 3"),
        ((8, 4, 2, 1), "made gives 4 stage maps; a teacher gives 3"),
        ((4, 4, 4), "made cannot teach: its maps are all 4 pixels wide"),
        ((1, 1, 1), "images of 32 pixels are too small for made: its stage maps are [1, 1, 1] pixels wide"),
        ((4, 1, 0), "images of 32 pixels are too small for made"),
        ((), "made cannot be run on images (RuntimeError: no): choose another"),
    ],
)
def test_a_network_that_gives_other_maps_is_refused_in_one_line(build, sizes, message, is_large):
    build(*sizes)
    with pytest.raises(UsageError) as error:
        check("made", is_large)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_network_that_needs_numbers_is_run_in_full(build):
    build(8, 4, 2, fails_without_numbers=True)
    teacher = check("made")
    assert not any(parameter.is_meta for parameter in teacher.parameters())


@LARGE
def test_random_numbers_are_as_before(is_large):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check("resnet20", is_large)
    assert torch.equal(torch.rand(3), expected)
