"""Reading, summing and printing the windowed counts."""

import csv
import glob
import io
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from beam_pipeline.commands import counts as counts_command
from beam_pipeline.fleet import counts
from beam_pipeline.fleet.output_scan import CountsError, NoCountsError, OutputScan, find_outputs
from transforms.records.count_rows import CountRow

START = datetime(2026, 1, 31, 23, 0, tzinfo=timezone.utc)


def window(number=0, minutes=5):
    start = START + timedelta(minutes=number * minutes)
    return start, start + timedelta(minutes=minutes)


def row(id_="hall", number=0, minutes=5, images=10, threat_images=2, alerts=1, by_label=None):
    labels = {"person": 2, "car": 1} if by_label is None else by_label
    return CountRow(
        id_, *window(number, minutes), images, threat_images, sum(labels.values()), alerts, labels
    )


def file_name(start, end, shard=""):
    return f"{start:%Y%m%dT%H%M%SZ}_{end:%Y%m%dT%H%M%SZ}{shard}.jsonl"


def write(output, *rows, shard="", modified=None):
    """Writes rows of one window as the job does; returns the path."""
    path = Path(output) / "counts" / file_name(rows[0].window_start, rows[0].window_end, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each.to_json()) + "\n" for each in rows))
    if modified is not None:
        os.utime(path, (modified, modified))
    return path


def command(capsys, *argv):
    assert counts_command.main([str(arg) for arg in argv]) == 0
    return capsys.readouterr().out


class MemoryFileSystem(FileSystem):
    """A store without directories; its files are `FILES`, its calls `CALLS`."""

    FILES: ClassVar[dict] = {}
    CALLS: ClassVar[list] = []

    @classmethod
    def scheme(cls):
        return "memcounts"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def has_dirs(self):
        return False

    def _list(self, prefix):
        for path, (data, modified) in self.FILES.items():
            if path.startswith(prefix):
                yield FileMetadata(path, len(data), modified)

    def open(self, path, mime_type="", compression_type=""):
        self.CALLS.append(("open", path))
        return io.BytesIO(self.FILES[path][0])

    def _unused(self, *args, **kwargs):
        raise NotImplementedError

    split = mkdirs = create = copy = rename = exists = size = last_updated = _unused
    checksum = metadata = delete = _unused


def test_rows_come_back_sorted_by_window_then_id(tmp_path):
    late, early_b, early_a = row("a", 1), row("b", 0), row("a", 0)
    write(tmp_path, late)
    write(tmp_path, early_b, early_a)
    assert OutputScan(str(tmp_path)).counts() == [early_a, early_b, late]


def test_a_row_survives_the_way_to_json_and_back():
    fraction = CountRow("a", START, START + timedelta(milliseconds=250), 1, 0, 0, 0, {})
    for each in (row(), fraction):
        assert CountRow.from_json(json.loads(json.dumps(each.to_json()))) == each
    assert fraction.to_json()["window_end"] == "2026-01-31T23:00:00.250Z"
    assert list(row().to_json()["by_label"]) == ["car", "person"]


def test_shards_of_a_window_are_read_together(tmp_path):
    write(tmp_path, row("a"), shard="-00000-of-00002")
    write(tmp_path, row("b"), shard="-00001-of-00002")
    assert [each.id for each in OutputScan(str(tmp_path)).counts()] == ["a", "b"]


@pytest.mark.parametrize("newer", ["", "-0-of-2", "-0-of-4"])
def test_of_two_layouts_of_a_window_the_row_modified_last_is_taken(tmp_path, newer):
    for shard in ("", "-0-of-2", "-0-of-4"):
        images = 99 if shard == newer else 10
        rows = [row("both", images=images)] + ([row("only-whole")] if not shard else [])
        write(tmp_path, *rows, shard=shard, modified=2000 if shard == newer else 1000)
    read = OutputScan(str(tmp_path)).counts()
    assert [(each.id, each.images) for each in read] == [("both", 99), ("only-whole", 10)]


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 60), (0, 5)), ((0, 60), (3, 5)), ((0, 5), (0, 10)), ((1, 4), (1, 5))],
    ids=["same start", "inside", "longer", "neither length nor start"],
)
def test_overlapping_windows_are_refused_naming_both_files(tmp_path, first, second):
    first_file = write(tmp_path, row("a", *first))
    two = write(tmp_path, row("b", *second))
    with pytest.raises(CountsError, match="twice") as error:
        OutputScan(str(tmp_path)).counts()
    assert first_file.name in str(error.value)
    assert two.name in str(error.value)


