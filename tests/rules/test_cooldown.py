"""The cooldown: which alert covers an image."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import (
    FollowUp,
    History,
    MoreObjects,
    PastAlert,
    alert_id,
    parse_rules,
    restore_alerts,
)
from rules.cooldown import add_alert, covering_alert
from tests.rules.one_camera import judge_all, make_detection, make_image, rules_of
from tests.search import search

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
    add_alert(alerts, 0, "0" * 32, {"person": 1}, 60, "alert")
    assert covering_alert(alerts, 1, labels, 60, "alert") is not None
    assert covering_alert(alerts, 1, labels, 60, "detection") is None
    add_alert(alerts, 2, "1" * 32, {"dog": 1}, 60, "detection")
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
    assert [alert.cover(at, {"person": 1}) for at in range(1, 1005)] == list(range(2, 1006))
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


DEFAULT = "objects: {person: , car: , dog: {severity: detection}}"
DAY = 86_400


def test_an_incident_goes_on_after_a_camera_has_sent_what_it_had_stored():
    """Ten images of ten earlier days arrive in the middle of the incident; each has an alert."""
    stored = [-DAY * day for day in range(10, 0, -1)]
    images = person_at(0, 60, *stored, 120, 180)
    verdicts = judge_all(rules_of(DEFAULT), images)
    assert [verdict.alerts for verdict in verdicts] == [True, False, *[True] * 10, False, False]
    assert verdicts[-1].incident_number == 4


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 300), max_size=9), min_size=1, max_size=4),
    st.integers(1, 30),
    st.data(),
)
def test_one_incident_has_one_alert_whatever_is_stored_and_sent_in_between(pauses, days, data):
    """The incident is in order, and shorter than the cooldown and than the lateness."""
    times = list(itertools.accumulate(itertools.chain.from_iterable(pauses), initial=0))
    times = [time for time in times if time < 1800]
    stored = [-DAY * day for day in range(days, 0, -1)]
    at = data.draw(st.integers(1, len(times)))
    images = person_at(*times[:at], *stored, *times[at:])
    verdicts = judge_all(rules_of(DEFAULT), images)
    alerted = [v.alerts for v in (*verdicts[:at], *verdicts[at + days :])]
    assert alerted == [True] + [False] * (len(times) - 1)


def test_alerts_of_the_other_severity_do_not_take_the_numbers_of_an_incident():
    rules = parse_rules(
        """version: 1
