"""The command `rules shadow`: the alerts of both rule files add up, in whatever order they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import rules
from beam_pipeline.evaluation.shadow import compare_alerts, read_shadow_alerts, total_of
from tests.beam_pipeline.conftest import refused
from tests.conftest import Command
from tests.search import search
from tests.transforms.shadowed import RULES, RULESETS, image, images, in_stream, moments
from transforms.records.images import DetectedImage
from transforms.storage.marks import MarkedThreat, write_mark
from transforms.storage.shadow_alerts import ShadowAlert
from transforms.storage.stores import json_bytes

FOLDER = "shadow/alerts"


@pytest.mark.search
@search(300)
@given(arriving=images(), by_rules=RULESETS, by_shadow=RULESETS)
def test_the_kinds_add_up_to_the_alerts_of_both(arriving, by_rules, by_shadow) -> None:
    judged, alerts = in_stream(arriving, RULES[by_rules], RULES[by_shadow])
    alone, _ = in_stream(arriving, RULES[by_shadow], RULES[by_shadow])
    total = total_of(compare_alerts(alerts, {}))
    assert total.by_rules == len(moments(judged))
    assert total.by_shadow == len(moments(alone))
    assert total.kinds["both"].alerts == len(moments(judged) & moments(alone))
    compared = compare_alerts(list(reversed(alerts)), {})
    assert compared == compare_alerts(alerts, {})
    moved = [one for one in compared.compared if one.kind == "moved"]
    assert len(moved) == 2 * total.kinds["moved"].alerts
    for one in moved:  # Its counterpart is the other rule file's, of the same incident.
        ids = {one.alert.rules.suppressed_by, one.alert.shadow.suppressed_by} - {None}
        others = [other for other in moved if other is not one and other.alert.id == one.alert.id]
        assert any(
            other.alert.alert_id in ids
            or one.alert.alert_id
            in (other.alert.rules.suppressed_by, other.alert.shadow.suppressed_by)
            for other in others
        )


def seen(camera: str, second: int, *objects: tuple[str, float, int]) -> DetectedImage:
    return image(camera, second, objects, second // 10, False)


PERSON, FAINT = ("person", 0.9, 1), ("person", 0.6, 1)


def test_of_one_incident_one_alert_of_each_is_no_difference() -> None:
    """The rules alert the first image, the shadow rules the second, which they confirm."""
    confirmed = rules.parse_rules(
        "version: 1\ndefaults: {objects: {person: }, confirm: {pictures: 2, within: 2m}, "
        "cooldown: 2m}\n",
        "confirmed.yaml",
    )
    arriving = [seen("hall", second, PERSON) for second in (0, 10, 20)]
    _, alerts = in_stream(arriving, RULES["cooldown"], confirmed)
    assert [alert.difference for alert in alerts] == ["only_rules", "only_shadow"]
    (camera,) = compare_alerts(alerts, {}).cameras
    assert (camera.by_rules, camera.by_shadow, camera.kinds["moved"].alerts) == (1, 1, 1)
    # A second alert in the same incident is one more.
    _, alerts = in_stream(arriving, RULES["cooldown"], RULES["confirm"])
    (camera,) = compare_alerts(alerts, {}).cameras
    assert camera.kinds["only_shadow"].alerts == camera.by_shadow - 1


def test_images_of_one_capture_time_have_one_alert_together() -> None:
    arriving = [
        image("hall", 0, [FAINT], 1, True),
        image("hall", 0, [("car", 0.9, 2)], 2, True),
    ]
    _, alerts = in_stream(
        arriving,
        rules.parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "persons.yaml"),
        rules.parse_rules("version: 1\ndefaults: {objects: {car: }}\n", "cars.yaml"),
    )
    assert [alert.difference for alert in alerts] == ["only_rules", "only_shadow"]
    (one,) = compare_alerts(alerts, {}).compared
    assert (one.kind, one.alert.why) == ("both", ())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Of two cameras: both alert one image, the rules alone two, of which one is marked false."""
    arriving = [seen("hall", 0, PERSON), seen("hall", 60, FAINT), seen("yard", 90, FAINT)]
    _, alerts = in_stream(arriving, RULES["simple"], RULES["strict"])
    write(tmp_path, alerts)
    alert = alerts[1]
    write_mark(
        str(tmp_path),
        id="hall",
        timestamp=alert.timestamp,
        alert_id=alert.alert_id,
        mark="false",
        label=None,
        by="Anna",
        threats=(MarkedThreat("person", None),),
    )
    return tmp_path


