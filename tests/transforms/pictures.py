"""JPEG files made for a test: small, and of every kind that a camera might send."""

import io
import struct

import numpy as np
from PIL import Image

from transforms.records.images import ImageFile, NamedFile

MOMENT = "2026-01-31T23:59:59Z"
NAME = "front-door_20260131T235959Z.jpg"


def asymmetric(width: int = 200, height: int = 160) -> Image.Image:
    """A smooth picture whose four corners have four colours, so that every turn of it differs."""
    across = np.linspace(0, 1, width)[None, :, None]
    down = np.linspace(0, 1, height)[:, None, None]
    corners = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 250, 250]], dtype=float)
    top = corners[0] * (1 - across) + corners[1] * across
    bottom = corners[2] * (1 - across) + corners[3] * across
    return Image.fromarray((top * (1 - down) + bottom * down).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    """The bytes of a picture; a JPEG's unless `format` says otherwise."""
    out = io.BytesIO()
    image.save(out, **{"format": "JPEG", "quality": 90, **options})  # type: ignore[arg-type]
    return out.getvalue()


def jpeg(
    width: int = 200, height: int = 160, *, shade: int | None = None, **options: object
) -> bytes:
    """A JPEG of this size; those of different shades have different bytes."""
    image = asymmetric(width, height)
    if shade is not None:
        image = Image.new("RGB", (width, height), (shade, shade, shade))
    return encoded(image, **options)


def with_orientation(data: bytes, orientation: int, *, kind: int = 3, order: str = ">") -> bytes:
    """The JPEG with an EXIF segment that states an orientation, as a number of 16 or 32 bits."""
    value = {3: "HH", 4: "I"}[kind]
    numbers = (orientation, 0) if kind == 3 else (orientation,)
    tiff = (b"MM" if order == ">" else b"II") + struct.pack(order + "HIH", 42, 8, 1)
    tiff += struct.pack(order + "HHI" + value + "I", 0x0112, kind, 1, *numbers, 0)
    return with_exif(data, b"Exif\0\0" + tiff)


def with_exif(data: bytes, payload: bytes) -> bytes:
    """The JPEG with this EXIF segment right after its beginning."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def with_stated_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header (SOF0 or SOF2)."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def named(uri: str = f"/in/{NAME}", size: int = 0, *, camera: str = "front-door") -> NamedFile:
    """A file whose name was found right."""
    return NamedFile(ImageFile(uri, size), camera, MOMENT)
