"""Reads the EXIF orientation of an image, and turns its pixels the right way up.

tensorflow-io reads the tag (``tfio.experimental.image.decode_jpeg_exif``) where it is installed.
Pillow reads it elsewhere, as there is no tensorflow-io for Python 3.13. Both find the same. The
native parser of tensorflow-io trusts the offsets inside the segment and ends the process on a
crafted one. So a parser is only given segments whose every offset was checked here. Of any other
segment, this module reads the first directory up to the first error. It looks at no more than
`MOST_ENTRIES` entries of a segment.
"""

from __future__ import annotations

import importlib.util
import io
import struct

from PIL import Image, TiffImagePlugin, TiffTags

from transforms.models.tensorflow_runtime import load_tensorflow

UPRIGHT = 1
MOST_ENTRIES = 1_024
"""Entries of all directories of a segment together. Cameras write 20 to 200."""
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
_NUMBER_KINDS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
"""The kinds of an entry whose value is a whole number, as `struct` reads them."""
_EXIF_HEADER = b"Exif\x00\x00"
LARGEST_SEGMENT = 0xFFFF - 2
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class CostlyExifError(ValueError):
    """An EXIF segment of more entries than are read."""


def is_well_formed(exif: bytes) -> bool:
    """Whether all directories and values of an EXIF segment lie inside it, and none of the
    directories states two orientations.

    Args:
      exif: The payload of a JPEG's APP1 segment, from ``Exif\\0\\0`` on.

    Source: TIFF 6.0, section 2 (image file directories), and Exif 2.3, section 4.6.

    Raises:
      CostlyExifError: Its directories have more than `MOST_ENTRIES` entries together.
    """
    if len(exif) > LARGEST_SEGMENT or not exif.startswith(_EXIF_HEADER):
        return False
    tiff = exif[len(_EXIF_HEADER) :]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return False
    magic, first = struct.unpack_from(order + "HI", tiff, 2)
    return magic == 42 and _are_sound(tiff, order, first)


def _are_sound(tiff: bytes, order: str, first: int) -> bool:
    """Whether every directory, from the first one on, and every value lies inside the segment, and
    no directory states two orientations.

    Raises:
      CostlyExifError: They have more than `MOST_ENTRIES` entries together.
    """
    visited: set[int] = set()
    total = 0
    pending = [first]
    while pending:
        start = pending.pop()
        if start in visited or start < 8 or start + 2 > len(tiff):
            return False
        visited.add(start)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        if start + 2 + 12 * entries + 4 > len(tiff):
            return False
        total += entries
        if total > MOST_ENTRIES:
            raise CostlyExifError(
                f"the EXIF segment has {total:,} entries or more; at most {MOST_ENTRIES:,} are read"
            )
        orientations = 0
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(order + "HHII", tiff, entry)
            if not _is_entry(tag, kind, count, value, len(tiff)):
                return False
            orientations += tag == ORIENTATION_TAG
            if orientations > 1:
                return False
            if tag in _SUB_DIRECTORY_TAGS:
                pending.append(value)
    return True


def _is_entry(tag: int, kind: int, count: int, value: int, length: int) -> bool:
    """Whether an entry's value lies inside the segment, and one that leads to another directory is
    its offset.

    Args:
      tag: What it says.
      kind: The type of its values.
      count: How many values it has.
      value: The values themselves, or where they are.
      length: Bytes of the segment, from the byte order on.
    """
    size = _BYTES_PER_VALUE.get(kind, 0) * count
    if not size or (size > 4 and (value < 8 or value + size > length)):
        return False
    return tag not in _SUB_DIRECTORY_TAGS or (kind == 4 and count == 1)


def exif_orientation(exif: bytes | None) -> int:
    """The orientation, 1 to 8, that an EXIF segment states; 1, upright, where it states none.

    Args:
      exif: The payload of a JPEG's APP1 segment, from ``Exif\\0\\0`` on, or None.

    Raises:
      CostlyExifError: Its directories have more than `MOST_ENTRIES` entries together.
    """
    if not exif:
        return UPRIGHT
    stated = 0
    if is_well_formed(exif):
        stated = _parse(exif)
    if not stated:  # The parsers take the tag as a 16-bit number only; some write 32 bits.
        stated = first_directory_orientation(exif)
    return stated if UPRIGHT <= stated <= 8 else UPRIGHT


def read_by_tensorflow_io(exif: bytes) -> int:
    """The orientation that a well-formed segment states as a 16-bit number; 0 without one."""
    load_tensorflow()  # First, as it leaves out what TensorFlow says when it is loaded.
    import tensorflow_io as tfio

    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return int(tfio.experimental.image.decode_jpeg_exif(b"\xff\xd8" + segment + b"\xff\xd9"))


def read_by_pillow(exif: bytes) -> int:
    """As `read_by_tensorflow_io`."""
    tiff = io.BytesIO(exif[len(_EXIF_HEADER) :])
    directory = TiffImagePlugin.ImageFileDirectory_v2(tiff.read(8))
    tiff.seek(directory.next)
    directory.load(tiff)
    if directory.tagtype.get(ORIENTATION_TAG) != TiffTags.SHORT:
        return 0
    return int(directory[ORIENTATION_TAG])


_parse = (
    read_by_tensorflow_io
    if importlib.util.find_spec("tensorflow_io") is not None
    else read_by_pillow
)


def first_directory_orientation(exif: bytes) -> int:
    """The number that the orientation tag of the first directory has, whatever else is broken; 0
    without one. Of several the last is taken, as Pillow does."""
    tiff = exif[len(_EXIF_HEADER) :]
    order = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 0
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 0
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    fitting = min(entries, (len(tiff) - start - 2) // 12, MOST_ENTRIES)
    stated = 0
    for entry in range(start + 2, start + 2 + 12 * fitting, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
        if tag == ORIENTATION_TAG and count == 1 and kind in _NUMBER_KINDS:
            (stated,) = struct.unpack_from(order + _NUMBER_KINDS[kind], tiff, entry + 8)
    return stated


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns an image the right way up.

    Args:
      image: The pixels as they are stored.
      orientation: The value of the EXIF tag, 1 to 8. Source: Exif 2.3, section 4.6.4.
    """
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
