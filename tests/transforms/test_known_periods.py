"""The entries of a period hold what was put there, and a first image costs few bytes."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from tests.transforms.results import judged
from transforms.count_threats import CountedImage
from transforms.known_periods import FirstImage, KnownPeriod, end_of_period, period_of
from transforms.records.images import JudgedImage
from transforms.records.precedence import CaptureTime, Version, settle
from transforms.storage import stores

CAMERA = "hall"
LABELS = st.sampled_from(["person", "car", "dog"])
TIMES = [
    f"2026-01-31T10:0{minute}:00.{micro:06d}Z" for minute in (0, 5, 9) for micro in (1, 999999)
]


class Bag:
    """A bag of a runner's state."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def read(self) -> list[bytes]:
        return self.entries

    def add(self, entry: bytes) -> None:
        self.entries = [*self.entries, entry]

    def clear(self) -> None:
        self.entries = []


def image(
    timestamp: str,
    threats: list[tuple[str, str]],
    changed: float | None = None,
    sha256: str = "ab" * 32,
    file: str = "hall_20260131T100000Z.jpg",
) -> JudgedImage:
    one: Any = judged(CAMERA, timestamp, threats, file=file)  # type: ignore[arg-type]
    return replace(one, image=replace(one.image, changed=changed, sha256=sha256, is_contested=True))


IMAGES = st.builds(
    image,
    st.sampled_from(TIMES),
    st.lists(st.tuples(LABELS, st.sampled_from(["alert", "detection"])), max_size=4),
    st.none() | st.floats(0, 2e9),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=9).map("{}.jpg".format),
)


def first_of(one: JudgedImage) -> CaptureTime:
    return replace(settle([Version(judged=one)]), counted=True)


@pytest.mark.search
@search(300)
@given(puts=st.lists(st.tuples(IMAGES, st.booleans()), max_size=60))
def test_a_period_holds_what_was_put_there_last_and_its_bag_stays_small(puts):
    """A runner may give the bag to another worker after each image."""
    bag, twin = Bag(), {}
    for one, is_kept in puts:
        known = replace(first_of(one), is_kept=is_kept)
        KnownPeriod(bag).put(one.image.timestamp, known)
        twin[one.image.timestamp] = known if is_kept else FirstImage.of(one)
        period = KnownPeriod(bag)
        assert {time: period.get(time) for time in twin} == twin
        assert all(period.get(time) is None for time in set(TIMES) - twin.keys())
        assert {known.winner.image.timestamp for known in period.complete()} == {
            time for time, known in twin.items() if isinstance(known, CaptureTime)
        }
        assert len(bag.entries) <= 2 * len(twin) + 17


@pytest.mark.search
@search(300)
@given(one=IMAGES)
def test_a_first_image_says_what_it_has_added_to_the_counts(one):
    counted = FirstImage.of(one).counted(CAMERA, one.image.timestamp)
    assert counted == CountedImage.of(one)


@pytest.mark.search
@search(300)
@given(one=IMAGES)
def test_a_first_image_is_read_back_as_it_was(one, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("output"))
    time = one.image.timestamp
    stores.write_bytes(
        stores.final_uri(output, CAMERA, one.image.stem), stores.json_bytes(one.to_json())
    )
    read = FirstImage.of(one).found_in(output, CAMERA, time)
    assert read == one
    assert FirstImage.of(read) == FirstImage.of(one)
    other = FirstImage.of(replace(one, image=replace(one.image, sha256="f" * 15 + "0" * 49)))
    assert other.found_in(output, CAMERA, time) is None


@pytest.mark.parametrize(
    "changes", [{"is_kept": True}, {"counted": False}, {"replaced": ("ab" * 32,)}, {"waiting": 1}]
)
def test_what_the_output_does_not_show_is_kept(changes):
    one = image(TIMES[0], [])
    if "waiting" in changes:
        changes = {"waiting": (Version(judged=one),)}
    known = replace(first_of(one), **changes)
    bag = Bag()
    KnownPeriod(bag).put(TIMES[0], known)
    assert KnownPeriod(bag).get(TIMES[0]) == known


def test_a_runner_that_can_t_read_verdicts_back_keeps_them():
    known, bag = first_of(image(TIMES[0], [("person", "alert")])), Bag()
    KnownPeriod(bag, keeps_verdicts=True).put(TIMES[0], known)
    assert KnownPeriod(bag).get(TIMES[0]) == known


@pytest.mark.parametrize(
    ("name", "most"), [("hall_20260131T100000Z.jpg", 27), ("hall_1769853600123.jpg", 41)]
)
def test_a_first_image_costs_few_bytes(name, most):
    """A checkpoint holds this for each image of the last hour."""
    one = image("2026-01-31T10:00:00Z", [], 1_769_853_600.123456, file=name)
    if "123" in name:
        one = image("2026-01-31T10:00:00.123Z", [], 1_769_853_600.123456, file=name)
    bag = Bag()
    KnownPeriod(bag).put(one.image.timestamp, first_of(one))
    (entry,) = bag.entries
    assert len(entry) <= most
    threats = [("person", "alert"), ("person", "alert"), ("car", "detection")]
    KnownPeriod(bag).put(TIMES[0], first_of(image(TIMES[0], threats, 1.5, file=name)))
    assert len(bag.entries[-1]) <= most + 60


@pytest.mark.parametrize(
    ("timestamp", "number", "end"),
    [
        ("2026-01-31T10:14:59.999999Z", 1966504, "2026-01-31T10:15:00Z"),
        ("2026-01-31T10:15:00Z", 1966505, "2026-01-31T10:30:00Z"),
        ("1969-12-31T23:59:59Z", -1, "1970-01-01T00:00:00Z"),
    ],
)
def test_a_period_has_15_minutes(timestamp, number, end):
    key = period_of(Version(judged=image(timestamp, [])))
    assert key == f"hall\n{number}"
    assert end_of_period(key).to_rfc3339() == end
