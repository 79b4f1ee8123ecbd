"""JPEG files: what the header says, and the image at the size that a model needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

import rules
from transforms.images.jpeg_decoding import CorruptJpegError as CorruptJpegError
from transforms.images.jpeg_decoding import decode
from transforms.images.jpeg_stream import BrokenStreamError, Stream, read_stream
from transforms.images.orientation import (
    LARGEST_SEGMENT,
    UPRIGHT,
    CostlyExifError,
    exif_orientation,
    turn_upright,
)
from transforms.records.images import Tile

PADDING = 114
"""Grey level beside the image in a letterbox: YOLOX's and most others'."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""Height, width, and red, green and blue."""

_LUMA = np.array([299, 587, 114])
"""How bright red, green and blue are to the eye, in thousandths (ITU-R BT.601-7, 2.5.1)."""
_START_OF_IMAGE = b"\xff\xd8\xff"


class NotJpegError(ValueError):
    """The bytes are not a JPEG's."""


@dataclass(frozen=True)
class JpegHeader:
    """A JPEG whose header was read and whose pixels were not.

    Attributes:
      width: Pixels of the upright image.
      height: The same.
      orientation: EXIF orientation, 1 to 8.
      problem: Why its pixels are not to be decoded, as far as that is known without decoding: image
        data is missing, or decoding it would cost too much; an empty text if neither is so.
    """

    width: int
    height: int
    orientation: int
    problem: str
    _stream: Stream = field(repr=False, compare=False)


@dataclass(frozen=True)
class Letterbox:
    """An image scaled into the top left corner of a model's input.

    Attributes:
      pixels: uint8 [height, width, 3], RGB.
      content: Width and height of the part that shows the image, as fractions of `pixels`.
      brightness: Mean of that part, 0 (black) to 1 (white).
      sharpness: Of that part (see :func:`sharpness_of`), 0 (blank) to 1.
    """

    pixels: Pixels
    content: tuple[float, float]
    brightness: float
    sharpness: float


def read_header(data: bytes) -> JpegHeader:
    """Reads the header without decoding any pixels, so a decompression bomb is harmless here.

    Raises:
      NotJpegError: The content is not a JPEG.
      CorruptJpegError: The header is broken.
    """
    if not data.startswith(_START_OF_IMAGE):
        raise NotJpegError("the content is not a JPEG's (it does not begin with FF D8 FF)")
    try:
        stream = read_stream(data)
    except BrokenStreamError as error:
        raise CorruptJpegError(f"the header can't be read ({error})") from error
    problem = stream.costly or (stream.missing and f"image data is missing ({stream.missing})")
    orientation = UPRIGHT
    try:
        orientation = exif_orientation(stream.exif)
    except CostlyExifError as error:
        problem = str(error)
    width, height = stream.frame.width, stream.frame.height
    if orientation >= 5:
        width, height = height, width
    return JpegHeader(width, height, orientation, problem, stream)


def mended(data: bytes) -> bytes:
    """The same image without what surrounds it, and closed by an end marker.

    For decoders that refuse a file for the lack of that alone. EXIF data stays, if it fits into one
    segment; comments and profiles are left out.

    Raises:
      NotJpegError: Another format, by content.
      CorruptJpegError: It is not whole.
    """
    header = read_header(data)
    if header.problem:
        raise CorruptJpegError(header.problem)
    stream = header._stream
    decode(stream, (1, 1))
    encoded, exif = stream.encoded(), stream.exif
    if exif is None or len(exif) > LARGEST_SEGMENT:
        return encoded
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    return encoded[:2] + segment + encoded[2:]


def decode_letterboxed(
    header: JpegHeader, size: tuple[int, int], keeps_aspect: bool = True
) -> Letterbox:
    """Decodes the pixels, the right way up, at the scale that fits a model's input.

    The decoder itself scales by 1/2, 1/4 or 1/8 where the image is larger than needed, then a
    bilinear filter does the rest; smaller images are enlarged.

    Args:
      header: From :func:`read_header`.
      size: Width and height of the model's input in pixels.
      keeps_aspect: Whether the image keeps its aspect, or is stretched and leaves no margin.

    Raises:
      CorruptJpegError: Image data is missing or can't be decoded, or would cost too much to decode.
    """
    if header.problem:
        raise CorruptJpegError(header.problem)
    width, height = _fitted(header.width, header.height, size, keeps_aspect)
    stored = (height, width) if header.orientation >= 5 else (width, height)
    image = decode(header._stream, stored)
    if image.size != stored:
        image = image.resize(stored, Image.Resampling.BILINEAR)
    content = np.asarray(turn_upright(image, header.orientation))
    pixels, fractions = _padded(content, size)
    return Letterbox(pixels, fractions, brightness_of(content), sharpness_of(content))


