"""Records of decisions and outcomes that were damaged: they are skipped, and nothing fails."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import PastAlert, parse_rules
from tests.search import search
from tests.transforms.failing_runner import Bag, Cell, Store, Timer
from tests.transforms.results import detected, judged
from transforms import limit_alerts
from transforms.alerting import decisions, ledger
from transforms.alerting.alerts import alert_for
from transforms.alerting.decisions import (
    CameraRecord,
    DecodedRecords,
    DigestRecord,
    UnusableRecordError,
    WindowRecord,
    read_record,
)
from transforms.alerting.digests import Digest, HeldAlert, digest_message
from transforms.alerting.ledger import Ledger, Outcome
from transforms.judge_threats import HISTORIES, JudgeInStream
from transforms.limit_alerts import TargetedAlert, Window
from transforms.records.times import canonical_time, from_unix
from transforms.runtime.counters import counted_here
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

RULES = parse_rules(
    """version: 1
targets: {guard: {webhook: https://guard.example}}
limits: {per_id: {alerts: 1, within: 10m}}
defaults: {objects: {person: }, cooldown: 60s, notify: [guard]}
""",
    "rules.yaml",
)
LIVE = LiveRules.of(RULES)


def an_alert(second):
    image = judged("hall", f"2026-01-31T10:00:{second:02d}Z", [("person", "alert")])
    return alert_for(image, "/out", RULES)


ALERTS = [an_alert(second) for second in range(4)]
WINDOW = Window.of(ALERTS[0], RULES.alerting.per_id, per_id=True)


def a_digest(number=0, alerts=ALERTS[1:3]):
    digest = Digest()
    for alert in alerts:
        digest.add(HeldAlert.of(alert))
    body = digest.body(WINDOW.digest_id(number), WINDOW.camera, WINDOW.bounds)
    return DigestRecord(digest.alert_ids, body)


def of_window():
    record = WindowRecord("guard", "hall").admit(ALERTS[0].alert_id)
    return msgspec.json.encode(record.add_digest(a_digest()))


def of_camera():
    alert = PastAlert(1_769_853_600_000_000, "a" * 32, ("person",))
    return msgspec.json.encode(CameraRecord((alert,)))


def of_ledger():
    targets = [{"target": "guard", "outcome": "failed", "detail": "503"}]
    return stores.json_bytes({**ALERTS[0].body, "targets": targets})


@st.composite
def damaged(draw, data):
    """Bytes that are replaced, left out or repeated."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(out)))
        end = min(len(out), start + draw(st.integers(0, 4)))
        out[start:end] = draw(
            st.binary(max_size=3) | st.sampled_from([b"null", b"5", b"-1", b"[]"])
        )
    return bytes(out)


KNOWN = [b"", b"\0" * 100, b"[" * 100_000, b'{"a":' * 100_000, b'"\xff"', b"[]", b"null", b"1e999"]


@pytest.mark.search
@search(300)
@given(data=st.sampled_from([of_window(), of_camera()]).flatmap(damaged) | st.sampled_from(KNOWN))
def test_a_damaged_record_of_decisions_raises_nothing(data):
    store = Store()
    store.files["/record"] = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "stores", store)
        for kind in (WindowRecord, CameraRecord):
            try:
                record = read_record("/record", kind)
            except UnusableRecordError:  # Its format has become a greater number.
                continue
            for entry in getattr(record, "digests", ()):
                digest = limit_alerts._digest_alert(WINDOW, dict(entry.body)).alert
                assert digest.uri("/out")
                assert digest_message(digest.body).text


@pytest.mark.search
@search(200)
@given(data=damaged(of_camera()) | st.sampled_from(KNOWN))
def test_a_stream_judges_on_over_a_damaged_record_of_cooldowns(data):
    store = Store()
    store.files[stores.cooldowns_uri("/out", "hall")] = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "stores", store)
        step, history = JudgeInStream(LIVE, 3600, "/out"), Cell(HISTORIES)
        for second in (30, 10, 50):
            image = detected("hall", f"2026-01-31T10:01:{second}Z", ["person"])
            (result,) = step.process(("hall", image), history, Timer())
            assert result.verdict.severity == "alert"


