"""Limits on messages, and the digests that tell of the rest."""

import json
from datetime import timedelta

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from rules import Limit, parse_rules
from tests.transforms.alerting.sending import policy, records, waiting_in
from tests.transforms.results import judged
from transforms.alerting.alerts import Alert, alert_for
from transforms.alerting.digests import Digest, HeldAlert, digest_message
from transforms.count_threats import event_time
from transforms.limit_alerts import LimitAlerts, TargetedAlert, Window, apply_limit
from transforms.records.times import canonical_time, from_unix, parse_time
from transforms.runtime.counters import counted
from transforms.runtime.live_rules import LiveRules
from transforms.send_alerts import SendAlerts

WITHIN = timedelta(minutes=10)


def rules_with(per_id=None, fleet=None, url="https://guard.example"):
    limits = {"per_id": per_id, "fleet": fleet}
    return parse_rules(
        f"""version: 1
targets:
  guard: {{webhook: {url}/guard}}
limits:
{
            "".join(
                f"  {name}: {{alerts: {most}, within: 10m}}" + chr(10)
                for name, most in limits.items()
                if most
            )
        }
defaults: {{objects: {{person: }}, notify: [guard]}}
""",
        "rules.yaml",
    )


def image(camera, minute, second=0):
    return judged(camera, f"2026-01-31T10:{minute:02d}:{second:02d}Z", [("person", "alert")])


def an_alert(camera, minute, second=0):
    return alert_for(image(camera, minute, second), "/out", rules_with(fleet=1))


def split(alerts, limit, *, digests=True):
    """The ids that pass, those that are held, and the digests."""
    lines = [TargetedAlert(alert) for alert in alerts]
    window = Window.of(alerts[0], Limit(limit, WITHIN), per_id=False)
    out = list(apply_limit(lines, window, limit, digests=digests))
    return (
        [alert.alert for alert in out if not alert.alert.held and not alert.alert.is_digest],
        [alert.alert for alert in out if alert.alert.held],
        [alert.alert for alert in out if alert.alert.is_digest],
    )


def test_the_first_of_a_window_by_the_order_of_time_pass_and_a_digest_counts_the_rest():
    alerts = [an_alert("yard" if minute % 3 else "hall", minute) for minute in range(8)]
    passed, held, (digest,) = split(alerts[::-1], 2)
    assert passed == alerts[:2]
    assert [alert.alert_id for alert in held] == [alert.alert_id for alert in alerts[2:]]
    assert {alert.held["guard"] for alert in held} == {digest.alert_id}
    assert digest.targets == ("guard",)
    assert digest.body == {
        "alert_id": digest.alert_id,
        "id": None,
        "timestamp": "2026-01-31T10:07:00Z",
        "severity": "alert",
        "digest": {
            "window_start": "2026-01-31T10:00:00Z",
            "window_end": "2026-01-31T10:10:00Z",
            "alerts": 6,
            "first": "2026-01-31T10:02:00Z",
            "last": "2026-01-31T10:07:00Z",
            "by_id": {"hall": 2, "yard": 4},
            "by_label": {"person": 6},
        },
    }
    folder = "20260131T100000Z_20260131T101000Z"
    assert digest.uri("/out") == f"/out/alerts/_digests/{folder}/{digest.alert_id}.json"


def test_a_digest_counts_each_threat_of_each_label():
    label_lists = (["person"], ["person", "person", "car"], ["car", "dog"], ["dog"])
    alerts = [
        alert_for(
            judged("hall", f"2026-01-31T10:0{minute}:00Z", [(label, "alert") for label in labels]),
            "/out",
            rules_with(fleet=1),
        )
        for minute, labels in enumerate(label_lists)
    ]
    _, _, (digest,) = split(alerts, 1)
    assert digest.body["digest"]["alerts"] == 3
    assert digest.body["digest"]["by_label"] == {"car": 2, "dog": 2, "person": 2}
    assert "Seen: car 2, dog 2, person 2" in digest_message(digest.body).text
    _, _, (later,) = split(alerts[1:], 1)
    assert later.body["digest"]["by_label"] == {"car": 1, "dog": 2}