def test_windows_of_other_lengths_side_by_side_are_read(tmp_path):
    write(tmp_path, row("a", 0, 60))
    write(tmp_path, row("a", 12, 5))
    assert len(OutputScan(str(tmp_path)).counts()) == 2


@pytest.mark.parametrize(
    ("since", "until", "numbers"),
    [
        (None, None, [0, 1, 2]),
        (window(1)[0], None, [1, 2]),
        (None, window(1)[0], [0]),
        (window(1)[0], window(2)[0], [1]),
        (window(0)[0] + timedelta(seconds=1), None, [1, 2]),
        (window(9)[0], None, []),
    ],
)
def test_period_takes_the_windows_that_begin_in_it_and_opens_no_other(
    tmp_path, since, until, numbers
):
    for number in range(3):
        path = write(tmp_path, row("a", number))
        if number not in numbers:
            path.write_text("not to be read")
    read = OutputScan(str(tmp_path)).counts(since=since, until=until)
    assert [each.window_start for each in read] == [window(number)[0] for number in numbers]


def test_only_the_wanted_ids_are_returned(tmp_path):
    write(tmp_path, row("a"), row("b"), row("c"))
    assert [each.id for each in OutputScan(str(tmp_path)).counts(ids=["c", "a"])] == ["a", "c"]


@pytest.mark.parametrize("name", ["cam[1]", "a*b", "what?", "[", "[!x]", "brackets[a-c]*?"])
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_directory_names_with_glob_characters_are_taken_literally(tmp_path, name):
    write(tmp_path / name, row("right"))
    for decoy in ("cam1", "axb", "whatx", "y", "bracketsaxx"):
        write(tmp_path / decoy, row("wrong"))
    assert [each.id for each in OutputScan(str(tmp_path / name)).counts()] == ["right"]
    pattern = glob.escape(str(tmp_path / name)) + "/counts/*.jsonl"
    (matched,) = FileSystems.match([pattern])
    assert [Path(meta.path).parts[-3] for meta in matched.metadata_list] == [name]


@pytest.mark.filterwarnings("error:Possible nested set")
def test_counts_are_read_from_a_store_by_names_alone(monkeypatch):
    def data(each):
        return (json.dumps(each.to_json()) + "\n").encode()

    old = "memcounts://x[1]/o/counts/" + file_name(*window())
    new = old.replace(".jsonl", "-0-of-1.jsonl")
    other = "memcounts://x[1]/o/counts/" + file_name(*window(1))
    monkeypatch.setattr(
        MemoryFileSystem,
        "FILES",
        {
            new: (data(row("a", images=7)), 2.0),
            old: (data(row("a", images=5)), 1.0),
            other: (b"not to be read", 3.0),
            "memcounts://x1/o/counts/" + file_name(*window(0, 7)): (b"decoy", 3.0),
        },
    )
    monkeypatch.setattr(MemoryFileSystem, "CALLS", [])
    read = OutputScan("memcounts://x[1]/o").counts(until=window(1)[0])
    assert [each.images for each in read] == [7]
    opened = [path for _, path in MemoryFileSystem.CALLS]
    assert opened == [old, new]
    with pytest.raises(CountsError, match="run the job first"):
        OutputScan("memcounts://empty/o").counts()