@pytest.mark.search
@search(200)
@given(data=damaged(of_window()) | st.sampled_from(KNOWN))
def test_a_stream_limits_on_over_a_damaged_record_of_a_window(data):
    store = Store()
    store.files[WINDOW.record_uri("/out")] = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "stores", store)
        step = limit_alerts._LimitInStream("/out", LIVE, per_id=True, max_age_seconds=None)
        held, number = Bag(limit_alerts.HELD_ALERTS), Cell(limit_alerts.NEXT_DIGESTS)
        step.start_bundle()
        out = []
        for alert in ALERTS:
            part = TargetedAlert(alert)
            out += step.process((WINDOW.key, (WINDOW, part)), held, number, Timer(), Timer())
        out += step.send_digest(held, number, Timer())
        digests = {part.alert.alert_id for part in out if part.alert.is_digest}
        assert {part.alert.held["guard"] for part in out if part.alert.held} <= digests


@pytest.mark.search
@search(200)
@given(data=damaged(of_ledger()) | st.sampled_from(KNOWN))
def test_a_damaged_record_of_an_alert_raises_nothing(data):
    store = Store()
    alert = ALERTS[0]
    store.files[alert.uri("/out")] = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.stores, "read_if_there", store.files.get)
        patch.setattr(ledger.stores, "write_bytes", store.write_bytes)
        patch.setattr(ledger.stores, "delete", lambda uri: None)
        outcomes = Ledger("/out").record(alert, Outcome("guard", "delivered"))
        assert "delivered" in {outcome.outcome for outcome in outcomes}


@pytest.mark.parametrize("target", [5, ["x"], {}, True])
def test_an_alert_s_record_with_a_target_that_is_no_name_is_no_record(tmp_path, target):
    alert = ALERTS[0]
    content = {"targets": [{"target": target, "outcome": "delivered", "detail": ""}]}
    stores.write_bytes(alert.uri(str(tmp_path)), stores.json_bytes(content))
    assert Ledger(str(tmp_path)).outcomes(alert) == []


@pytest.mark.parametrize("data", KNOWN)
def test_a_damaged_waiting_alert_is_named(tmp_path, data):
    path = tmp_path / "waiting.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is not a waiting alert|Expecting value|codec|inf"):
        ledger.read_waiting_alert(str(path))


class Limits:
    """The step with the state of one window, in an output of which a test damages records."""

    def __init__(self, output):
        self.output = output
        self.held = Bag(limit_alerts.HELD_ALERTS)
        self.number = Cell(limit_alerts.NEXT_DIGESTS)
        self.step = limit_alerts._LimitInStream(output, LIVE, per_id=True, max_age_seconds=None)
        self.record = Path(WINDOW.record_uri(output))

    def comes(self, alert):
        self.step.start_bundle()
        element = WINDOW.key, (WINDOW, TargetedAlert(alert))
        return [
            part.alert
            for part in self.step.process(element, self.held, self.number, Timer(), Timer())
        ]

    def digest_is_due(self):
        self.step.start_bundle()
        out = [part.alert for part in self.step.send_digest(self.held, self.number, Timer())]
        for alert in out:
            Ledger(self.output).record(alert, Outcome("guard", "delivered"))
        return out

    def lose_record(self, content):
        if content is None:
            self.record.unlink(missing_ok=True)
        elif self.record.exists():
            self.record.write_bytes(content)


