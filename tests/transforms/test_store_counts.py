"""The files of counts."""

import json

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from tests.transforms.results import judged
from transforms.count_threats import CountThreats, shard_of
from transforms.records.images import WindowCounts
from transforms.storage import stores
from transforms.store_counts import StoreCounts, _Newest, _WriteCounts

START, END = "2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z"
ALERT, DETECTION = ("person", "alert"), ("dog", "detection")


def at(second, camera):
    """An image of a second after 10:00."""
    return judged(camera, f"2026-01-31T10:00:{second:02d}Z", [ALERT])


def store(run_pipeline, output, images, *, shards=1, **options):
    def build(pipeline):
        counts = pipeline | beam.Create(images) | CountThreats(shards=shards, **options)
        counts | StoreCounts(str(output), shards=shards)
        return {"counts": counts}

    _, outputs = run_pipeline(build)
    return outputs["counts"]


def test_the_counts_of_a_window_are_kept_to_the_letter(run_pipeline, tmp_path):
    images = [
        judged("yard", "2026-01-31T23:56:00Z"),
        judged("hall", "2026-01-31T23:55:00Z", [ALERT, ("zebra", "detection"), DETECTION]),
        judged("hall", "2026-01-31T23:59:59.999Z", [DETECTION]),
        judged("hall", "2026-02-01T00:00:00Z", [ALERT, ALERT]),
    ]
    store(run_pipeline, tmp_path, images)
    folder = tmp_path / "counts"
    assert sorted(path.name for path in folder.iterdir()) == [
        "20260131T235500Z_20260201T000000Z.jsonl",
        "20260201T000000Z_20260201T000500Z.jsonl",
    ]
    assert (folder / "20260131T235500Z_20260201T000000Z.jsonl").read_text() == (
        '{"id":"hall","window_start":"2026-01-31T23:55:00Z","window_end":"2026-02-01T00:00:00Z",'
        '"images":2,"threat_images":2,"threats":4,"alerts":1,'
        '"by_label":{"dog":2,"person":1,"zebra":1}}\n'
        '{"id":"yard","window_start":"2026-01-31T23:55:00Z","window_end":"2026-02-01T00:00:00Z",'
        '"images":1,"threat_images":0,"threats":0,"alerts":0,"by_label":{}}\n'
    )


def test_shards_split_the_ids_of_a_window_and_lose_none(run_pipeline, tmp_path):
    cameras = [f"cam-{number:02d}" for number in range(20)]
    images = [at(second, camera) for camera in cameras for second in (1, 2)]
    store(run_pipeline, tmp_path, images, shards=3)
    names = [f"20260131T100000Z_20260131T100500Z-{shard}-of-3.jsonl" for shard in range(3)]
    assert sorted(path.name for path in (tmp_path / "counts").iterdir()) == names
    stored = []
    for shard, name in enumerate(names):
        rows = [json.loads(line) for line in (tmp_path / "counts" / name).read_text().splitlines()]
        ids = [row["id"] for row in rows]
        assert ids == sorted(ids)
        assert {shard_of(camera, 3) for camera in ids} == {shard}
        assert {row["images"] for row in rows} == {2}
        stored += ids
    assert sorted(stored) == cameras


def test_the_order_of_the_images_changes_no_byte(run_pipeline, tmp_path):
    images = [at(second, camera) for camera in ("b", "a", "c") for second in range(7)]
    store(run_pipeline, tmp_path / "forward", images)
    store(run_pipeline, tmp_path / "reversed", images[::-1])
    folders = [tmp_path / name / "counts" for name in ("forward", "reversed")]
    (forward,), (backward,) = (folder.iterdir() for folder in folders)
    assert forward.read_bytes() == backward.read_bytes()


def test_a_later_pane_replaces_an_earlier_one(run_pipeline, tmp_path):
    panes_rows = [({"id": "hall", "images": images},) for images in (1, 2, 3)]
    bounds = "2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z"

    def build(pipeline):
        panes = pipeline | beam.Create([[WindowCounts(*bounds, 0, rows) for rows in panes_rows]])
        panes | beam.FlatMap(lambda panes: panes) | StoreCounts(str(tmp_path))
        return {}

    run_pipeline(build)
    (path,) = (tmp_path / "counts").iterdir()
    assert path.read_text() == '{"id":"hall","images":3}\n'