def test_nothing_is_held_at_the_limit():
    assert split([an_alert("hall", minute) for minute in range(3)], 3)[1:] == ([], [])


@pytest.mark.parametrize(
    ("timestamp", "start", "end"),
    [
        ("2026-01-31T10:00:00Z", "10:00:00", "10:10:00"),
        ("2026-01-31T10:09:59.999999Z", "10:00:00", "10:10:00"),
        ("2026-01-31T10:10:00Z", "10:10:00", "10:20:00"),
    ],
)
def test_windows_begin_at_multiples_of_their_length(timestamp, start, end):
    alert = alert_for(judged("hall", timestamp, [("person", "alert")]), "/out", rules_with(fleet=1))
    window = Window.of(alert, Limit(1, WITHIN), per_id=True)
    assert window.bounds == (f"2026-01-31T{start}Z", f"2026-01-31T{end}Z")
    assert window.camera == "hall"


@pytest.mark.parametrize(
    ("timestamp", "start", "end"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:05:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:55:00Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_window_ends_with_the_calendar(timestamp, start, end):
    alert = alert_for(judged("hall", timestamp, [("person", "alert")]), "/out", rules_with(fleet=1))
    window = Window.of(alert, Limit(1, timedelta(minutes=25)), per_id=True)
    assert window.bounds == (start, end)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("10:00:00", "10:00:30"),
        ("10:00:29.999", "10:00:30"),
        ("10:00:30", "10:10:30"),
        ("10:09:59", "10:10:30"),
        ("10:10:29", "10:10:30"),
        ("10:34:00", "10:40:30"),
    ],
)
def test_a_digest_is_due_by_the_machine_s_clock_not_the_camera_s(now, due):
    window = Window.of(an_alert("hall", 3), Limit(1, WITHIN), per_id=False)
    at = window.due(parse_time(f"2026-01-31T{now}Z").timestamp())
    assert canonical_time(from_unix(at)) == f"2026-01-31T{due}Z"


def test_a_short_window_is_waited_for_a_tenth_of_its_length():
    window = Window.of(an_alert("hall", 3), Limit(1, timedelta(seconds=60)), per_id=False)
    assert window.due(120.0) == 126.0
    assert window.due(125.9) == 126.0
    assert window.due(126.0) == 186.0


def test_a_digest_reads_as_a_message():
    digest = Digest()
    for number in range(25):
        digest.add(HeldAlert.of(an_alert(f"camera-{number:02d}", 1, number)))
    digest.add(HeldAlert.of(an_alert("camera-07", 2)))
    window = Window.of(an_alert("hall", 1), Limit(1, WITHIN), per_id=False)
    message = digest_message(digest.body(window.digest_id(), "", window.bounds))
    assert message.subject.startswith("26 more alerts of 25 cameras, 2026-01-31T10:01:00Z to ")
    assert "Seen: person 26" in message.text
    assert message.text.index("2  camera-07") < message.text.index("1  camera-00")
    assert "and 5 more cameras" in message.text


# The step of a batch.


def deliver(run_pipeline, output, web, images, **limits):
    def build(pipeline):
        ruleset = rules_with(url=web.url, **limits)
        sent = pipeline | beam.Create(images) | SendAlerts(str(output), ruleset, policy=policy())
        return {"sent": sent}

    return counted(run_pipeline(build)[0])


def sent_messages(web):
    bodies = [json.loads(request.body) for request in web.requests]
    return (
        sorted((body["id"], body["timestamp"][14:16]) for body in bodies if "digest" not in body),
        sorted(
            (body["id"] or "", body["digest"]["window_start"][14:16], body["digest"]["alerts"])
            for body in bodies
            if "digest" in body
        ),
    )


STORM = [
    *(image("hall", minute) for minute in (0, 1, 2, 3)),
    *(image("yard", minute) for minute in (1, 12)),
]


