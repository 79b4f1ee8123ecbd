"""Parses the segments of a JPEG before anything is decoded.

A decoder does not report reliably whether image data is missing: it fills gaps silently, and its
first warning hides the others. So the parser extracts the segments that determine the pixels, in a
form that gives a decoder no other reason to warn: without trailers, comments, profiles and fill
bytes between segments, and closed by an end marker. All further warnings concern the image data.

The parser also bounds the cost of decoding, so that a small file can't occupy a decoder for long.

Sources: ITU-T T.81, annexes B (syntax), F and G (sequential and progressive coding); JFIF 1.02;
Adobe Technical Note 5116, section 18 (the Adobe segment).
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from dataclasses import dataclass, field, replace

MAX_SEGMENTS = 4_096
"""Segments in one image. A radiometric image of 64 MiB has 1,024 segments of 64 KiB."""
MAX_FILL_PAIRS = 1 << 20
"""Pairs of fill bytes (FF FF) in one image."""
MAX_BLOCKS = 1 << 25
"""Blocks that all scans decode together. The usual 10 scans of 8192x8192 pixels decode 8 to 15
million; a grey image of that size reaches the limit after 32 scans."""
MAX_PASSES = 12
"""Passes over each block that are always allowed, even if a large image then exceeds `MAX_BLOCKS`.
The usual progressive images have 6 passes at most."""

_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _DNL = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_WITHOUT_SEGMENT = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_KEPT = frozenset({_DQT, _DHT, _DRI})
_SKIPPED = frozenset({0xCC, _DNL, 0xFE, *range(0xE0, 0xF0)})
# Each of these searches in one pass, without backtracking.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_COEFFICIENTS = 64


class BrokenStreamError(ValueError):
    """The segments before the image data can't be parsed."""


@dataclass(frozen=True)
class Component:
    """A colour component of a frame.

    Attributes:
      identifier: Its identifier in the file.
      horizontal: Horizontal sampling factor, 1 to 4.
      vertical: Vertical sampling factor, 1 to 4.
    """

    identifier: int
    horizontal: int
    vertical: int


@dataclass(frozen=True)
class Frame:
    """A frame header (SOF).

    Attributes:
      progressive: Whether later scans refine earlier ones.
      width: In pixels, as stored.
      height: In pixels, as stored.
      components: The colour components.
      segment: The bytes of the header, with its marker.
    """

    progressive: bool
    width: int
    height: int
    components: tuple[Component, ...]
    segment: bytes = field(repr=False)

    def blocks(self, members: tuple[int, ...]) -> int:
        """Returns how many blocks of 8x8 coefficients a scan of some components has (T.81, A.2).

        Args:
          members: Indices of the components.
        """
        mcu_width = 8 * max(component.horizontal for component in self.components)
        mcu_height = 8 * max(component.vertical for component in self.components)
        if len(members) == 1:
            component = self.components[members[0]]
            columns = math.ceil(self.width * component.horizontal / mcu_width)
            return columns * math.ceil(self.height * component.vertical / mcu_height)
        mcus = math.ceil(self.width / mcu_width) * math.ceil(self.height / mcu_height)
        return mcus * self._blocks_per_mcu(members)

    def mcus(self, members: tuple[int, ...]) -> int:
        """Returns how many minimum coded units (MCUs) a scan of some components has.

        Args:
          members: Indices of the components.
        """
        return self.blocks(members) // self._blocks_per_mcu(members)

    def _blocks_per_mcu(self, members: tuple[int, ...]) -> int:
        if len(members) == 1:
            return 1
        components = (self.components[index] for index in members)
        return sum(component.horizontal * component.vertical for component in components)


@dataclass(frozen=True)
class Scan:
    """A scan: its header, and the entropy-coded data of its restart intervals.

    Attributes:
      header: The scan header (SOS) with its marker.
      intervals: The data of each restart interval, without the restart markers.
      restarts: The restart markers between the intervals.
      blocks: How many blocks it has.
    """

    header: bytes
    intervals: tuple[bytes, ...]
    restarts: tuple[bytes, ...]
    blocks: int

    def encoded(self) -> bytes:
        """Returns the bytes of the scan."""
        parts = [self.header, self.intervals[0]]
        for restart, interval in zip(self.restarts, self.intervals[1:], strict=True):
            parts += (restart, interval)
        return b"".join(parts)


