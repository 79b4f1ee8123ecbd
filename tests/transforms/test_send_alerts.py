import hashlib
import json
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone

import apache_beam as beam
import pytest

from rules import alert_id, parse_rules
from tests.transforms.alert_stream import Clock, Stream
from tests.transforms.alerting.sending import (
    IMPATIENT,
    NO_TARGETS,
    an_alert,
    policy,
    records,
    waiting_in,
)
from tests.transforms.memory_store import MemoryFileSystem, StoreError
from tests.transforms.results import judged
from tests.transforms.web_service import status
from transforms.alerting.alerts import Alert, alert_for
from transforms.alerting.delivery import STREAM_POLICY, DispatchContext
from transforms.alerting.ledger import Ledger, Outcome
from transforms.alerting.target_clients import TimeLimits, former_name, named_urls
from transforms.records.times import canonical_time
from transforms.runtime.counters import counted, counted_here
from transforms.runtime.live_rules import LiveRules
from transforms.send_alerts import InFlight, SendAlerts, SendOptions
from transforms.storage import stores


def target_name(url):
    """The name of a target of `--alert_url`, where there is no other at its host."""
    (name,) = named_urls([url])
    return name


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
def test_a_threat_of_severity_alert_needs_an_alert(threats, called_for):
    assert (alert_for(judged(threats=threats), "/out", NO_TARGETS) is not None) is called_for