targets: {guard: {webhook: https://guard.example, severities: [alert, detection]}}
defaults:
  objects:
    person:
    dog: {severity: detection}
    cat: {severity: detection}
    cow: {severity: detection}
  notify: [guard]
""",
        "rules.yaml",
    )
    person = make_detection("person")
    images = [
        make_image(person, at=0),
        make_image(person, person, person, at=60),
        *(make_image(make_detection(label), at=at) for label, at in
          (("dog", 120), ("cat", 180), ("cow", 240))),
        *person_at(*range(300, 1861, 60)),
    ]  # fmt: skip
    following = [verdict.follow_up for verdict in judge_all(rules, images) if verdict.follow_up]
    assert [one.more for one in following if not one.new_labels] == [(MoreObjects("person", 1, 3),)]


def test_without_a_word_in_the_rules_one_incident_is_one_alert():
    """Sixteen images a minute apart had sixteen alerts."""
    verdicts = judge_all(rules_of(DEFAULT), person_at(*(60 * number for number in range(16))))
    assert [verdict.alerts for verdict in verdicts] == [True] + [False] * 15
    assert all(verdict.is_threat and verdict.severity == "alert" for verdict in verdicts)
    assert [verdict.incident_number for verdict in verdicts] == list(range(1, 17))


def test_without_a_word_in_the_rules_a_long_incident_has_a_reminder_each_half_hour():
    verdicts = judge_all(rules_of(DEFAULT), person_at(*(60 * number for number in range(91))))
    assert [number for number, verdict in enumerate(verdicts) if verdict.alerts] == [0, 30, 60, 90]
    assert [verdicts[number].follow_up for number in (0, 30, 60)] == [
        None,
        FollowUp(alert_at(0), "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", 29),
        FollowUp(alert_at(0), "2026-01-31T12:00:00Z", "2026-01-31T12:30:00Z", 29),
    ]


@pytest.mark.parametrize(
    ("cooldown", "alerts"),
    [("", (1, 5)), ("\ncooldown: 30m\nincident_gap: 5m", (1, 5)), ("\ncooldown: 5m", (4, 25)),
     ("\ncooldown: 0s", (16, 121))],
)  # fmt: skip
def test_an_incident_of_a_quarter_and_of_two_hours_has_the_documented_number_of_alerts(
    cooldown, alerts
):
    for images, expected in zip((16, 121), alerts, strict=True):
        minutes = person_at(*(60 * number for number in range(images)))
        verdicts = judge_all(rules_of(DEFAULT + cooldown), minutes)
        assert sum(verdict.alerts for verdict in verdicts) == expected


@pytest.mark.parametrize(
    ("second_person", "alerts"), [(5, [0, 30]), (6, [0, 6]), (20, [0, 20]), (29, [0, 29])]
)
def test_a_car_that_stays_does_not_hide_a_person_who_comes_later(second_person, alerts):
    """Person and car come together; the person leaves, and another one comes."""
    person = make_detection("person")
    shown = (0, second_person, second_person + 1)
    images = [
        make_image(*((person, CAR) if minute in shown else (CAR,)), at=60 * minute)
        for minute in range(31)
    ]
    verdicts = judge_all(rules_of(DEFAULT), images)
    assert [minute for minute, verdict in enumerate(verdicts) if verdict.alerts] == alerts
    follow_up = verdicts[alerts[1]].follow_up
    assert follow_up.incident == alert_at(0)
    assert follow_up.new_labels == (() if second_person == 5 else ("person",))


def test_a_label_that_was_absent_is_new_again_after_alerts_of_other_labels():
    """Each alert names the labels of the one before it, but not that they are still there."""
    person, dog = make_detection("person"), make_detection("dog")
    rules = rules_of("objects: {person: , car: , dog: }")
    images = [
        make_image(person, CAR, at=0),
        *(make_image(CAR, at=60 * minute) for minute in range(1, 5)),
        make_image(CAR, dog, at=240.5),
        *(make_image(CAR, at=60 * minute) for minute in (5, 7)),
        make_image(CAR, person, at=480),
        make_image(CAR, person, at=700),
        make_image(CAR, dog, at=720),
    ]
    verdicts = judge_all(rules, images)
    alerts = [number for number, verdict in enumerate(verdicts) if verdict.alerts]
    assert alerts == [0, 5, 8, 10]
    new = [verdicts[number].follow_up.new_labels for number in alerts[1:]]
    assert new == [("dog",), ("person",), ("dog",)]


def test_after_a_loss_of_state_a_label_is_covered_as_long_as_the_alert_that_names_it():
    minute = 60_000_000
    alerts = []
    restore_alerts(alerts, [PastAlert(0, "a", ("car", "person"))])
    gap, cooldown = 5 * minute, 30 * minute
    for at in range(6, 12):
        found = covering_alert(alerts, at * minute, frozenset(["car"]), cooldown, "alert", gap)
        found.cover(at * minute, {"car": 1})
    person = frozenset(["person"])
    assert covering_alert(alerts, 12 * minute, person, cooldown, "alert", gap) is alerts[0]
    alerts[0].cover(12 * minute, {"person": 1})
    alerts[0].cover(15 * minute, {"car": 1})
    assert covering_alert(alerts, 17 * minute, person, cooldown, "alert", gap) is alerts[0]
    assert covering_alert(alerts, 18 * minute, person, cooldown, "alert", gap) is None


@pytest.mark.parametrize(("pause", "is_new"), [(300, False), (300.000001, True)])
def test_without_a_word_in_the_rules_who_comes_after_five_quiet_minutes_has_an_alert(pause, is_new):
    verdict = judge_all(rules_of(DEFAULT), person_at(0, 100, 100 + pause))[-1]
    assert (verdict.alerts, verdict.follow_up) == (is_new, None)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", (1800, 300)),
        ("cooldown: 1h", (3600, None)),  # As in releases without a default.
        ("cooldown: 0s", (None, None)),
        ("incident_gap: 10m", (1800, 600)),
        ("incident_gap: 0s", (1800, None)),
        ("cooldown: 1h\nincident_gap: 10m", (3600, 600)),
    ],
)
@pytest.mark.parametrize("layer", ["defaults", "profiles", "cameras"])
def test_the_built_in_gap_belongs_to_the_built_in_cooldown_in_any_layer(text, times, layer):
    values = ", ".join(["objects: {person: }", *text.split("\n")] if text else [])
    sections = {"defaults": "{}", "profiles": "{}", "cameras": "{}", layer: f"{{{values}}}"}
    rules = parse_rules(
        f"version: 1\ndefaults: {sections['defaults']}\nprofiles: {{p: {sections['profiles']}}}\n"
        f"cameras: {{hall: {{profile: p, {sections['cameras'][1:]}}}\n",
        "rules.yaml",
    )
    camera = rules.for_camera("hall")
    seconds = (
        length and length.total_seconds() for length in (camera.cooldown, camera.incident_gap)
    )
    assert tuple(seconds) == times


def test_a_gap_of_a_lower_layer_outlasts_a_cooldown_of_a_higher_one():
    text = "version: 1\ndefaults: {incident_gap: 10m}\ncameras: {hall: {cooldown: 1h}}"
    assert parse_rules(text, "r").for_camera("hall").incident_gap.total_seconds() == 600


def test_an_alert_in_an_incident_says_what_is_new():
    person = make_detection("person")
    images = [
        make_image(person, at=0),
        make_image(person, person, at=60),
        make_image(person, CAR, at=120),
        make_image(CAR, CAR, CAR, at=240),
        make_image(make_detection("dog"), at=300),
        *person_at(*range(400, 1920, 200), 1921),
    ]
    verdicts = judge_all(rules_of(DEFAULT), images)
    following = [verdict.follow_up for verdict in verdicts if verdict.alerts]
    assert following == [
        None,
        FollowUp(
            *(alert_at(0), "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", 1),
            ("car",),
            (MoreObjects("person", 1, 2),),
        ),
        FollowUp(
            *(alert_at(0), "2026-01-31T12:00:00Z", "2026-01-31T12:02:00Z", 9),
            (),
            (MoreObjects("car", 1, 3),),
        ),
    ]
    assert verdicts[-1].to_json()["follow_up"] == {
        "incident": alert_at(0),
        "began": "2026-01-31T12:00:00Z",
        "last_alert": "2026-01-31T12:02:00Z",
        "images": 9,
        "new_labels": [],
        "more": [{"label": "car", "before": 1, "now": 3}],
    }
    assert all("follow_up" not in verdict.to_json() for verdict in verdicts if not verdict.alerts)


@pytest.mark.search
@search(300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 60),
            st.sets(st.sampled_from(["car", "person", "dog"]), min_size=1),
        ),
        max_size=25,
        unique_by=lambda image: image[0],
    )
)
def test_in_any_order_no_label_is_covered_that_was_not_shown_within_the_gap(shown):
    rules = rules_of("objects: {person: , car: , dog: }")
    images = [
        make_image(*map(make_detection, sorted(labels)), at=60 * minute) for minute, labels in shown
    ]
    for number, verdict in enumerate(judge_all(rules, images)):
        minute, labels = shown[number]
        near = [others for other, others in shown[:number] if abs(other - minute) <= 5]
        if verdict.suppressed_by is not None:
            assert labels <= set().union(*near)


def test_without_a_gap_an_incident_goes_on_if_no_pause_is_longer_than_the_cooldown():
    verdicts = judge_all(rules_of(COOLDOWN), person_at(0, 299, 598, 899, 1200))
    assert [verdict.alerts for verdict in verdicts] == [True, False, True, True, True]
    assert [verdict.follow_up is None for verdict in verdicts] == [True, True, False, True, True]


def expected_follow_ups(steps):
    """Returns for each alert of the default rules what is new: a slow implementation of the docs.

    Args:
        steps: The seconds since noon and the number of objects of each label, for each image.
    """
    incidents: list[list] = []
    following = {}
    for second, objects in steps:
        if not incidents or second - incidents[-1][-1][0] > 300:
            incidents.append([])
        incident = incidents[-1]
        alerts = [number for number, image in enumerate(incident) if image[2]]
        present = {label for at, shown, *_ in incident if second - at <= 300 for label in shown}
        in_cooldown = [number for number in alerts if second - incident[number][0] < 1800]
        named = {label for number in in_cooldown for label in incident[number][1]}
        if in_cooldown:  # A label is passed on from alert to alert, each in the cooldown before.
            named = incident[in_cooldown[-1]][3]
        is_alert = not objects.keys() <= named & present
        told = named | objects.keys()
        if is_alert and alerts:
            before = incident[: alerts[-1] + 1]
            since = incident[alerts[-1] + 1 :]
            following[second] = (len(since), before, since, present)
        incident.append((second, objects, is_alert, told))
        if is_alert and not alerts:
            following[second] = None
    return following


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 290, 290, 290, 301]),
            st.dictionaries(st.sampled_from(["car", "person"]), st.integers(1, 3), min_size=1),
        ),
        max_size=30,
    )
)
def test_each_alert_of_the_default_rules_is_the_first_or_counts_what_came_since(steps):
    seconds = itertools.accumulate(pause for pause, _ in steps)
    shown = [(second, objects) for second, (_, objects) in zip(seconds, steps, strict=True)]
    images = [
        make_image(
            *(make_detection(label) for label, number in objects.items() for _ in range(number)),
            at=second,
        )
        for second, objects in shown
    ]
    verdicts = judge_all(rules_of(DEFAULT), images)
    expected = expected_follow_ups(shown)
    assert [
        second for (second, _), verdict in zip(shown, verdicts, strict=True) if verdict.alerts
    ] == list(expected)
    for (second, objects), verdict in zip(shown, verdicts, strict=True):
        follow_up = verdict.follow_up
        assert (follow_up is None) == (expected.get(second) is None)
        if follow_up is None:
            continue
        images_since, before, since, present = expected[second]
        first = before[0][0]
        assert follow_up.incident == alert_at(first)
        assert follow_up.images == images_since
        assert follow_up.new_labels == tuple(sorted(objects.keys() - present))
        told, seen = {}, {}
        for _, counts, *_ in before:
            told = {label: max(told.get(label, 0), counts.get(label, 0)) for label in LABELS}
        for _, counts, *_ in [*since, (second, objects)]:
            seen = {label: max(seen.get(label, 0), counts.get(label, 0)) for label in LABELS}
        assert follow_up.more == tuple(
            MoreObjects(label, told[label], seen[label])
            for label in LABELS
            if seen[label] > told[label] > 0
        )


LABELS = ("car", "person")


def test_an_alert_that_was_restored_is_as_before_once_its_own_image_is_judged_again():
    alerts = []
    add_alert(alerts, 0, "a", {"car": 2}, 60, "alert", gap=20, arrived=0)
    restored = []
    record = PastAlert(0, "a", ("car",), told={"car": 2}, seen={"car": 2}, arrived=0)
    restore_alerts(restored, [record])
    add_alert(restored, 0, "a", {"car": 2}, 60, "alert", gap=20, arrived=0)
    assert restored == alerts
    # By capture time it belongs to the incident; by its arrival it came after the gap.
    assert covering_alert(restored, 10, frozenset({"car"}), 60, "alert", gap=20, arrived=40) is None


def test_images_that_came_before_that_of_a_restored_alert_are_kept():
    alerts = []
    restore_alerts(alerts, [PastAlert(0, "a", ("car", "person"), told={"car": 1}, seen={"car": 1})])
    alerts[0].cover(15, {"car": 3}, gap=20)
    add_alert(alerts, 0, "a", {"car": 1, "person": 1}, 60, "alert", gap=20)
    (alert,) = alerts
    assert alert.spans == {"car": (0, 15), "person": (0, 0)}
    assert (alert.told, alert.seen) == ({"car": 1, "person": 1}, {"car": 3, "person": 1})
    assert not alert.was_restored