@pytest.mark.search
@search(100)
@given(
    steps=st.lists(
        st.sampled_from(["alert", "alert", "alert", "due", None, b"\0" * 50]), max_size=25
    )
)
def test_each_alert_is_sent_or_in_a_digest_of_its_own_whenever_records_are_lost(steps):
    with TemporaryDirectory() as folder:
        limits = Limits(folder)
        held, reported, ids = {}, {}, []
        number = 0
        for step in [*steps, "due"]:
            if step == "alert":
                (alert,) = limits.comes(an_alert(number % 60))
                number += 1
                if alert.held:
                    held[alert.alert_id] = alert.held["guard"]
            elif step == "due":
                for digest in limits.digest_is_due():
                    ids.append(digest.alert_id)
                    record = read_record(str(limits.record), WindowRecord)
                    reported |= dict.fromkeys(
                        record.digest_by_id(digest.alert_id).alert_ids, digest.alert_id
                    )
            else:
                limits.lose_record(step)
        assert reported == held
        assert len(ids) == len(set(ids)), "another digest had the same id"


@pytest.mark.parametrize("content", [None, b"\0" * 50])
def test_alerts_that_wait_for_a_further_digest_are_reported_even_if_the_record_is_lost(
    tmp_path, content
):
    limits = Limits(str(tmp_path))
    for alert in ALERTS[:2]:
        limits.comes(alert)
    (first,) = limits.digest_is_due()
    (held,) = limits.comes(ALERTS[2])
    limits.lose_record(content)
    (second,) = limits.digest_is_due()
    assert second.alert_id == held.held["guard"] != first.alert_id
    assert second.body["digest"]["alerts"] == 1
    limits.lose_record(content)
    for alert in (an_alert(20), an_alert(21)):
        limits.comes(alert)
    (third,) = limits.digest_is_due()
    assert third.alert_id not in (first.alert_id, second.alert_id)


def test_the_record_of_a_delivered_digest_keeps_its_content(tmp_path):
    """As where a batch runs over the output of a stream, and its digest tells of other alerts."""
    kept = []
    for alerts in (ALERTS[1:2], ALERTS[1:4]):
        digest = limit_alerts._digest_alert(WINDOW, dict(a_digest(0, alerts).body)).alert
        Ledger(str(tmp_path)).record(digest, Outcome("guard", "delivered"))
        kept.append(stores.read_bytes(digest.uri(str(tmp_path))))
    assert kept[0] == kept[1]


def test_the_record_of_an_undelivered_digest_holds_the_next_content(tmp_path):
    for alerts, outcome in ((ALERTS[1:2], "failed"), (ALERTS[1:4], "delivered")):
        digest = limit_alerts._digest_alert(WINDOW, dict(a_digest(0, alerts).body)).alert
        Ledger(str(tmp_path)).record(digest, Outcome("guard", outcome))
    record = json.loads(stores.read_bytes(digest.uri(str(tmp_path))))
    assert record["digest"]["alerts"] == 3


def with_cooldown(length, others=""):
    text = f"""version: 1
targets: {{guard: {{webhook: https://guard.example}}}}
defaults: {{objects: {{person: }}, cooldown: {length}, notify: [guard]}}
{others}"""
    return parse_rules(text, "rules.yaml")


def verdicts(output, ruleset, seconds):
    """What a stream without state makes of images of one camera."""
    step, history = JudgeInStream(LiveRules.of(ruleset), 3600, output), Cell(HISTORIES)
    out = []
    for second in seconds:
        image = detected("hall", canonical_time(from_unix(1_769_853_600 + second)), ["person"])
        (result,) = step.process(("hall", image), history, Timer())
        out.append((result.verdict.suppressed_by, result.verdict.incident_number))
    return out


@pytest.mark.search
@search(50)
@given(seconds=st.lists(st.integers(0, 900), min_size=1, max_size=12))
def test_cooldowns_that_other_rules_decided_on_change_no_verdict(seconds):
    with TemporaryDirectory() as used, TemporaryDirectory() as empty:
        verdicts(used, with_cooldown("30s"), seconds)
        ruleset = with_cooldown("10m")
        assert verdicts(used, ruleset, seconds) == verdicts(empty, ruleset, seconds)


