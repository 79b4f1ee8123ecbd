"""The packed repositories hold what the plain ones hold, whatever is tried again, and when."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from tests.transforms.results import judged
from transforms.forget_earlier_verdicts import _EARLIER, _WINNERS, _Forget, earlier_verdicts
from transforms.records.images import ImageFile, InvalidImage, JudgedImage, NamedFile
from transforms.records.precedence import Version, key_of
from transforms.repositories import _StoreInvalid
from transforms.resolve_versions import PLANS, _ResolveInBatch, _RetractEarlier
from transforms.storage import stores
from transforms.storage.archive import open_archive
from transforms.storage.packed_output import EarlierRows, is_packed, list_files, merge_by_day
from transforms.store_packed import _invalid_versions, _Window, _WriteVerdicts
from transforms.store_plans import StorePlan
from transforms.validate_image import EarlierRun

TIMES = {
    "2026-01-31T23:54:00Z": ("20260131T235400Z.jpg", "1769903640.jpg"),
    "2026-01-31T23:56:00Z": ("20260131T235600Z.jpg", "20260131T235600Z.jpeg"),
    "2026-02-01T00:01:00Z": ("20260201T000100Z.jpg",),
}
FILES = {
    f"{camera}_{name}": (camera, time)
    for camera in ("gate", "hall")
    for time, names in TIMES.items()
    for name in names
}
PERSON, OTHER, DOG, NOTHING, HALF, GONE = b"person", b"other", b"dog", b"nothing", b"half", b""
SHOWS: dict[bytes, Any] = {
    PERSON: [("person", "alert")],
    OTHER: [("person", "alert")],
    DOG: [("dog", "detection")],
    NOTHING: [],
    HALF: "corrupt_jpeg",
    GONE: "read_failed",
}


def has_record(image: JudgedImage) -> bool:
    return image.verdict.severity == "alert"


def version_of(folder: Path, name: str, data: bytes) -> Version:
    camera, time = FILES[name]
    file = ImageFile(str(folder / name), len(data))
    shows, sha256 = SHOWS[data], hashlib.sha256(data).hexdigest()
    if isinstance(shows, str):
        known = None if data == GONE else sha256
        copied = None if data == GONE else data
        invalid = InvalidImage(file, shows, "detail", len(data), sha256=known, data=copied)
        return Version(invalid=replace(invalid, camera=camera, timestamp=time))
    found = judged(camera, time, shows, file=name)
    return Version(judged=replace(found, image=replace(found.image, uri=file.uri, sha256=sha256)))


class Run:
    """A batch over some files, step by step, in one form."""

    def __init__(self, top: Path, form: str, files: Mapping[str, bytes], shards: int = 1) -> None:
        self._input, self._output = top / "in", str(top / form)
        self._packed = form == "packed"
        self._files = files
        self._input.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (self._input / name).unlink(missing_ok=True)
        for name, data in files.items():
            if data != GONE:
                (self._input / name).write_bytes(data)
        self._earlier = list(earlier_verdicts(self._output))
        self._has_packed = is_packed(self._output)
        self._window = _Window(300, shards)
        self.writers = [self.writer(), self.writer()]

    def writer(self) -> _WriteVerdicts:
        """A step of one process, that has read what earlier runs have left."""
        writer = _WriteVerdicts(self._output, has_record, has_earlier=self._has_packed)
        if writer._earlier is not None:
            writer._earlier.get("hall", "2026-01-31T10:00:00Z")
        return writer

    def store(self, order: Sequence[str]) -> None:
        """What happens before verdicts are packed."""
        versions = [version_of(self._input, name, self._files[name]) for name in order]
        by_key: dict[str, list[Version]] = {}
        for version in versions:
            by_key.setdefault(key_of(version), []).append(version)
        self._winners: list[JudgedImage] = []
        self._invalid = [version.invalid for version in versions if version.invalid is not None]
        for key, group in by_key.items():
            for version in group:
                if version.judged is not None:
                    self._write("validated", version.judged)
            if len(group) > 1:
                self._store_contested(key, group)
            else:
                self._store_alone(group[0])
        stems: dict[str, list[str]] = {}
        for winner in self._winners:
            key = f"{winner.image.id}\n{winner.image.timestamp}"
            stems.setdefault(key, []).append(winner.image.stem)
        for key, of_key in stems.items():
            found = [stem for earlier, stem in self._earlier if earlier == key]
            _Forget(self._output).process((key, {_WINNERS: of_key, _EARLIER: found}))

    def _store_contested(self, key: str, group: Iterable[Version]) -> None:
        has_file = has_record if self._packed else None
        store_plan = StorePlan(self._output, window_seconds=300, is_packed=self._packed)
        bare = [
            Version(version.judged, version.invalid and replace(version.invalid, data=None))
            for version in group
        ]
        for result in _ResolveInBatch(has_file).process((key, bare)):
            if getattr(result, "tag", None) == PLANS:
                store_plan.work(result.value)
            else:
                self._winners.append(result)

    def _store_alone(self, version: Version) -> None:
        if version.judged is None:
            assert version.invalid is not None
            _StoreInvalid(self._output, False, None).work(version.invalid)
            return
        self._winners += _RetractEarlier(self._output).process(version.judged)
        if not self._packed or has_record(version.judged):
            self._write("final", version.judged)
        if not self._packed:
            self._write("detections", version.judged)

    def _write(self, folder: str, judged: JudgedImage) -> None:
        image = judged.image
        if folder == "validated":
            uri = stores.validated_uri(self._output, image.id, image.stored_name)
            stores.write_bytes(uri, self._files[image.file])
            return
        value = judged.to_json() if folder == "final" else image.to_json()
        uri = stores.join(self._output, folder, image.id, f"{image.stem}.json")
        stores.write_bytes(uri, stores.json_bytes(value))

    def windows(self) -> dict[str, list[Version]]:
        """What each bundle is given."""
        versions = [Version(judged=winner) for winner in self._winners]
        if self._has_packed:
            versions += [each for image in self._invalid for each in _invalid_versions(image)]
        grouped: dict[str, list[Version]] = {}
        for period, version in map(self._window, versions):
            grouped.setdefault(period, []).append(version)
        return grouped


def verdicts(output: Path) -> dict[tuple[str, str], str]:
    """What an output says, as a command reads it."""
    try:
        archive = open_archive(str(output))
    except ValueError:
        return {}
    found: dict[tuple[str, str], str] = {}
    for id in archive.ids:
        for one in archive.images(id):
            key = one.image.id, one.image.timestamp
            assert key not in found
            found[key] = json.dumps([one.image.to_json(), one.threat])
    assert archive.problems == []
    return found


def resumed(output: Path, *, is_packed: bool) -> dict[tuple[str, bytes], Any]:
    """What `--resume` finds of each file, with each content that it can have."""
    rows = EarlierRows(str(output)) if is_packed else None
    model = judged("hall", "2026-01-31T10:00:00Z", []).image.model
    earlier = EarlierRun(str(output), model, rows)
    return {
        (name, data): earlier.find_result(
            NamedFile(ImageFile(name, len(data)), camera, time), hashlib.sha256(data).hexdigest()
        )
        for name, (camera, time) in FILES.items()
        for data in SHOWS
    }


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class StoppedError(Exception):
    """The process was killed."""


@contextmanager
def killed_after(deletes: int) -> Iterator[None]:
    """Kills what runs after some deletes."""
    with pytest.MonkeyPatch.context() as patch:
        left, delete = [deletes], stores.delete

        def stopping(uri: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise StoppedError
            delete(uri)

        patch.setattr(stores, "delete", stopping)
        try:
            yield
        except StoppedError:
            pass


runs = st.fixed_dictionaries(
    {
        "files": st.dictionaries(
            st.sampled_from(sorted(FILES)), st.sampled_from(sorted(SHOWS)), min_size=1, max_size=7
        ),
        "order": st.randoms(use_true_random=False),
        "attempts": st.lists(st.sampled_from((0, 1, "again")), min_size=1, max_size=3),
        "shards": st.sampled_from((1, 2)),
        "merge": st.sampled_from((None, 0, 1, 9)),
    }
)


@pytest.mark.search
@search(60)
@given(st.lists(runs, min_size=1, max_size=3))
def test_both_forms_hold_the_same_whatever_is_tried_again_or_killed(scripts: list[Any]) -> None:
    check_both_forms(scripts)


def test_the_file_of_a_verdict_is_invalid_and_one_with_the_same_stem_wins() -> None:
    jpg, jpeg = "hall_20260131T235600Z.jpg", "hall_20260131T235600Z.jpeg"
    script = {"order": random.Random(0), "attempts": [0], "shards": 1, "merge": None}
    check_both_forms(
        [
            {**script, "files": {jpg: PERSON}},
            {**script, "files": {jpg: HALF, jpeg: PERSON}},
        ]
    )


def test_an_image_that_was_invalid_is_looked_at_again_with_resume() -> None:
    script = {"order": random.Random(0), "attempts": [0], "shards": 1, "merge": None}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "packed"
        for data, detections in ((PERSON, 1), (HALF, None)):
            run = Run(Path(scratch), "packed", {"hall_1769903640.jpg": data})
            run.store(["hall_1769903640.jpg"])
            for window in run.windows().items():
                run.writers[0].process(window)
            known = resumed(output, is_packed=True)["hall_1769903640.jpg", PERSON]
            assert (known and len(known[0])) == detections
    check_both_forms(
        [{**script, "files": {"hall_1769903640.jpg": data}} for data in (PERSON, HALF, PERSON)]
    )


def check_both_forms(scripts: list[Any]) -> None:
    """Runs batches in both forms, and compares all that they leave."""
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        for script in scripts:
            order = sorted(script["files"])
            Run(top, "plain", script["files"]).store(order)
            run = Run(top, "packed", script["files"], script["shards"])
            script["order"].shuffle(order)
            run.store(order)
            for attempt in script["attempts"]:
                # Two processes that have begun at once, or one that sees what another has done.
                writer = run.writer() if attempt == "again" else run.writers[attempt]
                windows = list(run.windows().items())
                script["order"].shuffle(windows)
                for period, versions in windows:
                    script["order"].shuffle(versions)
                    writer.process((period, versions))
            assert resumed(top / "packed", is_packed=True) == resumed(
                top / "plain", is_packed=False
            )
            if script["merge"] is not None:
                with killed_after(script["merge"]):
                    merge_by_day(str(top / "packed"))
        plain, packed = top / "plain", top / "packed"
        assert verdicts(packed) == verdicts(plain)
        for folder in ("validated", "invalid"):
            assert tree(packed / folder) == {
                name: data.replace(bytes(plain), bytes(packed))
                for name, data in tree(plain / folder).items()
            }
        # What an alert points to has a file.
        with_alert = {
            name: data
            for name, data in tree(plain / "final").items()
            if json.loads(data)["threat"]["severity"] == "alert"
        }
        assert tree(packed / "final") == with_alert
        files = tree(packed / "packed")
        further = Run(top, "packed", script["files"], script["shards"])
        further.store(order)
        for window in further.windows().items():
            further.writers[0].process(window)
        assert tree(packed / "packed") == files  # What is said again is not written again.
        merge_by_day(str(packed))
        assert verdicts(packed) == verdicts(plain)
        days = {file.start.date() for file in list_files(str(packed))}
        assert len(list_files(str(packed))) == len(days)
