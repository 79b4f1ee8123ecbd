"""What a person is told: the words, the picture, and what is left out when it can't be had."""

import dataclasses
import hashlib
import html
import io
import logging
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rules
from rules.templates import VARIABLES
from tests.transforms.pictures import encoded, jpeg
from tests.transforms.results import judged
from transforms.alerting import mark_links, messages
from transforms.alerting.alerts import alert_for
from transforms.alerting.messages import clean_line, clean_lines, compose
from transforms.records.times import parse_time
from transforms.storage import stores

RULES = "version: 1\ndefaults: {timezone: %s, objects: {person: }}\n"
BERLIN = rules.parse_rules(RULES % "Europe/Berlin", "rules.yaml")
UTC = rules.parse_rules(RULES % "UTC", "rules.yaml")
BOX = (0.25, 0.5, 0.5, 0.25)
RED = (214, 40, 40)


def templates(subject=None, body=None):
    alerting = rules.Alerting(subject=subject, body=body)
    return dataclasses.replace(BERLIN, alerting=alerting)


@dataclasses.dataclass
class Scene:
    """An alert in an output folder."""

    output: Path
    image: object

    @property
    def alert(self):
        return alert_for(self.image, str(self.output), BERLIN).body

    @property
    def validated(self):
        return self.output / "validated" / "hall" / self.image.image.file

    def keep(self, data, *, uri=None, box=BOX, boxes=True):
        """Keeps the picture, and the final JSON that goes with it."""
        uri = uri or self.validated
        uri.parent.mkdir(parents=True, exist_ok=True)
        uri.write_bytes(data)
        final = self.image.to_json() | {"sha256": hashlib.sha256(data).hexdigest()}
        final["detections"] = [
            {**detection, "bbox": list(box)} for detection in final["detections"]
        ]
        if boxes:
            uri = stores.final_uri(str(self.output), "hall", self.image.image.stem)
            stores.write_bytes(uri, stores.json_bytes(final))
        return final


@pytest.fixture
def scene(tmp_path):
    image = judged(threats=[("person", "alert"), ("dog", "detection")])
    came_from = dataclasses.replace(image.image, uri=str(tmp_path / "in" / image.image.file))
    return Scene(tmp_path / "out", dataclasses.replace(image, image=came_from))


def opened(message):
    return Image.open(io.BytesIO(message.picture))


# The words.


@pytest.mark.parametrize("body", [None, "only {{ id }}"])
def test_a_message_says_that_the_clock_is_wrong_and_when_the_image_arrived(scene, body):
    alert = {**scene.alert, "timestamp": "1970-01-01T00:05:00Z"}
    arrived = parse_time("2026-02-03T04:05:06.789Z")
    first, blank, *_ = compose(alert, templates(body=body), arrived=arrived).text.splitlines()
    assert first == (
        "The clock of this camera is wrong: the image is dated "
        "1970-01-01 01:05:00 (Europe/Berlin, UTC+1), and arrived "
        "at 2026-02-03 05:05:06 (Europe/Berlin, UTC+1)."
    )
    assert blank == ""
    message = compose(alert, templates(body=body))
    note = (
        "The clock of this camera is wrong: the image is dated "
        "1970-01-01 01:05:00 (Europe/Berlin, UTC+1)."
    )
    assert message.text.startswith(f"{note}\n\n")
    assert f">{note}</p>" in message.html


def test_a_message_does_not_claim_to_know_why_an_image_came_a_year_late(scene):
    alert = {**scene.alert, "timestamp": "2021-01-03T01:00:00Z"}
    arrived = parse_time("2026-02-03T04:05:06Z")
    message = compose(alert, UTC, arrived=arrived)
    assert message.text.startswith(
        "The clock of this camera is wrong, or this is an old image that was copied: the image is "
        "dated 2021-01-03 02:00:00 (Europe/Berlin, UTC+1), and arrived at 2026-02-03 05:05:06 ("
    )
    assert message.body["time_is_wrong"] is True
    assert "clock" not in compose(alert, UTC).text