def test_cooldowns_hold_if_the_rules_of_another_camera_are_edited(tmp_path):
    ((suppressed_by, _),) = verdicts(str(tmp_path), with_cooldown("60s"), [0])
    assert suppressed_by is None
    edited = with_cooldown("60s", "cameras: {yard: {cooldown: 5m}}")
    ((suppressed_by, _),) = verdicts(str(tmp_path), edited, [30])
    assert suppressed_by is not None


def test_cooldowns_of_an_earlier_release_hold(tmp_path):
    verdicts(str(tmp_path), with_cooldown("60s"), [0])
    uri = stores.cooldowns_uri(str(tmp_path), "hall")
    former = {"alerts": json.loads(stores.read_bytes(uri))["alerts"]}
    stores.write_bytes(uri, stores.json_bytes(former))
    ((suppressed_by, _),) = verdicts(str(tmp_path), with_cooldown("60s"), [30])
    assert suppressed_by is not None


def with_gap(cooldown):
    return with_cooldown(f"{cooldown}, incident_gap: 2m")


def test_after_a_loss_of_state_an_incident_has_no_second_alert(tmp_path):
    ruleset = with_gap("1h")
    before = verdicts(str(tmp_path), ruleset, range(0, 1500, 30))
    assert [number for _, number in before] == list(range(1, 51))
    after = verdicts(str(tmp_path), ruleset, range(1500, 1830, 30))
    assert [suppressed_by for suppressed_by, _ in after] == [before[1][0]] * 11


@pytest.mark.parametrize(
    ("seconds", "alerts"),
    [
        ([3599], [False]),
        ([3600], [True]),
        ([1500, 1620], [False, False]),
        ([1500, 1621], [False, True]),
        ([1500, 700], [False, False]),
        ([-120, 1500], [False, False]),
        ([-121], [True]),
    ],
)
def test_a_restored_alert_reaches_to_the_next_image_in_its_cooldown(tmp_path, seconds, alerts):
    """From that image on, the gap counts again; it always counts before the alert."""
    ruleset = with_gap("1h")
    verdicts(str(tmp_path), ruleset, [0])
    after = verdicts(str(tmp_path), ruleset, seconds)
    assert [suppressed_by is None for suppressed_by, _ in after] == alerts


@pytest.mark.search
@search(50)
@given(pauses=st.lists(st.integers(1, 120), max_size=20), kept=st.integers(1, 20))
def test_images_in_order_and_within_the_gap_have_one_alert_wherever_state_is_lost(pauses, kept):
    seconds = list(itertools.accumulate(pauses, initial=0))
    with TemporaryDirectory() as output:
        before = verdicts(output, with_gap("1h"), seconds[:kept])
        after = verdicts(output, with_gap("1h"), seconds[kept:])
    assert [by is None for by, _ in before + after] == [True] + [False] * len(pauses)


def of_boots(output, starts, ups, *, loses_state, known_by="stream_time"):
    """What a stream makes of a camera whose clock begins at 2000 when it starts.

    Args:
        output: The output.
        starts: When the camera started, in seconds since 2026-01-31T00:00:00Z, for each image.
        ups: For how many seconds it had run then.
        loses_state: Before which images the state is lost.
        known_by: The attribute of the image that says when it arrived.
    """
    ruleset = parse_rules("version: 1\ndefaults: {objects: {person: }}", "rules.yaml")
    step, history = JudgeInStream(LiveRules.of(ruleset), 3600, output), Cell(HISTORIES)
    alerted = []
    for number, (start, up) in enumerate(zip(starts, ups, strict=True)):
        if number in loses_state:
            history.clear()
        image = detected("hall", canonical_time(from_unix(946_684_800 + up)), ["person"])
        arrived = 1_769_817_600 + start + up
        value = arrived if known_by == "changed" else canonical_time(from_unix(arrived))
        image = replace(image, **{known_by: value})
        (result,) = step.process(("hall", image), history, Timer())
        alerted.append(result.verdict.suppressed_by is None)
    return alerted