@pytest.mark.parametrize(
    ("limits", "alerts", "digests"),
    [
        (
            {"per_id": 2},
            [("hall", "00"), ("hall", "01"), ("yard", "01"), ("yard", "12")],
            [("hall", "00", 2)],
        ),
        ({"fleet": 1}, [("hall", "00"), ("yard", "12")], [("", "00", 4)]),
        (
            {"per_id": 1, "fleet": 2},  # The camera that storms leaves room for the others.
            [("hall", "00"), ("yard", "01"), ("yard", "12")],
            [("", "00", 3)],
        ),
        (
            {"per_id": 4},
            sorted((record.image.id, record.image.timestamp[14:16]) for record in STORM),
            [],
        ),
    ],
)
def test_a_storm_ends_in_one_digest_and_every_alert_is_recorded(
    run_pipeline, tmp_path, web, limits, alerts, digests
):
    counts = deliver(run_pipeline, tmp_path, web, STORM, **limits)
    assert sent_messages(web) == (alerts, digests)
    held = len(STORM) - len(alerts)
    assert counts["alerts.delivered"] == len(alerts)
    assert counts["alerts.in_digest"] == held
    assert counts["digests.delivered"] == len(digests)
    kept = {path: json.loads(data) for path, data in records(tmp_path).items()}
    of_digests = {
        path.split("/")[-1]: record for path, record in kept.items() if "digest" in record
    }
    assert len(kept) == len(STORM) + len(digests)
    details = [record["targets"][0]["detail"] for record in kept.values() if "digest" not in record]
    named = [f"{detail.removeprefix('reported in digest ')}.json" for detail in details if detail]
    assert len(named) == held
    assert set(named) == set(of_digests)
    before = len(web.requests)
    bytes_before = records(tmp_path)
    deliver(run_pipeline, tmp_path, web, STORM[::-1], **limits)
    assert len(web.requests) == before
    assert records(tmp_path) == bytes_before
    assert waiting_in(tmp_path) == []


def test_without_limits_nothing_is_grouped():
    labels = []
    for limits in ({}, {"fleet": 3}):
        pipeline = beam.Pipeline(runner=FnApiRunner())
        pipeline | beam.Create(STORM) | SendAlerts("/out", rules_with(**limits))
        labels.append([label for label in pipeline.applied_labels if "LimitAlerts" in label])
    assert labels[0] == []
    assert labels[1]


# A stream.


def at(minute, hour=10):
    return Timestamp.from_rfc3339(f"2026-01-31T{hour}:{minute:02d}:00Z")


KEPT = []


def keep(alert):
    """The runner is in this process, and takes this function by its name."""
    KEPT.append(alert)


def run_stream(output, *alerts, max_age_seconds=None, **limits):
    """What comes out of a stream that is drained at last: alerts in the order of capture time,
    each with whether it is held, and digests."""
    step = LimitAlerts(
        str(output),
        LiveRules.of(rules_with(**limits)),
        streaming=True,
        max_age_seconds=max_age_seconds,
    )
    pipe = test_stream.TestStream().advance_watermark_to(at(0))
    for alert in alerts:
        pipe = pipe.add_elements([TimestampedValue(alert, event_time(alert.body["timestamp"]))])
    KEPT.clear()
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions([], streaming=True)
    ) as pipeline:
        fed = (
            pipeline
            | pipe.advance_watermark_to_infinity()
            | beam.Map(lambda alert: alert).with_output_types(Alert)
        )
        fed | step | beam.Map(keep)
    digests = [alert for alert in KEPT if alert.is_digest]
    sent = [alert for alert in KEPT if not alert.is_digest]
    sent.sort(key=lambda alert: alert.body["timestamp"])
    return [(alert.body["timestamp"][14:16], bool(alert.held)) for alert in sent], digests, sent


def records_of(output):
    return [json.loads(path.read_bytes()) for path in sorted(output.glob("alerts/_limits/*/*"))]


