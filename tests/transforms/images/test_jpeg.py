import io
import itertools
import struct
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from rules import Tiles
from tests.transforms.pictures import (
    asymmetric,
    encoded,
    jpeg,
    with_exif,
    with_orientation,
    with_stated_size,
)
from transforms.images import jpeg_decoding, jpeg_stream, orientation
from transforms.images.annotating import with_boxes
from transforms.images.jpeg import (
    CorruptJpegError,
    NotJpegError,
    brightness_of,
    decode_letterboxed,
    decode_tiles,
    mended,
    read_header,
    sharpness_of,
)
from transforms.images.jpeg_decoding import decode

ORIENTATIONS = range(1, 9)


def letterboxed(data, size):
    return decode_letterboxed(read_header(data), size)


def content_of(box):
    """The part of a letterbox that shows the image."""
    height, width, _ = box.pixels.shape
    across, down = box.content
    return box.pixels[: round(height * down), : round(width * across)]


def difference(first, second):
    return np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max()


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
def test_a_turned_image_is_scaled_into_the_letterbox_upright(orientation):
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
def test_the_image_keeps_its_aspect_in_the_top_left_corner(width, height, size, content):
    box = letterboxed(jpeg(width, height, shade=200), size)
    assert box.content == pytest.approx(content)
    assert box.pixels.shape == (size[1], size[0], 3)
    assert box.pixels.dtype == np.uint8
    shown = content_of(box)
    assert difference(shown, np.full_like(shown, 200)) <= 2
    outside = box.pixels.copy()
    outside[: shown.shape[0], : shown.shape[1]] = 114
    assert (outside == 114).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(320, 320), (96, 200), (900, 30)])
