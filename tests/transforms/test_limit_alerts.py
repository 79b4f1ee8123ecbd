"""Limits on messages, and the digests that tell of the rest."""

import json
from dataclasses import replace
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
from tests.transforms.results import judged
from tests.transforms.test_send_alerts import letters, policy, records
from transforms import storms
from transforms.alerts import Alert, alert_for
from transforms.count_threats import event_time
from transforms.counters import counted
from transforms.live_rules import LiveRules
from transforms.send_alerts import SendAlerts
from transforms.storms import Digest, LimitStorms, Line, Window, digest_message, past_limit

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


def an_alert(camera, minute, second=0, stream_time=None):
    alert = alert_for(image(camera, minute, second), "/out", rules_with(fleet=1))
    return replace(alert, stream_time=stream_time)


def split(alerts, limit, *, digests=True):
    """The ids that pass, those that are held, and the digests."""
    lines = [Line(alert) for alert in alerts]
    window = Window.of(alerts[0], Limit(limit, WITHIN), per_id=False)
    out = list(past_limit(lines, window, limit, digests=digests))
    return (
        [one.alert for one in out if not one.alert.held and not one.alert.is_digest],
        [one.alert for one in out if one.alert.held],
        [one.alert for one in out if one.alert.is_digest],
    )


def test_the_first_of_a_window_by_the_order_of_time_pass_and_a_digest_counts_the_rest():
    alerts = [an_alert("yard" if minute % 3 else "hall", minute) for minute in range(8)]
    passed, held, (digest,) = split(alerts[::-1], 2)
    assert passed == alerts[:2]
    assert [one.alert_id for one in held] == [one.alert_id for one in alerts[2:]]
    assert {one.held["guard"] for one in held} == {digest.alert_id}
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
    assert digest.uri("/out") == f"/out/alerts/digests/{folder}/{digest.alert_id}.json"


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
    bounds = [storms._time(moment) for moment in (window.start, window.end)]
    assert bounds == [f"2026-01-31T{start}Z", f"2026-01-31T{end}Z"]
    assert window.camera == "hall"


@pytest.mark.parametrize(
    ("stream_time", "due"),
    [
        (None, "10:10:00"),
        ("2026-01-31T10:09:59Z", "10:10:00"),
        ("2026-01-31T10:10:00Z", "10:20:00"),
        ("2026-01-31T10:34:00Z", "10:40:00"),
    ],
)
def test_what_comes_after_its_window_is_told_of_by_the_next_digest(stream_time, due):
    alert = an_alert("hall", 3, stream_time=stream_time)
    window = Window.of(alert, Limit(1, WITHIN), per_id=False)
    assert storms._time(window.due(alert)) == f"2026-01-31T{due}Z"


def test_a_digest_reads_as_a_message():
    digest = Digest()
    for number in range(25):
        digest.add(an_alert(f"camera-{number:02d}", 1, number))
    digest.add(an_alert("camera-07", 2))
    window = Window.of(an_alert("hall", 1), Limit(1, WITHIN), per_id=False)
    message = digest_message(digest.to_alert(window, window.end).body)
    assert message.subject.startswith("26 more alerts of 25 cameras, 2026-01-31T10:01:00Z to ")
    assert "Seen: person 26" in message.text
    assert message.text.index("2  camera-07") < message.text.index("1  camera-00")
    assert "and 5 more cameras" in message.text


# The step of a batch.


def deliver(run_pipeline, output, web, images, **limits):
    def build(pipeline):
        by = rules_with(url=web.url, **limits)
        sent = pipeline | beam.Create(images) | SendAlerts(str(output), by, policy=policy())
        return {"sent": sent}

    return counted(run_pipeline(build)[0])


def told(web):
    bodies = [json.loads(request.body) for request in web.requests]
    return (
        sorted((one["id"], one["timestamp"][14:16]) for one in bodies if "digest" not in one),
        sorted(
            (one["id"] or "", one["digest"]["window_start"][14:16], one["digest"]["alerts"])
            for one in bodies
            if "digest" in one
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
        ({"per_id": 4}, sorted((one.image.id, one.image.timestamp[14:16]) for one in STORM), []),
    ],
)
def test_a_storm_ends_in_one_digest_and_every_alert_is_recorded(
    run_pipeline, tmp_path, web, limits, alerts, digests
):
    counts = deliver(run_pipeline, tmp_path, web, STORM, **limits)
    assert told(web) == (alerts, digests)
    held = len(STORM) - len(alerts)
    assert counts["alerts.delivered"] == len(alerts)
    assert counts["alerts.in_digest"] == held
    assert counts["digests.delivered"] == len(digests)
    kept = {place: json.loads(data) for place, data in records(tmp_path).items()}
    of_digests = {place.split("/")[-1]: one for place, one in kept.items() if "digest" in one}
    assert len(kept) == len(STORM) + len(digests)
    details = [one["targets"][0]["detail"] for one in kept.values() if "digest" not in one]
    named = [f"{detail.removeprefix('told of in digest ')}.json" for detail in details if detail]
    assert len(named) == held
    assert set(named) == set(of_digests)
    before = len(web.requests)
    bytes_before = records(tmp_path)
    deliver(run_pipeline, tmp_path, web, STORM[::-1], **limits)
    assert len(web.requests) == before
    assert records(tmp_path) == bytes_before
    assert letters(tmp_path) == []