def test_a_stream_sends_the_first_at_once_and_reports_the_others_in_a_digest(tmp_path):
    events = [an_alert("hall", minute) for minute in (3, 1, 2, 5, 21)]
    sent, (digest,), alerts = run_stream(tmp_path, *events, fleet=2)
    assert sent == [("01", False), ("02", True), ("03", False), ("05", True), ("21", False)]
    assert digest.body["digest"]["alerts"] == 2
    assert {alert.held["guard"] for alert in alerts if alert.held} == {digest.alert_id}


def test_decisions_of_a_stream_are_in_the_output(tmp_path):
    first, second, third = (an_alert("hall", minute) for minute in (3, 1, 2))
    _, (digest,), _ = run_stream(tmp_path, first, second, third, per_id=1)
    assert records_of(tmp_path) == [
        {
            "target": "guard",
            "id": "hall",
            "admitted": [first.alert_id],
            "format": 1,
            "digests": [
                {
                    "alert_ids": [second.alert_id, third.alert_id],
                    "body": dict(digest.body),
                    "number": 0,
                }
            ],
        }
    ]


def test_a_restarted_stream_admits_the_same_alerts_and_reports_the_others_once(
    tmp_path,
):
    """As after a crash: nothing is left of its state, and alerts come in another order."""
    events = [an_alert("hall", minute) for minute in (3, 1, 2, 5)]
    before = run_stream(tmp_path, *events, fleet=2)
    after = run_stream(tmp_path, *events[::-1], fleet=2)
    assert (after[0], after[2]) == (before[0], before[2])
    assert {alert.alert_id for alert in after[1]} == {
        before[1][0].alert_id
    }  # Told twice, sent once.
    assert all(alert == before[1][0] for alert in after[1])
    later = an_alert("hall", 4)
    sent, digests, alerts = run_stream(tmp_path, later, *events, fleet=2)
    assert sent == [("01", False), ("02", True), ("03", False), ("04", True), ("05", True)]
    numbers = {alert.alert_id: alert.body["digest"]["alerts"] for alert in digests}
    assert numbers == {before[1][0].alert_id: 2, alerts[3].held["guard"]: 1}


def test_a_repeated_alert_does_not_count_again(tmp_path):
    first, second = an_alert("hall", 1), an_alert("hall", 2)
    sent, digests, _ = run_stream(tmp_path, first, first, second, fleet=2)
    assert sent == [("01", False), ("01", False), ("02", False)]
    assert digests == []


def test_a_camera_with_many_alerts_does_not_use_up_the_limits_of_others_in_a_stream(tmp_path):
    events = [*(an_alert("hall", minute) for minute in range(4)), an_alert("yard", 5)]
    sent, (digest,), _ = run_stream(tmp_path, *events, per_id=1, fleet=2)
    assert sent == [("00", False), ("01", True), ("02", True), ("03", True), ("05", False)]
    assert digest.body["digest"]["by_id"] == {"hall": 3}


def test_an_alert_that_is_too_old_does_not_count_and_is_in_no_digest(tmp_path):
    """The images are of months ago."""
    events = [an_alert("hall", minute) for minute in range(3)]
    sent, digests, _ = run_stream(tmp_path, *events, max_age_seconds=3600, per_id=1, fleet=2)
    assert (sent, digests) == ([("00", False), ("01", False), ("02", False)], [])
    assert records_of(tmp_path) == []


def test_a_digest_is_no_alert_for_the_limit_of_the_fleet(tmp_path):
    """An edit has given the fleet a limit while a digest of a camera was under way."""
    body = {"alert_id": "0" * 32, "timestamp": "2026-01-31T10:00:00Z", "digest": {}}
    digest = Alert("0" * 32, "", body, ("guard",))
    _, digests, _ = run_stream(tmp_path, digest, digest, fleet=1)
    assert digests == [digest, digest]


def test_an_invalid_record_is_skipped_and_rewritten(tmp_path, caplog):
    alert = an_alert("hall", 1)
    run_stream(tmp_path, alert, fleet=1)
    (path,) = tmp_path.glob("alerts/_limits/*/*")
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert run_stream(tmp_path, alert, fleet=1)[0] == [("01", False)]
    assert path.read_bytes() == whole
    assert f"{path} is skipped" in caplog.text
