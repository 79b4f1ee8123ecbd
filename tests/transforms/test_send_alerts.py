import hashlib
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone

import apache_beam as beam
import pytest
from apache_beam.utils.shared import Shared

from rules import alert_id, parse_rules
from tests.transforms.results import judged
from tests.transforms.test_delivery import NO_TARGETS, an_alert, policy
from tests.transforms.web_service import status
from transforms import stores
from transforms.alerts import alert_for
from transforms.counters import counted, counted_here
from transforms.couriers import TimeLimits, target_name
from transforms.ledger import Ledger, Outcome, read_letter
from transforms.live_rules import LiveRules
from transforms.send_alerts import SendAlerts, SendOptions, Underway, _DeliverInStream
from transforms.times import canonical_time

# The alert itself.


@pytest.mark.parametrize(
    ("threats", "called_for"),
    [
        ([], False),
        ([("dog", "detection")], False),
        ([("person", "alert")], True),
        ([("dog", "detection"), ("person", "alert")], True),
    ],
)
def test_an_alert_is_called_for_by_a_threat_of_that_severity(threats, called_for):
    assert (alert_for(judged(threats=threats), "/out", NO_TARGETS) is not None) is called_for


def test_the_body_of_an_alert():
    alert = alert_for(judged(threats=[("person", "alert")]), "/out/", NO_TARGETS)
    expected = hashlib.sha256(b"hall\n2026-01-31T23:59:59Z\nalert").hexdigest()[:32]
    assert (alert.alert_id, alert.camera) == (expected, "hall")
    assert alert.body == {
        "alert_id": expected,
        "id": "hall",
        "timestamp": "2026-01-31T23:59:59Z",
        "severity": "alert",
        "threats": [
            {
                "detection": 0,
                "label": "person",
                "conf": 0.9,
                "severity": "alert",
                "rule": "defaults.objects.person",
                "zone": None,
            }
        ],
        "image_uri": "/in/hall_2026-01-31T23-59-59Z.jpg",
        "final_uri": "/out/final/hall/hall_2026-01-31T23-59-59Z.json",
        "rules_version": "ba9876543210",
        "model_version": "0123456789ab",
    }


# The step.

IMAGES = [
    judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")]),
    judged("hall", "2026-01-31T10:00:01Z", [("dog", "detection")]),
    judged("yard", "2026-01-31T10:00:00Z", [("person", "alert"), ("person", "alert")]),
    judged("yard", "2026-01-31T10:00:01Z", []),
]


def send(run_pipeline, output, *urls, images=IMAGES, by=NO_TARGETS, step=None, **changes):
    step = step or {}

    def build(pipeline):
        sent = (
            pipeline
            | beam.Create(images)
            | SendAlerts(str(output), by, urls=urls, policy=policy(**changes), **step)
        )
        return {"sent": sent}

    result, _ = run_pipeline(build)
    return counted(result)


