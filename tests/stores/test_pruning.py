"""`prune` on stores: what is old goes, and what should stay stays, also if requests fail."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import rules
from beam_pipeline.console.exceptions import CommandFailedError
from beam_pipeline.fleet.pruning import Pruning
from rules import FOR_GOOD, Retention
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, Server
from transforms.storage import stores
from transforms.storage.marks import write_mark

Use = Callable[[Server], None]
OLD = tuple(f"2026-01-31T10:00:0{second}Z" for second in range(4))
LATER = datetime.now(timezone.utc) + timedelta(days=4000)
FOLDERS = {"validated": "jpg", "detections": "json", "final": "json"}


def fill(output: str) -> None:
    """Four old images: with an alert, with a mark, with a waiting alert, and with nothing."""
    for time in OLD:
        stem = f"hall_{stores.time_in_name(time)}"
        for folder, ending in FOLDERS.items():
            stores.write_bytes(f"{output}/{folder}/hall/{stem}.{ending}", b"{}")
    for time in (OLD[0], OLD[2]):
        record: dict[str, Any] = {
            "alert_id": rules.alert_id("hall", time, "alert"), "id": "hall", "timestamp": time,
            "threats": [{"label": "person"}],
            "targets": [{"target": "guard", "outcome": "delivered", "detail": "x"}],
        }  # fmt: skip
        uri = stores.alert_uri(output, "hall", record["alert_id"])
        stores.write_bytes(uri, stores.json_bytes(record))
    alert_id = rules.alert_id("hall", OLD[2], "alert")
    stores.write_bytes(stores.undelivered_uri(output, "guard", OLD[2], alert_id), b"{}")
    stores.write_bytes(stores.counts_uri(output, "x", 0, 1), b"{}")
    alert_id = rules.alert_id("hall", OLD[1], "alert")
    write_mark(output, id="hall", timestamp=OLD[1], alert_id=alert_id, mark="missed",
               label="person", by="Anna")  # fmt: skip


def prune(output: str, *, deletes: bool = True) -> Pruning:
    retention = Retention(timedelta(days=30), {"marked": FOR_GOOD})
    pruning = Pruning(output, retention, LATER, deletes=deletes)
    pruning.run()
    return pruning


def images(tree: dict[str, bytes]) -> set[str]:
    return {name for name in tree if name.split("/")[0] in FOLDERS}


def of(*numbers: int) -> set[str]:
    return {
        f"{folder}/hall/hall_20260131T10000{number}Z.{ending}"
        for number in numbers
        for folder, ending in FOLDERS.items()
    }


def test_what_is_old_goes_and_what_should_stay_stays(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    output = bucket.uri("out")
    fill(output)
    before = bucket.tree("out")
    assert prune(output, deletes=False).tallies["final"].gone == 2
    assert bucket.tree("out") == before
    pruning = prune(output)
    after = bucket.tree("out")
    assert pruning.problems == []
    assert images(after) == of(1, 2)
    others = before.keys() - images(before)
    assert after.keys() - images(after) == others
    (changed,) = (name for name in others if after[name] != before[name])
    assert json.loads(after[changed]) == {
        "alert_id": rules.alert_id("hall", OLD[0], "alert"), "id": "hall", "timestamp": OLD[0],
        "threats": [], "image_uri": "", "final_uri": "",
        "targets": [{"target": "guard", "outcome": "delivered", "detail": ""}],
    }  # fmt: skip
    assert prune(output).tallies["final"].gone == 0


@pytest.mark.parametrize("refused", [3, 5, 9, 14])
def test_a_store_that_refuses_some_requests_loses_nothing_that_should_stay(
    moto_bucket: Bucket, use: Use, proxy: Callable[[Server], Proxy], refused: int
) -> None:
    before = proxy(moto_bucket.server)
    use(before.server)
    output = moto_bucket.uri("out")
    fill(output)
    asked = itertools.count(1)
    before.decide = lambda method, path: 403 if next(asked) % refused == 0 else None
    try:
        prune(output)
    except (OSError, CommandFailedError):  # A listing, or what says what stays, was refused.
        assert images(moto_bucket.tree("out")) == of(0, 1, 2, 3)
    assert images(moto_bucket.tree("out")) >= of(1, 2)
    before.decide = lambda method, path: None
    prune(output)
    assert images(moto_bucket.tree("out")) == of(1, 2)
