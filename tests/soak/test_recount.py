"""The recount finds nothing where nothing is wrong, and each kind of fault where there is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soak.images import LOOKS, Look, digest, jpeg, read_look
from soak.recount import Accepted, Present, _groups, canonical, parse
from tests.soak.scene import Scene, copy_of


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene(tmp_path_factory.mktemp("scene"), seed=5, seconds=120)
    scene.judge()
    return scene


@pytest.fixture
def scene(scenes: Scene) -> Iterator[Scene]:
    with copy_of(scenes) as scene_copy:
        yield scene_copy


def test_a_job_without_faults_has_no_violations(scene: Scene) -> None:
    assert scene.violations() == []


@pytest.mark.parametrize("seed", range(100, 103))
def test_nor_has_it_with_other_seeds(seed: int, tmp_path: Path) -> None:
    scene = Scene(tmp_path, seed=seed, seconds=60)
    scene.judge()
    assert scene.violations() == []


def first(scene: Scene, pattern: str, *, holds: str = "") -> Path:
    return next(
        path
        for path in sorted(scene.output.glob(pattern))
        if path.is_file() and holds in path.read_bytes().decode("latin-1")
    )


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}) + "\n")


def lose_verdict(scene: Scene) -> None:
    first(scene, "final/*/*.json").unlink()


def lose_detections(scene: Scene) -> None:
    first(scene, "detections/*/*.json").unlink()


def lose_validated(scene: Scene) -> None:
    first(scene, "validated/*/*.jpg").unlink()


def old_bytes_validated(scene: Scene) -> None:
    first(scene, "validated/*/*.jpg").write_bytes(b"old")


def second_verdict(scene: Scene) -> None:
    path = first(scene, "final/*/*.json")
    path.with_name("another.json").write_bytes(path.read_bytes())


def another_severity(scene: Scene) -> None:
    path = first(scene, "final/*/*.json", holds='"severity": "detection"')
    threat = json.loads(path.read_text())["threat"]
    change(path, threat={**threat, "severity": "alert"})


def a_detection_less(scene: Scene) -> None:
    change(first(scene, "final/*/*.json", holds='"conf": 0.3'), detections=[])


def the_lesser_stands(scene: Scene) -> None:
    ranks = {event["sha256"]: Look(*event["look"]).rank for event in scene.events if event["look"]}
    finals = {path: json.loads(path.read_text()) for path in scene.output.glob("final/*/*.json")}
    for path in sorted(scene.output.glob("invalid/duplicate/*.json")):
        record = json.loads(path.read_text())
        image_key = parse(record["uri"].rsplit("/", 1)[-1])
        assert not isinstance(image_key, str)
        for final, final_record in finals.items():
            if (final_record["id"], final_record["timestamp"]) == (
                image_key[0],
                canonical(image_key[1]),
            ) and (ranks[record["sha256"]] < ranks[final_record["sha256"]]):
                change(final, sha256=record["sha256"])
                return
    raise AssertionError("no burst had a lesser image")


def lose_invalid(scene: Scene) -> None:
    first(scene, "invalid/bad_name/*.json").unlink()


def another_reason(scene: Scene) -> None:
    change(first(scene, "invalid/not_jpeg/*.json"), reason="corrupt_jpeg")


def half_then_whole(scene: Scene) -> None:
    uri = str(next(iter(sorted(scene.top.rglob("*.jpg")))))
    record = {"uri": uri, "reason": "corrupt_jpeg", "sha256": "0" * 64}
    path = scene.output / "invalid" / "corrupt_jpeg" / "x.jpg"
    path.with_name("x.jpg.json").write_text(json.dumps(record))
    path.write_bytes(b"half")


def could_not_be_read(scene: Scene) -> None:
    verdict = json.loads(first(scene, "final/*/*.json").read_text())
    path = next(scene.top.rglob(verdict["file"]))
    record = {"uri": str(path), "reason": "read_failed", "sha256": digest(path.read_bytes())}
    (scene.output / "invalid" / "read_failed").mkdir(exist_ok=True)
    (scene.output / "invalid" / "read_failed" / "x.jpg.json").write_text(json.dumps(record))


def lose_fallen(scene: Scene) -> None:
    first(scene, "invalid/duplicate/*.json").unlink()


def count_twice(scene: Scene) -> None:
    path = first(scene, "counts/*.jsonl")
    change(path, images=json.loads(path.read_text())["images"] + 1)


def count_a_threat_less(scene: Scene) -> None:
    change(first(scene, "counts/*.jsonl", holds='"threats": 1'), threats=0)


def two_rows(scene: Scene) -> None:
    path = first(scene, "counts/*.jsonl")
    path.with_name("zz.jsonl").write_bytes(path.read_bytes())


def late_not_counted(scene: Scene) -> None:
    first(scene, "late/*/*.json").unlink()


def late_in_its_window(scene: Scene) -> None:
    path = first(scene, "late/*/*.json")
    path.rename(scene.output / "counts" / "late.jsonl")


def alert_not_received(scene: Scene) -> None:
    key = scene.accepted[0].key
    scene.accepted = [message for message in scene.accepted if message.key != key]


def alert_not_recorded(scene: Scene) -> None:
    first(scene, "alerts/*/*.json").unlink()


def alert_failed(scene: Scene) -> None:
    path = first(scene, "alerts/*/*.json", holds="delivered")
    targets = json.loads(path.read_text())["targets"]
    change(path, targets=[{**targets[0], "outcome": "failed"}, *targets[1:]])


def alert_waits(scene: Scene) -> None:
    (scene.output / "alerts/_undelivered/guard").mkdir(parents=True)
    (scene.output / "alerts/_undelivered/guard/x.json").write_text('{"detail": "away"}')


def another_key(scene: Scene) -> None:
    scene.accepted.append(replace(scene.accepted[0], key="f" * 32))


def nothing_there(scene: Scene) -> None:
    scene.accepted.append(Accepted("guard", "e" * 32, {"alert_id": "e" * 32}))


def beyond_the_limit(scene: Scene) -> None:
    path = first(scene, "alerts/cam-*/*.json", holds="suppressed")
    body = {"alert_id": path.stem}
    scene.accepted.append(Accepted("guard", path.stem, body))


def digest_is_lost(scene: Scene) -> None:
    first(scene, "alerts/_digests/*/*.json").unlink()


def digest_counts_less(scene: Scene) -> None:
    change(first(scene, "alerts/_digests/*/*.json"), digest={"alerts": 99})


def digest_not_received(scene: Scene) -> None:
    scene.accepted = [message for message in scene.accepted if "digest" not in message.body]


def part_is_left(scene: Scene) -> None:
    first(scene, "final/*/*.json").with_name(".x.json.partial").touch()


FAULTS: dict[Callable[[Scene], None], str] = {
    lose_verdict: "image without a verdict",
    lose_detections: "detections are missing or of another image",
    lose_validated: "validated image is missing or another one",
    old_bytes_validated: "validated image is missing or another one",
    second_verdict: "several verdicts for one capture time",
    another_severity: "wrong verdict",
    a_detection_less: "wrong verdict",
    the_lesser_stands: "the wrong image is kept",
    lose_invalid: "invalid file without its record",
    another_reason: "wrong reason",
    half_then_whole: "invalid record of an older version",
    could_not_be_read: "invalid record of a valid image",
    lose_fallen: "fallen image without its one record",
    count_twice: "wrong number of images in the counts",
    count_a_threat_less: "wrong counts",
    two_rows: "several count rows",
    late_not_counted: "wrong number of images in the counts",
    late_in_its_window: "images counted in the wrong place",
    alert_not_received: "record and service differ",
    alert_not_recorded: "alert without a record",
    alert_failed: "alert not delivered",
    alert_waits: "alert left undelivered",
    another_key: "key and body differ",
    nothing_there: "message of no alert",
    beyond_the_limit: "limit broken",
    digest_is_lost: "held alerts without a digest",
    digest_counts_less: "digest has another number",
    digest_not_received: "digest not delivered",
    part_is_left: "file left behind",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(scene: Scene, fault: Callable[[Scene], None]) -> None:
    fault(scene)
    assert FAULTS[fault] in {violation.what for violation in scene.violations()}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_can_be_read_from_the_image(look: Look) -> None:
    data = jpeg(look, "serial 1")
    assert read_look(data) == look
    assert data != jpeg(look, "serial 2")
    assert read_look(data[: len(data) * 2 // 3]) is None


@pytest.mark.parametrize(
    ("name", "image_key"),
    [
        ("cam-1_1764000000123.jpg", ("cam-1", 1_764_000_000_123)),
        ("cam-1_0064000000123.jpg", ("cam-1", 64_000_000_123)),
        ("cam-1_1764000000.jpg", ("cam-1", 1_764_000_000_000)),
        ("cam-1_20251124T160000Z.jpg", ("cam-1", 1_764_000_000_000)),
        ("cam-1_2025-11-24T16-00-00.123Z.jpg", ("cam-1", 1_764_000_000_123)),
        ("note-1.jpg", "bad_name"),
        ("cam-1_yesterday.jpg", "bad_timestamp"),
    ],
)
def test_names_are_read(name: str, image_key: object) -> None:
    assert parse(name) == image_key


def test_what_is_deleted_before_its_verdict_was_seen_may_be_counted_or_not(tmp_path: Path) -> None:
    """A bundle that fails may have stored the verdict; then nothing is left to be judged again."""
    scene = Scene(tmp_path, seed=5, seconds=120)
    scene.judge()
    puts = Counter(
        (event["camera"], event["taken"] // 60_000)
        for event in scene.events
        if event["what"] == "put" and event["look"]
    )
    event = next(
        event
        for event in scene.events
        if event["what"] == "put"
        and event["look"]
        and event["age"] == "on time"
        and puts[event["camera"], event["taken"] // 60_000] == 1
        and (scene.top / event["path"]).exists()
    )
    row = scene.output / f"counts/{event['taken'] // 60_000 * 60_000}-{event['camera']}.jsonl"
    with (tmp_path / "feeder.jsonl").open("a") as log:
        log.write(json.dumps({**event, "what": "delete", "judged": False}) + "\n")
    (scene.top / event["path"]).unlink()
    assert scene.violations() == []
    row.unlink()
    assert scene.violations() == []
    with (tmp_path / "feeder.jsonl").open("a") as log:
        log.write(json.dumps({**event, "what": "delete", "judged": True}) + "\n")
    assert {violation.what for violation in scene.violations()} == {
        "wrong number of images in the counts"
    }


@pytest.mark.parametrize(
    ("deleted_after", "judged", "kept"),
    [(10, False, {"person", "dog"}), (200, False, {"dog"}), (10, True, {"dog"})],
    ids=["soon", "after minutes", "once judged"],
)
def test_a_version_that_was_there_for_a_moment_may_have_been_missed(
    deleted_after: float, judged: bool, kept: set[str]
) -> None:
    """It was moved before the stream looked again, so the version before it is another image."""
    event = {"camera": "hall", "taken": 1000, "look": [3, 0], "age": "on time", "path": "a"}
    put = {**event, "what": "put", "at": 1.0, "sha256": "person"}
    replaced = {**put, "at": 60.0, "sha256": "dog", "look": [0, 3]}
    deleted = {**replaced, "what": "delete", "at": 60.0 + deleted_after, "judged": judged}
    moved = {**replaced, "path": "b", "at": 60.0 + deleted_after}
    there = Present("b", "dog", Look(0, 3), None, ("hall", 1000))
    (group,) = _groups({"b": there}, [put, replaced, deleted, moved]).values()
    assert group.selected() == kept