def test_without_limits_nothing_is_grouped():
    labels = []
    for limits in ({}, {"fleet": 3}):
        pipeline = beam.Pipeline(runner=FnApiRunner())
        pipeline | beam.Create(STORM) | SendAlerts("/out", rules_with(**limits))
        labels.append([label for label in pipeline.applied_labels if "LimitStorms" in label])
    assert labels[0] == []
    assert labels[1]


# A stream.


def stream(*events):
    """Alerts as they come, and moments by which event time has come so far."""
    pipe = test_stream.TestStream().advance_watermark_to(at(0))
    for event in events:
        if isinstance(event, Alert):
            pipe = pipe.add_elements([TimestampedValue(event, event_time(event.body["timestamp"]))])
        else:
            pipe = pipe.advance_watermark_to(event)
    return pipe.advance_watermark_to_infinity()


def at(minute, hour=10):
    return Timestamp.from_rfc3339(f"2026-01-31T{hour}:{minute:02d}:00Z")


KEPT = []


def keep(one):
    """The runner is in this process, and takes this function by its name."""
    KEPT.append(one)


def run_stream(*events, **limits):
    """What comes out, as JSON keeps it: alerts in the order of time, and digests."""
    step = LimitStorms(
        LiveRules.of(rules_with(**limits)),
        streaming=True,
        allowed_lateness_seconds=3600,
        max_age_seconds=None,
    )
    KEPT.clear()
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions([], streaming=True)
    ) as pipeline:
        fed = pipeline | stream(*events) | beam.Map(lambda one: one).with_output_types(Alert)
        fed | step | beam.Map(keep)
    out = list(KEPT)
    digests = [one for one in out if one.is_digest]
    alerts = [one for one in out if not one.is_digest]
    alerts.sort(key=lambda one: one.body["timestamp"])
    return [(one.body["timestamp"][14:16], bool(one.held)) for one in alerts], digests, alerts


def test_a_stream_sends_the_first_at_once_and_the_digest_when_the_window_is_over():
    events = [an_alert("hall", minute) for minute in (3, 1, 2, 5)]
    told, (digest,), alerts = run_stream(*events, at(20), an_alert("hall", 21), fleet=2)
    assert told == [("01", False), ("02", True), ("03", False), ("05", True), ("21", False)]
    assert digest.body["digest"]["alerts"] == 2
    assert {one.held["guard"] for one in alerts if one.held} == {digest.alert_id}


def test_what_comes_late_to_a_stream_is_told_of_by_a_digest_of_its_own():
    late = an_alert("hall", 4, stream_time="2026-01-31T10:15:00Z")
    on_time = [an_alert("hall", minute) for minute in (1, 2)]
    told, digests, _ = run_stream(*on_time, at(15), late, at(25), fleet=1)
    assert told == [("01", False), ("02", True), ("04", True)]
    assert sorted(one.body["digest"]["first"][14:16] for one in digests) == ["02", "04"]
    assert len({one.alert_id for one in digests}) == 2


def test_the_same_alert_once_more_takes_no_further_place():
    first, second = an_alert("hall", 1), an_alert("hall", 2)
    told, digests, _ = run_stream(first, first, second, fleet=2)
    assert told == [("01", False), ("01", False), ("02", False)]
    assert digests == []


def test_a_camera_that_storms_leaves_room_for_the_others_in_a_stream():
    events = [*(an_alert("hall", minute) for minute in range(4)), an_alert("yard", 5)]
    told, (digest,), _ = run_stream(*events, per_id=1, fleet=2)
    assert told == [("00", False), ("01", True), ("02", True), ("03", True), ("05", False)]
    assert digest.body["digest"]["by_id"] == {"hall": 3}


def test_a_window_that_is_long_over_is_forgotten():
    events = [an_alert("hall", 1), at(0, hour=12), an_alert("hall", 2)]
    told, digests, _ = run_stream(*events, fleet=1)
    assert told == [("01", False), ("02", False)]
    assert digests == []
