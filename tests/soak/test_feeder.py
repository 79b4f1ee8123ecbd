"""The feeder does what it says, all of it, and the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from soak import images
from tests.soak.scene import Scene


def fed(folder: Path, seed: int) -> Scene:
    return Scene(folder, seed=seed, seconds=400)


def test_the_folder_is_at_the_end_what_the_log_says(tmp_path: Path) -> None:
    scene = fed(tmp_path, 1)
    answers: dict[str, str] = {}
    for event in scene.events:
        if event["what"] == "put":
            answers[event["path"]] = event["sha256"]
        elif event["what"] == "delete":
            answers.pop(event["path"], None)
    files = {
        str(path.relative_to(scene.top)): images.digest(path.read_bytes())
        for path in scene.top.rglob("*")
        if path.is_file()
    }
    assert files == answers


def test_everything_that_can_happen_to_files_happens(tmp_path: Path) -> None:
    scene = fed(tmp_path, 2)
    how = Counter((event["what"], event["how"]) for event in scene.events)
    assert {
        ("put", "renamed into place"),
        ("put", "written at once"),
        ("part", "written slowly"),
        ("put", "written slowly"),
        ("part", "paused in writing"),
        ("put", "empty at first"),
        ("put", "moved in with its folder"),
        ("put", "moved with its folder"),
        ("delete", "soon"),
        ("delete", "when it was judged"),
        ("delete", "to come again"),
        ("touch", ""),
        ("chmod", ""),
    } <= set(how)
    assert {event["age"] for event in scene.events} == {
        "on time",
        "late",
        "ahead",
        "future",
        "1970",
    }
    versions = Counter(event["path"] for event in scene.events if event["what"] == "put")
    assert max(versions.values()) > 1, "nothing was replaced"
    copies = Counter(event["sha256"] for event in scene.events if event["what"] == "put")
    assert max(copies.values()) > 1, "nothing was copied"
    seconds = Counter(
        (event["camera"], event["taken"])
        for event in scene.events
        if event["how"] == "renamed into place"
    )
    assert max(seconds.values()) > 1, "there was no burst"
    silent = {event["taken"] for event in scene.events if event["camera"] == "cam-039"}
    assert len(silent) == 1, "the silent camera has its one image"


def test_the_same_seed_does_the_same(tmp_path: Path) -> None:
    logs = [
        json.dumps(fed(tmp_path / name, seed).events)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]
