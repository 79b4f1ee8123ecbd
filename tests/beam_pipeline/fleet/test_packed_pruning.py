"""`prune` on a packed output: the same images go as from an output of JSON files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
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
RETRACTED = "retracted"


def put_image(
    top: Path,
    days: float,
    severity: Any,
    mark: bool,
    history: Sequence[Any] = (),
    fresh: frozenset[int] = frozenset(),
) -> None:
    """The files of an image in both forms, written when it was taken.

    The packed form also has the rows of earlier runs, each in a file of its own. The files with a
    number of `fresh` were written within a day.
    """
    taken = NOW - timedelta(days=days)
    time = f"{taken:%Y-%m-%dT%H:%M:%SZ}"
    threats = [] if severity in (None, RETRACTED) else [("person", severity)]
    found = judged("hall", time, threats)
    record = {"id": "hall", "timestamp": time, "threats": [], "targets": []}
    alert_id = rules.alert_id("hall", time, "alert")
    for form in FORMS:
        output = str(top / form)
        files = {}
        if severity != RETRACTED:
            files[stores.validated_uri(output, "hall", found.image.stored_name)] = b"JPEG"
        if severity != RETRACTED and form == "plain":
            uri = stores.detections_uri(output, "hall", found.image.stem)
            files[uri] = stores.json_bytes(found.image.to_json())
        if severity == "alert" or (severity != RETRACTED and form == "plain"):
            uri = stores.final_uri(output, "hall", found.image.stem)
            files[uri] = stores.json_bytes(found.to_json())
        if severity == "alert":
            files[stores.alert_uri(output, "hall", alert_id)] = stores.json_bytes(record)
        for uri, data in files.items():
            stores.write_bytes(uri, data)
            os.utime(uri, (taken.timestamp(), taken.timestamp()))
        for generation, said in enumerate([*history, severity] if form == "packed" else ()):
            period = period_name(taken, taken + timedelta(seconds=300))
            row = row_of(time, said, generation)
            written = write_file(stores.packed_folder(output), period, [row])
            assert written is not None
            at = (NOW - timedelta(hours=1) if generation in fresh else taken).timestamp()
            os.utime(written, (at, at))
        if mark:
            write_mark(output, id="hall", timestamp=time, label=None, by="Anna", mark="right",
                       alert_id=alert_id)  # fmt: skip


def row_of(time: str, said: Any, generation: int) -> PackedRow:
    found = judged("hall", time, [("person", said)] if said and said != RETRACTED else [])
    if said == RETRACTED:
        return PackedRow(found.image, None, generation, is_retracted=True)
    return PackedRow(found.image, {**found.to_json()["threat"]}, generation)


def pruned(output: Path, keep: dict[str, timedelta], *, deletes: bool = True) -> Pruning:
    pruning = Pruning(str(output), Retention(timedelta(days=30), keep), NOW, deletes=deletes)
    pruning.run()
    assert pruning.problems == []
    return pruning


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*.j*")}


def standing(output: Path) -> dict[str, PackedRow]:
    return {row.image.stem: row for row in read_output(str(output), [])}


def count_rows(output: Path) -> int:
    return sum(1 for file in list_files(str(output)) for _ in read_file(file.uri))


class StoppedError(Exception):
    """The process was killed."""


def prune_until_killed(output: Path, keep: dict[str, timedelta], deletes: int) -> None:
    """Prunes, and is killed after it has deleted some packed files."""
    left, delete = [deletes], stores.delete

    def stopping(uri: str) -> None:
        left[0] -= uri.endswith(".parquet")
        if left[0] < 0:
            raise StoppedError
        delete(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "delete", stopping)
        with suppress(StoppedError):
            pruned(output, keep)
    for path in (output / "packed").glob("*.parquet"):
        if path.stat().st_mtime > NOW.timestamp():  # As if it had been written then.
            os.utime(path, ((NOW - timedelta(days=15)).timestamp(),) * 2)


says = st.sampled_from((None, "detection", "alert"))
images = st.tuples(
    st.integers(20, 80),
    st.one_of(says, st.just(RETRACTED)),
    st.booleans(),
    st.lists(says, max_size=2),
    st.frozensets(st.integers(0, 12), max_size=2),
)
limits = st.dictionaries(
    st.sampled_from(KEPT),
    st.one_of(st.integers(30, 90).map(lambda days: timedelta(days=days)), st.just(FOR_GOOD)),
    max_size=4,
)


@pytest.mark.search
@search(40)
@given(
    st.lists(images, max_size=6, unique_by=lambda image: image[0]),
    limits,
    st.booleans(),
    st.sampled_from((None, 0, 1, 2, 3)),
)
def test_the_same_images_go_as_from_the_plain_form(
    some: list[Any], keep: dict[str, timedelta], merged: bool, killed: int | None
) -> None:
    check_prune(some, keep, merged, killed)


def test_what_stays_is_on_the_disk_before_its_old_file_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = NOW - timedelta(days=40)
    rows = [row_of(f"{taken + timedelta(seconds=at):%Y-%m-%dT%H:%M:%SZ}", said, 0)
            for at, said in enumerate((None, "alert"))]  # fmt: skip
    period = period_name(taken, taken + timedelta(seconds=300))
    uri = write_file(stores.packed_folder(str(tmp_path)), period, rows)
    assert uri is not None
    os.utime(uri, (taken.timestamp(),) * 2)
    done: list[str] = []
    delete, make_durable = stores.delete, stores.make_durable

    def noting_durable(uri: str) -> None:
        make_durable(uri)
        done.append(uri)

    def noting_delete(uri: str) -> None:
        delete(uri)
        done.append(uri)

    monkeypatch.setattr(stores, "make_durable", noting_durable)
    monkeypatch.setattr(stores, "delete", noting_delete)
    pruned(tmp_path, KEEP_THREATS)
    (file,) = list_files(str(tmp_path))
    assert done == [file.uri, uri]


KEEP_THREATS = {"threats": timedelta(days=365)}


@pytest.mark.parametrize("severity", [None, RETRACTED])
@pytest.mark.parametrize("fresh", [frozenset[int](), frozenset([0]), frozenset([1])])
@pytest.mark.parametrize("killed", [None, 0, 1])
def test_no_verdict_comes_back_that_another_one_has_replaced(
    severity: Any, fresh: frozenset[int], killed: int | None
) -> None:
    check_prune([(40, severity, False, ["alert"], fresh)], KEEP_THREATS, False, killed)


def check_prune(
    some: list[Any], keep: dict[str, timedelta], merged: bool, killed: int | None
) -> None:
    """Prunes an output in both forms, and compares what is left."""
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        plain, packed = top / "plain", top / "packed"
        for form in FORMS:
            (top / form).mkdir()
        for image in some:
            put_image(top, *image)
        tallies = pruned(packed, keep, deletes=False).tallies
        before, rows_before = standing(packed), count_rows(packed)
        if killed is not None:
            prune_until_killed(packed, keep, killed)
            assert standing(packed).items() <= before.items()
        for form in FORMS:
            pruned(top / form, keep)
        left = standing(packed)
        assert left.items() <= before.items()
        stems = {image[0]: f"hall_{NOW - timedelta(days=image[0]):%Y-%m-%dT%H-%M-%SZ}"
                 for image in some}  # fmt: skip
        fresh = {stems[days] for days, _, _, history, numbers in some
                 if any(number <= len(history) for number in numbers)}  # fmt: skip
        shown = {stem for stem, row in left.items() if not row.is_retracted}
        retracted = {stem for stem, row in before.items() if row.is_retracted}
        in_plain = names(plain / "detections") | names(plain / "final")
        assert shown - fresh == in_plain - fresh
        assert fresh <= left.keys()
        assert names(packed / "validated") == names(plain / "validated")
        with_alert = {stems[image[0]] for image in some if image[1] == "alert"}
        assert names(packed / "final") == names(plain / "final") & with_alert
        assert not shown & retracted
        if before:
            assert tallies["packed"].gone == rows_before - count_rows(packed)
            assert tallies["packed"].files == rows_before
        if merged:
            merge_by_day(str(packed))
            assert standing(packed) == left


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
