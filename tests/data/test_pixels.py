"""Pictures in every mode and format, which the tests write and read back."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from tests.data.samples import picture
from tvt_ray.data.pixels import WHITE, parse_colour, to_rgb

STEPS = np.arange(256).reshape(16, 16)  # every grey level once


def stored(image, kind, **options):
    """As a file holds it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


def grey(image, **options):
    """The levels that it becomes, all channels alike."""
    rgb = to_rgb(image, **options)
    assert rgb.mode == "RGB"
    array = np.asarray(rgb)
    assert (array == array[..., :1]).all()
    return array[..., 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_all_levels(kind):
    image = stored(Image.fromarray((257 * STEPS).astype(np.uint16)), kind)
    assert np.array_equal(grey(image), STEPS)


def test_16_bits_are_read_in_either_byte_order():
    values = (257 * STEPS).astype(np.uint16)
    for mode, order in (("I;16", "<u2"), ("I;16B", ">u2")):
        assert np.array_equal(grey(Image.frombytes(mode, (16, 16), values.astype(order).tobytes())), STEPS)


@pytest.mark.parametrize("factor", [1, 257, 8_000_000], ids=["8 bits", "16 bits", "32 bits"])
def test_integers_of_32_bits_are_scaled_by_the_first_range_that_holds_them(factor):
    image = Image.fromarray((STEPS * factor).astype(np.int32))
    assert np.array_equal(grey(image), STEPS)
    assert np.array_equal(grey(stored(image, "TIFF")), STEPS)


@pytest.mark.parametrize(
    "values",
    [STEPS / 255, STEPS, STEPS * 257.0, STEPS / 100 - 1, STEPS * 1e9],
    ids=["to 1", "to 255", "to 65535", "below 0", "beyond"],
)
def test_floats_are_scaled_by_the_first_range_that_holds_them_or_by_their_own(values):
    assert np.array_equal(grey(stored(Image.fromarray(values.astype(np.float32)), "TIFF")), STEPS)


def test_a_dark_image_stays_dark_beside_others_of_its_kind():
    assert grey(Image.fromarray((STEPS / 510).astype(np.float32))).max() == 128
    assert grey(Image.fromarray((100 * STEPS).astype(np.uint16))).max() == 99


def test_values_that_are_not_finite_are_black_and_clip_no_other():
    values = (STEPS / 255).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    expected = STEPS.copy()
    expected[0, :3] = 0
    assert np.array_equal(grey(Image.fromarray(values)), expected)
    assert (grey(Image.fromarray(np.full((2, 2), np.nan, np.float32))) == 0).all()


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_alpha_is_composed_on_the_background(mode):
    clear = Image.new(
        "LA" if mode in ("LA", "La") else "RGBA", (4, 4), (0, 0) if mode in ("LA", "La") else (0, 0, 0, 0)
    )
    image = clear.convert(mode)
    assert to_rgb(image).getpixel((0, 0)) == WHITE
    assert to_rgb(image, (10, 20, 30)).getpixel((0, 0)) == (10, 20, 30)


def test_half_transparent_is_half_background():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert to_rgb(image).getpixel((0, 0)) == (127, 127, 127)
    assert to_rgb(image, (0, 0, 0)).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_the_background(kind):
    image = picture(0).quantize(4)
    entry = image.getpixel((0, 0))
    assert to_rgb(stored(image, kind, transparency=entry)).getpixel((0, 0)) == WHITE
    assert to_rgb(stored(image, kind)).getpixel((0, 0)) == image.convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_a_transparent_colour_shows_the_background(mode):
    image = Image.fromarray((257 * STEPS).astype(np.uint16)) if mode == "I;16" else picture(0).convert(mode)
    first = image.getpixel((0, 0))
    read = stored(image, "PNG", transparency=first)
    assert read.mode == mode
    rgb, other = to_rgb(read, (1, 2, 3)), next(at for at in np.ndindex(8, 8) if image.getpixel(at) != first)
    assert rgb.getpixel((0, 0)) == (1, 2, 3)
    assert rgb.getpixel(other) == to_rgb(image).getpixel(other)


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_colour_spaces_are_converted(mode):
    red = Image.new("RGB", (8, 8), (200, 40, 30))
    found = np.asarray(to_rgb(red.convert(mode)), np.int64)
    assert np.abs(found - np.asarray(red)).max() <= 3


def test_lab_is_converted():
    red = Image.new("RGB", (8, 8), (200, 40, 30))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = stored(ImageCms.profileToProfile(red, *profiles, outputMode="LAB"), "TIFF")
    assert lab.mode == "LAB"
    assert np.abs(np.asarray(to_rgb(lab), np.int64) - np.asarray(red)).max() <= 3


def test_one_bit_is_black_and_white():
    image = stored(Image.fromarray(STEPS > 100), "PNG")
    assert image.mode == "1"
    assert np.array_equal(grey(image), np.where(STEPS > 100, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_picture_is_upright_and_the_callers_is_as_it_was(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying = Image.new("RGB", (40, 20), (250, 250, 250))
    lying.paste((0, 0, 0), (0, 0, 20, 20))  # its left half, which is the upper one
    read = stored(lying, kind, exif=exif)
    before = read.copy().size
    upright = to_rgb(read)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] < 20
    assert upright.getpixel((10, 35))[0] > 230
    assert to_rgb(upright).size == (20, 40)
    assert read.size == before


def test_16_bits_are_turned_too():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    image = stored(Image.fromarray((257 * STEPS[:4]).astype(np.uint16)), "PNG", exif=exif)
    assert np.array_equal(grey(image), np.rot90(STEPS[:4]))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_data_turns_nothing():
    assert to_rgb(stored(picture(0), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == picture(0).size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    read = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert read.n_frames == 2
    assert to_rgb(read).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_not_whole_raises():
    buffer = io.BytesIO()
    picture(0, (300, 300)).save(buffer, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        to_rgb(Image.open(io.BytesIO(buffer.getvalue()[:-500])))


def test_colours_are_written_as_people_write_them():
    assert parse_colour("white") == parse_colour("#ffffff") == parse_colour("rgb(255, 255, 255)") == WHITE
    assert parse_colour("#7f7f7f80") == (127, 127, 127)
    with pytest.raises(ValueError, match=r"a colour is written as in white.*; got 'whitish'"):
        parse_colour("whitish")
