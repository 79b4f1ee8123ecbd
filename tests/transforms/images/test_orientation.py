import importlib.util
import io
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.search import search
from tests.transforms.pictures import jpeg, with_orientation
from transforms.images import orientation
from transforms.images.orientation import exif_orientation, is_well_formed

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HEADER = b"Exif\0\0"


def entry(tag=0x0112, kind=3, count=1, value=6, order="<"):
    return struct.pack(order + "HHI", tag, kind, count) + struct.pack(
        order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,))
    )


def segment(*entries, order="<", first=8, magic=42, stated=None, tail=b""):
    """An EXIF segment of one directory."""
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", magic, first)
    tiff += struct.pack(order + "H", len(entries) if stated is None else stated)
    return HEADER + tiff + b"".join(entries) + bytes(4) + tail


@pytest.fixture
def no_parser(monkeypatch):
    """Fails the test if a parser is shown anything."""

    def shown(exif):
        raise AssertionError(f"the parser was shown {exif!r}")

    monkeypatch.setattr(orientation, "_parse", shown)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stated", range(1, 9))
@pytest.mark.parametrize("kind", [3, 4], ids=["16 bits", "32 bits"])
def test_each_orientation_is_read_in_both_byte_orders(order, stated, kind):
    data = with_orientation(jpeg(), stated, kind=kind, order=order)
    exif = Image.open(io.BytesIO(data)).info["exif"]
    assert is_well_formed(exif)
    assert exif_orientation(exif) == stated


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(None, id="no segment"),
        pytest.param(b"", id="empty segment"),
        pytest.param(HEADER, id="header alone"),
        pytest.param(segment(), id="no entry"),
        pytest.param(segment(entry(tag=0x0100)), id="another tag"),
        pytest.param(segment(entry(value=0)), id="0"),
        pytest.param(segment(entry(value=9)), id="9"),
        pytest.param(segment(entry(value=65535)), id="65535"),
        pytest.param(segment(entry(kind=2, count=2, value=0x36)), id="as text"),
        pytest.param(segment(entry(), magic=43), id="another format"),
        pytest.param(segment(entry(), first=1 << 31), id="directory far away"),
    ],
)
def test_an_image_without_orientation_is_upright(exif):
    assert exif_orientation(exif) == 1


CRAFTED = {
    "another header": b"Exif\0\1" + segment(entry())[6:],
    "no byte order": HEADER + b"XX" + segment(entry())[8:],
    "cut": segment(entry())[:-6],
    "directory before the header": segment(entry(), first=4),
    "directory far away": segment(entry(), first=0xFFFFFFF0),
    "directory at the end": segment(entry(), first=24),
    "more entries than there are": segment(entry(), stated=400),
    "value far away": segment(entry(kind=2, count=400, value=0xFFFFFF00)),
    "value beyond the end": segment(entry(kind=2, count=30, value=12)),
    "value before the header": segment(entry(kind=2, count=8, value=2)),
    "count that overflows": segment(entry(kind=5, count=0x20000001, value=8)),
    "unknown kind": segment(entry(kind=13)),
    "kind 0": segment(entry(kind=0)),
    "no value": segment(entry(count=0)),
    "sub-directory far away": segment(entry(tag=0x8769, kind=4, value=0xFFFFFF00)),
    "sub-directory of another kind": segment(entry(tag=0x8769, kind=3, value=8)),
    "two orientations": segment(entry(value=6), entry(value=3)),
    "several sub-directories": segment(entry(tag=0x8825, kind=4, count=2, value=8)),
    "directory in itself": segment(entry(tag=0x8769, kind=4, value=8)),
    "too long for a segment": segment(entry(), tail=bytes(70000)),
}


@pytest.mark.parametrize("exif", CRAFTED.values(), ids=CRAFTED)
def test_no_parser_is_shown_a_crafted_segment(no_parser, exif):
    assert not is_well_formed(exif)
    assert 1 <= exif_orientation(exif) <= 8


def test_a_broken_segment_may_still_state_an_orientation(no_parser):
    assert exif_orientation(segment(entry(value=6), entry(tag=0x010F, kind=13))) == 6


def test_sub_directories_within_the_segment_are_well_formed():
    inner = struct.pack("<H", 1) + entry(tag=0x9000, kind=7, count=4) + bytes(4)
    exif = segment(entry(tag=0x8769, kind=4, value=8 + 2 + 24 + 4), entry(value=8), tail=inner)
    assert is_well_formed(exif)
    assert exif_orientation(exif) == 8


