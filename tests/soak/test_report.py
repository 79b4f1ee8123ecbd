"""The report says what differs, where, and what led to it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from soak.__main__ import left_behind, report
from soak.recount import Violation

CREATED: dict[str, Any] = {
    "at": 1_764_000_000.5,
    "what": "put",
    "path": "cam-001/cam-001_1764000000000.jpg",
    "camera": "cam-001",
    "taken": 1_764_000_000_000,
    "age": "on time",
    "sha256": "ab" * 32,
    "how": "written slowly",
}


def test_a_violation_is_reported_with_the_events_that_led_to_it(tmp_path: Path) -> None:
    other = {**CREATED, "camera": "cam-002", "path": "cam-002/another.jpg"}
    (tmp_path / "logs").mkdir()
    act = {"act": "a TaskManager is killed", "begun": 1_764_000_003.0, "ended": 1_764_000_020.0}
    (tmp_path / "logs" / "saboteur.jsonl").write_text(json.dumps(act) + "\n")
    soak: Any = SimpleNamespace(folder=tmp_path, events=lambda: [CREATED, other])
    lost = Violation(
        "image without a verdict",
        "cam-001 2025-11-24T16:00:00Z",
        "x",
        (("cam-001", 1764000000000),),
    )
    text = report(soak, [lost], ["fed: 2 files"], "python -m soak --seed 1")
    assert text.splitlines() == [
        "# python -m soak --seed 1",
        "",
        "fed: 2 files",
        "",
        "## 1 times: image without a verdict",
        "",
        "- cam-001 2025-11-24T16:00:00Z: x",
        "  - 2025-11-24T16:00:00.500Z put cam-001/cam-001_1764000000000.jpg abababababab "
        "written slowly on time (a TaskManager is killed)",
        "",
        f"1 violations; everything lies in {tmp_path}",
    ]


def test_a_clean_soak_says_so(tmp_path: Path) -> None:
    soak: Any = SimpleNamespace(folder=tmp_path, events=list)
    assert report(soak, [], [], "x").endswith("nothing differs")


def test_a_worker_is_left_behind_once_the_pool_has_had_its_time() -> None:
    looks = iter([[11, 12, 13], [11, 12, 13], [12, 13]])
    assert left_behind(lambda: next(looks), seconds=1.0) == []
    assert len(left_behind(lambda: [11, 12, 13], seconds=0.1)) == 1
    assert left_behind(lambda: [11], seconds=0.1) == []