@pytest.mark.parametrize("known_by", ["changed", "stream_time"])
@pytest.mark.parametrize("loses_state", [(), (1, 2, 3)])
def test_a_camera_that_lost_its_clock_is_not_silenced_by_alerts_of_days_ago(
    tmp_path, loses_state, known_by
):
    """On each of four days, its power failed, and a person came some minutes later."""
    days = [0, 86_400, 172_800, 259_200]
    alerted = of_boots(
        *(str(tmp_path), days, [600, 420, 720, 1800]), loses_state=loses_state, known_by=known_by
    )
    assert alerted == [True, True, True, True]


@pytest.mark.parametrize("loses_state", [(), (1,), (2,), (1, 2, 3)])
def test_an_incident_of_a_camera_that_lost_its_clock_has_one_alert(tmp_path, loses_state):
    ups = [600, 660, 720, 780]
    alerted = of_boots(str(tmp_path), [0, 0, 0, 0], ups, loses_state=loses_state)
    assert alerted == [True, False, False, False]


@pytest.mark.search
@search(100)
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(1, 2400), st.booleans()), min_size=1, max_size=12
    )
)
def test_who_comes_after_five_quiet_minutes_has_an_alert_whenever_a_clock_is_lost(steps):
    """A loss of state extends an incident to the end of its cooldown, as with a right clock."""
    now = started = 0
    starts, ups, lost, arrivals = [], [], set(), []
    for number, (power_fails, pause, loses_state) in enumerate(steps):
        if power_fails:
            started = now
        now += pause
        starts.append(started)
        ups.append(now - started)
        arrivals.append(now)
        if loses_state:
            lost.add(number)
    if len({*ups}) < len(ups):  # Images of one capture time have one alert.
        return
    with TemporaryDirectory() as output:
        alerted = of_boots(output, starts, ups, loses_state=lost)
    for number, (arrival, has_alert) in enumerate(zip(arrivals, alerted, strict=True)):
        quiet = arrival - arrivals[number - 1] if number else 3600
        longest = 1800 if lost & {*range(1, number + 1)} else 300
        assert has_alert or quiet <= longest