def test_the_body_of_an_alert():
    alert = alert_for(judged(threats=[("person", "alert")]), "/out/", NO_TARGETS)
    expected = hashlib.sha256(b"hall\n2026-01-31T23:59:59Z\nalert").hexdigest()[:32]
    assert (alert.alert_id, alert.camera) == (expected, "hall")
    assert alert.body == {
        "alert_id": expected,
        "id": "hall",
        "timestamp": "2026-01-31T23:59:59Z",
        "local_time": "2026-01-31T23:59:59+00:00",
        "timezone": "UTC",
        "severity": "alert",
        "threats": [
            {
                "detection": 0,
                "label": "person",
                "conf": 0.9,
                "severity": "alert",
                "rule": "defaults.objects.person",
                "zone": None,
                "bbox": [0.1, 0.2, 0.3, 0.4],
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


def send(run_pipeline, output, *urls, images=IMAGES, ruleset=NO_TARGETS, step=None, **changes):
    step = step or {}

    def build(pipeline):
        sent = (
            pipeline
            | beam.Create(images)
            | SendAlerts(str(output), ruleset, urls=urls, policy=policy(**changes), **step)
        )
        return {"sent": sent}

    result, _ = run_pipeline(build)
    return counted(result)


NO_TARGET = "no --alert_url was given, and the rules name no target for it"


def targets(output):
    """The outcomes by the targets, for each alert."""
    return [
        {load["target"]: (load["outcome"], load["detail"]) for load in json.loads(data)["targets"]}
        for data in records(output).values()
    ]


def test_each_alert_is_delivered_and_recorded(run_pipeline, tmp_path, web):
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook")
    kept = records(tmp_path)
    expected = [alert_for(image, str(tmp_path), NO_TARGETS) for image in (IMAGES[0], IMAGES[2])]
    assert list(kept) == [f"alerts/{alert.camera}/{alert.alert_id}.json" for alert in expected]
    name = target_name(f"{web.url}/hook")
    delivered = [{"target": name, "outcome": "delivered", "detail": ""}]
    for alert, data in zip(expected, kept.values(), strict=True):
        assert data == stores.json_bytes({**alert.body, "targets": delivered})
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {
        alert.alert_id for alert in expected
    }
    assert len(web.requests) == 2
    assert counts == {"alerts.delivered": 2}


def test_without_a_service_alerts_are_recorded_as_not_sent_until_there_is_one(
    run_pipeline, tmp_path, web
):
    assert send(run_pipeline, tmp_path) == {"alerts.not_sent": 2}
    assert (
        targets(tmp_path)
        == [{None: ("not_sent", "no --alert_url was given, and the rules name no target for it")}]
        * 2
    )
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.delivered": 2}


def test_two_services_have_their_own_fates(run_pipeline, tmp_path, web):
    def answer(handler, request):
        status(200 if request.path == "/good" else 400)(handler, request)

    web.answers = [answer]
    good, bad = f"{web.url}/good", f"{web.url}/bad"
    counts = send(run_pipeline, tmp_path, good, bad)
    assert counts == {"alerts.delivered": 2, "alerts.failed": 2}
    fates = {web.url: ("delivered", ""), f"{web.url}#2": ("failed", "HTTP status 400")}
    assert targets(tmp_path) == [fates] * 2


def test_a_delivered_alert_is_not_sent_again(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.delivered_earlier": 2}
    assert len(web.requests) == 2
    assert records(tmp_path) == before


def test_a_run_counts_as_delivered_what_it_has_delivered_itself(run_pipeline, tmp_path, web):
    def images(*minutes):
        times = (f"2026-01-31T10:{minute}:00Z" for minute in minutes)
        return [judged("hall", time, [("person", "alert")]) for time in times]

    url = f"{web.url}/hook"
    send(run_pipeline, tmp_path, url, images=images("00", "10"))
    counts = send(run_pipeline, tmp_path, url, images=images("00", "10", "20"))
    assert counts == {"alerts.delivered": 1, "alerts.delivered_earlier": 2}
    assert len(web.requests) == 3


SENT = judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")], incident_number=1)
COVERED = judged(
    *("hall", "2026-01-31T10:00:05Z", [("person", "alert")]),
    suppressed_by=alert_id("hall", "2026-01-31T10:00:00Z", "alert"),
    incident_number=2,
)


@pytest.mark.parametrize("services", [0, 1, 2])
def test_a_covered_alert_is_recorded_as_suppressed_and_not_sent(
    run_pipeline, tmp_path, web, services
):
    urls = [f"{web.url}/{number}" for number in range(services)]
    counts = send(run_pipeline, tmp_path, *urls, images=[SENT, COVERED])
    fate = {"alerts.delivered": services} if services else {"alerts.not_sent": 1}
    assert counts == {"alerts.suppressed": 1, **fate}
    sent, covered = (alert_for(image, str(tmp_path), NO_TARGETS) for image in (SENT, COVERED))
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


def test_a_delivery_by_other_rules_is_final(run_pipeline, tmp_path, web):
    url = f"{web.url}/hook"
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    send(run_pipeline, tmp_path, url, images=[without])
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, url, images=[COVERED]) == {"alerts.delivered_earlier": 1}
    assert records(tmp_path) == before
    assert len(web.requests) == 1


def test_a_suppressed_alert_is_sent_if_other_rules_require_it(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, images=[COVERED])
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook", images=[without])
    assert counts == {"alerts.delivered": 1}
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


def test_a_failed_alert_is_sent_again_by_the_next_run(run_pipeline, tmp_path, web):
    web.answers = [status(400)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    web.answers = [status(200)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}] * 2


@pytest.mark.parametrize("again", [["other"], ["hook", "other"], []])
def test_a_run_with_other_services_keeps_what_the_first_has_delivered(
    run_pipeline, tmp_path, web, again
):
    urls = {
        "hook": f"{web.url}/hook",
        "other": f"{web.url.replace('127.0.0.1', 'localhost')}/other",
    }
    send(run_pipeline, tmp_path, urls["hook"])
    send(run_pipeline, tmp_path, *(urls[path] for path in again))
    paths = [request.path for request in web.requests]
    assert paths.count("/hook") == 2
    assert paths.count("/other") == 2 * ("other" in again)
    names = [target_name(urls[path]) for path in {"hook", *again}]
    assert targets(tmp_path) == [dict.fromkeys(names, ("delivered", ""))] * 2


def test_another_address_at_the_same_host_replaces_the_first(run_pipeline, tmp_path, web):
    """As an edited address of a target of the rule file does: a secret that is changed sends
    nothing twice."""
    send(run_pipeline, tmp_path, f"{web.url}/hook?key=old")
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook?key=new")
    assert counts == {"alerts.delivered_earlier": 2}
    assert len(web.requests) == 2


def test_records_of_an_earlier_release_with_a_hash_in_the_name_are_valid(
    run_pipeline, tmp_path, web, monkeypatch
):
    """Delivered stays delivered, what waits is sent and taken away, and no hash is left."""
    monkeypatch.setenv("KEY", "s3cret")
    former = former_name(f"{web.url}/hook?key=s3cret")
    digits = former.rpartition("#")[2]
    by_former = Ledger(str(tmp_path))
    by_former.record(an_alert(0), Outcome(former, "delivered"))
    by_former.record(an_alert(1), Outcome(former, "failed", "HTTP status 503"))
    images = [judged("hall", f"2026-01-31T10:00:0{at}Z", [("person", "alert")]) for at in (0, 1)]
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook?key=${{KEY}}", images=images)
    assert counts == {"alerts.delivered": 1, "alerts.delivered_earlier": 1}
    sent = [request.headers["Idempotency-Key"] for request in web.requests]
    assert sent == [an_alert(1).alert_id]
    assert waiting_in(tmp_path) == []
    delivered = json.loads(records(tmp_path)[f"alerts/hall/{sent[0]}.json"])
    assert digits not in str(delivered)


@pytest.mark.parametrize("literal", [True, False])
@pytest.mark.parametrize("code", [200, 503])
def test_no_output_or_log_holds_a_secret_of_an_alert_url_or_a_hash_of_it(
    run_pipeline, tmp_path, web, monkeypatch, caplog, literal, code
):
    caplog.set_level(logging.DEBUG)
    web.answers = [status(code)]
    secrets = {"PASSWORD": "hunter2", "HOOK": "h00k", "KEY": "s3cret"}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    host = web.url.removeprefix("http://")
    url = "http://me:${PASSWORD}@" + host + "/${HOOK}?key=${KEY}"
    spelt = url
    for name, secret in secrets.items():
        spelt = spelt.replace(f"${{{name}}}", secret)
    send(run_pipeline, tmp_path, spelt if literal else url, attempts=1)
    assert {request.path for request in web.requests} == {"/h00k?key=s3cret"}
    written = "\n".join(
        f"{path} {path.read_text()}" for path in tmp_path.rglob("*") if path.is_file()
    )
    hidden = [*secrets.values(), spelt]
    hashes = {
        hashlib.new(kind, text.encode()).hexdigest()[:8]
        for kind in ("md5", "sha1", "sha256", "sha512", "blake2b")
        for text in (*hidden, f"me:{secrets['PASSWORD']}", url)
    }
    assert [word for word in (*hidden, *hashes) if word in written or word in caplog.text] == []


@pytest.mark.parametrize(
    "record", [b"", b"no JSON", b"[]", b"{}", b'{"targets": 7}', b'{"targets": [{}]}', b"\xff"]
)
def test_a_record_that_cannot_be_read_stops_nothing(run_pipeline, tmp_path, web, record):
    alert = alert_for(IMAGES[0], str(tmp_path), NO_TARGETS)
    uri = stores.alert_uri(str(tmp_path), "hall", alert.alert_id)
    stores.write_bytes(uri, record)
    send(run_pipeline, tmp_path, f"{web.url}/hook", images=IMAGES[:1])
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


def test_a_record_that_the_store_does_not_give_is_never_written_over(tmp_path, monkeypatch):
    """A read that fails says nothing of what is delivered, to this target or to another."""
    ledger, alert = Ledger(str(tmp_path)), an_alert()
    ledger.record(alert, Outcome("guard", "delivered"))
    before = records(tmp_path)

    def fails(uri, at_most=-1):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(stores, "read_bytes", fails)
        with pytest.raises(OSError, match="Input/output"):
            ledger.record(alert, Outcome("mail", "failed", "HTTP status 503"))
        with pytest.raises(OSError, match="Input/output"):
            ledger.outcomes(alert)
    assert records(tmp_path) == before
    assert waiting_in(tmp_path) == []


@pytest.mark.usefixtures("memory")
def test_records_are_found_in_a_store_with_its_own_kinds_of_error(
    monkeypatch,
):
    ledger, alert = Ledger("memory://out"), an_alert()
    assert ledger.outcomes(alert) == []
    ledger.record(alert, Outcome("guard", "delivered"))
    assert ledger.outcomes(alert) == [Outcome("guard", "delivered")]
    monkeypatch.setattr(MemoryFileSystem, "open", _break)
    with pytest.raises(OSError, match="StoreError: 500"):
        ledger.record(alert, Outcome("mail", "delivered"))


def _break(*_, **__):
    raise StoreError("500")


@pytest.mark.parametrize("camera", ["undelivered", "digests"])
def test_a_camera_s_alerts_never_share_a_folder_with_waiting_alerts(tmp_path, camera):
    ledger = Ledger(str(tmp_path))
    ledger.record(an_alert(camera=camera), Outcome("guard", "delivered"))
    waits = an_alert(1)
    ledger.record(waits, Outcome("guard", "failed", "HTTP status 503"))
    assert [alert.alert.alert_id for alert in waiting_in(tmp_path)] == [waits.alert_id]


def test_waiting_alerts_of_an_earlier_release_are_sent_and_removed(tmp_path):
    ledger, alert = Ledger(str(tmp_path)), an_alert()
    ledger.record(alert, Outcome("guard", "failed", "HTTP status 503"))
    (tmp_path / "alerts" / "_undelivered").rename(tmp_path / "alerts" / "undelivered")
    (waiting,) = waiting_in(tmp_path)
    assert (waiting.target, waiting.alert.alert_id) == ("guard", alert.alert_id)
    ledger.record(alert, Outcome("guard", "delivered"))
    assert waiting_in(tmp_path) == []


def test_a_digest_that_an_earlier_release_delivered_stays_so(tmp_path):
    bounds = {"window_start": "2026-01-31T10:00:00Z", "window_end": "2026-01-31T10:10:00Z"}
    digest = Alert("5" * 32, "", {"alert_id": "5" * 32, "digest": bounds}, ("guard",))
    ledger = Ledger(str(tmp_path))
    ledger.record(digest, Outcome("guard", "delivered"))
    (tmp_path / "alerts" / "_digests").rename(tmp_path / "alerts" / "digests")
    assert ledger.outcomes(digest) == [Outcome("guard", "delivered")]


def test_an_outcome_that_the_record_says_already_is_not_written_again(tmp_path, monkeypatch):
    ledger, alert = Ledger(str(tmp_path)), an_alert()
    failed = Outcome("guard", "failed", "HTTP status 503")
    ledger.record(alert, failed)
    monkeypatch.setattr(stores, "write_bytes", None)
    assert ledger.record(alert, failed) == [failed]


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
    url = f"http://us3r:s3cret@{host}/s3cret?key=qu3ry"
    send(run_pipeline, tmp_path, url, attempts=2, limits=IMPATIENT)
    kept = records(tmp_path)
    assert len(kept) == 2
    for text in (*(data.decode() for data in kept.values()), caplog.text):
        assert not [secret for secret in SECRETS if secret in text]
    assert {load["outcome"] for data in kept.values() for load in json.loads(data)["targets"]} == {
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


def test_an_image_of_severity_detection_has_an_alert_if_the_rules_name_a_target(web):
    dog = judged("hall", "2026-01-31T10:00:01Z", [("dog", "detection")])
    person = judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")])
    ruleset = rules_for(web)
    bodies = [alert_for(image, "/out", ruleset, ("url",)) for image in (dog, person)]
    assert [image.targets for image in bodies] == [("other",), ("good", "other", "url")]
    assert bodies[0].body["severity"] == "detection"
    assert alert_for(dog, "/out", rules_for(web, notify="[good]"), ("url",)) is None


def test_each_target_gets_its_own_alerts_and_an_url_gets_every_alert(run_pipeline, tmp_path, web):
    counts = send(run_pipeline, tmp_path, f"{web.url}/url", ruleset=rules_for(web))
    assert counts == {"alerts.delivered": 3 * 2 + 1}
    assert paths(web) == ["/good"] * 2 + ["/other"] * 3 + ["/url"] * 2
    kinds = {request.path: json.loads(request.body) for request in web.requests}
    assert kinds["/good"].keys() == kinds["/url"].keys()
    names = ["good", target_name(f"{web.url}/url"), "other"]
    assert [list(target) for target in targets(tmp_path) if len(target) == 3] == [names] * 2


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
    limits = TimeLimits(connect_seconds=1, read_seconds=1.5, exchange_seconds=3)
    changes = {"attempts": 1, "give_up_after": 1, "limits": limits}
    counts = send(run_pipeline, tmp_path, images=images, ruleset=rules_for(web), **changes)
    assert counts == {"alerts.delivered": 100, "alerts.failed": 100}
    good = [request.at for request in web.requests if request.path == "/good"]
    hanging = [request.at for request in web.requests if request.path == "/other"]
    assert len(good) == 100
    assert max(good) < min(hanging) + 1.5
    assert len(hanging) <= 16  # Those that were on their way at once; then it is given up.
    assert len(waiting_in(tmp_path)) == 100


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
    assert waiting_in(tmp_path) == []
    asked = len(web.requests)
    send(run_pipeline, tmp_path, f"{web.url}/hook", images=images, attempts=20)
    assert len(web.requests) == asked


class Throttled:
    """A service that takes so many requests in each window of time, and asks the others to wait.

    Args:
      taken: How many.
      seconds: Of a window, which begins with the first request after the one before.
    """

    def __init__(self, taken, seconds):
        self._most, self._seconds = taken, seconds
        self._lock = threading.Lock()
        self._window, self._in_window = -1e9, 0
        self.taken, self.turned_away = [], 0

    def __call__(self, handler, request):
        now = time.monotonic()
        with self._lock:
            if now >= self._window + self._seconds:
                self._window, self._in_window = now, 0
            takes = self._in_window < self._most
            self._in_window += takes
            if takes:
                self.taken.append(request.headers["Idempotency-Key"])
            else:
                self.turned_away += 1
        left = f"{self._window + self._seconds - now:.3f}"
        (status(200) if takes else status(429, retry_after=left))(handler, request)


SIXTY = [
    judged("hall", f"2026-01-31T10:00:{second:02d}Z", [("person", "alert")]) for second in range(60)
]


def test_a_batch_delivers_all_alerts_to_a_service_that_accepts_few_at_a_time(
    run_pipeline, tmp_path, web
):
    """One attempt and one failure allowed: that the service asks for pauses is no failure."""
    service = Throttled(5, 0.5)
    web.answers = [service]
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook", images=SIXTY, attempts=1,
                  give_up_after=1, patience_seconds=300)  # fmt: skip
    assert counts == {"alerts.delivered": 60}
    assert len(service.taken) == len(set(service.taken)) == 60
    assert service.turned_away <= 16 * 60 / 5  # In a pause nothing but what was on its way is sent.


def test_a_stream_delivers_all_alerts_to_a_service_that_accepts_few_at_a_time(tmp_path, web):
    service = Throttled(5, 0.5)
    web.answers = [service]
    url = f"{web.url}/hook"
    how = replace(STREAM_POLICY, give_up_after=1)
    stream = Stream(tmp_path, NO_TARGETS, url, policy=how, max_concurrent=16)
    for image in SIXTY:
        alert = alert_for(image, str(tmp_path), NO_TARGETS, (target_name(url),))
        stream.feed(alert)
    ends = time.monotonic() + 60
    while stream.timers and time.monotonic() < ends:
        for key, due in stream.timers.items():
            if due <= time.time():
                stream.fire(key)
        time.sleep(0.005)
    assert len(service.taken) == len(set(service.taken)) == 60
    assert service.turned_away <= 16 * 60 / 5
    assert waiting_in(tmp_path) == []
    assert targets(tmp_path) == [{target_name(url): ("delivered", "")}] * 60


class Requests:
    """Counts what a store is asked."""

    def __init__(self, monkeypatch):
        self.count = Counter()
        for name in ("read_bytes", "write_bytes", "delete"):
            monkeypatch.setattr(stores, name, self._counting(name, getattr(stores, name)))

    def _counting(self, name, call):
        def counting(*args):
            self.count[name] += 1
            return call(*args)

        return counting


@pytest.mark.parametrize("code", [503, 429])
@pytest.mark.parametrize("number", [1, 200])
def test_a_dead_target_costs_the_same_for_any_number_of_waiting_alerts(
    tmp_path, web, monkeypatch, number, code
):
    """Two hours of a dead service, or of one that asks for pauses only, by a simulated clock."""
    asked = {"retry_after": "60"} if code == 429 else {}
    web.answers = [status(code, **asked)]
    clock, store = Clock(monkeypatch), Requests(monkeypatch)
    url = f"{web.url}/hook"
    stream = Stream(tmp_path, NO_TARGETS, url, policy=STREAM_POLICY, keep_trying_seconds=86400)
    for minute in range(number):
        alert = an_alert(minute % 60, camera=f"hall-{minute // 60}")
        stream.feed(replace(alert, targets=(target_name(url),)))

    def run(seconds):
        ends = clock.now + seconds
        while (timers := stream.timers) and min(timers.values()) <= ends:
            clock.now = max(clock.now, min(timers.values()) + 0.001)
            for key, due in timers.items():
                if due <= clock.now:
                    stream.fire(key)
            stream.settle_threads()

    stream.settle_threads()
    run(300)
    assert len(waiting_in(tmp_path)) == number
    assert store.count["write_bytes"] == 2 * number  # The record, and what `alerts resend` sends.
    store.count.clear()
    web.requests.clear()
    run(7200)
    probes = len(web.requests)
    assert 7200 / (60 * 1.25 + 10) <= probes <= 7200 / (60 * 0.75)
    assert store.count == {"read_bytes": 4 * probes}  # The record, the image JSON, the image twice.
    store.count.clear()
    web.answers = [status(200)]
    run(600)
    assert stream.timers == {}
    assert store.count["write_bytes"] == number
    assert store.count["read_bytes"] == 5 * number
    assert waiting_in(tmp_path) == []


def test_an_undelivered_alert_of_a_batch_waits_until_it_is_delivered(run_pipeline, tmp_path, web):
    web.answers = [status(503)]
    send(run_pipeline, tmp_path, f"{web.url}/hook?key=s3cret", attempts=1)
    waiting = waiting_in(tmp_path)
    assert {alert.alert.camera for alert in waiting} == {"hall", "yard"}
    assert {(alert.target, alert.detail) for alert in waiting} == {
        (target_name(f"{web.url}/hook?key=s3cret"), "HTTP status 503")
    }
    assert all(
        alert.uri.endswith(f"/20260131T100000Z_{alert.alert.alert_id}.json") for alert in waiting
    )
    assert not any(b"s3cret" in open(alert.uri, "rb").read() for alert in waiting)  # noqa: SIM115
    web.answers = [status(200)]
    send(run_pipeline, tmp_path, f"{web.url}/hook?key=s3cret", attempts=1)
    assert waiting_in(tmp_path) == []


def test_an_alert_that_is_too_old_is_recorded_and_not_sent(run_pipeline, tmp_path, web):
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
        list(threads.map(lambda name: ledger.record(alert, Outcome(name, "delivered")), names))
    assert [outcome.target for outcome in ledger.outcomes(alert)] == names


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
    folder, file = uri.removeprefix("/out/alerts/_undelivered/").split("/")
    assert folder.startswith(folder)
    assert file == f"20260131T100000.500Z_{'5' * 32}.json"


# A stream.


def counted_meanwhile(before):
    now = counted_here()
    now.subtract(before)
    return {name: number for name, number in now.items() if number}


def test_an_alert_that_fails_in_a_stream_is_kept_and_sent_until_it_is_delivered(tmp_path, web):
    web.answers = [status(503), status(503), status(200)]
    before = counted_here()
    url, alert = f"{web.url}/hook", replace(an_alert(1), targets=(target_name(f"{web.url}/hook"),))
    stream = Stream(tmp_path, NO_TARGETS, url, policy=policy(attempts=1))
    stream.feed(alert)
    for tries, pause in ((1, 2), (2, 4)):
        stream.wake(until=lambda tries=tries: stream.tries()[target_name(url)] == tries)
        assert stream.due - time.time() == pytest.approx(pause, rel=0.3, abs=0.2)
        assert len(waiting_in(tmp_path)) == 1
        assert targets(tmp_path) == [{target_name(url): ("failed", "HTTP status 503")}]
    stream.wake(until=lambda: False)
    assert stream.is_settled
    assert len(web.requests) == 3
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {alert.alert_id}
    assert targets(tmp_path) == [{target_name(url): ("delivered", "")}]
    assert waiting_in(tmp_path) == []
    assert counted_meanwhile(before) == {"alerts.waiting": 1, "alerts.delivered": 1}


def test_a_process_that_is_gone_loses_no_alert_and_sends_none_twice(tmp_path, web):
    url = f"{web.url}/hook"
    alert = replace(an_alert(1), targets=(target_name(url),))
    stream = Stream(tmp_path, NO_TARGETS, url, policy=policy(attempts=1))
    stream.feed(alert)
    deadline = time.monotonic() + 5
    while not records(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    stream.start()
    stream.wake(until=lambda: False)
    assert stream.is_settled
    assert len(web.requests) == 1
    stream.feed(alert)
    stream.wake(until=lambda: False)
    assert len(web.requests) == 1


def test_an_alert_without_a_delivery_is_given_up_in_the_end_and_waits(tmp_path, web):
    web.answers = [status(503)]
    url = f"{web.url}/hook"
    stream = Stream(tmp_path, NO_TARGETS, url, keep_trying_seconds=0, policy=policy(attempts=1))
    stream.feed(replace(an_alert(1), targets=(target_name(url),)))
    stream.wake(until=lambda: False)
    assert stream.is_settled
    assert targets(tmp_path) == [{target_name(url): ("failed", "HTTP status 503")}]
    assert len(waiting_in(tmp_path)) == 1


def test_a_stream_sends_no_more_than_a_retry_after_allows(tmp_path, web):
    web.answers = [status(429, retry_after="120")]
    url = f"{web.url}/hook"
    stream = Stream(tmp_path, NO_TARGETS, url, policy=policy(attempts=1))
    stream.feed(replace(an_alert(1), targets=(target_name(url),)))
    stream.wake(until=lambda: stream.due - time.time() > 60)
    assert stream.due - time.time() == pytest.approx(122, abs=4)


def test_a_target_that_hangs_holds_back_neither_the_stream_nor_another_target(tmp_path, web):
    web.answers = [
        lambda handler, request: (
            web.ended.wait(20)
            if request.path == "/other"
            else None or status(200)(handler, request)
        )
    ]
    limits = TimeLimits(connect_seconds=1, read_seconds=3, exchange_seconds=4)
    stream = Stream(tmp_path, rules_for(web), policy=policy(attempts=1, limits=limits))
    started = time.monotonic()
    for second in range(30):
        stream.feed(replace(an_alert(second), targets=("good", "other")))
    assert time.monotonic() - started < 1.5  # Judging goes on.
    stream.wake(until=lambda: list(stream.tries()) == ["other"])
    assert list(stream.tries()) == ["other"]
    deadline = started + 2.5
    while paths(web).count("/good") < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert paths(web).count("/good") == 30


def test_an_alert_for_a_full_queue_is_dispatched_later(tmp_path, web):
    options = SendOptions(
        *(str(tmp_path), LiveRules.of(rules_for(web)), ()),
        policy=policy(),
        max_concurrent=1,
        max_age_seconds=None,
    )
    in_flight = InFlight(options.open_dispatcher(), 0, max_in_flight=2)
    alerts = [replace(an_alert(second), targets=("good",)) for second in range(3)]
    gate = threading.Event()
    web.answers = [lambda handler, request: (gate.wait(5), status(200)(handler, request))]
    assert [in_flight.poll(alert, "good", DispatchContext()) for alert in alerts] == [None] * 3
    gate.set()
    deadline = time.monotonic() + 5
    outcomes = {}
    while len(outcomes) < 2 and time.monotonic() < deadline:
        for alert in alerts[:2]:
            if alert.alert_id not in outcomes:
                results = in_flight.poll(alert, "good", DispatchContext())
                outcomes |= {alert.alert_id: results} if results else {}
    assert len(web.requests) == 2
    assert in_flight.poll(alerts[2], "good", DispatchContext()) is None
    while len(web.requests) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(web.requests) == 3


@pytest.mark.parametrize("is_stream", [False, True])
def test_without_a_thread_an_alert_waits_and_is_sent_once_by_a_later_attempt(
    tmp_path, web, monkeypatch, is_stream
):
    start, fails = threading.Thread.start, [True]

    def start_or_fail(thread):
        if fails[0] and thread.name.startswith("alerts"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    url = f"{web.url}/hook"
    alert = replace(an_alert(1), targets=(target_name(url),))
    why = "not tried: this process can't start another thread"
    if is_stream:
        stream = Stream(tmp_path, NO_TARGETS, url, policy=policy(attempts=1))
        stream.feed(alert)
        stream.wake(until=lambda: stream.tries()[target_name(url)] == 1)
        assert not stream.is_settled
    else:
        dispatcher = SendOptions(
            str(tmp_path), LiveRules.of(NO_TARGETS), (url,), policy(), 4, None
        ).open_dispatcher()
        (outcome,) = dispatcher.dispatch(alert, target_name(url)).result(10)
        assert (outcome.outcome, outcome.detail, outcome.again_after) == ("failed", why, 0)
    assert targets(tmp_path) == [{target_name(url): ("failed", why)}]
    assert len(waiting_in(tmp_path)) == 1
    fails[0] = False
    if is_stream:
        stream.wake(until=lambda: False)
        assert stream.is_settled
    else:
        (outcome,) = dispatcher.dispatch(alert, target_name(url)).result(10)
        assert outcome.outcome == "delivered"
    assert waiting_in(tmp_path) == []
    assert len(web.requests) == 1


def test_an_alert_without_a_target_is_recorded_without_a_thread(tmp_path, monkeypatch):
    dispatcher = SendOptions(
        str(tmp_path), LiveRules.of(NO_TARGETS), (), policy(), 4, None
    ).open_dispatcher()
    dispatcher._executor.shutdown()
    (outcome,) = dispatcher.dispatch(an_alert(1), None).result(10)
    assert outcome.outcome == "not_sent"
    assert len(records(tmp_path)) == 1