def test_rows_of_one_id_and_window_in_several_outputs_are_added_up(tmp_path):
    first, two = tmp_path / "one", tmp_path / "two"
    write(first, row("hall", images=5), row("yard", images=7))
    write(two, row("hall", images=3, by_label={"person": 4}))
    write(two, row("hall", number=1, images=2))
    # Within one output, the file that was modified last is still that of its window.
    write(two, row("hall", images=100), shard="-0-of-1", modified=1)
    hall, yard, later = OutputScan([str(first), str(two)]).counts()
    assert (hall.id, hall.images, hall.threat_images, hall.alerts) == ("hall", 8, 4, 2)
    assert hall.by_label == {"person": 6, "car": 1}
    assert (hall.window_start, hall.window_end) == window(0)
    assert (yard, later) == (row("yard", images=7), row("hall", number=1, images=2))
    assert OutputScan([str(first), str(two)]).windows() == [window(0), window(1)]


def test_outputs_with_windows_that_do_not_fit_each_other_are_refused(tmp_path):
    first_file = write(tmp_path / "one", row("hall", 0, 5))
    two = write(tmp_path / "two", row("yard", 0, 7))
    with pytest.raises(CountsError, match="twice") as error:
        OutputScan([str(tmp_path / "one"), str(tmp_path / "two")]).counts()
    assert str(first_file) in str(error.value)
    assert str(two) in str(error.value)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["*"], ["day [1]", "hall", "yard"]),
        (["[hy]*"], ["hall", "yard"]),
        (["day [1]"], ["day [1]"]),
        (["yard", "*"], ["yard", "day [1]", "hall"]),
        (["hall", "hall/"], ["hall"]),
        (["**"], ["day [1]", "deep/er", "hall", "yard"]),
        (["not there"], ["not there"]),
    ],
)
@pytest.mark.filterwarnings("error:Possible nested set")
def test_a_glob_names_the_outputs_that_have_counts(monkeypatch, tmp_path, named, expected):
    outputs = ("hall", "yard", "day [1]", "deep/er")
    for output in outputs:
        write(tmp_path / output, row())
    (tmp_path / "empty").mkdir()
    (tmp_path / "hull").write_text("a file")
    store = [f"memcounts://x/{name}/counts/{file_name(*window())}" for name in outputs]
    files = dict.fromkeys([*store, "memcounts://x/hull", "memcounts://x/h/a.jsonl"], (b"", 1.0))
    monkeypatch.setattr(MemoryFileSystem, "FILES", files)
    for base in (str(tmp_path), "memcounts://x"):
        paths = find_outputs([f"{base}/{name}" for name in named])
        assert paths == [f"{base}/{item}" for item in expected]


@pytest.mark.parametrize("base", ["", "memcounts://x"])
def test_a_glob_without_any_output_is_reported(tmp_path, base):
    with pytest.raises(NoCountsError, match=r"no counts under any .*/o\*"):
        find_outputs([f"{base or tmp_path}/o*"])


def test_missing_counts_say_what_to_run(tmp_path):
    with pytest.raises(CountsError, match="run --input IMAGES --output") as error:
        OutputScan(str(tmp_path)).counts()
    assert "\n" not in str(error.value)


def test_other_files_beside_the_counts_are_skipped(tmp_path, caplog):
    path = write(tmp_path, row("a"))
    for name in (f".{path.name}", f"{path.name}.tmp", "notes.txt"):
        path.with_name(name).write_text("x")
    assert len(OutputScan(str(tmp_path)).counts()) == 1
    assert not caplog.records
    path.with_name("copy of " + path.name).write_text("x")
    assert len(OutputScan(str(tmp_path)).counts()) == 1
    assert "copy of" in caplog.text