def test_random_segments_never_reach_a_parser_unless_every_offset_is_inside(monkeypatch):
    """The check is made anew here, over all offsets that the parser follows."""
    shown = []
    parse = orientation._parse
    monkeypatch.setattr(orientation, "_parse", lambda exif: shown.append(exif) or parse(exif))
    random_source = random.Random(7)
    base = bytearray(
        segment(
            entry(tag=0x010F, kind=2, count=12, value=50),
            entry(value=3),
            entry(tag=0x8769, kind=4, value=62),
            tail=b"a camera 12\0"
            + struct.pack("<H", 1)
            + entry(tag=0x9000, kind=7, count=4)
            + bytes(4),
        )
    )
    assert is_well_formed(bytes(base))
    for _ in range(3000):
        exif = base.copy()
        for _ in range(random_source.randrange(1, 4)):
            exif[random_source.randrange(6, len(exif))] = random_source.choice(
                (0, 1, 2, 7, 8, 12, 0x7F, 0x80, 0xFF, random_source.randrange(256))
            )
        assert 1 <= exif_orientation(bytes(exif)) <= 8
    assert 100 < len(shown) < 3000
    for exif in shown:
        tiff = exif[6:]
        order = "<" if tiff[:2] == b"II" else ">"
        directories = list(struct.unpack_from(order + "I", tiff, 4))
        for start in directories:
            (entries,) = struct.unpack_from(order + "H", tiff, start)
            for at in range(start + 2, start + 2 + 12 * entries, 12):
                tag, kind, count, value = struct.unpack_from(order + "HHII", tiff, at)
                size = orientation._BYTES_PER_VALUE[kind] * count
                assert size <= 4 or value + size <= len(tiff)
                if tag in (0x8769, 0x8825):
                    directories.append(value)


SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
values = st.binary(min_size=24, max_size=24) | st.sampled_from(
    [struct.pack(order + unit, *(number,) * (24 // size)).ljust(24, b"\0")
     for order in "<>" for number in (0, 1, 6, 8, 9, 300)
     for unit, size in (("12H", 2), ("6I", 4))]
)  # fmt: skip
entries = st.lists(
    st.tuples(
        st.sampled_from([0x0100, 0x010F, 0x011A, 0x0128]),
        st.sampled_from(sorted(SIZES)),
        st.integers(1, 3),
        values,
    ),
    max_size=3,
)
orientations = st.tuples(
    st.just(0x0112), st.sampled_from([3, 3, 3, *SIZES]), st.integers(1, 3), values
)


@st.composite
def whole_segments(draw):
    """Segments whose offsets are right, with an orientation of any kind in any directory."""
    order = draw(st.sampled_from("<>"))
    tiff = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8))

    def directory(inner):
        listed = draw(entries)
        if draw(st.booleans()):
            listed.insert(draw(st.integers(0, len(listed))), draw(orientations))
        start = len(tiff)
        tiff.extend(struct.pack(order + "H", len(listed) + len(inner)))
        after = start + 2 + 12 * (len(listed) + len(inner))
        tiff.extend(bytes(after - len(tiff)))
        tiff.extend(struct.pack(order + "I", draw(st.sampled_from([0, 0, 8, 70_000]))))
        for at, (tag, kind, count, value) in zip(range(start + 2, after, 12), listed, strict=False):
            content = value[: SIZES[kind] * count]
            if len(content) > 4:
                value = struct.pack(order + "I", len(tiff))
                tiff.extend(content)
            else:
                value = content.ljust(4, b"\0")
            tiff[at : at + 12] = struct.pack(order + "HHI", tag, kind, count) + value
        for at, tag in zip(range(after - 12 * len(inner), after, 12), inner, strict=True):
            tiff[at : at + 12] = struct.pack(order + "HHII", tag, 4, 1, len(tiff))
            directory(())

    directory(draw(st.sampled_from([(), (0x8769,), (0x8825,), (0x8769, 0x8825)])))
    return HEADER + bytes(tiff)


@pytest.mark.search
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is None, reason="tensorflow-io is not installed"
)
@search(1000)
@given(whole_segments())
def test_pillow_finds_the_orientation_that_tensorflow_io_finds(exif):
    assert is_well_formed(exif)
    assert orientation.read_by_pillow(exif) == orientation.read_by_tensorflow_io(exif)
