"""A camera that sends one picture again and again is frozen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import cli
from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.frozen import frozen_run
from beam_pipeline.fleet.statistics.observations import LookedAtImage, Observations
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms.archives import seen
from transforms.records.times import canonical_time

END = datetime(2026, 3, 2, tzinfo=timezone.utc)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def week(every: timedelta = HOUR, days: int = 8, seed: int = 0) -> list[LookedAtImage]:
    """A camera in a scene with day and night, oldest image first; by night little changes."""
    drawn = np.random.default_rng(seed)
    images = []
    for back in range(int(days * DAY / every), 0, -1):
        time = END - back * every
        is_day = 6 <= time.hour < 20
        images.append(
            LookedAtImage(
                time,
                True,
                round(0.5 + 0.1 * drawn.random(), 4) if is_day else 0.1,
                round((0.03 if is_day else 0.02) + 0.0001 * drawn.random(), 4),
                f"{drawn.integers(1 << 60):064x}",
                ("person",) if drawn.random() < 0.3 else (),
            )
        )
    return images


def frozen(
    images: Sequence[LookedAtImage], number: int, *, is_same_bytes: bool = True
) -> list[LookedAtImage]:
    """The images, of which the last ones are one picture; with a clock in it if bytes differ."""
    first = images[-number]
    return [
        *images[:-number],
        *(
            dataclasses.replace(first, capture_time=image.capture_time)
            if is_same_bytes
            else dataclasses.replace(
                image,
                brightness=round((first.brightness or 0) + 0.0004 * (at % 3 - 1), 4),
                sharpness=round((first.sharpness or 0) + 0.0002 * (at % 2), 4),
                labels=first.labels,
            )
            for at, image in enumerate(images[-number:])
        ),
    ]


def kinds(images: Sequence[LookedAtImage], until: datetime = END) -> list[tuple[str, str]]:
    observed = Observations([], {"gate": images})
    return [
        (finding.kind, finding.severity)
        for finding in findings(observed, since=until - DAY, until=until)
    ]


@pytest.mark.parametrize("number", [5, 12, 24, 100])
def test_the_same_bytes_are_found(number: int) -> None:
    (finding,) = findings(
        Observations([], {"gate": frozen(week(), number)}), since=END - DAY, until=END
    )
    assert (finding.id, finding.kind, finding.severity) == ("gate", "frozen", "fault")
    start = END - number * HOUR
    assert finding.since == start
    assert finding.sentence == (
        f"has sent the same bytes in its last {number} images, since {start:%Y-%m-%d %H:%M} UTC; "
        "at most 1 in a row are usual for it"
    )


@pytest.mark.parametrize("number", [1, 4])
def test_a_few_images_with_the_same_bytes_are_not(number: int) -> None:
    assert kinds(frozen(week(), number)) == []


@pytest.mark.parametrize(("hours", "is_found"), [(40, True), (20, False)])
def test_a_picture_with_a_clock_in_it_is_found_if_it_lasts_longer_than_a_night(
    hours: int, is_found: bool
) -> None:
    """By night, ten hours look all but the same: three times as long is unusual."""
    images = frozen(week(), hours, is_same_bytes=False)
    assert kinds(images) == ([("frozen", "fault")] if is_found else [])


@pytest.mark.parametrize(
    ("change", "is_found"),
    [
        ({"brightness": 0.701}, True),
        ({"brightness": 0.7011}, False),
        ({"sharpness": 0.0405}, True),
        ({"sharpness": 0.0406}, False),
        ({"labels": ("person",)}, False),
        ({"brightness": None}, False),
        ({"sharpness": None}, False),
        ({"sha256": None}, False),
    ],
)
def test_how_much_similar_pictures_may_differ(change: dict[str, Any], is_found: bool) -> None:
    """Every other one of the last 40 is a little different."""
    images = week()
    for at in range(len(images) - 40, len(images)):
        look = {"brightness": 0.7, "sharpness": 0.04, "labels": ()}
        images[at] = dataclasses.replace(images[at], **{**look, **(change if at % 2 else {})})
    assert kinds(images) == ([("frozen", "fault")] if is_found else [])


@pytest.mark.parametrize(("number", "is_found"), [(10, True), (9, False)])
def test_ten_similar_pictures_are_the_least(number: int, is_found: bool) -> None:
    images = [
        dataclasses.replace(image, brightness=0.2 + 0.01 * (at % 7))
        for at, image in enumerate(week())
    ]
    assert kinds(frozen(images, number, is_same_bytes=False)) == (
        [("frozen", "fault")] if is_found else []
    )


@pytest.mark.parametrize(("before", "is_found"), [(24, True), (23, False)])
def test_similar_pictures_are_judged_after_a_day(before: int, is_found: bool) -> None:
    images = [
        dataclasses.replace(image, brightness=0.2 + 0.01 * (at % 7))
        for at, image in enumerate(week())
    ]
    images = frozen(images, 20, is_same_bytes=False)[-20 - before :]
    assert kinds(images) == ([("frozen", "fault")] if is_found else [])


@pytest.mark.parametrize(("before", "is_found"), [(10, True), (9, False)])
def test_the_same_bytes_are_judged_after_ten_others(before: int, is_found: bool) -> None:
    images = frozen(week(), 20)[-20 - before :]
    assert kinds(images) == ([("frozen", "fault")] if is_found else [])


def test_a_scene_in_which_nothing_moves_is_not_frozen() -> None:
    still = [
        dataclasses.replace(image, brightness=0.3, sharpness=0.02, labels=()) for image in week()
    ]
    assert kinds(still) == []


def test_a_camera_that_often_sends_one_file_for_a_while_is_held_against_that() -> None:
    images = week()
    for at in range(50, 58):
        images[at] = dataclasses.replace(images[at], sha256="1" * 64)
    assert kinds(frozen(images, 24)) == []
    assert kinds(frozen(images, 26)) == [("frozen", "fault")]


def test_it_has_to_be_frozen_in_the_period() -> None:
    images = frozen(week(), 40)
    assert kinds(images[:-30], END - 2 * DAY) == []
    assert kinds(images[:-20], END - 20 * HOUR) == [("frozen", "fault")]
    moved = dataclasses.replace(images[-1], sha256="2" * 64, brightness=0.9)
    assert kinds([*images[:-1], moved]) == []


@pytest.mark.parametrize("is_same_bytes", [True, False])
def test_without_a_past_nothing_is_usual(is_same_bytes: bool) -> None:
    images = frozen(week(), 60, is_same_bytes=is_same_bytes)
    assert kinds(images[-60:]) == []
    assert kinds(images[-69:]) == []


def test_images_without_a_hash_or_a_look_are_not_compared() -> None:
    unknown = [LookedAtImage(image.capture_time, True) for image in week()]
    assert kinds(unknown) == []
    assert kinds([*week()[:-30], *unknown[-30:]]) == []


@given(
    seed=st.integers(0, 1000),
    number=st.integers(5, 100),
    every=st.sampled_from([HOUR, HOUR / 4, 3 * HOUR]),
)
def test_the_same_bytes_are_always_found_after_a_normal_past(
    seed: int, number: int, every: timedelta
) -> None:
    images = week(every, days=16, seed=seed)
    run = frozen_run(frozen(images, number))
    assert run is not None
    assert (run.images, run.is_same_bytes, run.start) == (
        number,
        True,
        images[-number].capture_time,
    )


@given(seed=st.integers(0, 10_000))
def test_a_camera_that_is_as_usual_never_looks_frozen(seed: int) -> None:
    assert frozen_run(week(HOUR / 4, days=4, seed=seed)) is None


def test_the_command_finds_a_frozen_camera_and_no_flood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A week of normal images, then the same bytes hourly for a day, with a person in them."""
    images = [
        seen(
            id,
            canonical_time(END - back * HOUR),
            *([("person", 0.9)] if (id == "gate" and back <= 24) or back % 10 == 0 else []),
            sha256=f"{0 if id == 'gate' and back <= 24 else back:064x}",
        )
        for id in ("gate", "hall", "yard")
        for back in range(24 * 8, 0, -1)
    ]
    write_fleet(tmp_path, images)
    assert cli.main(["health", "--output", str(tmp_path), "--format", "json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["id"], finding["kind"], finding["since"]) == (
        "gate",
        "frozen",
        "2026-03-01T00:00:00Z",
    )
