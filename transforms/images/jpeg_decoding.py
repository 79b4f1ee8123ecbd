"""Decoding of a JPEG, which detects missing image data.

libjpeg-turbo (by simplejpeg) warns of missing data, but only its first warning is reported, and one
kind is harmless: extraneous bytes, as many cameras pad their data. If the first warning is of that
kind and more data follows, the image is decoded four more times with different padding after each
restart interval: if data is missing, the pixels depend on the padding.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from transforms.images.jpeg_stream import Stream

MAX_ZEROS = 8
"""Zero bytes that may end the image data if extraneous zero bytes follow."""

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker")
_UNKNOWN_SAMPLING = "Could not determine subsampling"
_MISSING = {
    "premature end of data segment": "the data ends before the image does",
    "bad Huffman code": "the data contains an invalid code",
}
_MADE_UP = "image data is missing (the pixels depend on the filler bytes)"
# The second differs from the first in every bit, the fourth from the third; no byte has a meaning
# of its own. Short codes begin with 0 in any table, long ones with 1.
_PADDINGS = (
    b"\xaa\x55\x2a\xd5\xbb\x44\x91\x6e" * 8,
    b"\x55\xaa\xd5\x2a\x44\xbb\x6e\x91" * 8,
    b"\xfe\x6f\xcc\x05\x7f\x90\x33\xfa" * 8,
    b"\x01\x90\x33\xfa\x80\x6f\xcc\x05" * 8,
)

Buffer = np.ndarray[Any, np.dtype[np.uint8]]


class CorruptJpegError(ValueError):
    """The file begins like a JPEG, but image data is missing or can't be decoded."""


def decode(stream: Stream, least: tuple[int, int]) -> Image.Image:
    """Decodes an image to RGB at the smallest scale of 1, 1/2, 1/4 and 1/8 that is large enough.

    Args:
      stream: From :func:`jpeg_stream.read_stream`, with nothing missing and not costly.
      least: The width and height that the result has at least, unless the image is smaller.

    Raises:
      CorruptJpegError: Image data is missing, or can't be decoded.
    """
    frame = stream.frame
    largest = min(frame.width // least[0], frame.height // least[1])
    scale = next(scale for scale in (8, 4, 2, 1) if largest >= scale or scale == 1)
    height, width = -(-frame.height // scale), -(-frame.width // scale)
    colours = "CMYK" if len(frame.components) == 4 else "RGB"
    pixels = np.empty((height, width, len(colours)), dtype=np.uint8)
    warning = _decode(stream.encoded(), pixels, scale, colours)
    if _UNKNOWN_SAMPLING in warning:
        return _decode_by_pillow(stream, (width, height))
    if warning:
        extraneous = _EXTRANEOUS.search(warning)
        if extraneous is None:
            raise CorruptJpegError(f"image data is missing ({_reason_for(warning)})")
        scratch = np.empty((frame.height, frame.width, len(colours)), dtype=np.uint8)
        _check_extra_bytes(stream, scratch, colours, int(extraneous[1]))
    if colours == "RGB":
        return Image.fromarray(pixels)
    # Pillow and browsers expect inverted values, as Adobe writes them.
    return Image.fromarray(255 - pixels, mode="CMYK").convert("RGB")


def _decode(data: bytes, pixels: Buffer, scale: int, colours: str) -> str:
    """Decodes into `pixels` and returns the first warning, or an empty text."""
    height, width, _ = pixels.shape
    try:
        simplejpeg.decode_jpeg(
            data, colours, min_height=height, min_width=width, min_factor=scale, buffer=pixels
        )
    except ValueError as error:
        return str(error) or "unknown"
    return ""


def _reason_for(warning: str) -> str:
    return next((text for part, text in _MISSING.items() if part in warning), warning)


def _check_extra_bytes(stream: Stream, scratch: Buffer, colours: str, number: int) -> None:
    """Checks that no image data is missing if the decoder has warned of extraneous bytes.

    Args:
      stream: The image.
      scratch: A buffer for its pixels at full size.
      colours: The colour space to decode to.
      number: How many extraneous bytes the decoder has reported.

    Raises:
      CorruptJpegError: Image data is missing.
    """
    intervals = [interval for scan in stream.scans for interval in scan.intervals]
    if len(intervals) == 1:
        zeros = len(intervals[0]) - len(intervals[0].rstrip(b"\0"))
        if zeros - number > MAX_ZEROS:
            raise CorruptJpegError(
                f"image data is missing ({zeros - number:,} zeros take its place)"
            )
        return
    digests = set()
    for padding in _PADDINGS:
        _decode(stream.padded(padding, MAX_ZEROS).encoded(), scratch, 1, colours)
        digests.add(hashlib.sha256(scratch.data).digest())
    if len(digests) > 1:
        raise CorruptJpegError(_MADE_UP)


def _open_by_pillow(stream: Stream) -> JpegImagePlugin.JpegImageFile:
    # `Image.open` would refuse large images; the caller has checked the size.
    return JpegImagePlugin.JpegImageFile(io.BytesIO(stream.encoded()))


def _decode_by_pillow(stream: Stream, size: tuple[int, int]) -> Image.Image:
    """Decodes an image whose sampling factors simplejpeg does not support.

    Pillow gives no warnings, so that the image is also decoded with different paddings.

    Raises:
      CorruptJpegError: Image data is missing or can't be decoded.
    """
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(stream.frame.components)]
    try:
        digests = {
            hashlib.sha256(
                _open_by_pillow(stream.padded(padding, MAX_ZEROS)).convert("RGB").tobytes()
            ).digest()
            for padding in _PADDINGS
        }
        image = _open_by_pillow(stream)
        image.draft(mode, size)
        pixels = image.convert("RGB")
    except Exception as error:  # Whatever fails concerns this image only.
        raise CorruptJpegError(
            f"the pixels can't be decoded ({type(error).__name__}: {error})"
        ) from error
    if len(digests) > 1:
        raise CorruptJpegError(_MADE_UP)
    return pixels