def test_an_image_that_does_not_keep_its_aspect_fills_the_input(orientation, size):
    data = with_orientation(jpeg(640, 480), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    box = decode_letterboxed(read_header(data), size, keeps_aspect=False)
    assert box.content == (1.0, 1.0)
    expected = np.asarray(upright.resize(size, Image.Resampling.BILINEAR))
    assert box.pixels.shape == expected.shape
    assert np.abs(box.pixels.astype(int) - expected).mean() < 3


@pytest.fixture
def decoded_sizes(monkeypatch):
    """The sizes at which images are decoded, one after the other."""
    sizes = []

    def decode_and_note(stream, least):
        image = decode(stream, least)
        sizes.append(image.size)
        return image

    monkeypatch.setattr("transforms.images.jpeg.decode", decode_and_note)
    return sizes


def test_tiles_that_do_not_keep_their_aspect_fill_the_input_and_are_not_enlarged(decoded_sizes):
    header = read_header(jpeg(3200, 800))
    for tile in decode_tiles(header, (400, 400), Tiles(2, 1, 0.0), keeps_aspect=False):
        assert tile.content == (1.0, 1.0)
        assert tile.pixels.shape == (400, 400, 3)
    assert decoded_sizes == [(1600, 400)]


@pytest.mark.parametrize(
    ("size", "orientation"),
    [*(((640, 480), orientation) for orientation in ORIENTATIONS), ((1600, 900), 6)],
)
def test_a_tile_is_the_part_of_the_upright_image_at_the_scale_of_the_model(size, orientation):
    data = with_orientation(jpeg(*size), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    width, height = upright.size
    regions = Tiles(3, 2, 0.2).regions(width, height)
    tiles = decode_tiles(read_header(data), (128, 96), Tiles(3, 2, 0.2, min_score=0.4))
    assert len(tiles) == 6
    assert {tile.min_score for tile in tiles} == {0.4}
    for region, tile in zip(regions, tiles, strict=True):
        left, top, right, bottom = region
        assert tile.region == (left / width, top / height, right / width, bottom / height)
        part = upright.crop(region)
        whole = letterboxed(encoded(part, quality=100), (128, 96))
        assert tile.content == whole.content
        assert difference(content_of(tile), content_of(whole)) <= 8
        outside = tile.pixels.copy()
        shown = content_of(tile)
        outside[: shown.shape[0], : shown.shape[1]] = 114
        assert (outside == 114).all()


def test_a_tile_shows_details_that_the_whole_image_is_too_small_for():
    """Lines of 2 pixels in an image of 1280 pixels: a whole image of 320 shows an even grey."""
    lines = np.zeros((960, 1280, 3), np.uint8)
    lines[:, ::4], lines[:, 1::4] = 255, 255
    header = read_header(encoded(Image.fromarray(lines), quality=100, subsampling=0))
    assert content_of(decode_letterboxed(header, (320, 240))).std() < 10
    for tile in decode_tiles(header, (320, 240), Tiles(4, 4, 0.0)):
        assert tile.content == (1.0, 1.0)
        assert tile.pixels.std() > 100


def test_an_image_is_decoded_only_as_large_as_its_tiles_need(decoded_sizes):
    header = read_header(jpeg(3200, 2400))
    decode_tiles(header, (200, 200), Tiles(2, 2, 0.0))
    decode_tiles(header, (800, 800), Tiles(2, 2, 0.0))
    decode_tiles(header, (801, 801), Tiles(2, 2, 0.0))
    assert decoded_sizes == [(400, 300), (1600, 1200), (3200, 2400)]


def test_an_image_of_which_data_is_missing_has_no_tiles():
    header = read_header(jpeg()[:700] + b"\xff\xd9")
    with pytest.raises(CorruptJpegError, match="image data is missing"):
        decode_tiles(header, (64, 64), Tiles(2, 1, 0.0))


@pytest.mark.parametrize("size", [(1600, 1200), (3200, 2400)])
def test_a_large_image_is_scaled_by_the_decoder_itself(size):
    header = read_header(jpeg(*size))
    box = decode_letterboxed(header, (400, 400))
    assert decode(header._stream, (400, 300)).size == (400, 300)
    expected = asymmetric(*size).resize((400, 300), Image.Resampling.BILINEAR)
    assert difference(content_of(box), expected) <= 6


def test_a_small_image_is_enlarged():
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


def test_the_brightness_of_a_very_large_image_does_not_run_over():
    """Its 20 million pixels are one row, repeated."""
    row = np.full((1, 20_000, 3), 250, np.uint8)
    assert brightness_of(np.broadcast_to(row, (1_000, 20_000, 3))) == round(250 / 255, 4)


@pytest.mark.parametrize("shade", [0, 40, 255])
@pytest.mark.parametrize("size", [(200, 160), (100, 100), (64, 320)])
def test_brightness_excludes_the_padding(shade, size):
    assert letterboxed(jpeg(shade=shade), size).brightness == round(shade / 255, 4)


def checkered(width: int, height: int, cell: int) -> np.ndarray:
    across, down = np.arange(width) // cell, np.arange(height) // cell
    return (((across[None, :] + down[:, None]) % 2) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("grey", "sharpness"),
    [
        (np.full((9, 9), 200, np.uint8), 0),
        (np.full((2, 90), 200, np.uint8), 0),
        (np.tile(np.arange(90, dtype=np.uint8), (9, 1)), 0),
        (checkered(64, 48, 1), 1),
        (checkered(2_000, 1_500, 1), 1),
        # One white dot: on lines 1, 3 and 5 the Laplacian is once 1020, twice -255, else 0.
        (np.pad(np.full((1, 1), 255, np.uint8), 3), round((15 * 18 - 2**2) ** 0.5 / 15 / 4, 4)),
    ],
)
def test_sharpness_is_the_spread_of_the_laplacian(grey, sharpness):
    assert sharpness_of(np.stack([grey] * 3, axis=2)) == sharpness


def test_an_image_out_of_focus_has_less_sharpness_and_the_same_brightness():
    sharp = Image.fromarray(checkered(320, 240, 8)).convert("RGB")
    boxes = [
        letterboxed(encoded(image), (320, 320))
        for image in (sharp, sharp.filter(ImageFilter.GaussianBlur(2)))
    ]
    assert boxes[1].sharpness < 0.2 * boxes[0].sharpness
    assert boxes[1].brightness == pytest.approx(boxes[0].brightness, abs=0.01)


@pytest.mark.parametrize("size", [(200, 160), (64, 320)])
def test_sharpness_excludes_the_edge_of_the_letterbox(size):
    assert letterboxed(jpeg(shade=255), size).sharpness == 0


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
    with pytest.raises(NotJpegError):
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
    with pytest.raises(CorruptJpegError) as broken:
        read_header(data)
    assert "0x" not in str(broken.value)  # No address: the record is the same in every run.


END = b"\xff\xd9"
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8))
KINDS = {
    "baseline": encoded(NOISE),
    "progressive": encoded(NOISE, progressive=True),
    "restart markers": encoded(NOISE, restart_marker_rows=1),
    "progressive with restart markers": encoded(NOISE, progressive=True, restart_marker_rows=1),
    "optimized": encoded(NOISE, optimize=True),
    "4:4:4": encoded(NOISE, subsampling=0),
    "grey": encoded(NOISE.convert("L")),
    "CMYK": encoded(NOISE.convert("CMYK")),
    "RGB": encoded(NOISE, keep_rgb=True),
    "smooth": jpeg(160, 120),
    "smooth and progressive": jpeg(160, 120, progressive=True),
}


