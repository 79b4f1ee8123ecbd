"""The console over an output in a store, which fails for a while."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import rules
from beam_pipeline.web.output import audit
from beam_pipeline.web.output.following import Follower, RulesFollower
from beam_pipeline.web.output.index import IncidentFilter, Index
from beam_pipeline.web.output.pictures import NoPictureError, Pictures, images_of_day, stored_image
from tests.beam_pipeline.fleets import write_fleet
from tests.beam_pipeline.web.serving import RULES, small_images, write_small_output
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, Server
from transforms.storage import stores
from transforms.storage.marks import write_mark
from transforms.storage.packed_output import period_name, write_file
from transforms.storage.packed_rows import PackedRow

Use = Callable[[Server], None]
NOON = "2026-01-31T12:00:00Z"


def test_the_output_of_a_store_is_followed_with_its_images_marks_and_audit(
    bucket: Bucket, use: Use, tmp_path: Path
) -> None:
    use(bucket.server)
    write_small_output(tmp_path / "out")
    bucket.put_tree(tmp_path / "out", "out")
    output = bucket.uri("out")
    index = Index(tmp_path / "index.sqlite", output)
    follower = Follower(index, 1, RulesFollower(None, None))
    follower.look()
    assert follower.status.problem is None
    alert_id = rules.alert_id("hall", NOON, "alert")
    assert index.numbers() == {"alerts": 4, "incidents": 3, "marks": 0, "shadow": 0, "problems": 0}
    audit.write_entry(output, by="anna", role="admin", action="mark", about={"id": "hall"})
    write_mark(output, id="hall", timestamp=NOON, alert_id=alert_id, mark="right", by="anna")
    follower.look()
    assert [mark.by for mark in index.marks_of(alert_id)] == ["anna"]
    assert [entry["by"] for entry in audit.read_entries(output, 5)] == ["anna"]
    images = images_of_day(output, "hall", datetime(2026, 1, 31, 23, tzinfo=timezone.utc))
    assert [image.stem[-10:-1] for image in images] == [
        "T10-00-00", "T10-02-00", "T12-00-00", "T12-30-00",
    ]  # fmt: skip
    assert Pictures(output).jpeg(images[0], "card").startswith(b"\xff\xd8")
    nowhere = stored_image("hall", "hall_20300101T000000Z")
    assert nowhere is not None
    with pytest.raises(NoPictureError):
        Pictures(output).jpeg(nowhere, "card")
    stores.delete(stores.alert_uri(output, "hall", alert_id))
    follower.look()
    assert index.numbers()["incidents"] == 2


def test_images_of_a_packed_file_cost_one_download_of_it(
    moto_bucket: Bucket, use: Use, proxy: Callable[[Server], Proxy], tmp_path: Path
) -> None:
    day = datetime(2026, 1, 31, tzinfo=timezone.utc)
    judged = write_fleet(tmp_path / "out", small_images(), rule_text=RULES)
    rows = [PackedRow(one.image, one.to_json()["threat"]) for one in judged]
    rows.sort(key=lambda row: (row.image.id, row.image.timestamp))
    period = period_name(day, day + timedelta(days=1))
    assert write_file(stores.packed_folder(str(tmp_path / "out")), period, rows) is not None
    for folder in ("final", "detections"):
        shutil.rmtree(tmp_path / "out" / folder)
    moto_bucket.put_tree(tmp_path / "out", "out")
    before = proxy(moto_bucket.server)
    use(before.server)
    output = moto_bucket.uri("out")
    images = images_of_day(output, "hall", day)
    assert len(images) == 4
    pictures = Pictures(output)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda image: pictures.jpeg(image, "card"), images))) == 1
    assert images_of_day(output, "hall", day) == images
    asked = [path for method, path in before.requests if method == "GET" and ".parquet" in path]
    assert len(asked) == 1


def test_a_store_that_fails_makes_the_index_stale_and_loses_nothing(
    moto_bucket: Bucket, use: Use, proxy: Callable[[Server], Proxy], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = proxy(moto_bucket.server)
    use(before.server)
    write_small_output(tmp_path / "out")
    moto_bucket.put_tree(tmp_path / "out", "out")
    index = Index(tmp_path / "index.sqlite", moto_bucket.uri("out"))
    follower = Follower(index, 1, RulesFollower(None, None))
    # Not minutes of retries.
    monkeypatch.setattr("transforms.storage.stores.object_store", _impatient)
    follower.look()
    known = index.incidents(IncidentFilter(), number=10)
    assert len(known.incidents) == 3
    before.decide = lambda method, path: 503
    follower.look()
    assert follower.status.problem is not None
    assert follower.stale_since() == follower.status.last_success
    assert index.incidents(IncidentFilter(), number=10) == known
    before.decide = lambda method, path: None
    follower.look()
    assert follower.stale_since() is None
    assert index.incidents(IncidentFilter(), number=10) == known


def _impatient(uri: str) -> object:
    from transforms.storage.object_stores import object_store

    return object_store(uri, patient=False)
