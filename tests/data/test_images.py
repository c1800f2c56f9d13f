import io
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageOps

from lab.data import images
from lab.data.images import fit_within, read_cutout, read_image
from lab.errors import LabError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stored(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def drawn(height: int = 5, width: int = 7) -> Image.Image:
    """Every pixel its own colour, so that any turn shows."""
    values = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(values)


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    """Its pixels, row by row."""
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, len(image.getbands())).tolist()]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_very_pixels(tmp_path, format):
    path = tmp_path / f"picture.{format.lower()}"
    path.write_bytes(stored(drawn(), format))
    image = read_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(drawn()))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_give_nearly_the_pixels(format):
    image = read_image(stored(Image.new("RGB", (32, 16), (200, 100, 50)), format))
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image, dtype=int) - [200, 100, 50]).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(drawn(), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    for read in (read_image, read_cutout):
        image = read(data)
        assert image.size == ((7, 5) if orientation < 5 else (5, 7))
        np.testing.assert_array_equal(np.asarray(image)[..., :3], np.asarray(expected))


def test_orientation_six_is_a_quarter_turn_clockwise():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(stored(drawn(), exif=exif))
    np.testing.assert_array_equal(np.asarray(image), np.rot90(np.asarray(drawn()), -1))


def test_broken_exif_data_turn_nothing():
    data = stored(drawn(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(read_image(data)), np.asarray(drawn()))


def test_transparency_lies_on_white_and_stays_in_a_cutout():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(*RED, 255), (*RED, 0), (*RED, 51)])
    data = stored(image)
    assert colours(read_image(data)) == [RED, (255, 255, 255), (255, 204, 204)]
    assert colours(read_cutout(data)) == [(*RED, 255), (*RED, 0), (*RED, 51)]


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0])])
def test_palettes_become_their_colours_with_or_without_transparency(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    data = stored(image) if transparency is None else stored(image, transparency=transparency)
    expected = GREEN if transparency is None else (255, 255, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colours(read_image(data)) == [RED, expected]
        assert [pixel[3] for pixel in colours(read_cutout(data))] == [255, 255 if transparency is None else 0]


@pytest.mark.parametrize("transparency", [None, 10])
def test_greyscale_has_three_equal_channels(transparency):
    image = Image.new("L", (2, 1))
    image.putdata([10, 200])
    data = stored(image) if transparency is None else stored(image, transparency=transparency)
    first = (10, 10, 10) if transparency is None else (255, 255, 255)
    assert colours(read_image(data)) == [first, (200, 200, 200)]


@pytest.mark.parametrize(("mode", "pixel", "expected"), [("1", 1, (255,) * 3), ("LA", (90, 255), (90,) * 3)])
def test_one_bit_and_grey_with_alpha(mode, pixel, expected):
    assert read_image(stored(Image.new(mode, (2, 2), pixel))).getpixel((1, 1)) == expected


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257 * 100, 100), (257 * 100 + 200, 101), (65535, 255)])
def test_sixteen_bits_of_grey_become_the_nearest_eight(format, value, expected):
    data = stored(Image.fromarray(np.full((2, 2), value, np.uint16)), format)
    assert read_image(data).getpixel((0, 0)) == (expected,) * 3


def test_a_transparent_grey_of_sixteen_bits_is_transparent():
    data = stored(Image.fromarray(np.array([[0, 40000]], np.uint16)), transparency=40000)
    assert [pixel[3] for pixel in colours(read_cutout(data))] == [255, 0]


def test_grey_in_floating_point_counts_from_zero_to_one():
    data = stored(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF")
    assert [pixel[0] for pixel in colours(read_image(data))] == [0, 128, 255]


@pytest.mark.parametrize(("top", "kind"), [(300.0, np.float32), (70000, np.int32), (np.nan, np.float32)])
def test_grey_of_an_unknown_range_is_refused(top, kind):
    data = stored(Image.fromarray(np.array([[0, top]], kind)), "TIFF")
    with pytest.raises(LabError, match=r"image bytes has grey values of mode [IF] from .*, expected 0 to (1|65535)$"):
        read_image(data)


@pytest.mark.parametrize(("lab", "expected"), [((255, 128, 128), (255,) * 3), ((0, 128, 128), (0,) * 3)])
def test_lightness_and_two_colour_axes_become_red_green_blue(lab, expected):
    image = read_image(stored(Image.new("LAB", (2, 2), lab), "TIFF"))
    assert np.abs(np.asarray(image, dtype=int) - expected).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_printing_inks_become_light(format):
    image = read_image(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format))
    assert np.abs(np.asarray(image, dtype=int) - RED).max() <= 6


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_read(size):
    image = read_image(stored(Image.new("RGB", size, GREEN)))
    assert image.size == size


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    data = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).getpixel((2, 2)) == RED


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8])
def test_a_truncated_file_is_named_with_the_reason(tmp_path, format, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), format)
    path = tmp_path / f"half.{format.lower()}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(LabError, match=r"half\.\w+ is (truncated or broken \(.+\)|not an image)"):
        read_image(path)


def test_broken_bytes_raise_nothing_but_our_error():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM"):
        whole = stored(noise, format)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 200), 4):
                data[place] = rng.integers(0, 256)
            with suppress(LabError):
                assert read_image(bytes(data)).mode == "RGB"


def test_a_missing_an_empty_and_a_foreign_file_are_named(tmp_path):
    with pytest.raises(LabError, match=r"gone\.png cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(LabError, match=r"empty\.png is empty; expected an image file"):
        read_cutout(tmp_path / "empty.png")
    (tmp_path / "letter.png").write_text("this is a letter, not a picture. " * 40)
    with pytest.raises(LabError, match=r"letter\.png is not an image that can be read; expected one of: AVIF, .*PNG"):
        read_image(tmp_path / "letter.png")


def test_formats_that_start_other_programs_are_not_opened():
    with pytest.raises(LabError, match="is not an image that can be read"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 12_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    with pytest.raises(
        LabError, match=f"image bytes is too large .*: {side} x {side} = {side**2} pixels, at most 89478485 are allowed"
    ):
        read_image(png_header(side, side))


def test_a_bomb_that_pillow_itself_refuses_gives_the_same_error():
    with pytest.raises(LabError, match=f"image bytes is too large to be decoded safely: .*{40_000**2} pixels"):
        read_image(png_header(40_000, 40_000))


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillows_warning_raised_as_an_error_is_our_error():
    with pytest.raises(LabError, match=f"is too large to be decoded safely: .*{10_000**2} pixels"):
        read_image(png_header(10_000, 10_000))


def test_fit_within_is_the_largest_size_that_keeps_the_aspect():
    rng = np.random.default_rng(0)
    for height, width, max_height, max_width in rng.integers(1, 2000, (500, 4)).tolist():
        new_height, new_width = fit_within(height, width, max_height, max_width)
        scale = min(1.0, max_height / height, max_width / width)
        assert 1 <= new_height <= min(height, max_height)
        assert 1 <= new_width <= min(width, max_width)
        assert abs(new_height - max(1.0, height * scale)) <= 0.5 + 1e-9
        assert abs(new_width - max(1.0, width * scale)) <= 0.5 + 1e-9


def test_the_limit_of_pixels_holds_exactly(monkeypatch):
    data = stored(drawn(5, 7))
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    assert read_image(data).size == (7, 5)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(LabError, match="7 x 5 = 35 pixels, at most 34 are allowed"):
        read_cutout(data)