def decode_tiles(
    header: JpegHeader,
    size: tuple[int, int],
    tiles: rules.Tiles,
    keeps_aspect: bool = True,
) -> tuple[Tile, ...]:
    """Decodes parts of an image, the right way up, each at the scale that fits a model's input.

    The image is decoded once, at a scale at which no part needs to be enlarged, if it has so many
    pixels.

    Args:
      header: From :func:`read_header`.
      size: Width and height of the model's input in pixels.
      tiles: The parts, which must fit the image.
      keeps_aspect: Whether they keep their aspect, or are stretched and leave no margin.

    Raises:
      CorruptJpegError: Image data is missing or can't be decoded, or would cost too much to decode.
    """
    if header.problem:
        raise CorruptJpegError(header.problem)
    fitted, scale = [], 0.0
    for region in tiles.regions(header.width, header.height):
        width, height = region.right - region.left, region.bottom - region.top
        fitted_size = _fitted(width, height, size, keeps_aspect)
        fitted.append((region, fitted_size))
        scale = max(scale, fitted_size[0] / width, fitted_size[1] / height)
    least = math.ceil(header.width * scale), math.ceil(header.height * scale)
    image = decode(header._stream, least[::-1] if header.orientation >= 5 else least)
    image = turn_upright(image, header.orientation)
    across, down = image.width / header.width, image.height / header.height
    decoded = []
    for region, fitted_size in fitted:
        box = (
            *(region.left * across, region.top * down),
            *(region.right * across, region.bottom * down),
        )
        content = np.asarray(image.resize(fitted_size, Image.Resampling.BILINEAR, box))
        pixels, fractions = _padded(content, size)
        place = (
            *(region.left / header.width, region.top / header.height),
            *(region.right / header.width, region.bottom / header.height),
        )
        decoded.append(Tile(pixels, fractions, place, tiles.min_score))
    return tuple(decoded)


def _fitted(width: int, height: int, size: tuple[int, int], keeps_aspect: bool) -> tuple[int, int]:
    """Returns the width and height at which an image fits a model's input."""
    if not keeps_aspect:
        return size
    full_width, full_height = size
    scale = min(full_width / width, full_height / height)
    return (
        min(full_width, max(1, round(width * scale))),
        min(full_height, max(1, round(height * scale))),
    )


def _padded(content: Pixels, size: tuple[int, int]) -> tuple[Pixels, tuple[float, float]]:
    """Returns a model's input with an image at its top left, and the image's part of it."""
    full_width, full_height = size
    height, width, _ = content.shape
    pixels = np.full((full_height, full_width, 3), PADDING, dtype=np.uint8)
    pixels[:height, :width] = content
    return pixels, (width / full_width, height / full_height)


def brightness_of(pixels: Pixels) -> float:
    """Returns the mean luma of an image, 0 (black) to 1 (white), rounded to 4 decimals.

    It is computed in integers, so that it is the same on every machine. The rows are added first,
    because numpy adds whole rows twenty times as fast as triples.
    """
    height, width, _ = pixels.shape
    red_green_blue = pixels.sum(axis=0, dtype=np.uint32).sum(axis=0, dtype=np.int64)
    brightness: float = int(red_green_blue @ _LUMA) / (1000 * 255 * height * width)
    return round(brightness, 4)


def sharpness_of(pixels: Pixels) -> float:
    """Returns how much detail an image shows, 0 (one even tone) to 1, rounded to 4 decimals.

    This is the standard deviation of the Laplacian (four times each pixel minus its four
    neighbours), divided by the largest possible one, 1020 levels; see Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy: a comparative study", ICPR 2000. It uses only green,
    which contributes most to luma, and every other line, which gives the same information in half
    the time. A sharp street has 0.01 to 0.05, and a tenth of that out of focus. The value depends
    on the size at which an image was decoded, so compare it only with images of the same camera.
    It is computed in integers, so that it is the same on every machine.
    """
    height, width, _ = pixels.shape
    if height < 3 or width < 3:
        return 0.0
    levels = pixels[:, :, 1].astype(np.int16)
    upper, lines, lower = levels[:-2:2], levels[1:-1:2], levels[2::2]
    detail = lines[:, 1:-1] * np.int16(4)
    for neighbour in (upper[:, 1:-1], lower[:, 1:-1], lines[:, :-2], lines[:, 2:]):
        detail -= neighbour
    # Doubles hold whole numbers exactly up to 2**53, and are added up fastest. `values @ values`
    # would run in BLAS, whose threads wait for each other while this one holds Python's lock.
    values = detail.astype(np.float64).ravel()
    number, total, squares = values.size, int(values.sum()), int(np.einsum("i,i", values, values))
    sharpness: float = math.sqrt(number * squares - total**2) / (number * 4 * 255)
    return round(sharpness, 4)