def test_the_body_says_that_the_clock_is_wrong(scene):
    def make(alert, arrived):
        return compose(alert, UTC, arrived=arrived)

    alert = {**scene.alert, "timestamp": "1970-01-01T00:05:00Z"}
    arrived = parse_time("2026-02-03T04:05:06.789Z")
    marked = {"time_is_wrong": True, "arrived": "2026-02-03T04:05:06.789Z"}
    assert make(alert, arrived).body == {**alert, **marked}
    assert make(alert, None).body == {**alert, "time_is_wrong": True, "arrived": None}
    assert make(scene.alert, arrived).body == scene.alert
    assert make(scene.alert, None).body == scene.alert


def test_a_message_with_a_credible_time_says_nothing_of_a_clock(scene):
    assert "clock" not in compose(scene.alert, UTC, arrived=parse_time("2026-02-03T04:05:06Z")).text


def test_the_built_in_message(scene):
    scene.keep(jpeg())
    message = compose(scene.alert, BERLIN)
    assert message.subject == "person, dog at hall, 2026-02-01 00:59:59 (Europe/Berlin, UTC+1)"
    assert message.text == (
        f"""person, dog at hall
2026-02-01 00:59:59 (Europe/Berlin, UTC+1)

- person, 90% sure; rule: person (the defaults)
- dog, 90% sure; rule: dog (the defaults)

Picture: file://{scene.validated}
This alert in the report: file://{scene.output}/report/report.html#hall_20260131T235959Z
"""
    )
    assert message.body == scene.alert
    assert message.links == {}
    assert (message.alert_id, message.camera) == (scene.alert["alert_id"], "hall")
    assert (message.timestamp, message.severity) == ("2026-01-31T23:59:59Z", "alert")


FOLLOW_UP = {
    "incident": "0" * 32,
    "began": "2026-01-31T23:29:59Z",
    "last_alert": "2026-01-31T23:29:59Z",
    "images": 17,
    "new_labels": [],
    "more": [],
}
BEGAN = "The incident that began at 2026-02-01 00:29:59 (Europe/Berlin, UTC+1) goes on."


@pytest.mark.parametrize(
    ("news", "subject", "words"),
    [
        ({}, "Still: person, dog at hall, ", "Since then: 17 more images."),
        ({"images": 1}, "Still: person, dog at hall, ", "Since then: 1 more image."),
        (
            {"last_alert": "2026-01-31T23:59:58Z", "images": 0, "new_labels": ["dog", "cat"]},
            "New: dog, cat; person, dog at hall, ",
            "Since the last alert, at 2026-02-01 00:59:58 (Europe/Berlin, UTC+1): 0 more images; "
            "new: dog, cat.",
        ),
        (
            {
                "more": [
                    {"label": "person", "before": 1, "now": 3},
                    {"label": "dog", "before": 2, "now": 4},
                ]
            },
            "Still: person, dog at hall, ",
            "Since then: 17 more images; up to 3 person in one image, before 1; "
            "up to 4 dog in one image, before 2.",
        ),
    ],
)
def test_an_alert_in_an_incident_that_goes_on_says_so_and_what_is_new(scene, news, subject, words):
    scene.keep(jpeg())
    message = compose({**scene.alert, "follow_up": {**FOLLOW_UP, **news}}, BERLIN)
    assert message.subject == f"{subject}2026-02-01 00:59:59 (Europe/Berlin, UTC+1)"
    assert message.text.startswith(
        "person, dog at hall\n2026-02-01 00:59:59 (Europe/Berlin, UTC+1)\n"
        f"\n{BEGAN} {words}\n\n- person, 90% sure;"
    )
    assert f">{BEGAN} {words}</p>" in message.html
    assert message.body["follow_up"] == {**FOLLOW_UP, **news}


