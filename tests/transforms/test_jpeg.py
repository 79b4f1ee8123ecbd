import io
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.transforms.pictures import (
    asymmetric,
    encoded,
    jpeg,
    with_orientation,
    with_stated_size,
)
from transforms.jpeg import (
    PADDING,
    CorruptJpeg,
    NotJpeg,
    brightness_of,
    decode_letterboxed,
    read_header,
)

ORIENTATIONS = range(1, 9)


def letterboxed(data, size):
    return decode_letterboxed(read_header(data), size)


def content_of(box):
    """The part of a letterbox that shows the picture."""
    height, width, _ = box.pixels.shape
    across, down = box.content
    return box.pixels[: round(height * down), : round(width * across)]


def difference(one, other):
    return np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_pixels_are_turned_as_pillow_turns_them(orientation):
    data = with_orientation(jpeg(200, 160), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    header = read_header(data)
    assert (header.width, header.height) == upright.size
    assert header.orientation == orientation
    box = decode_letterboxed(header, upright.size)
    assert box.content == (1.0, 1.0)
    assert difference(box.pixels, upright) == 0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_turned_picture_is_scaled_into_the_letterbox_upright(orientation):
    data = with_orientation(jpeg(800, 600), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    box = letterboxed(data, (128, 128))
    width, height = upright.size
    assert box.content == (min(1, width / height), min(1, height / width))
    shown = content_of(box)
    expected = upright.resize((shown.shape[1], shown.shape[0]), Image.Resampling.BILINEAR)
    assert difference(shown, expected) <= 6


@pytest.mark.parametrize(
    ("width", "height", "size", "content"),
    [
        (640, 480, (320, 320), (1.0, 0.75)),
        (480, 640, (320, 320), (0.75, 1.0)),
        (200, 200, (320, 320), (1.0, 1.0)),
        (160, 120, (320, 320), (1.0, 0.75)),
        (640, 480, (300, 200), (267 / 300, 1.0)),
        (4000, 10, (400, 400), (1.0, 1 / 400)),
        (10, 4000, (400, 400), (1 / 400, 1.0)),
        (9000, 1, (100, 100), (1.0, 1 / 100)),
    ],
)
def test_the_picture_keeps_its_aspect_in_the_top_left_corner(width, height, size, content):
    box = letterboxed(jpeg(width, height, shade=200), size)
    assert box.content == pytest.approx(content)
    assert box.pixels.shape == (size[1], size[0], 3)
    assert box.pixels.dtype == np.uint8
    shown = content_of(box)
    assert difference(shown, np.full_like(shown, 200)) <= 2
    outside = box.pixels.copy()
    outside[: shown.shape[0], : shown.shape[1]] = PADDING
    assert (outside == PADDING).all()


@pytest.mark.parametrize("size", [(1600, 1200), (3200, 2400)])
def test_a_large_picture_is_scaled_by_the_decoder_itself(size):
    header = read_header(jpeg(*size))
    box = decode_letterboxed(header, (400, 400))
    assert header._image.size == (400, 300)
    expected = asymmetric(*size).resize((400, 300), Image.Resampling.BILINEAR)
    assert difference(content_of(box), expected) <= 6


def test_a_small_picture_is_enlarged():
    box = letterboxed(jpeg(80, 60), (320, 320))
    assert box.content == (1.0, 0.75)
    expected = asymmetric(80, 60).resize((320, 240), Image.Resampling.BILINEAR)
    assert difference(content_of(box), expected) <= 16


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(asymmetric().convert("L")), id="greyscale"),
        pytest.param(encoded(asymmetric().convert("CMYK")), id="CMYK"),
        pytest.param(jpeg(progressive=True), id="progressive"),
        pytest.param(jpeg(optimize=True), id="optimized"),
        pytest.param(jpeg(subsampling=0), id="4:4:4"),
        pytest.param(jpeg(restart_marker_blocks=4), id="restart markers"),
        pytest.param(jpeg(keep_rgb=True), id="RGB"),
        pytest.param(
            encoded(asymmetric(), format="MPO", save_all=True, append_images=[asymmetric(64, 64)]),
            id="MPO",
        ),
    ],
)
@pytest.mark.parametrize("size", [(200, 160), (50, 40)])
def test_every_kind_of_jpeg_becomes_the_same_rgb(data, size):
    header = read_header(data)
    assert (header.width, header.height) == (200, 160)
    box = decode_letterboxed(header, size)
    expected = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    assert difference(box.pixels, expected) <= 8


@pytest.mark.parametrize(
    ("colour", "brightness"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 1),
        ((51, 51, 51), 0.2),
        ((255, 0, 0), 0.299),
        ((0, 255, 0), 0.587),
        ((0, 0, 255), 0.114),
    ],
)
def test_brightness_is_the_mean_luma(colour, brightness):
    assert brightness_of(np.full((7, 5, 3), colour, np.uint8)) == brightness


def test_the_brightness_of_a_very_large_picture_does_not_run_over():
    """Its 20 million pixels are one row, seen again and again."""
    row = np.full((1, 20_000, 3), 250, np.uint8)
    assert brightness_of(np.broadcast_to(row, (1_000, 20_000, 3))) == round(250 / 255, 4)


@pytest.mark.parametrize("shade", [0, 40, 255])
@pytest.mark.parametrize("size", [(200, 160), (100, 100), (64, 320)])
def test_brightness_is_that_of_the_picture_not_of_what_is_beside_it(shade, size):
    assert letterboxed(jpeg(shade=shade), size).brightness == round(shade / 255, 4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(asymmetric(), format="PNG"), id="PNG"),
        pytest.param(encoded(asymmetric(), format="BMP"), id="BMP"),
        pytest.param(encoded(asymmetric(), format="WEBP"), id="WebP"),
        pytest.param(b"this is a text", id="text"),
        pytest.param(b"\xff\xd8", id="two bytes"),
        pytest.param(b"\x00" + jpeg(), id="a byte before"),
    ],
)
def test_another_format_is_no_jpeg(data):
    with pytest.raises(NotJpeg):
        read_header(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8\xff", id="three bytes"),
        pytest.param(jpeg()[:100], id="half a header"),
        pytest.param(jpeg()[:3] + bytes(2000), id="zeros"),
        pytest.param(with_stated_size(jpeg(), 0, 160), id="no width"),
        pytest.param(with_stated_size(jpeg(), 200, 0), id="no height"),
    ],
)
def test_a_broken_header_is_a_corrupt_jpeg(data):
    with pytest.raises(CorruptJpeg) as broken:
        read_header(data)
    assert "0x" not in str(broken.value)  # No address: the record is the same in every run.


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_truncated_picture_is_a_corrupt_jpeg(options, part):
    data = jpeg(640, 480, **options)
    scan = data.index(b"\xff\xda")
    cut = data[: scan + round((len(data) - scan) * part)]
    with pytest.raises(CorruptJpeg):
        letterboxed(cut, (100, 100))


def test_the_header_of_a_decompression_bomb_costs_nothing():
    bomb = with_stated_size(jpeg(), 60000, 60000)
    started = time.monotonic()
    header = read_header(bomb)
    assert (header.width, header.height) == (60000, 60000)
    assert time.monotonic() - started < 0.5
