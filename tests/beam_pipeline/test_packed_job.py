"""A batch with `--repository packed`: every command reads from it what it reads from JSON files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import transforms.store_packed
from beam_pipeline import bundled, cli
from beam_pipeline.web.output.pictures import images_of_day, read_record
from tests.beam_pipeline.conftest import jpeg, refused, tree
from tests.beam_pipeline.played import RUNNER, EventTime, Found, FoundTogether, PlayedRunner
from tests.conftest import Command, Done
from transforms.storage.archive import open_archive
from transforms.storage.packed_output import list_files, write_file

HALL = sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))
CAPTURED = datetime(2026, 1, 31, 18, tzinfo=timezone.utc)
PLAIN: tuple[str, ...] = ()
PACKED = ("--repository", "packed")


def put_images(folder: Path) -> None:
    """Images with and without an alert in two windows, one that is invalid, two of one time."""
    folder.mkdir()
    for number, source in enumerate(HALL[:12]):
        name = f"{CAPTURED + timedelta(seconds=40 * number):%Y%m%dT%H%M%SZ}"
        (folder / f"hall_{name}.jpg").write_bytes(source.read_bytes())
        (folder / f"gate_{name}.jpg").write_bytes(jpeg())
    (folder / "gate_20260131T190000Z.jpg").write_bytes(b"half of a file")
    seconds = CAPTURED.timestamp()
    (folder / f"hall_{seconds:.0f}.jpg").write_bytes(HALL[20].read_bytes())


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The input, and the output of both forms."""
    top = tmp_path_factory.mktemp("packed")
    put_images(top / "in")
    for form, options in (("plain", PLAIN), ("packed", PACKED)):
        words = ["--input", top / "in", "--output", top / form, "--model", "bundled", *options]
        assert cli.main([str(word) for word in words]) == 0
    return top / "in", top / "plain", top / "packed"


def test_the_output_is_the_same_but_for_the_form_of_the_verdicts(
    jobs: tuple[Path, Path, Path],
) -> None:
    _, plain, packed = jobs
    of_plain, of_packed = (
        {name: data.replace(bytes(output), b"OUT") for name, data in tree(output).items()}
        for output in (plain, packed)
    )
    files = {name for name in of_packed if name.startswith("packed/")}
    assert all(re.fullmatch(r"packed/2026[^/]*_[0-9a-f]{16}\.parquet", name) for name in files)
    assert len(files) == 2  # Two windows, and nothing that only --resume needs.
    with_alert = {
        name
        for name, data in of_plain.items()
        if name.startswith("final/") and json.loads(data)["threat"]["severity"] == "alert"
    }
    assert with_alert
    assert not any(name.startswith("detections/") for name in of_packed)
    left_out = {
        name
        for name in of_plain
        if name.startswith(("detections/", "final/")) and name not in with_alert
    }
    shared = {name: data for name, data in of_plain.items() if name not in left_out}
    assert {name: data for name, data in of_packed.items() if name not in files} == shared


def readings(output: Path, folder: Path) -> dict[str, Any]:
    """The images of an output, and the exit code of each command that reads it."""
    folder.mkdir()
    archive = open_archive(str(output))
    images = [one for id in archive.ids for one in archive.images(id)]
    quiet = next(one.image for one in images if (one.threat or {}).get("severity") is None)
    final = output / "final" / quiet.id / f"{quiet.stem}.json"
    alert_id = next((output / "alerts" / "hall").glob("*.json")).stem
    rules, truth = folder / "rules.yaml", folder / "truth.csv"
    rules.write_text("version: 1\ndefaults: {objects: {person: {min_score: 0.3}}}\n")
    rows = [
        f"{one.image.file},{'person,1' if one.image.id == 'hall' else 'empty,0'}\n"
        for one in images
    ]
    truth.write_text("file,main_class,count\n" + "".join(rows))
    missed = ["missed", "--label", "person", "--bbox", "0.1,0.1,0.2,0.2", "--by", "Anna"]
    commands: list[list[object]] = [
        ["pack", "--output", output, "--to", folder / "to"],
        ["export", "--output", output, "--to", folder / "coco.json"],
        ["backtest", "--output", output, "--rules", rules, "--format", "json"],
        ["health", "--output", output, "--format", "json"],
        ["report", "--output", output, "--file", folder / "report.html"],
        ["rules", "explain", quiet.id, final],
        ["rules", "explain", "hall", "--output", output],
        ["rules", "check", "--output", output, rules],
        ["evaluate", "--output", output, "--truth", truth, "--format", "json"],
        ["tune", "--output", output, "--rules", rules, "--truth", truth],
        ["alerts", "mark", f"{quiet.stem}.jpg", *missed, "--output", output],
        ["alerts", "mark", alert_id, "right", "--by", "Anna", "--output", output],
        ["alerts", "list", "--output", output],
        ["evaluate", "--output", output, "--format", "json"],
        ["marks", "export", "--output", output, "--file", folder / "marks.csv"],
    ]
    codes = [(str(words[0]), cli.main([str(word) for word in words])) for words in commands]
    shown = {
        image.stem: read_record(str(output), image)
        for image in images_of_day(str(output), "gate", CAPTURED)
    }
    return {"images": [(one.image, one.threat) for one in images], "codes": codes, "shown": shown}