def without_segment(data, code):
    """Removes the segments with this marker code."""
    while (at := data.find(bytes((0xFF, code)))) > 0:
        (length,) = struct.unpack_from(">H", data, at + 2)
        data = data[:at] + data[at + 2 + length :]
    return data


def with_sampling(data, factors):
    """Replaces the sampling factors: decoding then needs more data than there is, or less."""
    at = data.index(b"\xff\xc0")
    changed = bytearray(data)
    for index, factor in enumerate(factors):
        changed[at + 11 + 3 * index] = factor
    return bytes(changed)


def scans_of(data):
    """Returns the offsets of the scan headers and of the end marker."""
    return [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"] + [len(data) - 2]


def segment_before_scan(data, segment):
    at = data.index(b"\xff\xda")
    return data[:at] + segment + data[at:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(b"", id="cut"),
        pytest.param(END, id="end marker"),
        pytest.param(bytes(7) + END, id="few zeros"),
        pytest.param(bytes(300) + END, id="many zeros"),
        pytest.param(b"\xff" * 300 + END, id="fill bytes"),
        pytest.param(END + b"a vendor's trailer", id="trailer"),
        pytest.param(END + jpeg(), id="another image"),
        pytest.param(jpeg(), id="another image at once"),
    ],
)
def test_an_image_of_which_data_is_missing_is_corrupt_whatever_the_file_ends_with(
    kind, part, ending
):
    data = KINDS[kind]
    start = data.index(b"\xff\xda") + 14
    cut = data[: start + round((len(data) - 2 - start) * part)]
    with pytest.raises(CorruptJpegError):
        letterboxed(cut + ending, (100, 100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zeros", [0, 1, 9, 100, 10_000, 1_000_000])
def test_zeros_are_no_image_data(kind, zeros):
    """A file that was allocated before its content was written ends like this."""
    data = KINDS[kind]
    start = data.index(b"\xff\xda") + 14
    for part in (0.05, 0.5, 0.9):
        cut = data[: start + round((len(data) - 2 - start) * part)]
        with pytest.raises(CorruptJpegError):
            letterboxed(cut + bytes(zeros) + END, (100, 100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="half a marker"),
        pytest.param(b"12345678", id="8 bytes of a trailer"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(bytes(5000) + END, id="zeros and an end marker"),
        pytest.param(b"\xff" * 5000 + END, id="fill bytes"),
        pytest.param(b"\xff\xd9a trailer \xff\xda\xff\xc0\xff\xd8\xff", id="trailer"),
        pytest.param(END + b"\xff" * 3_000_000, id="erased flash memory"),
        pytest.param(END + jpeg(64, 64), id="another image"),
        pytest.param(jpeg(64, 64), id="another image at once"),
        pytest.param(b"\xff\xe5\xff\xff", id="a segment longer than the file"),
        pytest.param(b"\xff\xfe\0\4ab", id="a comment"),
        pytest.param(b"\xff\x02", id="a reserved marker"),
        pytest.param(b"\xff\xc4\0\5\0\xff\xff" + END, id="a broken table"),
        pytest.param(b"\xff\xda\0\3\x09" + END, id="a broken scan header"),
    ],
)
def test_a_whole_image_is_valid_whatever_the_file_ends_with(kind, ending):
    data = KINDS[kind]
    assert data.endswith(END)
    expected, actual = (letterboxed(variant, (100, 100)) for variant in (data, data[:-2] + ending))
    assert difference(expected.pixels, actual.pixels) == 0


@pytest.mark.parametrize("kind", ["progressive", "smooth and progressive"])
def test_a_progressive_image_without_its_last_scans_is_corrupt(kind):
    data = KINDS[kind]
    *_, end = scans = scans_of(data)
    for scan in scans[1:-1]:
        with pytest.raises(CorruptJpegError, match="not all scans are there"):
            letterboxed(data[:scan] + data[end:], (100, 100))


@pytest.mark.parametrize("kind", ["progressive", "smooth and progressive"])
def test_a_progressive_image_without_one_of_its_scans_is_corrupt(kind):
    data = KINDS[kind]
    scans = scans_of(data)
    for start, end in itertools.pairwise(scans):
        with pytest.raises(CorruptJpegError):
            letterboxed(data[:start] + data[end:], (100, 100))


def test_a_header_alone_is_corrupt_and_nothing_is_decoded(monkeypatch):
    monkeypatch.delattr(jpeg_decoding, "_decode")
    data = with_stated_size(jpeg(), 8192, 8192)
    with pytest.raises(CorruptJpegError, match="0 bytes are there of a scan of 1,572,864 blocks"):
        letterboxed(data[: data.index(b"\xff\xda") + 14] + END, (100, 100))


def with_extraneous_bytes(data, markers, size=5):
    """Inserts bytes that no block needs before restart markers, or before the end marker."""
    for marker in markers:
        at = data.index(marker, data.index(b"\xff\xda") + 14)
        data = data[:at] + bytes(size) + data[at:]
    return data


RESTARTS = [bytes((0xFF, 0xD0 + number)) for number in range(7)]


@pytest.mark.parametrize("size", [1, 5, 300])
@pytest.mark.parametrize(
    "markers", [[END], RESTARTS[:1], RESTARTS[3:4], [*RESTARTS[2:5], END], RESTARTS]
)
def test_extraneous_bytes_spoil_no_image_and_hide_no_missing_data(markers, size):
    data = KINDS["restart markers"]
    padded = with_extraneous_bytes(data, markers, size)
    expected, actual = (letterboxed(variant, (100, 100)) for variant in (data, padded))
    assert difference(expected.pixels, actual.pixels) == 0
    last = padded.index(RESTARTS[6])
    for cut in (padded[: last - 400] + padded[last:], padded[: last + 200] + END):
        with pytest.raises(CorruptJpegError):
            letterboxed(cut, (100, 100))


def test_extraneous_bytes_between_scans_spoil_no_image_and_hide_no_missing_data():
    data = KINDS["progressive"]
    scans = scans_of(data)
    # A scan's tables stand before its header.
    ends = [data.rindex(b"\xff\xc4", 0, scan) for scan in scans[1:-1]]
    for at in ends:
        if data.rindex(b"\xff\xda", 0, at) > data.rindex(b"\xff\xc4", 0, at):
            padded = data[:at] + bytes(5) + data[at:]
            expected, actual = (letterboxed(variant, (100, 100)) for variant in (data, padded))
            assert difference(expected.pixels, actual.pixels) == 0
            with pytest.raises(CorruptJpegError):
                letterboxed(padded[:-100] + END, (100, 100))


def test_fill_bytes_are_no_data_where_extraneous_bytes_are():
    data = KINDS["restart markers"]
    filled = data.replace(RESTARTS[3], b"\xff" * 4 + RESTARTS[3])
    expected, actual = (
        letterboxed(variant, (100, 100))
        for variant in (data, with_extraneous_bytes(filled, RESTARTS[:1]))
    )
    assert difference(expected.pixels, actual.pixels) == 0


def test_extraneous_bytes_hide_no_exchanged_restart_intervals():
    data = KINDS["restart markers"]
    a, b, c = (data.index(marker) for marker in RESTARTS[3:6])
    padded = with_extraneous_bytes(data[:a] + data[b:c] + data[a:b] + data[c:], RESTARTS[:1])
    with pytest.raises(CorruptJpegError, match="restart marker 4 is out of order"):
        letterboxed(padded, (100, 100))


def test_zeros_are_no_restart_intervals():
    data = jpeg(640, 480, progressive=True, restart_marker_blocks=4)
    start = data.index(b"\xff\xda")
    cut = data[: start + round((len(data) - start) * 0.95)]
    with pytest.raises(CorruptJpegError, match="of 1,200 restart intervals 906 are there"):
        letterboxed(cut + bytes(20) + END, (100, 100))


def test_scans_after_those_that_make_the_image_whole_are_not_decoded():
    data = KINDS["progressive"]
    last = data[data.rindex(b"\xff\xda") : -2]
    expected, actual = (
        letterboxed(variant, (100, 100)) for variant in (data, data[:-2] + last + END)
    )
    assert difference(expected.pixels, actual.pixels) == 0


ODD_SAMPLING = [(0x11, 0x22, 0x22), (0x22, 0x21, 0x11), (0x24, 0x11, 0x11)]


@pytest.mark.parametrize("factors", ODD_SAMPLING)
def test_sampling_factors_that_few_cameras_use_are_decoded_by_pillow(factors):
    smaller = with_stated_size(with_sampling(KINDS["4:4:4"], factors), 40, 40)
    expected = Image.open(io.BytesIO(smaller)).convert("RGB")
    assert difference(letterboxed(smaller, (40, 40)).pixels, expected) == 0
    larger = with_stated_size(with_sampling(KINDS["4:4:4"], factors), 400, 400)
    with pytest.raises(CorruptJpegError, match="image data is missing"):
        letterboxed(larger, (40, 40))


def with_adobe(data, transform):
    return data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes((transform,)) + data[2:]


VALID = {
    **KINDS,
    "MPO": encoded(NOISE, format="MPO", save_all=True, append_images=[asymmetric(64, 64)]),
    "CMYK without Adobe's marker": without_segment(KINDS["CMYK"], 0xEE),
    "CMYK as YCCK": with_adobe(without_segment(KINDS["CMYK"], 0xEE), 2),
    "CMYK, another transform": with_adobe(without_segment(KINDS["CMYK"], 0xEE), 7),
    "without JFIF": without_segment(KINDS["baseline"], 0xE0),
    "another JFIF": KINDS["baseline"].replace(b"JFIF\0\1", b"JFIF\0\7", 1),
    "Adobe, no transform": with_adobe(without_segment(KINDS["4:4:4"], 0xE0), 0),
    "Adobe, another transform": with_adobe(without_segment(KINDS["4:4:4"], 0xE0), 9),
    "a frame of MJPEG": without_segment(jpeg(160, 120), 0xC4),
    "profile of garbage": segment_before_scan(
        KINDS["baseline"], b"\xff\xe2\0\x20ICC_PROFILE\0" + bytes(range(18))
    ),
    "a comment that is longer than it says": segment_before_scan(
        KINDS["baseline"], b"\xff\xfe\0\4a comment that goes on \xff\0"
    ),
    "a comment that is shorter than it says": segment_before_scan(
        KINDS["baseline"], b"\xff\xfe\0\x10" + bytes(14)
    ),
    "fill bytes": KINDS["baseline"].replace(b"\xff\xdb", b"\xff" * 900 + b"\xff\xdb"),
    "fill bytes in the data": KINDS["restart markers"].replace(b"\xff\xd1", b"\xff" * 9 + b"\xd1"),
    "other scan parameters": KINDS["baseline"].replace(b"\x3f\0", b"\0\0", 1),
    "two images": KINDS["baseline"] + KINDS["progressive"],
    "EXIF": with_exif(KINDS["baseline"], b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "EXIF cut": with_exif(KINDS["baseline"], b"Exif\0\0II*\0\x08"),
    "EXIF of garbage": with_exif(KINDS["baseline"], b"Exif\0\0" + bytes(range(250))),
    "EXIF with a wrong number of entries": with_exif(
        KINDS["baseline"], b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60_000)
    ),
    "XMP": with_exif(KINDS["baseline"], b"http://ns.adobe.com/xap/1.0/\0<x/>"),
}


@pytest.mark.parametrize("kind", VALID)
@pytest.mark.parametrize("size", [(160, 120), (40, 30), (20, 15)])
def test_what_any_camera_sends_is_valid_with_the_pixels_that_pillow_decodes(kind, size):
    data = VALID[kind]
    header = read_header(data)
    plain = Image.open(io.BytesIO(data))
    plain.draft("L" if plain.mode == "L" else "RGB", size)
    expected = plain.convert("RGB")
    box = decode_letterboxed(header, size)
    if expected.size != box.pixels.shape[1::-1]:
        expected = expected.resize(box.pixels.shape[1::-1], Image.Resampling.BILINEAR)
    assert difference(box.pixels, expected) == 0


@pytest.mark.parametrize("kind", VALID)
def test_a_mended_image_has_the_same_pixels_for_every_decoder(kind):
    data = VALID[kind]
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    at = -2 if data.endswith(END) and kind not in ("MPO", "two images") else len(data)
    assert difference(whole, Image.open(io.BytesIO(mended(data[:at]))).convert("RGB")) == 0


@pytest.mark.parametrize("data", [jpeg()[:-300], jpeg()[:-300] + END, b"a text"])
def test_an_incomplete_file_is_not_repaired(data):
    with pytest.raises((CorruptJpegError, NotJpegError)):
        mended(data)


def test_a_whole_image_without_its_end_marker_is_drawn():
    drawn = [with_boxes(data, [], (255, 0, 0), longest_side=100) for data in (jpeg(), jpeg()[:-2])]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("stated", ORIENTATIONS)
def test_a_mended_image_keeps_its_orientation(stated):
    data = mended(with_orientation(jpeg(), stated)[:-2])
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == stated


def grey_scans(number, side=8192):
    """A progressive image of one grey whose last scan is repeated many times."""
    data = encoded(Image.new("L", (64, 64), 100), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return with_stated_size(data[:-2] + last * number + END, side, side)


def self_pointing_exif(entries):
    """EXIF data whose directory points at itself, shifted by one entry, repeatedly."""
    directory = b"".join(
        struct.pack("<HHII", 0x8769, 4, 1, 8 + 12 * number) for number in range(entries)
    )
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", entries) + directory + bytes(4)


COSTLY = {
    "500 scans": (grey_scans(494), "500 scans of 8192x8192 pixels would decode 524,288,000 blocks"),
    "2,500 scans": (grey_scans(2494), "2,500 scans of 8192x8192 pixels would decode 2,621,440,000"),
    "5,000 scans of few pixels": (grey_scans(4994, 64), "more than 4,096 segments"),
    "5,000 comments": (segment_before_scan(jpeg(), b"\xff\xfe\0\2" * 5_000), "4,096 segments"),
    "fill bytes": (segment_before_scan(jpeg(), b"\xff" * 3_000_000), "1,500,000 pairs of fill"),
    "fill bytes in the data": (jpeg()[:-2] + b"\xff" * 3_000_000 + END, "1,500,000 pairs of fill"),
    "EXIF": (
        with_exif(jpeg(), self_pointing_exif(5_000)),
        "EXIF segment has 5,000 entries or more",
    ),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_a_costly_image_is_corrupt_with_the_count_and_little_is_done(monkeypatch, kind):
    done = {"segments": 0, "entries": 0}
    parse_segment = jpeg_stream._Parser._segment

    def counted(*args):
        done["segments"] += 1
        return parse_segment(*args)

    class Struct:
        """`struct`, counting the directory entries that are read."""

        pack = struct.pack

        @staticmethod
        def unpack_from(form, *args):
            done["entries"] += form.endswith(("HHII", "HHI"))
            return struct.unpack_from(form, *args)

    monkeypatch.setattr(jpeg_stream._Parser, "_segment", counted)
    monkeypatch.setattr(orientation, "struct", Struct)
    monkeypatch.delattr(jpeg_decoding, "_decode")  # No pixel is decoded.
    data, count = COSTLY[kind]
    with pytest.raises(CorruptJpegError, match=count):
        letterboxed(data, (100, 100))
    assert done["segments"] <= 4097
    assert done["entries"] <= 1024


@pytest.mark.parametrize(
    ("data", "entries"), [(with_exif(jpeg(), self_pointing_exif(1_000)), 1_000)]
)
def test_exif_data_within_bounds_is_read_entry_by_entry_once(monkeypatch, data, entries):
    read = []

    class Struct:
        pack = struct.pack

        @staticmethod
        def unpack_from(form, *args):
            read.extend([1] * form.endswith(("HHII", "HHI")))
            return struct.unpack_from(form, *args)

    monkeypatch.setattr(orientation, "struct", Struct)
    try:
        read_header(data)
    finally:
        assert len(read) <= 2 * 1024


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 2}, {"subsampling": 0}, {"subsampling": 0, "mode": "CMYK"}],
    ids=["4:2:0", "4:4:4", "CMYK"],
)
def test_the_scans_of_the_usual_progressive_image_are_within_bounds(options):
    """They have 8192x8192 pixels; only their headers are read."""
    mode = options.pop("mode", "RGB")
    data = encoded(Image.new(mode, (64, 64)), progressive=True, **options)
    stream = jpeg_stream.read_stream(with_stated_size(data, 8192, 8192))
    assert stream.costly == ""
    data = encoded(Image.new(mode, (64, 64)), progressive=True, **options)
    stream = jpeg_stream.read_stream(with_stated_size(data, 65000, 65000))
    assert stream.costly == ""


def test_the_header_of_a_decompression_bomb_costs_nothing():
    bomb = with_stated_size(jpeg(), 60000, 60000)
    started = time.monotonic()
    header = read_header(bomb)
    assert (header.width, header.height) == (60000, 60000)
    assert time.monotonic() - started < 0.5