@dataclass(frozen=True)
class Stream:
    """The parts of a JPEG that determine its pixels.

    Attributes:
      frame: The frame header.
      parts: The tables and scans, in the order of the file.
      exif: The payload of the EXIF segments, from ``Exif\\0\\0`` on, or None.
      missing: Which image data is certainly missing, or an empty text.
      costly: Which limit on the cost of decoding is exceeded, or an empty text.
    """

    frame: Frame
    parts: tuple[bytes | Scan, ...] = field(repr=False)
    exif: bytes | None = field(repr=False)
    missing: str
    costly: str

    @property
    def scans(self) -> list[Scan]:
        """The scans in the order of the file."""
        return [part for part in self.parts if isinstance(part, Scan)]

    @property
    def blocks(self) -> int:
        """How many blocks all scans have."""
        return sum(scan.blocks for scan in self.scans)

    def encoded(self) -> bytes:
        """Returns a JPEG of these parts, closed by an end marker."""
        parts = (part.encoded() if isinstance(part, Scan) else part for part in self.parts)
        return b"".join((b"\xff\xd8", *parts, b"\xff\xd9"))

    def padded(self, padding: bytes, max_zeros: int) -> Stream:
        """Returns the stream with padding, which a decoder reads where data is missing.

        Args:
          padding: Bytes to append to each restart interval.
          max_zeros: How many of the zero bytes at the end of the last interval to keep.
        """
        last = max(index for index, part in enumerate(self.parts) if isinstance(part, Scan))
        parts = list(self.parts)
        for index, part in enumerate(parts):
            if isinstance(part, Scan):
                *before, end = part.intervals
                if index == last:
                    zeros = len(end) - len(end.rstrip(b"\0"))
                    end = end[: len(end) - max(0, zeros - max_zeros)]
                intervals = tuple(interval + padding for interval in (*before, end))
                parts[index] = replace(part, intervals=intervals)
        return replace(self, parts=tuple(parts))


class _Progress:
    """The bits of the coefficients that the scans so far contain (T.81, G.1.1.1)."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        # The lowest bit of each coefficient that is known; None before its first scan.
        self._lowest_bits: list[list[int | None]] = [
            [None] * (_COEFFICIENTS if frame.progressive else 1) for _ in frame.components
        ]

    def add(self, members: tuple[int, ...], start: int, end: int, high: int, low: int) -> bool:
        """Adds a scan. Returns False if it can't follow the scans before it."""
        for member in members:
            bits = self._lowest_bits[member]
            if not self._frame.progressive:
                bits[0] = 0
                continue
            if start and bits[0] is None:
                return False
            for coefficient in range(start, end + 1):
                if (bits[coefficient] or 0) != high:
                    return False
                bits[coefficient] = low
        return True

    @property
    def is_complete(self) -> bool:
        return all(low == 0 for bits in self._lowest_bits for low in bits)

    @property
    def incomplete(self) -> int:
        """How many components lack bits."""
        return sum(any(low != 0 for low in bits) for bits in self._lowest_bits)