NAMED = """version: 1
defaults:
  timezone: Europe/Berlin
  objects: {person: {name: "Löwe & <b>Co</b>"}, dog: }
cameras:
  hall:
    zones:
      path:
        polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]
        objects: {person: {name: A person on the path}, dog: }
"""


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("cameras.hall.zones.path.objects.person", "A person on the path"),
        ("cameras.hall.zones.path.objects.dog", "dog (zone path of camera hall)"),
        ("defaults.objects.person", "Löwe & <b>Co</b>"),
        ("profiles.outdoor.objects.person", "person (profile outdoor)"),
        ("cameras.gone.objects.dining table", "dining table (camera gone)"),
        ("no entry", "no entry"),
    ],
)
def test_the_rule_is_named_in_words(scene, rule, words):
    threats = [{**scene.alert["threats"][0], "rule": rule, "zone": "path"}]
    ruleset = rules.parse_rules(NAMED, "rules.yaml")
    message = compose({**scene.alert, "threats": threats}, ruleset)
    assert f"- person, 90% sure, in path; rule: {words}\n" in message.text
    assert f", 90% sure, in path<br>\nRule: {html.escape(words)}</p>" in message.html


@pytest.mark.parametrize("conf", [0.05, 0.9049, 0.905, 1.0])
def test_a_message_says_how_sure_the_model_is(scene, conf):
    threats = [{**scene.alert["threats"][0], "conf": conf}]
    sure = {0.05: "5%", 0.9049: "90%", 0.905: "90%", 1.0: "100%"}[conf]
    assert f"- person, {sure} sure;" in compose({**scene.alert, "threats": threats}, UTC).text


HASH = re.compile(r"[0-9a-f]{12}")


@given(st.floats(0, 1), st.sampled_from(["alert", "detection"]), st.booleans())
def test_the_words_of_a_message_contain_no_hash(conf, severity, in_berlin):
    image = judged(threats=[("person", severity), ("dog", "alert")])
    alert = alert_for(image, "/out", BERLIN if in_berlin else UTC).body
    alert = {**alert, "threats": [{**threat, "conf": conf} for threat in alert["threats"]]}
    message = compose(alert, BERLIN, image={})
    for shown in (message.subject, message.text, message.html):
        assert not HASH.search(shown)
        assert alert["alert_id"] not in shown


def test_the_page_for_mail_has_the_words_the_picture_and_both_links(scene):
    scene.keep(jpeg())
    message = compose(scene.alert, BERLIN)
    page = message.html
    assert ">person, dog at hall</h1>" in page
    assert ">2026-02-01 00:59:59 (Europe/Berlin, UTC+1)</p>" in page
    assert 'src="cid:hall_2026-01-31T23-59-59Z.jpg"' in page
    assert message.picture_name == "hall_2026-01-31T23-59-59Z.jpg"
    report = f"file://{scene.output}/report/report.html#hall_20260131T235959Z"
    for link in (f"file://{scene.validated}", report):
        assert f'<a href="{link}">{link}</a>' in page
    assert "The links open for" not in page


def test_the_page_for_mail_without_a_picture_says_why(scene):
    page = compose(scene.alert, BERLIN).html
    assert "cid:" not in page
    assert "There is no picture with this message: " in page


def test_the_page_for_mail_has_the_text_of_the_rule_file_s_own_template(scene):
    scene.keep(jpeg())
    own = "<b>{{ id }}</b>\nhttps://a.example/{{ id }}?a=b&c=d"
    page = compose(scene.alert, templates(body=own)).html
    assert "&lt;b&gt;hall&lt;/b&gt;\n" in page
    assert '<a href="https://a.example/hall?a=b&amp;c=d"' in page
    assert "cid:hall_2026-01-31T23-59-59Z.jpg" in page
    assert "90% sure" not in page


def test_a_mail_of_hostile_words_has_no_markup_and_no_control_characters(scene):
    label = "<script>alert(1)</script>\x1b[31m\u202e\ud800"
    threats = [{**scene.alert["threats"][0], "label": label, "zone": "<i>"}]
    page = compose({**scene.alert, "threats": threats}, BERLIN).html
    assert "<script" not in page
    assert "<i>" not in page
    assert not {"\x1b", "\u202e", "\ud800"} & set(page)
    page.encode()