def records(output):
    """What is kept of each alert, by its place."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted((output / "alerts").rglob("*"))
        if path.is_file() and "undelivered" not in path.parts
    }


UNTOLD = "no --alert_url was given, and the rules name no target for it"


def letters(output):
    """What waits, in the order of time."""
    found = [read_letter(uri) for uri in Ledger(str(output)).waiting()]
    return sorted(found, key=lambda one: (one.order, one.target))


def targets(output):
    """The outcomes by the targets, for each alert."""
    return [
        {one["target"]: (one["outcome"], one["detail"]) for one in json.loads(data)["targets"]}
        for data in records(output).values()
    ]


def test_each_alert_is_delivered_and_recorded(run_pipeline, tmp_path, web):
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook")
    kept = records(tmp_path)
    expected = [alert_for(image, str(tmp_path), NO_TARGETS) for image in (IMAGES[0], IMAGES[2])]
    assert list(kept) == [f"alerts/{one.camera}/{one.alert_id}.json" for one in expected]
    name = target_name(f"{web.url}/hook")
    delivered = [{"target": name, "outcome": "delivered", "detail": ""}]
    for alert, data in zip(expected, kept.values(), strict=True):
        assert data == stores.json_bytes({**alert.body, "targets": delivered})
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {
        one.alert_id for one in expected
    }
    assert len(web.requests) == 2
    assert counts == {"alerts.delivered": 2}


def test_without_a_service_alerts_are_recorded_as_not_sent(run_pipeline, tmp_path):
    assert send(run_pipeline, tmp_path) == {"alerts.not_sent": 2}
    assert (
        targets(tmp_path)
        == [{None: ("not_sent", "no --alert_url was given, and the rules name no target for it")}]
        * 2
    )


def test_two_services_have_their_own_fates(run_pipeline, tmp_path, web):
    def answer(handler, request):
        status(200 if request.path == "/good" else 400)(handler, request)

    web.answers = [answer]
    good, bad = f"{web.url}/good", f"{web.url}/bad"
    counts = send(run_pipeline, tmp_path, good, bad)
    assert counts == {"alerts.delivered": 2, "alerts.failed": 2}
    fates = {target_name(good): ("delivered", ""), target_name(bad): ("failed", "HTTP status 400")}
    assert targets(tmp_path) == [fates] * 2


def test_what_was_delivered_is_not_sent_again(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.delivered": 2}
    assert len(web.requests) == 2
    assert records(tmp_path) == before


SENT = judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")], incident_number=1)
COVERED = judged(
    *("hall", "2026-01-31T10:00:05Z", [("person", "alert")]),
    suppressed_by=alert_id("hall", "2026-01-31T10:00:00Z", "alert"),
    incident_number=2,
)


@pytest.mark.parametrize("services", [0, 1, 2])
def test_what_another_alert_covers_is_recorded_as_suppressed_and_sent_to_nobody(
    run_pipeline, tmp_path, web, services
):
    urls = [f"{web.url}/{number}" for number in range(services)]
    counts = send(run_pipeline, tmp_path, *urls, images=[SENT, COVERED])
    fate = {"alerts.delivered": services} if services else {"alerts.not_sent": 1}
    assert counts == {"alerts.suppressed": 1, **fate}
    sent, covered = (alert_for(one, str(tmp_path), NO_TARGETS) for one in (SENT, COVERED))
    asked = [request.headers["Idempotency-Key"] for request in web.requests]
    assert asked == [sent.alert_id] * services
    detail = f"in the cooldown of alert {sent.alert_id}"
    assert json.loads(records(tmp_path)[f"alerts/hall/{covered.alert_id}.json"]) == {
        **covered.body,
        "suppressed_by": sent.alert_id,
        "incident_number": 2,
        "targets": [{"target": None, "outcome": "suppressed", "detail": detail}],
    }
    assert "suppressed_by" not in json.loads(records(tmp_path)[f"alerts/hall/{sent.alert_id}.json"])


def test_what_was_delivered_by_other_rules_stays_so(run_pipeline, tmp_path, web):
    url = f"{web.url}/hook"
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    send(run_pipeline, tmp_path, url, images=[without])
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, url, images=[COVERED]) == {"alerts.delivered": 1}
    assert records(tmp_path) == before
    assert len(web.requests) == 1


def test_what_was_suppressed_is_sent_once_other_rules_ask_for_it(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, images=[COVERED])
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook", images=[without])
    assert counts == {"alerts.delivered": 1}
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


def test_what_has_failed_is_sent_again_by_the_next_run(run_pipeline, tmp_path, web):
    web.answers = [status(400)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    web.answers = [status(200)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}] * 2


@pytest.mark.parametrize("again", [["other"], ["hook", "other"], []])
def test_a_run_with_other_services_keeps_what_the_first_has_delivered(
    run_pipeline, tmp_path, web, again
):
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    send(run_pipeline, tmp_path, *(f"{web.url}/{path}" for path in again))
    paths = [request.path for request in web.requests]
    assert paths.count("/hook") == 2
    assert paths.count("/other") == 2 * ("other" in again)
    names = [target_name(f"{web.url}/{path}") for path in {"hook", *again}]
    assert targets(tmp_path) == [dict.fromkeys(names, ("delivered", ""))] * 2


@pytest.mark.parametrize(
    "record", [b"", b"no JSON", b"[]", b"{}", b'{"targets": 7}', b'{"targets": [{}]}', b"\xff"]
)
def test_a_record_that_cannot_be_read_stops_nothing(run_pipeline, tmp_path, web, record):
    alert = alert_for(IMAGES[0], str(tmp_path), NO_TARGETS)
    uri = stores.alert_uri(str(tmp_path), "hall", alert.alert_id)
    stores.write_bytes(uri, record)
    send(run_pipeline, tmp_path, f"{web.url}/hook", images=IMAGES[:1])
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


@pytest.mark.parametrize("code", [200, 503])
def test_two_runs_over_the_same_images_leave_the_same_bytes(run_pipeline, tmp_path, web, code):
    web.answers = [status(code)]
    kept = []
    for order in (IMAGES, IMAGES[::-1]):
        output = tmp_path / "output"
        send(run_pipeline, output, f"{web.url}/b", f"{web.url}/a", images=order)
        kept.append(records(output))
        output.rename(tmp_path / f"run {len(kept)}")
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


SECRETS = ("s3cret", "t0ken", "us3r", "qu3ry")


@pytest.mark.parametrize("fate", ["delivered", "refused", "busy", "hanging", "closed", "dead"])
def test_no_secret_is_in_a_record_or_a_log(run_pipeline, tmp_path, web, monkeypatch, caplog, fate):
    monkeypatch.setenv("ALERT_TOKEN", "t0ken")
    caplog.set_level(logging.INFO)
    web.answers = [
        {
            "delivered": status(200),
            "refused": status(403, location="/s3cret"),
            "busy": status(503, b"s3cret"),
            "hanging": lambda handler, request: web.ended.wait(20),
            "closed": lambda handler, request: setattr(handler, "close_connection", True),
            "dead": status(200),
        }[fate]
    ]
    host = web.url.removeprefix("http://")
    if fate == "dead":
        web.stop()
    send(run_pipeline, tmp_path, f"http://us3r:s3cret@{host}/s3cret?key=qu3ry", attempts=2)
    kept = records(tmp_path)
    assert len(kept) == 2
    for text in (*(data.decode() for data in kept.values()), caplog.text):
        assert not [secret for secret in SECRETS if secret in text]
    assert {one["outcome"] for data in kept.values() for one in json.loads(data)["targets"]} == {
        "delivered" if fate == "delivered" else "failed"
    }


@pytest.mark.parametrize("token", ["a\nb", "a\rX-Injected: b"])
def test_a_token_that_is_no_header_fails_the_alerts_alone(
    run_pipeline, tmp_path, web, monkeypatch, token
):
    monkeypatch.setenv("ALERT_TOKEN", token)
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.failed": 2}
    assert web.requests == []
    assert token not in str(targets(tmp_path))


# Targets of the rule file.


def rules_for(web, more="", notify="[good, other]"):
    """Two webhooks; `other` is told of severity detection too."""
    return parse_rules(
        f"""version: 1
