"""Pictures in every mode and format, which the tests write and read back."""

import io
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.data.samples import encode, picture
from tvt_ray.data.layout import is_image
from tvt_ray.data.pixels import WHITE, Decoding, decode, parse_colour, to_rgb
from tvt_ray.errors import UsageError

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


# What Pillow alone reads wrongly --------------------------------------------------------------------------------------


def opened_from(data):
    return decode(data, "a")


def test_planes_of_16_bits_are_read_as_such(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.stack([STEPS, STEPS.T, 255 - STEPS], axis=2)
    for channels in (pixels, np.concatenate([pixels, np.full((16, 16, 1), 255)], axis=2)):
        planes = (257 * channels).astype(np.uint16).transpose(2, 0, 1)
        extra = ["unassalpha"] if len(planes) == 4 else None
        tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=extra)
        assert np.array_equal(np.asarray(opened_from(tmp_path / "a.tif")), pixels)
        assert np.array_equal(np.asarray(opened_from((tmp_path / "a.tif").read_bytes())), pixels)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        UsageError, match="corrupt image a: a TIFF of a kind that Pillow does not read; `pip install tifffile"
    ):
        opened_from(tmp_path / "a.tif")


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("dtype", "top"), [(np.float32, 1.0), (np.float64, 255.0), (np.uint32, 65535)])
def test_floats_and_long_integers_in_channels_are_read(tmp_path, dtype, top, planes):
    tifffile = pytest.importorskip("tifffile")
    wanted = np.asarray(picture(4))
    values = (wanted / 255 * top).astype(dtype)
    values = values.transpose(2, 0, 1) if planes else values
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", planarconfig="separate" if planes else "contig")
    for data in (tmp_path / "a.tif", (tmp_path / "a.tif").read_bytes()):
        assert np.abs(np.asarray(decode(data, "a")).astype(int) - wanted).max() <= 1
    with pytest.raises(UsageError, match=r"a has .* pixels, more than data\.max_pixels allows"):
        decode(tmp_path / "a.tif", "a", Decoding(max_pixels=10))


def test_what_is_no_picture_is_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((8, 8, 7), np.float32), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UsageError, match="corrupt image a: a TIFF with 7 channels; 1, 3 or 4 are read"):
        decode(tmp_path / "a.tif", "a")


@pytest.mark.parametrize("quality", [50, 100])
@pytest.mark.parametrize("side", [16, 61, 200])
def test_a_jpeg_that_lacks_its_last_marker_alone_is_whole(tmp_path, quality, side):
    whole = encode(picture(side, (side, side)), "JPEG", quality=quality)
    assert whole.endswith(b"\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(whole[:-2])
    for data in (whole[:-2], tmp_path / "a.jpg"):
        assert np.array_equal(np.asarray(decode(data, "a")), np.asarray(decode(whole, "a")))
    for cut in (len(whole) - 12, len(whole) // 2):
        with pytest.raises(UsageError, match="corrupt image a: "):
            decode(whole[:cut], "a")
    progressive = encode(picture(side, (side, side)), "JPEG", progressive=True)
    with pytest.raises(UsageError, match="corrupt image a: image file is truncated"):
        decode(progressive[:-2], "a")


def test_planes_of_8_bits_are_pillows(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.stack([STEPS, STEPS.T, 255 - STEPS], axis=2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.asarray(opened_from(tmp_path / "a.tif")), pixels)


def test_cmyk_without_adobes_marker_is_not_inverted():
    """Pillow takes all CMYK for inverted, as Adobe's programs write it; the marker says which do."""
    teal = Image.new("RGB", (32, 32), (0, 128, 128)).convert("CMYK")
    buffer = io.BytesIO()
    teal.save(buffer, "JPEG", quality=95)
    adobe = buffer.getvalue()
    marker = adobe.index(b"\xff\xee")
    buffer = io.BytesIO()
    Image.fromarray(255 - np.asarray(teal), "CMYK").save(buffer, "JPEG", quality=95)
    plain = buffer.getvalue()
    marker = plain.index(b"\xff\xee")
    plain = plain[:marker] + plain[marker + 2 + int.from_bytes(plain[marker + 2 : marker + 4], "big") :]
    for data in (adobe, plain):
        assert np.allclose(np.asarray(opened_from(data)), (0, 128, 128), atol=4)


def swapped_profile():
    """sRGB, but the first channel is what sRGB calls green, the second blue, the third red."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {
        bytes(data[132 + 12 * k : 136 + 12 * k]): 136 + 12 * k for k in range(int.from_bytes(data[128:132], "big"))
    }
    offsets = {tag: data[places[tag] : places[tag] + 4] for tag in (b"rXYZ", b"gXYZ", b"bXYZ")}
    for tag, taken in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"bXYZ"), (b"bXYZ", b"rXYZ")):
        data[places[tag] : places[tag] + 4] = offsets[taken]
    return bytes(data)  # called sRGB still


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_those_of_the_profile(mode):
    given = np.zeros((8, 8, 3), np.uint8) + np.array([40, 200, 120], np.uint8)
    image = Image.fromarray(given[..., [1, 2, 0]])
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    data = stored(image, "PNG", icc_profile=swapped_profile()).fp.getvalue()
    assert np.allclose(np.asarray(opened_from(data)), (40, 200, 120), atol=3)


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_that_is_srgb_or_cannot_be_used_changes_nothing(profile, mode):
    image = picture(1).convert(mode)
    data = stored(image, "PNG", icc_profile=profile).fp.getvalue()
    assert np.array_equal(np.asarray(opened_from(data)), np.asarray(image.convert("RGB")))


def test_megabytes_of_text_in_a_png_are_no_fault():
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 3_000_000, zip=True)
    image = picture(1)
    assert np.array_equal(np.asarray(opened_from(stored(image, "PNG", pnginfo=info).fp.getvalue())), np.asarray(image))


def test_of_several_jpegs_in_a_file_the_first_is_read(tmp_path):
    teal, red = (Image.new("RGB", (64, 64), colour) for colour in ((0, 128, 128), (200, 0, 0)))
    teal.save(tmp_path / "a.mpo", save_all=True, append_images=[red])
    assert np.allclose(np.asarray(opened_from(tmp_path / "a.mpo")), (0, 128, 128), atol=4)
    assert is_image(tmp_path / "a.mpo")


def test_heif_is_read_where_its_package_is_here(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (0, 128, 128))
    heif.from_pillow(image).save(tmp_path / "IMG_1.HEIC", quality=95)
    assert is_image(tmp_path / "IMG_1.HEIC")
    assert np.allclose(np.asarray(opened_from(tmp_path / "IMG_1.HEIC")), (0, 128, 128), atol=6)