@pytest.mark.parametrize(
    ("timestamp", "zone", "local"),
    [
        (
            "2026-10-25T00:30:00.250Z",
            "Europe/Berlin",
            "2026-10-25 02:30:00 (Europe/Berlin, UTC+2)",
        ),
        ("2026-10-25T01:30:00Z", "Europe/Berlin", "2026-10-25 02:30:00 (Europe/Berlin, UTC+1)"),
        (
            "2026-06-01T18:45:00Z",
            "Asia/Kathmandu",
            "2026-06-02 00:30:00 (Asia/Kathmandu, UTC+5:45)",
        ),
        ("2026-06-01T18:45:00Z", "UTC", "2026-06-01 18:45:00 (UTC)"),
        ("0001-01-01T00:00:00Z", "America/New_York", "0001-01-01 00:00:00 (UTC)"),
        ("9999-12-31T23:59:59Z", "Asia/Tokyo", "9999-12-31 23:59:59 (UTC)"),
    ],
)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_the_time_is_the_camera_s_own(scene, timestamp, zone, local, is_recorded):
    """By the alert's own time zone, or by the rules for an alert of an earlier release."""
    alert = {**scene.alert, "timestamp": timestamp, "timezone": zone}
    ruleset = rules.parse_rules(RULES % ("Asia/Tokyo" if is_recorded else zone), "rules.yaml")
    if not is_recorded:
        del alert["timezone"], alert["local_time"]
    message = compose(alert, ruleset)
    assert message.subject == f"person, dog at hall, {local}"
    assert f"person, dog at hall\n{local}\n\n" in message.text


@pytest.mark.parametrize("zone", ["Nowhere/Else", 7, None])
def test_a_time_zone_that_is_none_is_that_of_the_rules(scene, zone):
    message = compose({**scene.alert, "timezone": zone}, BERLIN)
    assert message.subject.endswith(" (Europe/Berlin, UTC+1)")


def test_the_rule_file_s_templates_are_used(scene):
    scene.keep(jpeg())
    message = compose(
        scene.alert,
        templates(
            "{{ labels | length }} at {{ id | upper }}",
            "{% for one in threats %}{{ one.label }} {{ '%.0f%%' % (100 * one.conf) }}\n"
            "{% endfor %}",
        ),
    )
    assert message.subject == "2 at HALL"
    assert message.text == "person 90%\ndog 90%\n"


def test_every_variable_that_is_documented_is_there_and_no_other(scene, monkeypatch):
    scene.keep(jpeg())
    page = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()
    table = page.split("| variable |")[1].split("\n\n")[0]
    named = [name for cell in re.findall(r"^\| (`.*?) \|", table, re.M)
             for name in re.findall(r"`([\w.]+)`", cell)]  # fmt: skip
    body = "".join(f"{{{{ {name} }}}}" for name in named)
    following = {**scene.alert, "follow_up": FOLLOW_UP}
    assert "failed" not in compose(following, templates(body=body)).text
    given = []
    render = messages._rendered
    monkeypatch.setattr(messages, "_rendered", lambda *args: given.append(args[2]) or render(*args))
    compose(scene.alert, BERLIN)
    assert {name.split(".")[0] for name in named} == set(given[0]) == set(VARIABLES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ camera }}",
        "{{ 1 / 0 }}",
        "{{ threats[7].label }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_that_fails_loses_no_alert(scene, caplog, template):
    scene.keep(jpeg())
    messages._log_once.cache_clear()
    ruleset = templates(template, template)
    for _ in range(2):
        message = compose(scene.alert, ruleset)
        built_in = compose(scene.alert, BERLIN)
        assert message.subject == built_in.subject
        assert message.text.startswith(built_in.text)
        assert "(The rule file's template of the body failed: " in message.text
        assert message.picture == built_in.picture
    warnings = [entry.message for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [entry.split(" failed")[0] for entry in warnings] == [
        "the template message.subject",
        "the template message.body",
    ]


HOSTILE = [
    ("a\r\nBcc: evil@example.com", "a Bcc: evil@example.com"),
    ("a\x0b\x0c\x1c\x85\u2028\u2029b", "a b"),
    ("\x00\x1b[31ma\x7f\x9bb\ud800", "[31ma b"),
    ("\u202egnp.exe\u2066 a\u200f", "gnp.exe a"),
    ("Löwe 獅子 🦁", "Löwe 獅子 🦁"),
    ("x" * 201, "x" * 199 + "…"),
    (" \t ", ""),
]


@pytest.mark.parametrize(("text", "line"), HOSTILE)
def test_a_subject_is_one_line_without_control_characters(text, line):
    assert clean_line(text) == line


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\r\nb\rc \n\n\n\nd\n\n", "a\nb\nc\n\nd\n"),
        ("\x1b[31ma\x00b\ud800", " [31ma b\n"),
        ("x" * 30_000, "x" * 19_998 + "…\n"),
    ],
)
def test_a_text_is_lines_without_control_characters(text, lines):
    assert clean_lines(text) == lines