def pane(images, retracted=0):
    row = {"id": "hall", "window_start": "a", "window_end": "b", "images": images}
    return WindowCounts(
        "2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z", 0, (row,), images + retracted
    )


@pytest.mark.parametrize(
    ("keep_newer", "images", "kept"),
    [(True, [3, 5], 5), (True, [5, 3], 5), (True, [5, 5], 5), (False, [5, 3], 3)],
)
def test_an_older_pane_of_a_stream_does_not_overwrite_a_newer_one(
    tmp_path, keep_newer, images, kept
):
    write = _WriteCounts(str(tmp_path), 1, keep_newer)
    for number in images:
        write.work(pane(number))
    (file,) = (tmp_path / "counts").iterdir()
    assert json.loads(file.read_text())["images"] == kept


def test_a_newer_pane_with_fewer_images_is_written_if_some_were_retracted(tmp_path):
    write = _WriteCounts(str(tmp_path), 1, keep_newer=True)
    write.work(pane(5))
    write.work(pane(4, retracted=1))
    (file,) = (tmp_path / "counts").iterdir()
    assert json.loads(file.read_text())["images"] == 4


def test_a_file_that_is_no_count_is_overwritten(tmp_path):
    write = _WriteCounts(str(tmp_path), 1, keep_newer=True)
    write.work(pane(1))
    (file,) = (tmp_path / "counts").iterdir()
    file.write_text("broken")
    write.work(pane(1))
    assert json.loads(file.read_text())["images"] == 1


def test_a_count_that_cannot_be_read_is_not_taken_for_an_old_one(tmp_path, monkeypatch):
    write = _WriteCounts(str(tmp_path), 1, keep_newer=True)
    write.work(pane(5))

    def refuse(uri):
        raise OSError(5, "503 Service Unavailable", uri)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "read_bytes", refuse)
        with pytest.raises(OSError, match="503"):
            write.work(pane(3))
    (file,) = (tmp_path / "counts").iterdir()
    assert json.loads(file.read_text())["images"] == 5


class _State:
    """A cell of state, as a runner gives it to a step."""

    value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value

    def clear(self):
        self.value = None


class _Timer:
    at = None

    def set(self, timestamp):
        self.at = timestamp.to_rfc3339()


@st.composite
def firings(draw):
    """The counts of a window at each change, of which some are fired, and these in any order."""
    images, added, panes = 0, 0, []
    for adds in draw(st.lists(st.booleans(), min_size=1, max_size=12)):
        if adds or not images:
            images, added = images + 1, added + 1
        else:
            images -= 1
        row = {"id": "hall", "images": images, "change": len(panes)}
        panes.append(WindowCounts(START, END, 0, (row,) if images else (), added))
    fired = [pane for pane in panes[:-1] if draw(st.booleans())]
    return panes[-1], draw(st.permutations([*fired, panes[-1]]))


@pytest.mark.search
@search(300)
@given(case=firings())
def test_the_newest_counts_pass_last_in_whatever_order_they_come(case):
    newest, panes = case
    state, timer, newest_step = _State(), _Timer(), _Newest(7200)
    passed = [one for pane in panes for one in newest_step.process(("file", pane), state, timer)]
    assert passed[-1] == newest
    assert timer.at == "2026-01-31T12:05:00Z"
    newest_step.forget(state)
    assert state.read() is None


def test_counts_that_come_in_another_order_leave_the_newest_in_the_file(run_pipeline, tmp_path):
    """After a retraction, older firings count more images than the newest one."""

    def pane(images, added):
        row = {"id": "hall", "images": images}
        return WindowCounts(START, END, 0, (row,) if images else (), added)

    def build(pipeline):
        counts = pipeline | beam.Create([pane(1, 3), pane(2, 3), pane(2, 2)])
        counts | StoreCounts(str(tmp_path), keep_newer=True, reordered=True)
        return {}

    run_pipeline(build)
    (file,) = (tmp_path / "counts").iterdir()
    assert json.loads(file.read_text()) == {"id": "hall", "images": 1}