class _Parser:
    """Parses the segments of one image, up to the scan that completes it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._segments = 0
        self._interval = 0
        self._jfif = False
        self._adobe: int | None = None
        self._exif: list[bytes] = []
        self._frame: Frame | None = None
        self._progress: _Progress | None = None
        self._parts: list[bytes | Scan] = []
        self._scans = 0
        self._blocks = 0
        self._missing = ""
        self._end = len(data)

    def parse(self) -> Stream:
        position: int | None = 2
        while position is not None and self._segments <= MAX_SEGMENTS:
            marker = _MARKER.search(self._data, position)
            position = self._segment(marker) if marker else None
        if self._frame is None or self._progress is None:
            raise BrokenStreamError(self._costly() or "there is no frame header")
        if not self._scans:
            raise BrokenStreamError(self._costly() or "the file ends before the image data")
        frame, missing = self._frame, self._missing
        if not missing and not self._progress.is_complete:
            missing = (
                f"of {self._progress.incomplete} of {len(frame.components)} colours not all scans "
                f"are there"
            )
        header: list[bytes | Scan] = [_JFIF] if self._jfif else []
        if self._adobe is not None:
            header.append(_adobe_segment(self._adobe, len(frame.components)))
        parts = (*header, *self._parts)
        exif = b"Exif\0\0" + b"".join(self._exif) if self._exif else None
        return Stream(frame, parts, exif, missing, self._costly())

    def _costly(self) -> str:
        if self._segments > MAX_SEGMENTS:
            return f"there are more than {MAX_SEGMENTS:,} segments, the maximum"
        # Counting takes longer than all else here, so that small files are exempt from it.
        fill = self._data.count(b"\xff\xff", 0, self._end) if self._end > MAX_FILL_PAIRS else 0
        if fill > MAX_FILL_PAIRS:
            return f"there are {fill:,} pairs of fill bytes; at most {MAX_FILL_PAIRS:,} are read"
        if self._frame is None:
            return ""
        frame = self._frame
        blocks_per_pass = sum(frame.blocks((member,)) for member in range(len(frame.components)))
        max_blocks = max(MAX_BLOCKS, MAX_PASSES * blocks_per_pass)
        if self._blocks > max_blocks:
            return (
                f"{self._scans:,} scans of {frame.width}x{frame.height} pixels would decode "
                f"{self._blocks:,} blocks; at most {max_blocks:,} are decoded"
            )
        return ""

    def _segment(self, marker: re.Match[bytes]) -> int | None:
        """Parses the segment of a marker. Returns the position after it, or None at the end."""
        code, position = self._data[marker.end() - 1], marker.end()
        if code in _WITHOUT_SEGMENT:
            return position
        if code in (_SOI, _EOI):
            self._end = marker.start()
            return None
        self._segments += 1
        length = int.from_bytes(self._data[position : position + 2], "big")
        body = self._data[position + 2 : position + length]
        if length < 2 or len(body) < length - 2:
            return None
        end = position + length
        if code == _SOS:
            return self._scan(body, end)
        if code in _FRAMES:
            return self._start_of_frame(code, body, end)
        if code in _KEPT:
            self._keep(code, body, self._data[position - 2 : end])
            return end
        if code not in _SKIPPED:
            return None
        if not self._scans:
            self._application(code, body)
        return end

    def _keep(self, code: int, body: bytes, segment: bytes) -> None:
        if self._progress is None or not self._progress.is_complete:
            self._parts.append(segment)
        if code == _DRI and len(body) == 2:
            self._interval = int.from_bytes(body, "big")

    def _application(self, code: int, body: bytes) -> None:
        if code == _APP0 and len(body) >= 14 and body.startswith(b"JFIF\0"):
            self._jfif = True
        elif code == _APP14 and len(body) >= 12 and body.startswith(b"Adobe"):
            self._adobe = body[11]
        elif code == _APP1 and body.startswith(b"Exif\0\0"):
            self._exif.append(body[6:])

    def _start_of_frame(self, code: int, body: bytes, end: int) -> int | None:
        if self._frame is not None:
            return None
        if code not in _HUFFMAN_FRAMES:
            raise BrokenStreamError(
                f"its coding (FF {code:02X}) is not supported, as cameras don't use it"
            )
        if len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise BrokenStreamError("its frame header has a wrong length")
        bits, height, width, number = struct.unpack_from(">BHHB", body)
        if bits != 8:
            raise BrokenStreamError(f"its frame header says {bits} bits a sample; 8 are read")
        if width < 1 or height < 1:
            raise BrokenStreamError(f"it says {width} by {height} pixels")
        if number not in (1, 3, 4):
            raise BrokenStreamError(f"its frame header says {number} colours; 1, 3 or 4 are read")
        components = tuple(
            Component(body[offset], body[offset + 1] >> 4, body[offset + 1] & 15)
            for offset in range(6, len(body), 3)
        )
        if not all(
            1 <= component.horizontal <= 4 and 1 <= component.vertical <= 4
            for component in components
        ):
            raise BrokenStreamError("its frame header says sampling factors that are not 1 to 4")
        segment = bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body
        self._frame = Frame(code == 0xC2, width, height, components, segment)
        self._progress = _Progress(self._frame)
        self._parts.append(segment)
        return end

    def _scan(self, body: bytes, start: int) -> int:
        """Parses a scan; if the image is complete or broken already, the scan is only counted."""
        frame, progress = self._frame, self._progress
        if frame is None or progress is None:
            raise BrokenStreamError("there is a scan before the frame header")
        match = _END_OF_SCAN.search(self._data, start)
        end = match.start() if match else len(self._data)
        self._scans += 1
        identifiers = body[1:-3:2] if body and len(body) == 4 + 2 * body[0] else b""
        defined = [component.identifier for component in frame.components]
        members = tuple(
            defined.index(identifier) for identifier in identifiers if identifier in defined
        )
        if not members or len(members) < len(identifiers) or len(set(members)) < len(members):
            if not progress.is_complete:
                self._missing = self._missing or "a scan header can't be read"
            return end
        blocks = frame.blocks(members)
        self._blocks += blocks
        if self._missing or progress.is_complete:
            return end
        first, last, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        if not frame.progressive:
            first, last, high, low = 0, _COEFFICIENTS - 1, 0, 0
        elif not _is_valid_scan(first, last, high, low, len(members)):
            self._missing = "a scan header can't be read"
            return end
        if not progress.add(members, first, last, high, low):
            self._missing = "a scan can't follow the scans before it"
            return end
        # Each code has a bit at least. A block has a code for its first coefficient, and in a
        # sequential scan another one.
        min_bits = blocks * (0 if first else 1 if frame.progressive else 2)
        if (end - start) * 8 < min_bits:
            self._missing = (
                f"{end - start:,} bytes are there of a scan of {blocks:,} blocks, which has "
                f"{math.ceil(min_bits / 8):,} at least"
            )
            return end
        header = b"\xff\xda" + struct.pack(">H", len(body) + 2) + body[:-3]
        header += bytes((first, last, high << 4 | low))
        intervals, restarts = self._intervals(start, end, frame.mcus(members))
        self._parts.append(Scan(header, intervals, restarts, blocks))
        return end

    def _intervals(
        self, start: int, end: int, mcus: int
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Returns the restart intervals between two positions, and the markers between them.

        What comes after the last interval that the scan needs is left out.
        """
        if not self._interval:
            return (_without_fill(self._data[start:end]),), ()
        intervals, restarts = [], []
        expected = math.ceil(mcus / self._interval)
        markers = _RESTART.finditer(self._data, start, end)
        for marker in itertools.islice(markers, expected):
            intervals.append(_without_fill(self._data[start : marker.start()]))
            restarts.append(marker.group())
            start = marker.end()
        if len(intervals) < expected:
            intervals.append(_without_fill(self._data[start:end]))
        del restarts[len(intervals) - 1 :]
        for number, restart in enumerate(restarts):
            if restart[1] != 0xD0 + number % 8:
                self._missing = f"restart marker {number + 1:,} is out of order"
                break
        if len(intervals) < expected:
            self._missing = f"of {expected:,} restart intervals {len(intervals):,} are there"
        return tuple(intervals), tuple(restarts)


def _without_fill(interval: bytes) -> bytes:
    """Removes the fill bytes before the next marker; within data, FF is always followed by 00."""
    return interval.rstrip(b"\xff")


def _is_valid_scan(first: int, last: int, high: int, low: int, members: int) -> bool:
    """Returns whether the parameters of a progressive scan are valid (T.81, G.1.1.1.1)."""
    spectral = last == 0 if first == 0 else first <= last < _COEFFICIENTS and members == 1
    return spectral and low <= 13 and (high == 0 or low == high - 1)


def _adobe_segment(transform: int, components: int) -> bytes:
    """Returns an Adobe segment with a transform that is defined, as decoders interpret others."""
    colour_transform = 0 if transform == 0 else 2 if components == 4 else 1
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes((colour_transform,))


def read_stream(data: bytes) -> Stream:
    """Parses the segments of a JPEG that determine its pixels.

    Args:
      data: A file that begins with a start marker. What comes after the scan that completes the
        image is skipped.

    Raises:
      BrokenStreamError: The frame header or all image data is missing, or can't be parsed.
    """
    return _Parser(data).parse()
