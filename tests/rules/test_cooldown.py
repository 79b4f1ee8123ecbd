"""The cooldown: which alert covers an image."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import History, PastAlert, alert_id, parse_rules, restore_alerts
from rules.cooldown import add_alert, covering_alert
from tests.rules.one_camera import judge_all, make_detection, make_image, rules_of

CAR = make_detection("car")
COOLDOWN = "objects: {person: , car: , dog: {severity: detection}}\ncooldown: 5m"


def incidents(rules, images):
    return [
        (verdict.suppressed_by, verdict.incident_number) for verdict in judge_all(rules, images)
    ]


def alert_at(seconds):
    return alert_id("hall", make_image(at=seconds).timestamp, "alert")


def test_a_cooldown_suppresses_alerts_and_numbers_the_images():
    images = [make_image(make_detection("person"), at=at) for at in (0, 60, 299, 300, 301)]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, 1),
        (alert_at(0), 2),
        (alert_at(0), 3),
        (None, 1),
        (alert_at(300), 2),
    ]


def test_a_suppressed_image_is_still_a_threat_of_its_severity():
    verdict = judge_all(
        rules_of(COOLDOWN),
        [make_image(make_detection("person"), at=0), make_image(make_detection("person"), at=60)],
    )[1]
    assert (verdict.is_threat, verdict.severity, verdict.alerts) == (True, "alert", False)


def test_a_new_label_sends_an_alert_that_covers_the_earlier_labels():
    images = [
        make_image(make_detection("person"), at=0),
        make_image(make_detection("person"), CAR, at=60),
        make_image(make_detection("person"), at=120),
        make_image(CAR, at=180),
        make_image(make_detection("person"), at=350),
    ]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, 1),
        (None, 1),
        (alert_at(60), 2),
        (alert_at(60), 3),
        (alert_at(60), 4),
    ]


def test_an_alert_of_another_label_also_covers_the_labels_of_the_alert_before_it():
    """Neither of the two images that are sent shows both labels."""
    images = [
        make_image(make_detection("person"), at=0),
        make_image(CAR, at=60),
        make_image(make_detection("person"), at=120),
        make_image(make_detection("person"), CAR, at=180),
        make_image(make_detection("person"), at=359),
        make_image(make_detection("person"), at=360),
        make_image(CAR, at=361),
    ]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, 1),
        (None, 1),
        (alert_at(60), 2),
        (alert_at(60), 3),
        (alert_at(60), 4),
        (None, 1),
        (None, 1),
    ]


def expected_alerts(labels_by_second):
    """Returns the second of the alert for each image: a slow implementation of the docs."""
    sent, seconds = [], []
    for second, labels in labels_by_second:
        known = set()
        if sent and second - sent[-1][0] < 300:
            known = sent[-1][1]
        if not labels <= known:
            sent.append((second, known | labels))
        seconds.append(sent[-1][0])
    return seconds


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 320), st.sets(st.sampled_from(["car", "person"]), min_size=1)),
        max_size=12,
    )
)
def test_each_alert_covers_its_labels_and_no_others(steps):
    seconds = itertools.accumulate(pause for pause, _ in steps)
    labels_by_second = [
        (second, labels) for second, (_, labels) in zip(seconds, steps, strict=True)
    ]
    images = [
        make_image(*map(make_detection, sorted(labels)), at=second)
        for second, labels in labels_by_second
    ]
    verdicts = incidents(rules_of(COOLDOWN), images)
    alerts = [
        suppressed_by or alert_at(second)
        for (suppressed_by, _), (second, _) in zip(verdicts, labels_by_second, strict=True)
    ]
    assert alerts == [alert_at(second) for second in expected_alerts(labels_by_second)]


def test_a_threat_of_severity_detection_neither_starts_nor_joins_an_incident():
    dog = make_detection("dog")
    images = [
        make_image(dog, at=0),
        make_image(make_detection("person"), dog, at=1),
        make_image(dog, at=2),
        make_image(make_detection("person"), dog, at=3),
    ]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, None),
        (None, 1),
        (None, None),
        (alert_at(1), 2),
    ]


def test_severity_detection_has_its_own_incidents_if_a_target_receives_it():
    rules = parse_rules(
        """version: 1
