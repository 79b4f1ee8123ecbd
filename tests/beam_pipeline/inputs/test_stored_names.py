"""What an output and the files of its images say about local time in names."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from beam_pipeline.inputs.stored_names import stored_local_times
from transforms.records.images import DetectedImage, ModelInfo
from transforms.records.times import canonical_time

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
BERLIN = timedelta(hours=1)


def image(uri: str, time: datetime) -> DetectedImage:
    return DetectedImage(
        id="hall",
        timestamp=canonical_time(time),
        file=uri.rsplit("/", 1)[-1],
        uri=uri,
        sha256="",
        width=640,
        height=480,
        model=ModelInfo("detector", "1", ""),
        detections=(),
    )


def images_of(
    folder: Path,
    form: str,
    *,
    read_as: timedelta = timedelta(0),
    written: Callable[[datetime], datetime] = lambda taken: taken,
    number: int = 10,
) -> list[DetectedImage]:
    """Images every 20 minutes whose names are in the local time of Berlin.

    Args:
      folder: The input.
      form: The name of an image, with the codes of `strftime`.
      read_as: The offset that the job has used for these names.
      written: When the file of an image was last changed.
      number: How many there are.
    """
    images = []
    for index in range(number):
        taken = NOON + timedelta(minutes=20 * index)
        file = folder / (taken + BERLIN).strftime(form)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        seconds = written(taken).timestamp() + 2
        os.utime(file, (seconds, seconds))
        images.append(image(str(file), taken + BERLIN - read_as))
    return images


@pytest.mark.parametrize(
    "form",
    [
        "hall_%Y%m%d%H%M%S.jpg",
        "hall_%Y-%m-%dT%H-%M-%S.jpg",
        "hall_00_%Y%m%d%H%M%S.jpg",
        "hall/%Y-%m-%d/001/jpg/%H/%M/%S[M][0@0][0].jpg",
        "hall/%Y/%m/%d/%H%M%S.jpg",
    ],
)
def test_names_in_local_time_are_found_out(tmp_path: Path, form: str) -> None:
    found = stored_local_times({"hall": images_of(tmp_path, form)})
    assert found == {"hall": (BERLIN, "Europe/Berlin")}


@pytest.mark.parametrize(
    "form",
    [
        "hall_%Y%m%dT%H%M%SZ.jpg",  # Its clock is wrong, and no option helps.
        "hall - %Y-%m-%d - %H.%M.%S+0000.jpg",
        "img_%d.%m.%Y_%H-%M-%S_hall.jpg",  # No preset reads it, so its time zone is not known.
    ],
)
def test_nothing_is_said_of_other_names(tmp_path: Path, form: str) -> None:
    assert stored_local_times({"hall": images_of(tmp_path, form)}) == {}


def test_nothing_is_said_where_the_time_zone_was_given(tmp_path: Path) -> None:
    form = "hall_%Y%m%d%H%M%S.jpg"
    assert stored_local_times({"hall": images_of(tmp_path, form, read_as=BERLIN)}) == {}


def test_nothing_is_said_where_a_wrong_time_zone_was_given(tmp_path: Path) -> None:
    """The option that was given is not known here, so any proposal would be a guess."""
    form = "hall_%Y%m%d%H%M%S.jpg"
    images = images_of(tmp_path, form, read_as=timedelta(hours=2))
    assert stored_local_times({"hall": images}) == {}


def test_nothing_is_said_of_copies_and_of_files_that_are_gone(tmp_path: Path) -> None:
    form = "hall_%Y%m%d%H%M%S.jpg"
    copies = images_of(tmp_path, form, written=lambda taken: NOON + timedelta(days=1))
    assert stored_local_times({"hall": copies}) == {}
    images = images_of(tmp_path, form)
    for one in images:
        os.unlink(one.uri)
    assert stored_local_times({"hall": images}) == {}
    assert stored_local_times({"hall": [image("s3://bucket/hall_20260131130000.jpg", NOON)]}) == {}


def test_only_the_newest_hundred_files_are_looked_up(tmp_path: Path) -> None:
    early = timedelta(hours=5)
    images = images_of(
        tmp_path,
        "hall_%Y%m%d%H%M%S.jpg",
        written=lambda taken: taken if taken >= NOON + timedelta(minutes=200) else taken - early,
        number=110,
    )
    assert stored_local_times({"hall": images}) == {"hall": (BERLIN, "Europe/Berlin")}
    images = images_of(
        tmp_path,
        "hall_%Y%m%d%H%M%S.jpg",
        written=lambda taken: taken if taken >= NOON + timedelta(minutes=400) else taken - early,
        number=110,
    )
    assert stored_local_times({"hall": images}) == {}
