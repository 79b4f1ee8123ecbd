"""The targets of alerts in a rule file, and mistakes in their settings."""

import pickle
from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from rules import (
    ConsoleLinks,
    Limit,
    MissingVariableError,
    RulesError,
    Target,
    describe,
    expand,
    parse_rules,
)
from rules.targets import Alerting

RULES = """version: 1
targets:
  guard:
    webhook: https://alerts.example.com/hook?key=${GUARD_KEY}
    token: "${GUARD_TOKEN}"
    secret: ${GUARD_SECRET}
  mail:
    apprise: mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com
    severities: [alert, detection]
limits: {per_id: {alerts: 10, within: 10m}, fleet: {alerts: 100, within: 1h}}
message: {subject: "{{ id }} at {{ local_time }}"}
health: {targets: [mail]}
defaults:
  objects: {person: , dog: {severity: detection}}
  notify: [guard]
profiles:
  shop: {notify: [guard, mail]}
cameras:
  a: {profile: shop}
  b: {notify: []}
"""


def message_for(text):
    with pytest.raises(RulesError) as error:
        parse_rules(text, "rules.yaml")
    return str(error.value)


def test_the_targets_of_an_image_depend_on_its_camera_and_severity():
    rules = parse_rules(RULES, "rules.yaml")
    targets = {
        (camera, severity): [target.name for target in rules.targets_for(camera, severity)]
        for camera in ("a", "b", "unnamed")
        for severity in ("alert", "detection")
    }
    assert targets == {
        ("a", "alert"): ["guard", "mail"],
        ("a", "detection"): ["mail"],
        ("b", "alert"): [],
        ("b", "detection"): [],
        ("unnamed", "alert"): ["guard"],
        ("unnamed", "detection"): [],
    }
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert "  notify: guard, mail (profiles.shop)\n" in describe(rules)
    assert "  notify: nobody (cameras.b)\n" in describe(rules)


def test_limits_templates_and_health_targets_are_read():
    alerting = parse_rules(RULES, "rules.yaml").alerting
    assert (alerting.per_id.alerts, alerting.fleet.within.total_seconds()) == (10, 3600)
    assert isinstance(alerting.per_id, Limit)
    assert (alerting.subject, alerting.body) == ("{{ id }} at {{ local_time }}", None)
    assert alerting.health == ("mail",)
    assert alerting.targets["guard"].variables == ("GUARD_KEY", "GUARD_TOKEN", "GUARD_SECRET")


def test_references_are_replaced_from_the_environment():
    url = parse_rules(RULES, "r").alerting.targets["guard"].url
    assert expand(url, {"GUARD_KEY": "k\n"}) == "https://alerts.example.com/hook?key=k"
    for environment in ({}, {"GUARD_KEY": " "}):
        with pytest.raises(MissingVariableError, match="GUARD_KEY is not set"):
            expand(url, environment)