targets:
  good: {{webhook: {web.url}/good}}
  other: {{webhook: "{web.url}/other", severities: [alert, detection]}}
{more}
defaults:
  objects: {{person: , dog: {{severity: detection}}}}
  notify: {notify}
""",
        "rules.yaml",
    )


def paths(web):
    return sorted(request.path for request in web.requests)


def test_an_image_of_severity_detection_has_an_alert_where_a_target_asks_for_it(web):
    dog = judged("hall", "2026-01-31T10:00:01Z", [("dog", "detection")])
    person = judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")])
    by = rules_for(web)
    told = [alert_for(one, "/out", by, ("url",)) for one in (dog, person)]
    assert [one.targets for one in told] == [("other",), ("good", "other", "url")]
    assert told[0].body["severity"] == "detection"
    assert alert_for(dog, "/out", rules_for(web, notify="[good]"), ("url",)) is None


def test_each_target_is_told_of_what_it_asks_for_and_an_url_of_every_alert(
    run_pipeline, tmp_path, web
):
    counts = send(run_pipeline, tmp_path, f"{web.url}/url", by=rules_for(web))
    assert counts == {"alerts.delivered": 3 * 2 + 1}
    assert paths(web) == ["/good"] * 2 + ["/other"] * 3 + ["/url"] * 2
    kinds = {request.path: json.loads(request.body) for request in web.requests}
    assert "subject" in kinds["/good"]
    assert "subject" not in kinds["/url"]
    names = ["good", target_name(f"{web.url}/url"), "other"]
    assert [list(one) for one in targets(tmp_path) if len(one) == 3] == [names] * 2


def test_a_target_that_hangs_does_not_hold_back_another(run_pipeline, tmp_path, web):
    """The good one has all its alerts before the first try of the other has come to its end."""
    web.answers = [
        lambda handler, request: (
            web.ended.wait(2) if request.path == "/other" else None or status(200)(handler, request)
        )
    ]
    images = [
        judged("hall", f"2026-01-31T10:{at // 60:02d}:{at % 60:02d}Z", [("person", "alert")])
        for at in range(100)
    ]
    limits = TimeLimits(connect_seconds=1, read_seconds=1.5, in_all_seconds=3)
    changes = {"attempts": 1, "give_up_after": 1, "limits": limits}
    counts = send(run_pipeline, tmp_path, images=images, by=rules_for(web), **changes)
    assert counts == {"alerts.delivered": 100, "alerts.failed": 100}
    good = [request.at for request in web.requests if request.path == "/good"]
    hanging = [request.at for request in web.requests if request.path == "/other"]
    assert len(good) == 100
    assert max(good) < min(hanging) + 1.5
    assert len(hanging) <= 16  # Those that were on their way at once; then it is given up.
    assert len(letters(tmp_path)) == 100


def test_200_alerts_to_a_service_that_fails_every_other_request_all_arrive_under_one_id_each(
    run_pipeline, tmp_path, web
):
    number, taken, lock = iter(range(10_000)), [], threading.Lock()

    def answer(handler, request):
        with lock:
            fails = next(number) % 2 == 0
            if not fails:
                taken.append(request.headers["Idempotency-Key"])
        status(500 if fails else 200)(handler, request)

    web.answers = [answer]
    images = [
        judged("hall", f"2026-01-31T10:{at // 60:02d}:{at % 60:02d}Z", [("person", "alert")])
        for at in range(200)
    ]
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook", images=images, attempts=20)
    assert counts == {"alerts.delivered": 200}
    assert sorted(taken) == sorted(
        alert_id("hall", image.image.timestamp, "alert") for image in images
    )
    assert letters(tmp_path) == []
    asked = len(web.requests)
    send(run_pipeline, tmp_path, f"{web.url}/hook", images=images, attempts=20)
    assert len(web.requests) == asked


def test_what_a_batch_could_not_deliver_waits_until_it_is_delivered(run_pipeline, tmp_path, web):
    web.answers = [status(503)]
    send(run_pipeline, tmp_path, f"{web.url}/hook?key=s3cret", attempts=1)
    waiting = letters(tmp_path)
    assert {one.alert.camera for one in waiting} == {"hall", "yard"}
    assert {(one.target, one.detail) for one in waiting} == {
        (target_name(f"{web.url}/hook?key=s3cret"), "HTTP status 503")
    }
    assert all(one.uri.endswith(f"/20260131T100000Z_{one.alert.alert_id}.json") for one in waiting)
    assert not any(b"s3cret" in open(one.uri, "rb").read() for one in waiting)  # noqa: SIM115
    web.answers = [status(200)]
    send(run_pipeline, tmp_path, f"{web.url}/hook?key=s3cret", attempts=1)
    assert letters(tmp_path) == []


def test_what_is_too_old_is_recorded_and_sent_to_nobody(run_pipeline, tmp_path, web):
    now = canonical_time(datetime.now(timezone.utc).replace(microsecond=0))
    images = [*IMAGES[:1], judged("yard", now, [("person", "alert")])]
    counts = send(
        *(run_pipeline, tmp_path, f"{web.url}/hook"),
        images=images,
        step={"max_age_seconds": 3600},
    )
    assert counts == {"alerts.delivered": 1, "alerts.too_old": 1}
    (request,) = web.requests
    assert json.loads(request.body)["id"] == "yard"
    name = target_name(f"{web.url}/hook")
    assert targets(tmp_path)[0] == {name: ("not_sent", "older than --alert_max_age")}


def test_two_threads_that_record_outcomes_of_one_alert_lose_none(tmp_path):
    ledger, alert = Ledger(str(tmp_path)), an_alert()
    names = [f"target-{number:02d}" for number in range(32)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: ledger.note(alert, Outcome(name, "delivered")), names))
    assert [one.target for one in ledger.outcomes(alert)] == names


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("guard", "guard"),
        ("../x", ".._x-"),
        ("https://a.example:8#1a2b", "https_a.example_8_1a2b-"),
    ],
)
def test_a_target_s_name_is_never_a_path(name, folder):
    uri = stores.undelivered_uri("/out", name, "2026-01-31T10:00:00.500Z", "5" * 32)
    place, file = uri.removeprefix("/out/alerts/undelivered/").split("/")
    assert place.startswith(folder)
    assert file == f"20260131T100000.500Z_{'5' * 32}.json"


# A stream.


class Held:
    """State of one alert."""

    value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value

    def clear(self):
        self.value = None


class Timer:
    """When an alert is to be looked at again."""

    at = None

    def set(self, moment):
        self.at = float(moment)


class Stream:
    """The step of a stream, by one process; state and timer of each alert are kept here."""

    def __init__(self, output, by, *urls, keep_trying_seconds=3600, **changes):
        options = SendOptions(
            *(str(output), LiveRules.of(by), urls),
            policy=policy(attempts=1, **changes),
            at_once=4,
            max_age_seconds=None,
        )
        self._step = _DeliverInStream(options, keep_trying_seconds, 60)
        self.start()

    def start(self):
        """A process begins; what the one before had in its memory is gone."""
        self._step._shared = Shared()
        self._step.setup()

    def feed(self, alert):
        self.held, self.timer = Held(), Timer()
        self._step.process((alert.alert_id, alert), self.held, self.timer)

    def wake(self, *, until=lambda: True):
        """Lets the timer come, as if its time had come, until something is so."""
        ends = time.monotonic() + 5
        while True:
            for line in self.held.value.lines.values():
                line.due = 0
            self._step.look_again(self.held, self.timer)
            if self.held.value is None or until() or time.monotonic() > ends:
                return
            time.sleep(0.01)

    def tries(self):
        return {name: line.tries for name, line in self.held.value.lines.items()}


def counted_meanwhile(before):
    now = counted_here()
    now.subtract(before)
    return {name: number for name, number in now.items() if number}


def test_an_alert_that_fails_in_a_stream_is_held_and_sent_until_it_is_taken(tmp_path, web):
    web.answers = [status(503), status(503), status(200)]
    before = counted_here()
    url, alert = f"{web.url}/hook", replace(an_alert(1), targets=(target_name(f"{web.url}/hook"),))
    stream = Stream(tmp_path, NO_TARGETS, url)
    stream.feed(alert)
    for tries, pause in ((1, 2), (2, 4)):
        stream.wake(until=lambda tries=tries: stream.tries()[target_name(url)] == tries)
        assert stream.timer.at - time.time() == pytest.approx(pause, rel=0.3, abs=0.2)
        assert len(letters(tmp_path)) == 1
        assert targets(tmp_path) == [{target_name(url): ("failed", "HTTP status 503")}]
    stream.wake(until=lambda: False)
    assert stream.held.value is None
    assert len(web.requests) == 3
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {alert.alert_id}
    assert targets(tmp_path) == [{target_name(url): ("delivered", "")}]
    assert letters(tmp_path) == []
    assert counted_meanwhile(before) == {"alerts.waiting": 1, "alerts.delivered": 1}


def test_a_process_that_is_gone_loses_no_alert_and_sends_none_twice(tmp_path, web):
    url = f"{web.url}/hook"
    alert = replace(an_alert(1), targets=(target_name(url),))
    stream = Stream(tmp_path, NO_TARGETS, url)
    stream.feed(alert)
    deadline = time.monotonic() + 5
    while not records(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    stream.start()
    stream.wake(until=lambda: False)
    assert stream.held.value is None
    assert len(web.requests) == 1
    stream.feed(alert)
    stream.wake(until=lambda: False)
    assert len(web.requests) == 1


def test_an_alert_that_nobody_takes_is_given_up_in_the_end_and_waits(tmp_path, web):
    web.answers = [status(503)]
    url = f"{web.url}/hook"
    stream = Stream(tmp_path, NO_TARGETS, url, keep_trying_seconds=0)
    stream.feed(replace(an_alert(1), targets=(target_name(url),)))
    stream.wake(until=lambda: False)
    assert stream.held.value is None
    assert targets(tmp_path) == [{target_name(url): ("failed", "HTTP status 503")}]
    assert len(letters(tmp_path)) == 1


def test_a_stream_asks_for_no_more_than_a_retry_after_allows(tmp_path, web):
    web.answers = [status(429, retry_after="120")]
    url = f"{web.url}/hook"
    stream = Stream(tmp_path, NO_TARGETS, url)
    stream.feed(replace(an_alert(1), targets=(target_name(url),)))
    stream.wake(until=lambda: stream.tries()[target_name(url)] == 1)
    assert stream.timer.at - time.time() == pytest.approx(120, abs=5)


def test_a_target_that_hangs_holds_back_neither_the_stream_nor_another_target(tmp_path, web):
    web.answers = [
        lambda handler, request: (
            web.ended.wait(20)
            if request.path == "/other"
            else None or status(200)(handler, request)
        )
    ]
    limits = TimeLimits(connect_seconds=1, read_seconds=3, in_all_seconds=4)
    stream = Stream(tmp_path, rules_for(web), limits=limits)
    started = time.monotonic()
    for second in range(30):
        stream.feed(replace(an_alert(second), targets=("good", "other")))
    assert time.monotonic() - started < 1.5  # Judging goes on.
    stream.wake(until=lambda: list(stream.held.value.lines) == ["other"])
    assert list(stream.held.value.lines) == ["other"]
    deadline = started + 2.5
    while paths(web).count("/good") < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert paths(web).count("/good") == 30


def test_what_finds_the_queue_of_its_target_full_is_begun_later(tmp_path, web):
    options = SendOptions(
        *(str(tmp_path), LiveRules.of(rules_for(web)), ()),
        policy=policy(),
        at_once=1,
        max_age_seconds=None,
    )
    underway = Underway(options.open_office(), most=2)
    alerts = [replace(an_alert(second), targets=("good",)) for second in range(3)]
    gate = threading.Event()
    web.answers = [lambda handler, request: (gate.wait(5), status(200)(handler, request))]
    assert [underway.look(one, "good", again=False) for one in alerts] == [None] * 3
    gate.set()
    deadline = time.monotonic() + 5
    came = {}
    while len(came) < 2 and time.monotonic() < deadline:
        for one in alerts[:2]:
            if one.alert_id not in came:
                found = underway.look(one, "good", again=False)
                came |= {one.alert_id: found} if found else {}
    assert len(web.requests) == 2
    assert underway.look(alerts[2], "good", again=False) is None
    while len(web.requests) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(web.requests) == 3