def make_unusable(path, how):
    """A folder in place of the record, or one of a release to come; what must stay as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "folder":
        path.mkdir()
        return
    path.write_text('{"format": 2, "unheard_of": 5}')


def is_untouched(path, how):
    return path.is_dir() if how == "folder" else "unheard_of" in path.read_text()


@pytest.mark.parametrize("how", ["folder", "newer"])
def test_limits_go_on_without_a_record_that_is_unusable(tmp_path, caplog, how):
    limits = Limits(str(tmp_path))
    make_unusable(limits.record, how)
    before = counted_here()["limits.unreadable"]
    assert [bool(alert.held) for waiting in ALERTS[:3] for alert in limits.comes(waiting)] == [
        0,
        1,
        1,
    ]
    (digest,) = limits.digest_is_due()
    assert digest.body["digest"]["alerts"] == 2
    (later,) = limits.comes(ALERTS[3])
    (further,) = limits.digest_is_due()
    assert later.held["guard"] == further.alert_id != digest.alert_id
    assert is_untouched(limits.record, how)
    assert caplog.text.count("continues without this record") == 1
    assert str(limits.record) in caplog.text
    assert counted_here()["limits.unreadable"] - before == 6


@pytest.mark.parametrize("how", ["folder", "newer"])
def test_cooldowns_go_on_from_state_without_a_record_that_is_unusable(tmp_path, caplog, how):
    path = Path(stores.cooldowns_uri(str(tmp_path), "hall"))
    make_unusable(path, how)
    before = counted_here()["cooldowns.unreadable"]
    results = verdicts(str(tmp_path), with_cooldown("60s"), [0, 30, 90])
    assert [number for _, number in results] == [1, 2, 1]
    assert is_untouched(path, how)
    assert caplog.text.count("continues without this record") == 1
    assert str(path) in caplog.text
    assert counted_here()["cooldowns.unreadable"] - before == 2


@pytest.mark.parametrize(
    ("error", "lasting"), [(PermissionError, True), (OSError, False), (ConnectionError, False)]
)
def test_only_an_error_that_lasts_makes_a_record_unusable(monkeypatch, error, lasting):
    def fails(uri):
        raise error("no")

    monkeypatch.setattr(stores, "read_if_there", fails)
    with pytest.raises(UnusableRecordError if lasting else error):
        read_record(f"/{error.__name__}", WindowRecord)


def large_record(number):
    """A record of a window that reports some alerts, of 70 kB or more."""
    ids = [f"{number:04d}{alert:028x}" for alert in range(2000)]
    body = DIGEST_BODY | {"alert_id": f"{number:032x}"}
    return WindowRecord("guard", None, ("a" * 32,), (DigestRecord(tuple(ids), body, number),))


DIGEST_BODY = {
    "id": None,
    "timestamp": "2026-01-31T10:00:00Z",
    "severity": "alert",
    "digest": {
        "window_start": "2026-01-31T10:00:00Z",
        "window_end": "2026-01-31T10:10:00Z",
        "alerts": 1,
        "first": "2026-01-31T10:00:00Z",
        "last": "2026-01-31T10:00:00Z",
        "by_id": {"hall": 1},
        "by_label": {"person": 1},
    },
}
CONTENTS = [
    None,
    b"broken",
    *(msgspec.json.encode(large_record(number)) for number in range(2)),
    msgspec.json.encode(WindowRecord("guard", None)),
]


@pytest.mark.search
@search(100)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(CONTENTS)), max_size=20),
)
def test_a_record_is_what_the_file_says_though_another_worker_has_written_it(steps):
    with TemporaryDirectory() as folder:
        known = DecodedRecords()
        for number, data in steps:
            path = Path(folder, f"{number}.json")
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
            for _ in range(2):
                plain = read_record(str(path), WindowRecord)
                assert read_record(str(path), WindowRecord, known) == plain
            assert len(known._records) <= 4


@pytest.mark.parametrize("size", [2, 2000])
def test_an_alert_that_is_held_back_costs_no_more_in_a_large_fleet(tmp_path, monkeypatch, size):
    """Each bundle reads the record of the window: it decodes it once, and looks an alert up."""
    ids = tuple(f"{alert:032x}" for alert in range(size))
    record = WindowRecord("guard", "hall", (ALERTS[0].alert_id,))
    digest = DigestRecord(ids, DIGEST_BODY | {"alert_id": WINDOW.digest_id()}, 0)
    record = record.add_digest(digest)
    decisions.write_record(WINDOW.record_uri(str(tmp_path)), record)
    step = limit_alerts._LimitInStream(str(tmp_path), LIVE, per_id=True, max_age_seconds=None)
    decoded = []
    decode = msgspec.json.decode

    def counting(data, **how):
        decoded.append(len(data))
        return decode(data, **how)

    monkeypatch.setattr(decisions.msgspec.json, "decode", counting)
    state = Bag(limit_alerts.HELD_ALERTS), Cell(limit_alerts.NEXT_DIGESTS), Timer(), Timer()
    for number in range(1, 4):
        step.start_bundle()
        decoded.clear()
        (part,) = step.process((WINDOW.key, (WINDOW, TargetedAlert(ALERTS[number]))), *state)
        assert part.alert.held == {"guard": WINDOW.digest_id(1)}
    assert sum(decoded) < 2000