def test_a_target_contains_references_not_secrets():
    target = Target("g", "webhook", "https://x/${KEY}", token="${TOKEN}")
    assert "${TOKEN}" in repr(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "{webhook: https://x.example, token: hunter2}",
            "4: targets.t.token: the file must not contain a secret; put it into an environment "
            "variable and write its name, such as ${GUARD_TOKEN}",
        ),
        (
            "{webhook: 'https://me:hunter2@x.example'}",
            "4: targets.t.webhook: the file must not contain a password; put it into an "
            "environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        ),
        (
            "{apprise: 'mailto://me:hunter2@x.example'}",
            "4: targets.t.apprise: the file must not contain a password; put it into an "
            "environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        ),
        (
            "{webhook: ftp://x.example}",
            "4: targets.t.webhook: is not a web address; write one such as "
            "https://alerts.example.com/hook",
        ),
        (
            "{severities: [alert]}",
            "4: targets.t: needs one address; write one of webhook: https://…, mqtt: mqtt://… or "
            "apprise: …",
        ),
        (
            "{webhook: https://x.example, apprise: 'json://x'}",
            "4: targets.t: needs one address; write one of webhook: https://…, mqtt: mqtt://… or "
            "apprise: …",
        ),
        (
            "{apprise: 'json://x', ca: ca.pem}",
            "4: targets.t.ca: is for webhook or mqtt only; put it into the address",
        ),
        (
            '{mqtt: "mqtt://a.example", token: "${TOKEN}"}',
            "4: targets.t.token: is for webhook only; put it into the address",
        ),
        (
            "{mqtt: mqtt://a.example, webhook: https://x.example}",
            "4: targets.t: needs one address; write one of webhook: https://…, mqtt: mqtt://… or "
            "apprise: …",
        ),
        (
            "{mqtt: 'mqtt://me:hunter2@x.example'}",
            "4: targets.t.mqtt: the file must not contain a password; put it into an "
            "environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        ),
        (
            "{mqtt: 'https://x.example'}",
            "4: targets.t.mqtt: is not the address of an MQTT broker; write one such as "
            "mqtt://robot:${MQTT_PASSWORD}@broker.local/cameras",
        ),
        (
            "{webhook: https://x.example, severities: [ignore]}",
            "4: targets.t.severities[0]: is the text 'ignore'; must be a list of alert and "
            "detection",
        ),
    ],
)
def test_a_wrong_target_is_rejected_without_repeating_its_secret(target, message):
    text = f"version: 1\ntargets:\n\n  t: {target}\n"
    assert message_for(text) == f"rules.yaml:{message}"
    assert "hunter2" not in message_for(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "defaults: {notify: [gard]}",
            "3: defaults.notify[0]: there is no target 'gard'; did you mean 'guard'?",
        ),
        (
            "health: {targets: [x]}",
            "3: health.targets[0]: there is no target 'x'; the targets are: guard",
        ),
        (
            'message: {body: "{{ id "}',
            "3: message.body: not a template: unexpected end of template, expected 'end of print "
            "statement'.; see https://jinja.palletsprojects.com",
        ),
        (
            'message: {subject: "{{ lables }}"}',
            "3: message.subject: there is no variable 'lables'; did you mean 'labels'?",
        ),
        (
            "limits: {fleet: {alerts: 0, within: 1m}}",
            "3: limits.fleet.alerts: is 0; must be a whole number of at least 1",
        ),
        (
            "limits: {per_id: {alerts: 1, within: 0m}}",
            "3: limits.per_id.within: 0m is too short; must be at least 1s",
        ),
        ("limits: {fleet: {alerts: 1}}", "3: limits.fleet.within: missing; write within: a "
         "duration such as 30s, 5m, 24h or 7d"),
    ],
)  # fmt: skip
def test_wrong_settings_of_alerts_are_rejected(line, message):
    text = f"version: 1\ntargets: {{guard: {{webhook: https://x.example}}}}\n{line}\n"
    assert message_for(text) == f"rules.yaml:{message}"


def test_links_are_valid_for_a_day_by_default():
    assert parse_rules("version: 1\n", "rules.yaml").alerting.link_hours == 24
    assert parse_rules("version: 1\nmessage: {subject: x}\n", "r").alerting.link_hours == 24


@pytest.mark.parametrize("hours", [1, 168])
def test_links_are_valid_for_the_configured_hours(hours):
    text = f"version: 1\nmessage: {{link_hours: {hours}}}\n"
    assert parse_rules(text, "rules.yaml").alerting.link_hours == hours


@pytest.mark.parametrize("hours", ["0", "169", "1.5", "a day"])
def test_links_cannot_be_valid_for_longer_than_a_store_signs(hours):
    with pytest.raises(RulesError, match=r"message\.link_hours: .*whole number from 1 to 168"):
        parse_rules(f"version: 1\nmessage: {{link_hours: {hours}}}\n", "rules.yaml")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (Target("guard", "webhook", "https://a.example"), "url"),
        (Limit(3, timedelta(hours=1)), "alerts"),
        (Alerting(), "subject"),
    ],
)
def test_settings_of_alerts_are_immutable(record, field):
    assert hash(record) == hash(pickle.loads(pickle.dumps(record)))
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, "other")


def test_alerting_has_no_targets_by_default():
    assert dict(Alerting().targets) == {}


def test_messages_link_to_no_console_by_default():
    assert parse_rules("version: 1\n", "rules.yaml").alerting.console is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{url: https://c.example}", ConsoleLinks("https://c.example", None, 7)),
        (
            '{url: "https://${PLACE}/", key: "${MARK_KEY}", link_days: 30}',
            ConsoleLinks("https://${PLACE}/", "${MARK_KEY}", 30),
        ),
    ],
)
def test_the_console_to_which_messages_link(text, expected):
    console = parse_rules(f"version: 1\nconsole: {text}\n", "rules.yaml").alerting.console
    assert console == expected
    assert expected.variables == (("PLACE", "MARK_KEY") if expected.key else ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{key: "${MARK_KEY}"}', r"console\.url"),
        ("{url: console.example.com}", r"console\.url: is not a web address"),
        ("{url: https://me:s3cret@c.example}", "the file must not contain a password"),
        ("{url: https://c.example, key: s3cret}", "the file must not contain a secret"),
        ("{url: https://c.example, link_days: 0}", "a whole number from 1 to 30"),
        ("{url: https://c.example, link_days: 31}", "a whole number from 1 to 30"),
        ("{url: https://c.example, day: 3}", r"console\.day"),
    ],
)
def test_a_wrong_console_is_named_and_no_secret_repeated(text, says):
    with pytest.raises(RulesError, match=says) as caught:
        parse_rules(f"version: 1\nconsole: {text}\n", "rules.yaml")
    assert "s3cret" not in str(caught.value)
