"""Whom alerts go to: what the rule file says, and what it must not."""

import pickle

import pytest

from rules import (
    Limit,
    MissingVariableError,
    RulesError,
    Target,
    describe,
    expand,
    parse_rules,
)

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


def refusal(text):
    with pytest.raises(RulesError) as error:
        parse_rules(text, "rules.yaml")
    return str(error.value)


def test_a_camera_names_its_targets_and_they_the_severities_they_are_told_of():
    rules = parse_rules(RULES, "rules.yaml")
    told = {
        (camera, severity): [target.name for target in rules.targets_for(camera, severity)]
        for camera in ("a", "b", "unnamed")
        for severity in ("alert", "detection")
    }
    assert told == {
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


def test_what_else_is_said_of_alerts_is_read():
    alerting = parse_rules(RULES, "rules.yaml").alerting
    assert (alerting.per_id.alerts, alerting.fleet.within.total_seconds()) == (10, 3600)
    assert isinstance(alerting.per_id, Limit)
    assert (alerting.subject, alerting.body) == ("{{ id }} at {{ local_time }}", None)
    assert alerting.health == ("mail",)
    assert alerting.targets["guard"].variables == ("GUARD_KEY", "GUARD_TOKEN", "GUARD_SECRET")


def test_references_are_looked_up_where_it_is_sent():
    url = parse_rules(RULES, "r").alerting.targets["guard"].url
    assert expand(url, {"GUARD_KEY": "k\n"}) == "https://alerts.example.com/hook?key=k"
    for environment in ({}, {"GUARD_KEY": " "}):
        with pytest.raises(MissingVariableError, match="GUARD_KEY is not set"):
            expand(url, environment)


def test_a_target_holds_no_secret():
    target = Target("g", "webhook", "https://x/${KEY}", token="${TOKEN}")
    assert "${TOKEN}" in repr(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "{webhook: https://x.example, token: hunter2}",
            "4: targets.t.token: a secret must not stand in the file; put it into an environment "
            "variable and write its name, such as ${GUARD_TOKEN}",
        ),
        (
            "{webhook: 'https://me:hunter2@x.example'}",
            "4: targets.t.webhook: a password must not stand in the file; put it into an "
            "environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        ),
        (
            "{apprise: 'mailto://me:hunter2@x.example'}",
            "4: targets.t.apprise: a password must not stand in the file; put it into an "
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
            "4: targets.t: needs one address; write webhook: https://… or apprise: …, and not both",
        ),
        (
            "{webhook: https://x.example, apprise: 'json://x'}",
            "4: targets.t: needs one address; write webhook: https://… or apprise: …, and not both",
        ),
        (
            "{apprise: 'json://x', ca: ca.pem}",
            "4: targets.t.ca: is of a webhook only; put it into the address",
        ),
        (
            "{webhook: https://x.example, severities: [ignore]}",
            "4: targets.t.severities[0]: is the text 'ignore'; must be a list of alert and "
            "detection",
        ),
    ],
)
def test_a_wrong_target_is_refused_without_its_secret(target, message):
    text = f"version: 1\ntargets:\n\n  t: {target}\n"
    assert refusal(text) == f"rules.yaml:{message}"
    assert "hunter2" not in refusal(text)


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
            "3: message.subject: nothing is called 'lables' here; did you mean 'labels'?",
        ),
        (
            "limits: {fleet: {alerts: 0, within: 1m}}",
            "3: limits.fleet.alerts: is 0; must be a whole number of at least 1",
        ),
        ("limits: {fleet: {alerts: 1}}", "3: limits.fleet.within: missing; write within: a "
         "duration such as 30s, 5m, 24h or 7d"),
    ],
)  # fmt: skip
def test_a_wrong_word_on_alerts_is_refused(line, message):
    text = f"version: 1\ntargets: {{guard: {{webhook: https://x.example}}}}\n{line}\n"
    assert refusal(text) == f"rules.yaml:{message}"