GOOD = row("a").to_json()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "images"}), "'images' is missing"),
        (json.dumps({**GOOD, "id": "../x"}), "not an id"),
        (json.dumps({**GOOD, "id": "a\n"}), "not an id"),
        (json.dumps({**GOOD, "images": True}), "whole number"),
        (json.dumps({**GOOD, "images": -1}), "whole number"),
        (json.dumps({**GOOD, "images": 1.5}), "whole number"),
        (json.dumps({**GOOD, "images": 1}), "'threat_images' .2. is more than 'images' .1."),
        (json.dumps({**GOOD, "alerts": 3}), "'alerts' .3. is more than"),
        (json.dumps({**GOOD, "by_label": {"person": 1}}), "adds up to 1"),
        (json.dumps({**GOOD, "by_label": None}), "'by_label' must be"),
        (json.dumps({**GOOD, "window_start": "2026-01-31T23:00:00+01:00"}), "not in UTC"),
        (json.dumps({**GOOD, "window_start": "2026-02-30T00:00:00Z"}), "'window_start': day"),
        (json.dumps({**GOOD, "window_start": "2026-01-31T22:00:00Z"}), "file's name"),
        (json.dumps(GOOD), "a row already, in line 1"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_wrong_rows_are_refused_with_file_line_and_reason(tmp_path, line, says):
    path = write(tmp_path, row("a"))
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(CountsError, match=says) as error:
        OutputScan(str(tmp_path)).counts()
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(error.value)


@pytest.fixture
def two_windows(tmp_path):
    write(tmp_path, row("hall", 0, images=1200), row("yard", 0, by_label={"dog": 2}))
    write(tmp_path, row("hall", 1, images=34, threat_images=0, alerts=0, by_label={}))
    return tmp_path


def test_the_command_adds_up_all_outputs_that_it_is_given(tmp_path, capsys):
    for name in ("hall", "yard", "shed"):
        write(tmp_path / name, row(images=3))
        late = tmp_path / name / "late" / "hall" / "hall_1.json"
        late.parent.mkdir(parents=True)
        late.write_text(json.dumps(row(images=1, threat_images=0, alerts=0, by_label={}).to_json()))
    for named, images in (
        (["--output", tmp_path / "hall", "--output", tmp_path / "yard"], 6),
        (["--output", f"{tmp_path}/*"], 9),
        (["--output", f"{tmp_path}/*", "--late"], 3),
    ):
        (printed,) = json.loads(command(capsys, *named, "--format", "json"))
        assert printed["images"] == images


def test_sums_by_id_and_in_total(two_windows):
    rows = OutputScan(str(two_windows)).counts()
    hall, yard = counts.sum_by_id(rows)
    assert (hall.id, hall.images, hall.threat_images, hall.threats) == ("hall", 1234, 2, 3)
    assert (hall.window_start, hall.window_end) == (window(0)[0], window(1)[1])
    assert (yard.images, yard.by_label) == (10, {"dog": 2})
    (total,) = counts.sum_total(rows)
    assert (total.id, total.images, total.threats, total.alerts) == ("*", 1244, 5, 2)
    assert total.by_label == {"person": 2, "car": 1, "dog": 2}
    assert counts.sum_total([]) == []


@pytest.mark.parametrize(("sum_by", "images"), [("window", [1200, 10, 34]), ("id", [1234, 10]),
                                            ("total", [1244])])  # fmt: skip
def test_json_and_csv_parse_back_to_the_same_rows(two_windows, capsys, sum_by, images):
    options = ("--output", two_windows, "--by", sum_by)
    rows = json.loads(command(capsys, *options, "--format", "json"))
    assert [each["images"] for each in rows] == images
    table = list(csv.DictReader(io.StringIO(command(capsys, *options, "--format", "csv"))))
    assert [int(each["images"]) for each in table] == images
    for each, line in zip(rows, table, strict=True):
        labels = {k[6:]: int(v) for k, v in line.items() if k.startswith("label:") and v != "0"}
        assert labels == each["by_label"]
        assert line["window_start"] == each["window_start"]


def test_table_is_aligned_and_ends_with_the_totals(two_windows, capsys):
    header, _, *lines, _, total = command(capsys, "--output", two_windows).splitlines()
    assert [line.split()[0] for line in lines] == ["hall", "yard", "hall"]
    end = header.index("images") + len("images")
    assert [line[:end].split()[-1] for line in (*lines, total)] == ["1,200", "10", "34", "1,244"]
    assert all(line[end] == " " for line in (*lines, total))
    assert total.startswith("total")
    assert total.endswith("dog 2, person 2, car 1")


def test_table_of_the_total_alone_says_it_once(two_windows, capsys):
    text = command(capsys, "--output", two_windows, "--by", "total")
    assert text.count("total") == 1
    assert text.count("1,244") == 1


def test_period_and_ids_of_the_command_limit_what_is_printed(two_windows, capsys):
    options = ("--output", two_windows, "--format", "json", "--since", "2026-01-31T23:05:00Z")
    assert [each["images"] for each in json.loads(command(capsys, *options))] == [34]
    assert json.loads(command(capsys, *options, "--id", "yard")) == []
    assert command(capsys, "--output", two_windows, "--id", "x") == "No counts in this period.\n"


def test_labels_cannot_steer_the_terminal(tmp_path, capsys):
    label = "\x1b[31m\u202eper\nson\x7f"
    write(tmp_path, row(by_label={label: 2}))
    for form in counts.FORMATS:
        text = command(capsys, "--output", tmp_path, "--format", form)
        assert all(char.isprintable() or char == "\n" for char in text), form
        assert "per\nson" not in text
    assert json.loads(text)[0]["by_label"] == {label: 2}


@pytest.mark.parametrize(
    "option",
    [
        ("--since", "yesterday"),
        ("--since", "2026-01-31T00:00:00+01:00"),
        ("--until", "2026-13-01T00:00:00Z"),
        ("--id", "a/b"),
    ],
)
def test_wrong_options_are_refused_by_name(two_windows, capsys, option):
    with pytest.raises(CountsError, match=f"^{option[0]}: "):
        command(capsys, "--output", two_windows, *option)


def test_a_period_that_ends_before_it_begins_is_refused(two_windows):
    with pytest.raises(CountsError, match="period is empty"):
        OutputScan(str(two_windows)).counts(since=window(1)[0], until=window(0)[0])


def late_file(output, camera, name, number=0):
    folder = Path(output) / "late" / camera
    folder.mkdir(parents=True, exist_ok=True)
    archived = row(camera, number, images=1, threat_images=1, by_label={"person": 1})
    (folder / f"{name}.json").write_text(json.dumps({"file": f"{name}.jpg", **archived.to_json()}))


def test_what_came_too_late_is_counted_apart_and_reported(tmp_path, capsys):
    write(tmp_path, row("a"))
    for at, camera in enumerate(["a", "a", "b"]):
        late_file(tmp_path, camera, f"{camera}_{at}")
    late_file(tmp_path, "a", "a_later", number=24)
    late = OutputScan(str(tmp_path)).late()
    assert [(item.id, item.window_start, item.images, item.alerts) for item in late] == [
        ("a", START, 2, 2),
        ("b", START, 1, 1),
        ("a", START + timedelta(hours=2), 1, 1),
    ]
    period = {"since": START, "until": START + timedelta(hours=1), "ids": ["a"]}
    assert [archived.images for archived in OutputScan(str(tmp_path)).late(**period)] == [2]
    total = command(capsys, "--output", tmp_path, "--late", "--by", "total", "--format", "json")
    assert [archived["images"] for archived in json.loads(total)] == [4]
    counts_command.main(["--output", str(tmp_path), "--format", "json"])
    captured = capsys.readouterr()
    assert captured.err == "not in these counts: 4 images that came too late (see --late)\n"
    assert [(archived["id"], archived["images"]) for archived in json.loads(captured.out)] == [
        ("a", 10)
    ]


def test_a_broken_late_file_is_named(tmp_path):
    (tmp_path / "late" / "a").mkdir(parents=True)
    (tmp_path / "late" / "a" / "x.json").write_text("{")
    with pytest.raises(CountsError, match=r"x\.json: not JSON"):
        OutputScan(str(tmp_path)).late()
