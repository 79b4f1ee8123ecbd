"""What the shadow rules would alert is what a job alerts that has them as its rules.

Searched for over images of several cameras that come in any order, share capture times, and are
judged by rules that look back in every way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import rules
from rules import parse_rules
from tests.search import search
from tests.transforms.failing_runner import Cell, Timer
from tests.transforms.results import detected
from tests.transforms.shadowed import NAMES, RULES, RULESETS, image, images, in_stream, moments
from transforms.judge_shadow import (
    JudgeShadow,
    Pair,
    _CompareInBatch,
    _JudgeInOrder,
    _JudgeInStream,
    _JudgeNow,
    _key_by_capture_time,
    _Write,
)
from transforms.judge_threats import HISTORIES, JudgeThreats, judge_in_order
from transforms.records.images import DetectedImage, JudgedImage
from transforms.runtime.counters import counted_here
from transforms.runtime.live_rules import LiveRules
from transforms.storage.shadow_alerts import compare, parse_shadow_alert


@pytest.mark.search
@search(400)
@given(arriving=images(), by=RULESETS)
def test_the_shadow_of_the_same_rules_has_their_alerts_and_no_other(arriving, by) -> None:
    judged, alerts = in_stream(arriving, RULES[by], RULES[by])
    assert {(one.id, one.timestamp) for one in alerts} == moments(judged)
    assert all(one.difference == "both" and not one.why for one in alerts)
    assert all(one.rules == one.shadow for one in alerts)


@pytest.mark.search
@search(400)
@given(arriving=images(), by_rules=RULESETS, by_shadow=RULESETS)
def test_a_stream_has_the_alerts_of_one_with_the_shadow_rules_alone(
    arriving, by_rules, by_shadow
) -> None:
    judged, alerts = in_stream(arriving, RULES[by_rules], RULES[by_shadow])
    alone, _ = in_stream(arriving, RULES[by_shadow], RULES[by_shadow])
    assert {(one.id, one.timestamp) for one in alerts if one.shadow.alerts} == moments(alone)
    assert {(one.id, one.timestamp) for one in alerts if one.rules.alerts} == moments(judged)
    for one in alerts:
        sides = {"both": (True, True), "only_rules": (True, False), "only_shadow": (False, True)}
        assert (one.rules.alerts, one.shadow.alerts) == sides[one.difference]
        assert bool(one.why) == (one.difference != "both")


def _run_steps(
    of: Sequence[DetectedImage], by_rules: rules.Rules, by_shadow: rules.Rules, output: Path
) -> None:
    """What the steps of a batch do, without a runner."""
    shadow = LiveRules.of(by_shadow)
    by_camera: dict[str, list[DetectedImage]] = {}
    for one in of:
        by_camera.setdefault(one.id, []).append(one)
    pairs: list[Pair] = []
    for camera, its_images in by_camera.items():
        judged = list(judge_in_order(its_images, by_rules))
        if by_shadow.needs_history(camera):
            pairs += _JudgeInOrder(shadow).process((camera, judged))
        else:
            pairs += [pair for one in judged for pair in _JudgeNow(shadow).process(one)]
    by_time: dict[str, list[Pair]] = {}
    for number, pair in enumerate(pairs):
        alone = not pair[0].image.is_contested
        by_time.setdefault(str(number) if alone else _key_by_capture_time(pair)[0], []).append(pair)
    step, write = _CompareInBatch(str(output)), _Write(streaming=False)
    for group in by_time.items():
        for file in step.process(group):
            write.work(file)


def batch(
    of: Sequence[DetectedImage],
    by_rules: rules.Rules,
    by_shadow: rules.Rules,
    output: Path,
    *,
    in_pipeline: bool = False,
) -> dict[str, bytes]:
    """What a batch leaves under `shadow/`, by name."""
    if in_pipeline:
        with beam.Pipeline(runner=BundleBasedDirectRunner()) as pipeline:
            found = pipeline | beam.Create(of, reshuffle=False).with_output_types(DetectedImage)
            judged = found | JudgeThreats(by_rules)
            judged | JudgeShadow(LiveRules.of(by_shadow), str(output))
    else:
        _run_steps(of, by_rules, by_shadow, output)
    return {
        str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.json"))
    }


def alerted(of: Sequence[DetectedImage], ruleset: rules.Rules) -> set[tuple[str, str]]:
    """A twin: the capture times of which a batch sends an alert, by the documentation.

    Of several files, the most severe stands, and then one that no cooldown suppresses. So there is
    an alert where any of them has one.
    """
    found = set()
    for camera in ("hall", "yard"):
        history = rules.History()
        ordered = sorted(
            (one for one in of if one.id == camera), key=lambda one: (one.timestamp, one.sha256)
        )
        for one in ordered:
            if ruleset.judge(one.for_rules(), history).alerts:
                found.add((camera, one.timestamp))
    return found


@pytest.mark.search
@search(150)
@given(of=images(most=3), by_rules=RULESETS, by_shadow=RULESETS, before=RULESETS, data=st.data())
def test_a_batch_has_the_alerts_of_one_with_the_shadow_rules_alone_and_replaces_earlier_ones(
    tmp_path_factory, of, by_rules, by_shadow, before, data
) -> None:
    output = tmp_path_factory.mktemp("first")
    batch(of[: data.draw(st.integers(0, len(of)))], RULES[before], RULES[by_rules], output)
    files = batch(of, RULES[by_rules], RULES[by_shadow], output)
    alerts = [parse_shadow_alert(f"/{name}", text) for name, text in files.items()]
    assert len({(one.id, one.timestamp) for one in alerts}) == len(alerts)
    by_both = alerted(of, RULES[by_rules]), alerted(of, RULES[by_shadow])
    assert {(one.id, one.timestamp) for one in alerts if one.rules.alerts} == by_both[0]
    assert {(one.id, one.timestamp) for one in alerts if one.shadow.alerts} == by_both[1]
    again = data.draw(st.permutations(of))
    fresh = tmp_path_factory.mktemp("second")
    assert batch(again, RULES[by_rules], RULES[by_shadow], fresh) == files


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(of=images(most=3), by_rules=RULESETS, by_shadow=RULESETS)
def test_a_pipeline_writes_what_its_steps_say(tmp_path_factory, of, by_rules, by_shadow) -> None:
    output, twin = tmp_path_factory.mktemp("pipeline"), tmp_path_factory.mktemp("steps")
    by = RULES[by_rules], RULES[by_shadow]
    assert batch(of, *by, output, in_pipeline=True) == batch(of, *by, twin)


def test_a_record_says_what_both_decide_and_why_they_differ() -> None:
    seen = detected("hall", "2026-01-31T10:00:00Z", ["person", "car"])
    both = [JudgedImage(seen, RULES[name].judge(seen.for_rules())) for name in ("simple", "strict")]
    assert compare(*both) is not None
    stricter = parse_rules(
        "version: 1\ndefaults: {objects: {person: {min_score: 0.95}, car: {severity: detection}}}",
        "stricter.yaml",
    )
    alert = compare(both[0], JudgedImage(seen, stricter.judge(seen.for_rules())))
    assert alert is not None
    record: dict[str, Any] = json.loads(json.dumps(alert.to_json()))
    assert record == {
        "format_version": "1.0",
        "id": "hall",
        "timestamp": "2026-01-31T10:00:00Z",
        "alert_id": rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert"),
        "image": "hall_2026-01-31T10-00-00Z",
        "sha256": "5" * 64,
        "difference": "only_rules",
        "rules": {
            "rules_version": RULES["simple"].version,
            "alerts": True,
            "severity": "alert",
            "suppressed_by": None,
            "threats": [
                {
                    "label": label,
                    "conf": 0.9,
                    "severity": "alert",
                    "rule": f"defaults.objects.{label}",
                    "zone": None,
                    "bbox": [0.1, 0.2, 0.3, 0.4],
                }
                for label in ("person", "car")
            ],
        },
        "shadow": {
            "rules_version": stricter.version,
            "alerts": False,
            "severity": "detection",
            "suppressed_by": None,
            "threats": [
                {
                    "label": "car",
                    "conf": 0.9,
                    "severity": "detection",
                    "rule": "defaults.objects.car",
                    "zone": None,
                    "bbox": [0.1, 0.2, 0.3, 0.4],
                }
            ],
        },
        "why": [
            "person, score 0.9: by the rules a threat of severity alert, rule "
            "defaults.objects.person (score 0.9, minimum 0.5); by the shadow rules no threat: "
            "score 0.9, minimum 0.95 (rule defaults.objects.person).",
            "car, score 0.9: by the rules a threat of severity alert, rule defaults.objects.car "
            "(score 0.9, minimum 0.7); by the shadow rules a threat of severity detection, rule "
            "defaults.objects.car (score 0.9, minimum 0.5).",
        ],
    }


def test_a_cooldown_is_a_reason_to_differ() -> None:
    arriving = [image("hall", second, [("person", 0.9, 1)], second, False) for second in (0, 50)]
    _, alerts = in_stream(arriving, RULES["simple"], RULES["cooldown"])
    assert [one.difference for one in alerts] == ["both", "only_rules"]
    assert alerts[1].shadow.suppressed_by == alerts[0].alert_id
    assert alerts[1].why == (
        f"By the shadow rules, the cooldown of alert {alerts[0].alert_id} suppresses the alert.",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"id": "yard"},
        {"timestamp": "2026-01-31T10:00:01Z"},
        {"timestamp": "2026-01-31T10:00:00.000Z"},
        {"alert_id": "0" * 32},
        {"sha256": "6" * 64},
        {"difference": "neither"},
        {"rules": None},
        {"why": [3]},
    ],
)
def test_what_is_no_record_is_refused(change) -> None:
    arriving = [image("hall", 0, [("person", 0.9, 1)], 0, False)]
    _, (alert,) = in_stream(arriving, RULES["simple"], RULES["simple"])
    uri = alert.uri("/out")
    parse_shadow_alert(uri, json.dumps(alert.to_json()).encode())
    with pytest.raises(ValueError, match=r"is (no record|the record of another)"):
        parse_shadow_alert(uri, json.dumps({**alert.to_json(), **change}).encode())


def test_a_stream_takes_up_an_edited_shadow_file_and_refuses_a_broken_one(tmp_path, caplog) -> None:
    file, now = tmp_path / "shadow.yaml", [100.0]
    file.write_text(f"version: 1\ndefaults: {{{NAMES['simple']}}}\n")
    first = rules.load_rules(str(file))
    live = LiveRules(first, source=str(file), clock=lambda: now[0], name="shadow rules")
    shadow = _JudgeInStream(live, 3600, "/out")
    before = counted_here()

    def versions(text: str, second: int) -> list[str]:
        file.write_text(text)
        now[0] += 16
        judged = JudgedImage(one := seen(second), RULES["simple"].judge(one.for_rules()))
        found = shadow.process(("hall", judged), Cell(HISTORIES), Timer())
        return [parse_shadow_alert(*file).shadow.rules_version for file in found]

    def seen(second: int) -> DetectedImage:
        return image("hall", second, [("person", 0.9, 1)], second, False)

    assert versions(file.read_text(), 0) == [first.version]
    (second,) = versions(f"version: 1\ndefaults: {{{NAMES['strict']}}}\n", 10)
    assert second == rules.load_rules(str(file)).version != first.version
    assert versions("version: 1\nprofile: {}\n", 20) == [second]
    taken_up, refused = (entry.getMessage() for entry in caplog.records)
    assert taken_up == f"shadow rules version {second} is now in force"
    assert refused.startswith(
        f"the file of the shadow rules is rejected, version {second} remains in force: {file}:2: "
    )
    new = counted_here() - before
    assert (new["shadow_rules.taken_up"], new["shadow_rules.refused"]) == (1, 1)
    assert not any(name.startswith("rules.") for name in new)


def write(uri: str, *, streaming: bool) -> None:
    """One bundle, as a runner calls the step."""
    step = _Write(streaming=streaming)
    step.setup()
    step.start_bundle()
    assert [*step.process((uri, b"{}")), *step.finish_bundle()] == []
    step.teardown()


def test_a_stream_that_may_not_write_for_the_shadow_goes_on(tmp_path, caplog) -> None:
    (tmp_path / "shadow").touch()
    before = counted_here()
    for number in (1, 2):
        write(f"{tmp_path}/shadow/alerts/hall/{number}.json", streaming=True)
    assert (counted_here() - before)["shadow.unwritten"] == 2
    assert "what the shadow rules say can't be written" in caplog.text
    with pytest.raises(NotADirectoryError):
        write(f"{tmp_path}/shadow/alerts/hall/1.json", streaming=False)


def test_a_stream_tries_again_what_the_store_may_take_later(tmp_path, monkeypatch) -> None:
    def fail(uri: str, data: bytes) -> None:
        raise ConnectionError("no route to the store")

    monkeypatch.setattr("transforms.storage.stores.write_bytes", fail)
    with pytest.raises(ConnectionError):
        write(f"{tmp_path}/shadow/alerts/hall/1.json", streaming=True)
