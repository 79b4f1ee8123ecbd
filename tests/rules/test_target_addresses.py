"""Addresses of targets that can never work, and what would be right in their place."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import RulesError, parse_rules
from rules.target_addresses import (
    broker_address_problem,
    mail_address_form,
    rule_file_form,
    service_address_problem,
    web_address_problem,
)

WEB = "write one such as https://alerts.example.com/hook"
SERVICE = (
    "write one such as mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com; "
    "https://appriseit.com/services/ lists the services"
)


@pytest.mark.parametrize(
    "text",
    [
        *("https://alerts.example.com/hook", "http://127.0.0.1:8080", "HTTPS://A.EXAMPLE/x?y=z"),
        *("https://[::1]:80/", "https://bücher.example/", "https://host"),
        *("${URL}", "${URL}/hook", "https://${HOST}/x", "https://${HOST}:${PORT}/"),
        "https://me:${PASSWORD}@a.example/",
    ],
)
def test_an_address_of_a_web_service(text):
    assert web_address_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((text, "is not a web address") for text in ("ftp://a.example", "a.example/hook", "")),
        *((text, "is not a web address") for text in ("me@gmail.com", "https:/a.example")),
        *(
            (text, "names no host that can exist")
            for text in (
                *("https://", "https:///hook", "http://:8080/", "https://me@/x", "https://a b/"),
                *("https://a.example:0/", "https://a.example:99999", "https://a.example:x/"),
                *("https://[::1", "https://<host>/hook", "https://{host}/"),
            )
        ),
    ],
)
def test_a_web_address_that_can_never_work(text, problem):
    assert web_address_problem(text) == (problem, WEB)


@pytest.mark.parametrize(
    "text",
    [
        "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        "mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp=smtp.gmail.com",
        *("${CHAT_URL}", "${SCHEME}://a", "slack://${TOKENS}", "JSON://localhost"),
        "https://discord.com/api/webhooks/1234/abcd",
    ],
)
def test_an_address_of_a_service_of_apprise(text):
    assert service_address_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (
            "me@gmail.com",
            "is a mail address, and says nothing of the mail server",
            "write mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp=smtp.gmail.com",
        ),
        (
            "mailto:a.b+c@shop.example.org",
            "is a mail address, and says nothing of the mail server",
            "write mailtos://a.b+c:${MAIL_PASSWORD}@shop.example.org?smtp=smtp.shop.example.org",
        ),
        *((text, "is not an address for Apprise", SERVICE) for text in ("gmail", "mailto://")),
        *((text, "is not an address for Apprise", SERVICE) for text in ("a b://x", "://x")),
        (
            "mailt0://robot@smtp.example.com",
            "Apprise has no service mailt0://",
            "did you mean 'mailto'?; https://appriseit.com/services/ lists the services",
        ),
        (
            "pigeon://${PASSWORD}@coop",
            "Apprise has no service pigeon://",
            "https://appriseit.com/services/ lists the services",
        ),
        (
            "slack://hunter2",
            "is not a complete address for Slack",
            "https://appriseit.com/services/ has the form of each service",
        ),
        (
            "https://alerts.example.com/hook",
            "is a web address that belongs to no service of Apprise",
            "for an HTTP service of your own, write webhook: in place of apprise:",
        ),
    ],
)
def test_an_address_for_apprise_that_can_never_work(text, problem, remedy, caplog, capfd):
    caplog.set_level(1)
    assert service_address_problem(text) == (problem, remedy)
    assert "hunter2" not in caplog.text + "".join(capfd.readouterr())
    assert not logging.getLogger("apprise").disabled


def test_the_proposed_form_of_a_mail_address_is_right():
    form = mail_address_form("me@shop.example.org")
    assert service_address_problem(form) is None
    assert service_address_problem(form.replace("${MAIL_PASSWORD}", "word")) is None


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "me@gmail.com",
            "{apprise: 'mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp=smtp.gmail.com'}",
        ),
        ("mailtos://me:hunter2@a.example", "{apprise: 'mailtos://…'}"),
        ("TGRAM://hunter2", "{apprise: 'tgram://…'}"),
        *((text, None) for text in ("htp://hunter2", "hunter2", "ftp://a.example")),
    ],
)
def test_where_an_alert_url_names_no_web_service_the_rule_file_may_have_the_form(text, form):
    assert rule_file_form(text) == form


@given(st.text(min_size=1), st.sampled_from(["", "mailto://", "json://", "https://", "x@"]))
def test_no_text_is_an_error_and_only_mail_addresses_are_repeated(text, prefix):
    secret = f"{prefix}{text}{'h' * 9}"
    for problem in (web_address_problem(secret), service_address_problem(secret)):
        if problem is not None and mail_address_form(secret) is None:
            assert "h" * 9 not in "".join(problem).replace(secret.partition("://")[0].lower(), "")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{webhook: 'https://'}", f"webhook: names no host that can exist; {WEB}"),
        (
            "{apprise: me@gmail.com}",
            "apprise: is a mail address, and says nothing of the mail server; write "
            "mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp=smtp.gmail.com",
        ),
        (
            "{apprise: 'foo://bar'}",
            "apprise: Apprise has no service foo://; https://appriseit.com/services/ lists the "
            "services",
        ),
    ],
)
def test_a_rule_file_with_such_an_address_is_rejected_at_its_line(target, message):
    with pytest.raises(RulesError) as error:
        parse_rules(f"version: 1\ntargets:\n  t: {target}\n", "rules.yaml")
    assert str(error.value) == f"rules.yaml:3: targets.t.{message}"


BROKER = "write one such as mqtt://robot:${MQTT_PASSWORD}@broker.local/cameras"


@pytest.mark.parametrize(
    "text",
    [
        *("mqtt://broker.local", "MQTTS://10.0.0.2:8884/cameras/shop", "${BROKER}/cameras"),
        "mqtt://robot:${MQTT_PASSWORD}@broker.local:1883/cameras?discovery=ha",
    ],
)
def test_an_address_of_a_broker(text):
    assert broker_address_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        *((text, "is not the address of an MQTT broker", BROKER) for text in ("a.b", "http://a")),
        *((text, "names no host that can exist", BROKER) for text in ("mqtt://", "mqtt:///x")),
        ("mqtt://a/cameras/%23", "has a wildcard (+ or #) in a topic", BROKER),
        ("mqtt://a/+/x", "has a wildcard (+ or #) in a topic", BROKER),
        ("mqtt://a/?discovery=%2B", "has a wildcard (+ or #) in a topic", BROKER),
        ("mqtt://a/?qos=2", "has the unknown part ?qos=", "leave it out; discovery is known"),
    ],
)
def test_an_address_of_a_broker_that_can_never_work(text, problem, remedy):
    assert broker_address_problem(text) == (problem, remedy)