def test_hostile_labels_are_not_executed(scene):
    label = "<b>{{ id }}</b>\r\nBcc: evil@example.com"
    threats = [{**scene.alert["threats"][0], "label": label}]
    message = compose({**scene.alert, "threats": threats}, BERLIN)
    assert message.subject.startswith("<b>{{ id }}</b> Bcc: evil@example.com at hall")
    assert message.text.startswith("<b>{{ id }}</b>\nBcc: evil@example.com at hall\n")


def test_a_message_of_many_threats_is_of_bounded_length(scene):
    threats = [{**scene.alert["threats"][0], "label": f"label {at}"} for at in range(5000)]
    message = compose({**scene.alert, "threats": threats}, BERLIN)
    assert len(message.text) <= 20_000
    assert len(message.subject) == 200
    assert len(message.body["threats"]) == 5000


# The picture.


def is_red(pixel):
    return max(abs(int(value) - other) for value, other in zip(pixel, RED, strict=True)) < 60


def test_the_picture_has_the_threats_boxes_drawn(scene):
    scene.keep(encoded(Image.new("RGB", (2000, 1000), (250, 250, 250))))
    picture = opened(compose(scene.alert, BERLIN))
    assert (picture.format, picture.size) == ("JPEG", (1024, 512))
    pixels = np.asarray(picture.convert("RGB"))
    for x, y, red in [
        (257, 300, True), (767, 300, True), (500, 383, True), (500, 257, True),  # its edges
        (500, 300, False), (100, 300, False), (900, 450, False),  # inside and outside
    ]:  # fmt: skip
        assert is_red(pixels[y, x]) == red, (x, y)
    label = pixels[236:256, 257:330].reshape(-1, 3)
    assert np.mean([is_red(pixel) for pixel in label]) > 0.4
    assert any(min(pixel) > 200 for pixel in label)  # Its letters.


def test_a_picture_is_drawn_the_right_way_up(scene):
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter.
    data = encoded(Image.new("RGB", (200, 100), (250, 250, 250)), exif=exif.tobytes())
    scene.keep(data, box=(0, 0.5, 1, 0.5))
    picture = opened(compose(scene.alert, BERLIN))
    assert picture.size == (100, 200)
    pixels = np.asarray(picture.convert("RGB"))
    assert is_red(pixels[150, 0])
    assert not is_red(pixels[50, 0])


def test_detections_without_a_threat_are_not_drawn(scene):
    final = scene.keep(encoded(Image.new("RGB", (200, 100), (250, 250, 250))))
    seen = compose({**scene.alert, "threats": []}, BERLIN, image=final)
    pixels = np.asarray(opened(seen).convert("RGB")).reshape(-1, 3)
    assert not any(is_red(pixel) for pixel in pixels)