def write(output: Path, alerts: list[ShadowAlert]) -> None:
    for alert in alerts:
        path = Path(alert.uri(str(output)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json_bytes(alert.to_json()))


def test_the_table_counts_per_camera_and_shows_the_newest_differences(
    output: Path, command: Command
) -> None:
    done = command("rules", "shadow", "--output", output)
    assert (done.code, done.err) == (0, "")
    version = RULES["strict"].version
    assert done.out.splitlines() == [
        f"shadow rules version {version}, alerts:",
        "camera  rules  shadow  both  moved  only rules  right  false  only shadow  right  false",
        "hall        2       1     1      0           1      0      1            0      0      0",
        "yard        1       0     0      0           1      0      0            0      0      0",
        "all         3       1     1      0           2      0      1            0      0      0",
        "",
        "the newest differences:",
        "2026-01-31T10:01:30Z  yard  only by the rules",
        "  person, score 0.6: by the rules a threat of severity alert, rule "
        "defaults.objects.person (score 0.6, minimum 0.5); by the shadow rules no threat: score "
        "0.6, minimum 0.7 (rule defaults.objects.person).",
        f"  {output}/final/yard/yard_2026-01-31T10-01-30Z.json",
        "2026-01-31T10:01:00Z  hall  only by the rules, marked false",
        "  person, score 0.6: by the rules a threat of severity alert, rule "
        "defaults.objects.person (score 0.6, minimum 0.5); by the shadow rules no threat: score "
        "0.6, minimum 0.7 (rule defaults.objects.person).",
        f"  {output}/final/hall/hall_2026-01-31T10-01-00Z.json",
    ]


def printed(command: Command, output: Path, *options: str) -> dict[str, Any]:
    done = command("rules", "shadow", "--output", output, "--format", "json", *options)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_cameras_and_periods_are_chosen(output: Path, command: Command) -> None:
    def chosen(*options: str) -> list[tuple[str, int]]:
        cameras = printed(command, output, *options)["cameras"]
        return [(camera["id"], camera["rules"]) for camera in cameras]

    assert chosen() == [("hall", 2), ("yard", 1)]
    assert chosen("--id", "yard") == [("yard", 1)]
    assert chosen("--since", "2026-01-31T10:01:00Z") == [("hall", 1), ("yard", 1)]
    assert chosen("--until", "2026-01-31T10:01:00Z") == [("hall", 1)]


def test_the_newest_version_is_shown_unless_another_one_is_asked_for(
    output: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = RULES["strict"].version, RULES["confirm"].version
    _, alerts = in_stream([seen("hall", 200, PERSON)], RULES["simple"], RULES["confirm"])
    write(output, alerts)
    document = printed(command, output)
    assert (document["shadow_version"], document["versions"]) == (new, [new, old])
    assert [one["kind"] for one in document["differences"]] == ["only_rules"]
    document = printed(command, output, "--version", old)
    assert [camera["rules"] for camera in document["cameras"]] == [2, 1]
    words = ("rules", "shadow", "--output", output, "--version", "0" * 12)
    assert f"there are: {new}, {old}" in refused(capsys, *words)


def test_what_can_not_be_read_is_named_and_left_out(output: Path, command: Command) -> None:
    folder = output / FOLDER / "hall"
    (folder / "20260131T110000Z_0123456789ab.json").write_text("{}")
    (folder / "notes.txt").write_text("not written by the job")
    done = command("rules", "shadow", "--output", output)
    assert done.code == 1
    assert done.out.splitlines()[4].startswith("all         3")
    assert "20260131T110000Z_0123456789ab.json: ValidationError: Object missing" in done.err
    assert "notes.txt" not in done.err


def test_an_output_without_shadow_rules_has_nothing_to_compare(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command("rules", "shadow", "--output", tmp_path)
    assert (done.code, done.out) == (0, "")
    assert "--shadow_rules" in done.err
    assert "no such directory" in refused(capsys, "rules", "shadow", "--output", tmp_path / "none")
    assert read_shadow_alerts(str(tmp_path)) == ([], [])
