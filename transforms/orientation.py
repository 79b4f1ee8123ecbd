"""EXIF orientation: which way up a camera's picture is.

tensorflow-io reads the tag (``tfio.experimental.image.decode_jpeg_exif``). Its native parser
trusts the offsets inside the segment and ends the process on a crafted one, so it is only shown
segments whose every offset was checked here; Pillow's parser, slower and safe, reads the rest.
"""

from __future__ import annotations

import struct

from PIL import Image

UPRIGHT = 1
ORIENTATION_TAG = 0x0112
_SUB_DIRECTORY_TAGS = frozenset({0x8769, 0x8825})  # Exif and GPS directories
_BYTES_PER_VALUE = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
}
_EXIF_HEADER = b"Exif\x00\x00"
_LARGEST_SEGMENT = 0xFFFF - 2


def is_well_formed(exif: bytes) -> bool:
    """Whether every directory and value of an EXIF segment lies inside it.

    Args:
      exif: The payload of a JPEG's APP1 segment, from ``Exif\\0\\0`` on.

    Source: TIFF 6.0, section 2 (image file directories), and Exif 2.3, section 4.6.
    """
    if len(exif) > _LARGEST_SEGMENT or not exif.startswith(_EXIF_HEADER):
        return False
    tiff = exif[len(_EXIF_HEADER) :]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return False
    magic, first = struct.unpack_from(order + "HI", tiff, 2)
    if magic != 42:
        return False
    seen: set[int] = set()
    waiting = [first]
    while waiting:
        start = waiting.pop()
        if start in seen or start < 8 or start + 2 > len(tiff):
            return False
        seen.add(start)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        if start + 2 + 12 * entries + 4 > len(tiff):
            return False
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(order + "HHII", tiff, entry)
            size = _BYTES_PER_VALUE.get(kind, 0) * count
            if not size or (size > 4 and (value < 8 or value + size > len(tiff))):
                return False
            if tag in _SUB_DIRECTORY_TAGS:
                if kind != 4 or count != 1:
                    return False
                waiting.append(value)
    return True


def exif_orientation(exif: bytes | None) -> int:
    """The orientation, 1 to 8, that an EXIF segment states; 1, upright, where it states none.

    Args:
      exif: The payload of a JPEG's APP1 segment, from ``Exif\\0\\0`` on, or None.
    """
    if not exif:
        return UPRIGHT
    stated = 0
    if is_well_formed(exif):
        import tensorflow_io as tfio

        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        stated = int(tfio.experimental.image.decode_jpeg_exif(b"\xff\xd8" + segment + b"\xff\xd9"))
    if not stated:  # The native parser knows the tag as a 16-bit number only; some write 32 bits.
        stated = _pillow_orientation(exif)
    return stated if UPRIGHT <= stated <= 8 else UPRIGHT


def _pillow_orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
        stated = tags.get(ORIENTATION_TAG)
    except Exception:  # Whatever a broken segment makes of the parser, the picture is not at fault.
        return UPRIGHT
    return stated if isinstance(stated, int) else UPRIGHT