def test_a_picture_is_of_bounded_size(scene):
    noise = np.random.default_rng(7).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    scene.keep(encoded(Image.fromarray(noise), quality=95))
    message = compose(scene.alert, BERLIN)
    assert 20_000 < len(message.picture) <= 200_000
    opened(message).load()


def test_without_a_stored_copy_the_picture_is_read_from_its_source(scene):
    came_from = Path(scene.alert["image_uri"])
    scene.keep(jpeg(), uri=came_from)
    message = compose(scene.alert, BERLIN)
    assert opened(message).size == (200, 160)
    assert f"Picture: file://{came_from}\n" in message.text


def test_image_json_that_is_at_hand_is_not_read(scene):
    final = scene.keep(encoded(Image.new("RGB", (200, 100), (250, 250, 250))), boxes=False)
    pixels = np.asarray(opened(compose(scene.alert, BERLIN, image=final)))
    assert is_red(pixels[50, 50])


@pytest.mark.parametrize(
    "final",
    [
        None,
        b"no JSON",
        b"[]",
        b"{}",
        b'{"detections": []}',
        b'{"detections": 7}',
        b'{"detections": [7, 7]}',
        b'{"detections": [{"category": "1", "label": "a", "conf": 0.9, "bbox": "wide"}]}',
        b'{"detections": [{"category": "1", "label": "a", "conf": 0.9, "bbox": [0, 0, 1, 1e99]}]}',
    ],
)
def test_without_boxes_there_is_still_a_picture(scene, final):
    scene.keep(encoded(Image.new("RGB", (200, 100), (250, 250, 250))), boxes=False)
    if final is not None:
        stores.write_bytes(scene.alert["final_uri"], final)
    pixels = np.asarray(opened(compose(scene.alert, BERLIN))).reshape(-1, 3)
    assert len(pixels) == 200 * 100
    assert not any(is_red(pixel) for pixel in pixels)


def missing(scene):
    scene.keep(jpeg())
    scene.validated.unlink()


def another(scene):
    scene.keep(jpeg())
    scene.validated.write_bytes(jpeg(shade=7))


def no_jpeg(scene):
    scene.keep(b"s3cret, not a picture")


