"""Draws boxes into images, for people."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from PIL import Image, ImageDraw, ImageFont, ImageOps

from transforms.images.jpeg import mended
from transforms.records.text import one_line, printable
from transforms.storage import stores

Colour = tuple[int, int, int]

_QUALITIES = (85, 75, 60, 45)
_SMALLER = 0.75
_SMALLEST_SIDE = 16
_LABEL_LETTERS = 30
_LARGEST_FILE = 64 << 20


class LabelledBox(TypedDict):
    """A box to draw.

    Attributes:
      label: The label.
      conf: The score.
      bbox: The box as fractions of the upright image.
    """

    label: str
    conf: float
    bbox: list[float]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with boxes, or the reason why it is missing.

    Attributes:
      uri: The address of the image; None if it is missing.
      jpeg: The image with boxes; None if it is missing.
      missing: Why the image is missing.
    """

    uri: str | None = None
    jpeg: bytes | None = None
    missing: str | None = None


def read_with_boxes(
    uris: Sequence[str],
    sha256: str | None,
    boxes: Iterable[LabelledBox],
    colour: Colour,
    *,
    longest_side: int,
    max_bytes: int | None = None,
    describe: Callable[[Exception], str] = one_line,
) -> AnnotatedImage:
    """Reads an image from the first address that has it, and draws boxes into it.

    Args:
      uris: The possible addresses.
      sha256: The sha256 of the file: another image is not shown. None for any image.
      boxes: See `with_boxes`.
      colour: See `with_boxes`.
      longest_side: See `with_boxes`.
      max_bytes: See `with_boxes`.
      describe: Describes an error.
    """
    boxes = list(boxes)
    missing = ""
    for uri in uris:
        try:
            data = stores.read_bytes(uri, _LARGEST_FILE)
        except OSError as error:
            missing = missing or f"{uri} can't be read ({describe(error)})"
            continue
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            missing = f"{uri} was replaced by another image"
            continue
        try:
            jpeg = with_boxes(data, boxes, colour, longest_side=longest_side, max_bytes=max_bytes)
        except Exception as error:  # Pillow has many kinds of error for what it can't decode.
            missing = f"{uri} can't be decoded ({describe(error)})"
            continue
        return AnnotatedImage(uri, jpeg)
    return AnnotatedImage(missing=printable(missing))


def with_boxes(
    data: bytes,
    boxes: Iterable[LabelledBox],
    colour: Colour,
    *,
    longest_side: int,
    max_bytes: int | None = None,
) -> bytes:
    """Scales an image down, turns it upright, and draws boxes into it, as JPEG.

    Args:
      data: The bytes of a JPEG file.
      boxes: The boxes.
      colour: The red, green and blue of the boxes.
      longest_side: The longest side of the result in pixels; smaller images are not enlarged.
      max_bytes: The size limit of the result: the quality, then the scale is reduced until it
        fits; None for no limit.

    Raises:
      OSError: The image can't be decoded.
      ValueError: The image can't be decoded.
    """
    try:
        data = mended(data)
    except ValueError:
        pass  # Pillow reports the error.
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as file:
        file.draft("RGB", (longest_side, longest_side))
        try:
            upright = ImageOps.exif_transpose(file)
        except Exception:  # Any error of a broken segment: the image itself may be good.
            upright = file
        picture = upright.convert("RGB")
    picture.thumbnail((longest_side, longest_side))
    for box in boxes:
        _draw(picture, box, colour)
    while True:
        for quality in _QUALITIES:
            jpeg = _encoded(picture, quality)
            if max_bytes is None or len(jpeg) <= max_bytes:
                return jpeg
        width, height = (max(1, round(side * _SMALLER)) for side in picture.size)
        if max(width, height) < _SMALLEST_SIDE:
            raise ValueError(f"no picture fits into {max_bytes} bytes")
        picture = picture.resize((width, height))


def _draw(picture: Image.Image, box: LabelledBox, colour: Colour) -> None:
    draw = ImageDraw.Draw(picture)
    longest = max(picture.size)
    font = ImageFont.load_default(max(13, longest // 55))
    x, y, width, height = box["bbox"]
    left, top = x * picture.width, y * picture.height
    right, bottom = left + width * picture.width, top + height * picture.height
    draw.rectangle(
        (left, top, max(left, right), max(top, bottom)),
        outline=colour,
        width=max(2, longest // 340),
    )
    text = f"{printable(box['label'])[:_LABEL_LETTERS]} {box['conf']:.2f}"
    *_, text_width, text_height = draw.textbbox((0, 0), text, font=font)
    position = (
        max(0, min(left, picture.width - text_width)),
        top - text_height if top >= text_height else max(0, top),
    )
    draw.rectangle(draw.textbbox(position, text, font=font), fill=colour)
    draw.text(position, text, fill=(255, 255, 255), font=font)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()
