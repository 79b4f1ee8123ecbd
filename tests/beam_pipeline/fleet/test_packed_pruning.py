"""`prune` on a packed output: the same images go as from an output of JSON files."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from beam_pipeline import cli
from beam_pipeline.fleet.pruning import Pruning
from rules import FOR_GOOD, KEPT, Retention
from tests.search import search
from tests.transforms.results import judged
from transforms.storage import stores
from transforms.storage.marks import write_mark
from transforms.storage.packed_output import (
    list_files,
    merge_by_day,
    period_name,
    read_file,
    read_output,
    write_file,
)
from transforms.storage.packed_rows import PackedRow

NOW = datetime(2026, 6, 30, tzinfo=timezone.utc)
FORMS = ("plain", "packed")


def put_image(top: Path, days: float, severity: Any, mark: bool) -> None:
    """The files of an image in both forms, written when it was taken."""
    taken = NOW - timedelta(days=days)
    time = f"{taken:%Y-%m-%dT%H:%M:%SZ}"
    found = judged("hall", time, [("person", severity)] if severity else [])
    record = {"id": "hall", "timestamp": time, "threats": [], "targets": []}
    alert_id = rules.alert_id("hall", time, "alert")
    row = PackedRow(found.image, {**found.to_json()["threat"]})
    for form in FORMS:
        output = str(top / form)
        files = {stores.validated_uri(output, "hall", found.image.stored_name): b"JPEG"}
        if form == "plain":
            uri = stores.detections_uri(output, "hall", found.image.stem)
            files[uri] = stores.json_bytes(found.image.to_json())
        if form == "plain" or severity == "alert":
            uri = stores.final_uri(output, "hall", found.image.stem)
            files[uri] = stores.json_bytes(found.to_json())
        if severity == "alert":
            files[stores.alert_uri(output, "hall", alert_id)] = stores.json_bytes(record)
        for uri, data in files.items():
            stores.write_bytes(uri, data)
        if form == "packed":
            period = period_name(taken, taken + timedelta(seconds=300))
            written = write_file(stores.packed_folder(output), period, [row])
            assert written is not None
            files[written] = b""
        for uri in files:
            os.utime(uri, (taken.timestamp(), taken.timestamp()))
        if mark:
            write_mark(output, id="hall", timestamp=time, label=None, by="Anna", mark="right",
                       alert_id=alert_id)  # fmt: skip


def pruned(output: Path, keep: dict[str, timedelta], *, deletes: bool = True) -> Pruning:
    pruning = Pruning(str(output), Retention(timedelta(days=30), keep), NOW, deletes=deletes)
    pruning.run()
    assert pruning.problems == []
    return pruning


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*.j*")}


images = st.tuples(
    st.integers(20, 80), st.sampled_from((None, "detection", "alert")), st.booleans()
)
limits = st.dictionaries(
    st.sampled_from(KEPT),
    st.one_of(st.integers(30, 90).map(lambda days: timedelta(days=days)), st.just(FOR_GOOD)),
    max_size=4,
)


@pytest.mark.search
@search(40)
@given(st.lists(images, max_size=6, unique_by=lambda image: image[0]), limits, st.booleans())
def test_the_same_images_go_as_from_the_plain_form(
    some: list[Any], keep: dict[str, timedelta], merged: bool
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        for form in FORMS:
            (top / form).mkdir()
        for image in some:
            put_image(top, *image)
        tallies = pruned(top / "packed", keep, deletes=False).tallies
        before = {row.image.stem for row in read_output(str(top / "packed"), [])}
        for form in FORMS:
            pruned(top / form, keep)
        plain, packed = top / "plain", top / "packed"
        left = {row.image.stem for row in read_output(str(packed), [])}
        assert left == names(plain / "detections") | names(plain / "final")
        assert names(packed / "validated") == names(plain / "validated")
        with_alert = {f"hall_{time}" for days, severity, _ in some if severity == "alert"
                      for time in [f"{NOW - timedelta(days=days):%Y-%m-%dT%H-%M-%SZ}"]}  # fmt: skip
        assert names(packed / "final") == names(plain / "final") & with_alert
        if before:
            assert tallies["packed"].gone == len(before - left)
            assert tallies["packed"].files == len(before)
        if merged:
            merge_by_day(str(packed))
            assert {row.image.stem for row in read_output(str(packed), [])} == left


def test_a_file_of_many_images_keeps_those_that_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long_ago = datetime.now(timezone.utc) - timedelta(days=40)
    rows = [
        PackedRow(found.image, {**found.to_json()["threat"]})
        for camera, severity in (("gate", "alert"), ("hall", None))
        for found in [
            judged(camera, f"{long_ago:%Y-%m-%dT%H:%M:%SZ}", [("car", "alert")] if severity else [])
        ]
    ]
    period = period_name(long_ago, long_ago + timedelta(hours=1))
    folder = stores.packed_folder(str(tmp_path))
    uri = write_file(folder, period, rows)
    found = write_file(stores.packed_detections_folder(str(tmp_path)), None, rows)
    assert uri is not None
    assert found is not None
    command = ["prune", "--output", str(tmp_path), "--older_than", "30d", "--keep", "threats"]
    assert cli.main([*command, "--delete"]) == 0
    assert list_files(str(tmp_path))[0].uri == uri  # Written within a day.
    for path in (uri, found):
        os.utime(path, (long_ago.timestamp(), long_ago.timestamp()))
    capsys.readouterr()
    assert cli.main(command) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["packed", "(rows)", "2", "1", "-", "1"] in lines
    assert list_files(str(tmp_path))[0].uri == uri
    assert os.path.exists(found)
    assert cli.main([*command, "--delete"]) == 0
    (file,) = list_files(str(tmp_path))
    assert list(read_file(file.uri)) == rows[:1]
    assert (file.start, file.end) == (
        long_ago.replace(microsecond=file.start.microsecond),
        long_ago.replace(microsecond=file.end.microsecond) + timedelta(hours=1),
    )
    assert not os.path.exists(found)


def test_images_of_a_torn_file_stay_where_a_threat_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    put_image(tmp_path, 40, None, False)
    output = tmp_path / "packed"
    (file,) = list_files(str(output))
    stat = os.stat(file.uri)
    Path(file.uri).write_bytes(b"half of a file")
    os.utime(file.uri, (stat.st_mtime, stat.st_mtime))
    command = ["prune", "--output", str(output), "--older_than", "30d", "--delete"]
    assert cli.main([*command, "--keep", "threats"]) == 1
    error = capsys.readouterr().err
    assert f"{file.uri}: " in error
    assert "its verdict is in a packed file that can't be read" in error
    assert names(output / "validated")
    assert cli.main(command) == 1
    assert not names(output / "validated")
    assert os.path.exists(file.uri)