def truncated(scene):
    scene.keep(jpeg()[:700])


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (missing, "can't be read (FileNotFoundError)"),
        (another, "was replaced by another image"),
        (no_jpeg, "can't be decoded (UnidentifiedImageError)"),
        (truncated, "can't be decoded (OSError)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_alert_without_a_picture_says_why(scene, what, why):
    what(scene)
    message = compose(scene.alert, BERLIN)
    assert message.picture is None
    assert f"There is no picture with this message: {scene.validated} {why}.\n" in message.text
    assert message.subject.startswith("person, dog at hall")


@pytest.mark.parametrize("error", [RuntimeError("s3cret"), KeyError("s3cret"), MemoryError()])
@pytest.mark.parametrize("place", ["_read_image_json", "read_with_boxes", "signed_link"])
def test_after_an_unexpected_error_of_a_store_s_client_only_the_text_is_sent(
    scene, monkeypatch, place, error
):
    def raise_error(*_, **__):
        raise error

    scene.keep(jpeg())
    whole = compose(scene.alert, BERLIN)
    monkeypatch.setattr(messages, place, raise_error)
    message = compose(scene.alert, BERLIN)
    assert (message.picture, message.links) == (None, {})
    assert (message.subject, message.body) == (whole.subject, whole.body)
    why = f"{scene.alert['image_uri']} can't be read ({type(error).__name__})"
    assert f"There is no picture with this message: {why}.\n" in message.text
    assert "s3cret" not in message.text


# Links to the console.

MARK_KEY = "0123456789abcdef0123456789abcdef"
CONSOLE = rules.ConsoleLinks("https://console.example.com", "${MARK_KEY}", 7)


def linking(console=CONSOLE, body=None):
    return dataclasses.replace(BERLIN, alerting=rules.Alerting(console=console, body=body))


def test_a_message_has_links_that_mark_the_alert(scene, monkeypatch):
    monkeypatch.setenv("MARK_KEY", MARK_KEY)
    message = compose(scene.alert, linking(), target="mail")
    marks = {}
    for mark in ("right", "false"):
        link = message.links[mark]
        assert link.startswith("https://console.example.com/m/")
        marks[mark] = mark_links.verified(link.rpartition("/")[2], (MARK_KEY,))
    until = parse_time(scene.alert["timestamp"]) + timedelta(days=7)
    for mark, link in marks.items():
        assert link == mark_links.MarkLink(
            "hall", scene.alert["alert_id"], mark, "mail (link)", int(until.timestamp())
        )
    page = f"https://console.example.com/alerts/{scene.alert['alert_id']}"
    assert message.text.endswith(
        f"The alert is right: {message.links['right']}\n"
        f"The alert is false: {message.links['false']}\n"
        "The page asks once more, and needs no log-in. Whoever has this message can mark the alert,"
        f" until\n2026-02-08 00:59:59 (Europe/Berlin, UTC+1).\nThis alert in the console: {page}\n"
    )
    for mark in ("right", "false"):
        assert re.search(
            rf'<a href="{message.links[mark]}" style="[^"]+">It is {mark}<', message.html
        )
    assert f'<a href="{page}">This alert in the console</a>' in message.html
    assert message.content["links"] == dict(message.links)
    assert MARK_KEY not in f"{message}{message.content}"
    # The same bytes in each run, and in another name for another target.
    assert compose(scene.alert, linking(), target="mail") == message
    assert compose(scene.alert, linking(), target="chat").links["false"] != message.links["false"]


def test_a_message_without_a_key_only_leads_to_the_console(scene):
    message = compose(scene.alert, linking(rules.ConsoleLinks("https://c.example/")))
    page = f"https://c.example/alerts/{scene.alert['alert_id']}"
    assert dict(message.links) == {"console": page}
    assert message.text.endswith(f"\n\nThis alert in the console: {page}\n")
    assert "It is false" not in message.html
    assert "until" not in message.text


def test_a_template_can_place_the_links(scene, monkeypatch):
    monkeypatch.setenv("MARK_KEY", MARK_KEY)
    body = "{{ links.right }} {{ links.false }} {{ links.console }} {{ mark_until }}"
    message = compose(scene.alert, linking(body=body))
    links = message.links
    assert message.text == (
        f"{links['right']} {links['false']} {links['console']} "
        "2026-02-08 00:59:59 (Europe/Berlin, UTC+1)\n"
    )
    assert f'<a href="{links["false"]}"' in message.html
    without = compose(scene.alert, linking(None, "{{ links.false }} {{ mark_until }}"))
    assert without.text == "None None\n"


def test_the_links_of_a_camera_with_a_wrong_clock_end_after_the_arrival(scene, monkeypatch):
    monkeypatch.setenv("MARK_KEY", MARK_KEY)
    alert = {**scene.alert, "timestamp": "1970-01-01T00:05:00Z"}
    arrived = parse_time("2026-02-03T04:05:06.789Z")
    links = compose(alert, linking(), arrived=arrived).links
    link = mark_links.verified(links["false"].rpartition("/")[2], (MARK_KEY,))
    assert link.until == parse_time("2026-02-10T04:05:06Z").timestamp()
    assert set(compose(alert, linking()).links) == {"console"}


def test_links_that_open_for_hours_are_told_from_those_that_mark(scene, monkeypatch):
    monkeypatch.setenv("MARK_KEY", MARK_KEY)
    monkeypatch.setattr(messages, "signed_link", lambda uri, hours: f"https://store.example/{uri}")
    scene.keep(jpeg())
    message = compose(scene.alert, linking())
    assert set(message.links) == {"picture", "data", "report", "console", "right", "false"}
    for text in (message.text, message.html):
        assert "These links open for 24 hours, for anyone who has them." in " ".join(text.split())
    assert "\nThe links open for 24 hours" in compose(scene.alert, BERLIN).text
