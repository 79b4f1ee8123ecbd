"""Pictures with boxes drawn into them, for people."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from transforms.text import printable

Colour = tuple[int, int, int]

_QUALITIES = (85, 75, 60, 45)
_SMALLER = 0.75
_SMALLEST_SIDE = 16
_LABEL_LETTERS = 30


def with_boxes(
    data: bytes,
    boxes: Iterable[Mapping[str, Any]],
    colour: Colour,
    *,
    longest_side: int,
    largest: int | None = None,
) -> bytes:
    """A picture, scaled down and the right way up, with boxes drawn into it, as JPEG.

    Args:
      data: A JPEG file's bytes.
      boxes: `label`, `conf` and `bbox`, a box of fractions of the upright picture, each.
      colour: Red, green and blue of the boxes.
      longest_side: Of the result, in pixels; smaller pictures stay as they are.
      largest: Bytes that the result may have: it gets coarser, then smaller, until it fits; None
        for any number.

    Raises:
      OSError, ValueError: It can't be decoded.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as file:
        file.draft("RGB", (longest_side, longest_side))
        try:
            upright = ImageOps.exif_transpose(file)
        except Exception:  # Whatever a broken segment makes of the parser: the picture may be good.
            upright = file
        picture = upright.convert("RGB")
    picture.thumbnail((longest_side, longest_side))
    for box in boxes:
        _draw(picture, box, colour)
    while True:
        for quality in _QUALITIES:
            jpeg = _encoded(picture, quality)
            if largest is None or len(jpeg) <= largest:
                return jpeg
        width, height = (max(1, round(side * _SMALLER)) for side in picture.size)
        if max(width, height) < _SMALLEST_SIDE:
            raise ValueError(f"no picture fits into {largest} bytes")
        picture = picture.resize((width, height))


def _draw(picture: Image.Image, box: Mapping[str, Any], colour: Colour) -> None:
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
    place = (
        max(0, min(left, picture.width - text_width)),
        top - text_height if top >= text_height else max(0, top),
    )
    draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
    draw.text(place, text, fill=(255, 255, 255), font=font)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()