targets: {guard: {webhook: https://guard.example, severities: [detection]}}
defaults:
  objects: {person: , dog: {severity: detection}, cat: {severity: detection}}
  cooldown: 5m
  notify: [guard]
""",
        "rules.yaml",
    )
    labels = ("dog", "person", "dog", "person", "cat", "dog")
    images = [make_image(make_detection(label), at=second) for second, label in enumerate(labels)]
    dogs = alert_id("hall", make_image(at=0).timestamp, "detection")
    cats = alert_id("hall", make_image(at=4).timestamp, "detection")
    assert incidents(rules, [*images, make_image(make_detection("dog"), at=304)]) == [
        (None, 1),
        (None, 1),
        (dogs, 2),
        (alert_at(1), 2),
        (None, 1),
        (cats, 2),
        (None, 1),
    ]


def test_an_alert_covers_no_image_of_another_severity():
    """A label can have severity alert in one zone and detection in another."""
    alerts, labels = [], frozenset(("person",))
    add_alert(alerts, 0, "0" * 32, labels, 60, "alert")
    assert covering_alert(alerts, 1, labels, 60, "alert") is not None
    assert covering_alert(alerts, 1, labels, 60, "detection") is None
    add_alert(alerts, 2, "1" * 32, frozenset(("dog",)), 60, "detection")
    assert alerts[-1].labels == ("dog",)


def test_an_image_with_a_wrong_capture_time_ends_no_cooldown():
    images = [make_image(make_detection("person"), at=at) for at in (0, 86_400, 10, 20)]
    assert incidents(rules_of(COOLDOWN), images)[2:] == [(alert_at(0), 2), (alert_at(0), 3)]


def test_a_later_alert_covers_a_late_image_if_it_names_all_its_labels():
    images = [
        make_image(make_detection("person"), at=300),
        make_image(make_detection("person"), at=1),
        make_image(CAR, at=2),
        make_image(make_detection("person"), CAR, at=3),
        make_image(make_detection("person"), at=0),
    ]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, 1),
        (alert_at(300), 2),
        (None, 1),
        (alert_at(2), 2),
        (None, 1),
    ]


@pytest.mark.parametrize("labels", itertools.permutations([("car",), ("car", "person")]))
def test_an_alert_of_two_images_of_one_capture_time_covers_only_labels_that_both_show(labels):
    """Only one of them is reported."""
    images = [
        *(make_image(*map(make_detection, names), at=0) for names in labels),
        make_image(CAR, at=1),
        make_image(CAR, make_detection("person"), at=2),
        make_image(make_detection("person"), at=3),
    ]
    assert incidents(rules_of(COOLDOWN), images) == [
        (None, 1),
        (None, 1),
        (alert_at(0), 2),
        (None, 1),
        (alert_at(2), 2),
    ]


def test_labels_that_an_alert_does_not_cover_are_not_covered_after_a_crash_either():
    history = [PastAlert(0, "a", ("car",)), PastAlert(9, "b", ("car", "person"))]
    restore_alerts(history, [PastAlert(0, "a", ("car", "person")), PastAlert(9, "b", ("person",))])
    assert [alert.labels for alert in history] == [("car",), ("person",)]


def test_without_a_cooldown_each_alert_is_sent():
    images = [make_image(make_detection("person"), at=at) for at in (0, 1)]
    off = rules_of("objects: {person: }\ncooldown: 0s")
    assert incidents(off, images) == [(None, 1), (None, 1)]
    assert not off.needs_history("hall")


def person_at(*times):
    return [make_image(make_detection("person"), at=at) for at in times]


GAP = "objects: {person: , car: , dog: {severity: detection}}\ncooldown: 24h\nincident_gap: 10m"


def test_a_gap_without_threats_ends_the_cooldown():
    half_hours = person_at(*(1800 * number for number in range(6)))
    assert [verdict.alerts for verdict in judge_all(rules_of(GAP), half_hours)] == [True] * 6
    without = rules_of(GAP.replace("incident_gap: 10m", "incident_gap: 0s"))
    assert [verdict.alerts for verdict in judge_all(without, half_hours)] == [True] + [False] * 5


@pytest.mark.parametrize(("pause", "is_new"), [(600, False), (600.000001, True)])
def test_the_gap_is_measured_from_the_last_threat_of_the_incident(pause, is_new):
    images = person_at(0, 500, 1000, 1000 + pause)
    expected = (None, 1) if is_new else (alert_at(0), 4)
    assert incidents(rules_of(GAP), images)[-1] == expected


def test_images_without_a_threat_do_not_prolong_an_incident():
    images = [
        *person_at(0),
        *(make_image(make_detection("person", 0.4), make_detection("dog"), at=at) for at in (300,)),
        *person_at(601),
    ]
    assert incidents(rules_of(GAP), images)[-1] == (None, 1)


def test_a_new_incident_has_an_alert_for_each_of_its_labels():
    """The alert of an earlier incident, whose cooldown has not ended, says nothing of this one."""
    person, both = make_detection("person"), (make_detection("person"), CAR)
    images = [
        make_image(*both, at=0),
        make_image(person, at=1000),
        make_image(*both, at=1100),
        make_image(*both, at=1200),
    ]
    assert incidents(rules_of(GAP), images) == [
        (None, 1),
        (None, 1),
        (None, 1),
        (alert_at(1100), 2),
    ]


def test_an_incident_goes_on_through_the_alerts_of_the_other_severity():
    rules = parse_rules(
        """version: 1
targets: {guard: {webhook: https://guard.example, severities: [alert, detection]}}
defaults:
  objects:
    person:
    dog: {severity: detection}
    cat: {severity: detection}
    cow: {severity: detection}
  cooldown: 24h
  incident_gap: 10m
  notify: [guard]
""",
        "rules.yaml",
    )
    labels = ("dog", "cat", "cow")
    images = [
        *person_at(0, 500, 900),
        *(make_image(make_detection(label), at=901 + n) for n, label in enumerate(labels)),
        *person_at(1400),
    ]
    assert incidents(rules, images)[-1] == (alert_at(0), 4)


def test_a_long_incident_with_more_images_than_are_kept_is_one_incident():
    rules = rules_of(GAP)
    verdicts = judge_all(rules, person_at(*(60 * number for number in range(1200))))
    assert [verdict.incident_number for verdict in verdicts] == list(range(1, 1201))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=15), st.integers(0, 3))
def test_each_image_more_than_the_gap_after_the_last_threat_has_an_alert(pauses, late):
    """Also if some images arrive late: then each belongs to an incident that it touches."""
    times = list(itertools.accumulate(pauses))
    verdicts = judge_all(rules_of(GAP), person_at(*times))
    for number, verdict in enumerate(verdicts):
        assert verdict.alerts == (number == 0 or pauses[number] > 600)
    arrived = times[late:] + times[:late]
    out_of_order = judge_all(rules_of(GAP), person_at(*arrived))
    for number, (time, verdict) in enumerate(zip(arrived, out_of_order, strict=True)):
        nearest = min((abs(time - other) for other in arrived[:number]), default=None)
        assert verdict.alerts == (nearest is None or nearest > 600)


def test_the_number_of_an_image_counts_forgotten_images_of_the_incident():
    alert = PastAlert(0, "id", ("person",))
    assert [alert.cover(at) for at in range(1, 1005)] == list(range(2, 1006))
    assert alert.covered == list(range(5, 1005))


def test_the_number_of_alerts_in_a_history_is_bounded():
    rules = rules_of("objects: {" + ", ".join(f"l{n}: " for n in range(300)) + "}\ncooldown: 30d")
    history = History()
    sizes = []
    for number in range(300):
        verdict = rules.judge(make_image(make_detection(f"l{number}"), at=number), history)
        assert verdict.alerts
        sizes.append(len(history.alerts))
    assert max(sizes) == 100


def test_an_image_of_a_wrong_clock_does_not_end_the_cooldowns_of_the_others():
    """More alerts than the last ones that are always kept, then one a day ahead."""
    rules = rules_of(COOLDOWN)
    times = [600 * number for number in range(12)]
    images = [make_image(make_detection("person"), at=at) for at in (*times, 86_400, 10)]
    assert incidents(rules, images)[-1] == (alert_at(0), 2)