def test_every_command_reads_both_forms(
    jobs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for output in jobs[1:]:
        capsys.readouterr()
        said = readings(output, tmp_path / output.name)
        captured = capsys.readouterr()
        text = (captured.out + captured.err).replace(str(output), "OUT")
        text = text.replace(str(tmp_path / output.name), "TO")
        written = {
            name: data.replace(bytes(output), b"OUT").replace(bytes(tmp_path / output.name), b"TO")
            for name, data in tree(tmp_path / output.name).items()
        }
        found[output.name] = said, written, text.splitlines()
    (said, written, text), (said_plain, written_plain, text_plain) = (
        found["packed"],
        found["plain"],
    )
    assert {code for _, code in said["codes"]} == {0}, "\n".join(text[-40:])
    assert said == said_plain
    assert len(said["images"]) == 24
    assert len(said["shown"]) == 12
    assert written == written_plain
    assert text == text_plain


@pytest.fixture
def streams(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The output of a stream in both forms.

    Images come on time, again, twice for one time, and after their window has closed.
    """
    top, begin = tmp_path / "in", CAPTURED.timestamp()
    put_images(top)
    names = sorted(path.name for path in top.iterdir())
    for name in ("hall_20260131T180000.jpg", "gate_20260131T150000Z.jpg"):
        (top / name).write_bytes(HALL[22].read_bytes())
    found = [Found(str(top / name), (top / name).stat().st_size) for name in names]
    again, late = FoundTogether((*found[:2], found[-1])), FoundTogether(tuple(found[3:6]))
    hall, gate = (
        Found(str(top / name), (top / name).stat().st_size)
        for name in ("hall_20260131T180000.jpg", "gate_20260131T150000Z.jpg")
    )
    script = [FoundTogether(tuple(found)), EventTime(begin + 600), again, gate]
    script += [EventTime(begin + 3 * 3600), hall, late]
    outputs = {}
    for form, options in (("plain", PLAIN), ("packed", PACKED)):
        monkeypatch.setattr(PlayedRunner, "script", script)
        words = ["--input", top, "--output", tmp_path / form, "--model", "bundled", *options]
        done = command(*map(str, words), "--streaming", "--runner", RUNNER)
        assert done.code == 0, done.err
        outputs[form] = tmp_path / form
    return outputs


def test_a_stream_leaves_the_same_in_both_forms(streams: dict[str, Path]) -> None:
    plain, packed = streams["plain"], streams["packed"]
    shown = {}
    for output in (plain, packed):
        archive = open_archive(str(output))
        shown[output] = [
            json.dumps([one.image.to_json(), one.threat])
            for id in archive.ids
            for one in archive.images(id)
        ]
    assert shown[packed] == shown[plain]
    assert len(shown[packed]) == 25
    of_plain, of_packed = (
        {
            name: data.replace(bytes(output), b"OUT")
            for name, data in tree(output).items()
            if not name.startswith("late/_known/")
        }
        for output in (plain, packed)
    )
    without_alert = {
        name
        for name, data in of_plain.items()
        if name.startswith("final/") and json.loads(data)["threat"]["severity"] != "alert"
    }
    files = {name for name in of_packed if name.startswith("packed/")}
    assert all(name.endswith(".parquet") for name in files)  # No note is left.
    assert {name: data for name, data in of_packed.items() if name not in files} == {
        name: data
        for name, data in of_plain.items()
        if name not in without_alert and not name.startswith("detections/")
    }


class Folder:
    """A few images, and batches over them with packed verdicts."""

    def __init__(self, top: Path, command: Command) -> None:
        self.input, self.output, self._command = top / "in", top / "out", command
        self.input.mkdir()
        for number, source in enumerate(HALL[:4]):
            self.put(number, source.read_bytes())

    def put(self, number: int, data: bytes) -> None:
        (self.input / f"hall_20260131T18000{number}Z.jpg").write_bytes(data)

    def run(self, *arguments: object, code: int = 0, repository: Sequence[str] = PACKED) -> Done:
        done = self._command(
            *("--input", self.input, "--output", self.output, "--model", "bundled"),
            *(*repository, *map(str, arguments)),
        )
        assert done.code == code, done.err
        return done

    @property
    def verdicts(self) -> dict[str, str]:
        """The sha256 of each image that has a verdict, by file name."""
        archive = open_archive(str(self.output))
        return {one.image.file: one.image.sha256 for one in archive.images("hall")}


@pytest.fixture
def folder(tmp_path: Path, command: Command) -> Folder:
    return Folder(tmp_path, command)


def test_a_run_that_fails_goes_on_with_what_its_model_has_found(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def failing(place: str, period: str | None, rows: Any) -> str | None:
            if period is not None:
                raise OSError(28, "No space left on device", place)
            return write_file(place, period, rows)

        patch.setattr(transforms.store_packed, "write_file", failing)
        folder.run(code=1)
    found = list_files("", str(folder.output / "packed" / "detections"))
    assert found
    assert list_files(str(folder.output)) == []
    resumed = folder.run("--resume")
    assert "4 (4 of them processed in an earlier run)" in resumed.out
    assert len(folder.verdicts) == 4
    assert list_files("", str(folder.output / "packed" / "detections")) == []
    assert "4 (4 of them processed in an earlier run)" in folder.run("--resume").out


def test_a_job_deletes_no_detections_of_another_job_that_has_begun_meanwhile(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = folder.output / "packed" / "detections"
    killed, other = found / "killed.parquet", found / "other.parquet"
    found.mkdir(parents=True)
    killed.write_bytes(b"")

    def beside(place: str, period: str | None, rows: Any) -> str | None:
        other.write_bytes(b"")
        return write_file(place, period, rows)

    monkeypatch.setattr(transforms.store_packed, "write_file", beside)
    folder.run()
    assert list(found.iterdir()) == [other]


def test_a_further_run_writes_only_what_it_says_otherwise(folder: Folder) -> None:
    done = folder.run()
    assert f"verdicts            {folder.output}/packed\n" in done.out
    before = tree(folder.output)
    folder.run()
    assert tree(folder.output) == before
    verdicts = folder.verdicts
    folder.put(0, HALL[6].read_bytes())
    folder.put(1, b"half of a file")
    (folder.input / "hall_20260131T180002Z.jpg").unlink()  # Its verdict stays.
    folder.run()
    files = {name for name in tree(folder.output) if name.startswith("packed/")}
    assert len(files) == 2
    assert files > {name for name in before if name.startswith("packed/")}
    del verdicts["hall_20260131T180001Z.jpg"]
    assert folder.verdicts.keys() == verdicts.keys()
    changed = {name for name, sha256 in folder.verdicts.items() if sha256 != verdicts[name]}
    assert changed == {"hall_20260131T180000Z.jpg"}
    stored = {path.name for path in (folder.output / "validated" / "hall").iterdir()}
    assert stored == verdicts.keys()
    with_alert = [path.name for path in (folder.output / "final").rglob("*.json")]
    assert "hall_20260131T180001Z.json" not in with_alert


def test_an_output_is_not_written_in_two_forms(folder: Folder) -> None:
    folder.run()
    before = tree(folder.output)
    refused_plain = folder.run(code=2, repository=PLAIN)
    assert "its results are packed; add --repository packed" in refused_plain.err
    assert tree(folder.output) == before
    folder.output = folder.output.with_name("plain")
    folder.run(repository=PLAIN)
    assert "holds a JSON file for each image" in folder.run(code=2).err
    shutil.rmtree(folder.output / "detections")  # As `prune` with `--keep final` leaves it.
    left = folder.run(code=2)
    assert (
        f"{folder.output}/final holds verdicts, but there is no {folder.output}/packed" in left.err
    )
    for path in (folder.output / "final").rglob("*.json"):
        path.unlink()
    folder.run()


def test_an_output_with_both_forms_is_read_once(folder: Folder) -> None:
    folder.run()
    verdicts = folder.verdicts
    packed = tree(folder.output / "packed")
    folder.output = folder.output.with_name("plain")
    folder.put(5, HALL[7].read_bytes())
    folder.run(repository=PLAIN)
    for name, data in packed.items():
        (folder.output / "packed").mkdir(exist_ok=True)
        (folder.output / "packed" / name).write_bytes(data)
    assert len(folder.verdicts) == 5
    assert folder.verdicts.items() >= verdicts.items()


def test_a_torn_file_is_named_and_the_rest_is_read(
    folder: Folder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (folder.input / "hall_20260131T190000Z.jpg").write_bytes(HALL[5].read_bytes())
    folder.run()
    torn, whole = list_files(str(folder.output))
    assert torn.end < whole.start
    Path(torn.uri).write_bytes(Path(torn.uri).read_bytes()[:-100])
    shorter = folder.output / "packed" / f".{Path(whole.uri).name}.partial"
    shorter.write_bytes(b"half of a file that is being written")
    capsys.readouterr()
    words = ["pack", "--output", folder.output, "--to", tmp_path / "to"]
    assert cli.main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    # An image with an alert has a file of its own, too.
    assert said.out.startswith("2 images of 1 camera ")
    assert said.err.splitlines()[0] == "problems with the archive, skipped: 1"
    assert torn.uri in said.err
    assert cli.main(["pack", "--by_day", "--output", str(folder.output)]) == 1
    said = capsys.readouterr()
    assert torn.uri in said.err
    assert Path(torn.uri).exists()
    # A job writes what it says of those images into another file, and touches no other.
    folder.run()
    assert len(folder.verdicts) == 5
    assert Path(torn.uri).exists()
    assert Path(whole.uri).exists()


def test_an_output_of_which_no_file_can_be_read_is_no_empty_one(
    folder: Folder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number in range(4):
        folder.put(number, jpeg())
    folder.run()
    (torn,) = list_files(str(folder.output))
    Path(torn.uri).write_bytes(Path(torn.uri).read_bytes()[:-100])
    for words in (["pack", "--to", tmp_path / "to"], ["backtest", "--rules", tmp_path / "rules"]):
        (tmp_path / "rules").write_text("version: 1\n")
        error = refused(capsys, *words, "--output", folder.output)
        assert f"none of its 1 packed files can be read, such as {torn.uri} (" in error


def test_files_are_merged_by_day(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for time in ("20260131T235900Z", "20260201T000100Z", "20260201T120000Z"):
        (folder.input / f"hall_{time}.jpg").write_bytes(HALL[5].read_bytes())
    folder.run()
    verdicts = folder.verdicts
    assert len(list_files(str(folder.output))) == 4
    capsys.readouterr()
    assert cli.main(["pack", "--by_day", "--output", str(folder.output)]) == 0
    packed = folder.output / "packed"
    assert capsys.readouterr().out == f"{packed} had 4 files, and has 2 now\n"
    names = [re.sub("_[0-9a-f]{16}", "", path.name) for path in sorted(packed.glob("*.parquet"))]
    assert names == [
        "20260131T180000Z_20260201T000000Z.parquet",
        "20260201T000000Z_20260201T120500Z.parquet",
    ]
    assert folder.verdicts == verdicts
    before = tree(folder.output)
    folder.run()
    assert tree(folder.output) == before
    assert cli.main(["pack", "--by_day", "--output", str(folder.output)]) == 0
    assert tree(folder.output) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "x"], "--by_day merges all files of one output; give --output DIR only"),
        (["--id", "hall"], "--by_day merges all files of one output; give --output DIR only"),
        (["--output", "y"], "--by_day merges all files of one output; give --output DIR only"),
        ([], "has no packed/; give the --output of a job with --repository packed"),
    ],
)
def test_a_wrong_merge_is_refused(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, "pack", "--by_day", "--output", tmp_path, *words)
