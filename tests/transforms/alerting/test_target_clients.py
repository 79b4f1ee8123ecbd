"""One try to deliver a message, to real servers of this machine."""

import base64
import email
import email.policy
import io
import json
import logging
import os
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import trustme
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rules
from tests.transforms.mail_service import mail_server
from tests.transforms.pictures import jpeg
from tests.transforms.web_service import WebService, status
from transforms.alerting import target_clients
from transforms.alerting.answers import Answer, SendResult
from transforms.alerting.exchanges import Exchange
from transforms.alerting.messages import Message, compose
from transforms.alerting.target_clients import TimeLimits, client_for, url_client
from transforms.alerting.withheld_logs import WITHHELD

QUICK = TimeLimits()
IMPATIENT = TimeLimits(connect_seconds=1, read_seconds=0.3)
NO_ANSWER = SendResult("unavailable", "no answer in time")
ALERT = {
    "alert_id": "5f" * 16,
    "id": "hall",
    "timestamp": "2026-01-31T23:59:59Z",
    "severity": "alert",
    "threats": [{"detection": 0, "label": "Löwe", "conf": 0.91}],
}
MESSAGE = Message(
    alert_id="5f" * 16,
    camera="hall",
    timestamp="2026-01-31T23:59:59Z",
    severity="alert",
    subject="Löwe at hall",
    text="Löwe at hall\n\n<b>& so on</b>\n",
    links={"picture": "https://store.example/picture?signature=l1nk"},
    picture=jpeg(320, 240),
    html='<p>Löwe at hall</p>\n<img src="cid:hall_2026-01-31T23-59-59Z.jpg" alt="">\n',
    body=ALERT,
)


def webhook(url, environ=(), limits=QUICK, **settings):
    return client_for(rules.Target("guard", "webhook", url, **settings), dict(environ), limits)


def apprise(url, environ=(), limits=QUICK):
    return client_for(rules.Target("mail", "apprise", url), dict(environ), limits)


# A webhook.


def test_a_webhook_gets_the_alert_and_the_message_as_json(web):
    assert webhook(f"{web.url}/hook?a=b").send(MESSAGE) == SendResult("delivered")
    (request,) = web.requests
    assert (request.method, request.path) == ("POST", "/hook?a=b")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == MESSAGE.alert_id
    assert not {"Authorization", "X-Signature-256", "X-Signature-Timestamp"} & set(request.headers)
    received = json.loads(request.body)
    assert base64.b64decode(received.pop("picture")) == MESSAGE.picture
    assert received == {
        **ALERT,
        "subject": MESSAGE.subject,
        "text": MESSAGE.text,
        "links": MESSAGE.links,
    }


def test_references_are_read_for_each_message(web):
    environ = {"PLACE": "hook", "TOKEN": "“old”\n"}
    client = client_for(
        rules.Target("guard", "webhook", f"{web.url}/${{PLACE}}", token="${TOKEN}"), environ, QUICK
    )
    client.send(MESSAGE)
    environ |= {"PLACE": "elsewhere", "TOKEN": "new"}
    client.send(MESSAGE)
    received = [
        (request.path, request.headers["Authorization"].encode("latin-1").decode())
        for request in web.requests
    ]
    assert received == [("/hook", "Bearer “old”"), ("/elsewhere", "Bearer new")]


def documented_check():
    """The receiver's check of a signature, as the documentation has it."""
    page = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.M)
    results = {}
    exec(example, results)
    return results["is_genuine"]


def test_a_signature_is_checked_as_documented(web, monkeypatch):
    webhook(web.url, {"KEY": "s3cret\n"}, secret="${KEY}").send(MESSAGE)
    (request,) = web.requests
    is_genuine = documented_check()
    assert is_genuine(request.headers, request.body, b"s3cret")
    assert not is_genuine(request.headers, request.body + b" ", b"s3cret")
    assert not is_genuine(request.headers, request.body, b"another")
    later = {**request.headers, "X-Signature-Timestamp": str(int(time.time()) + 1)}
    assert not is_genuine(later, request.body, b"s3cret")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert not is_genuine(request.headers, request.body, b"s3cret")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        *((code, "delivered") for code in (200, 201, 202, 204, 299)),
        *((code, "unavailable") for code in (408, 425, 429, 500, 502, 503, 504)),
        *((code, "refused") for code in (301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 422)),
    ],
)
def test_the_status_determines_the_outcome(web, code, outcome):
    web.answers = [status(code, location=f"{web.url}/elsewhere")]
    detail = "" if outcome == "delivered" else f"HTTP status {code}"
    assert webhook(f"{web.url}/hook").send(MESSAGE) == SendResult(outcome, detail)
    assert [request.path for request in web.requests] == ["/hook"]


@pytest.mark.parametrize("code", [429, 503])
def test_a_requested_pause_is_passed_on(web, code):
    web.answers = [status(code, retry_after="17.5")]
    detail = f"HTTP status {code}: the target asks for a pause"
    assert webhook(web.url).send(MESSAGE) == SendResult("paused", detail, 17.5)


def test_a_service_that_hangs_is_not_waited_for(web):
    web.answers = [web.hang]
    started = time.monotonic()
    assert webhook(web.url, limits=IMPATIENT).send(MESSAGE) == NO_ANSWER
    assert time.monotonic() - started < 3


def test_the_body_of_an_answer_is_not_read(web):
    def endless(handler, request):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not web.ended.wait(0.05):
            handler.wfile.write(b"1\r\n.\r\n")

    web.answers = [endless]
    started = time.monotonic()
    assert webhook(web.url).send(MESSAGE) == SendResult("delivered")
    assert time.monotonic() - started < 3


def test_a_connection_that_closes_is_one_to_try_again(web):
    web.answers = [lambda handler, request: setattr(handler, "close_connection", True)]
    assert webhook(web.url).send(MESSAGE) == SendResult(
        "unavailable", "no connection (ConnectionError)"
    )


def test_a_closed_port_is_retried(web):
    web.stop()
    assert webhook(web.url).send(MESSAGE) == SendResult(
        "unavailable", "no connection (ConnectionError)"
    )


@pytest.mark.parametrize("missing", ["PLACE", "TOKEN", "KEY"])
def test_a_variable_that_is_missing_is_named_and_nothing_is_sent(web, missing):
    environ = {"PLACE": "hook", "TOKEN": "t0ken", "KEY": "s3cret", missing: " "}
    client = webhook(f"{web.url}/${{PLACE}}", environ, token="${TOKEN}", secret="${KEY}")
    text = f"the environment variable {missing} is not set"
    assert client.send(MESSAGE) == SendResult("unavailable", text)
    assert web.requests == []


@pytest.mark.parametrize("url", ["s3cret", "ftp://a.example/s3cret", "https://[s3cret", "http://"])
def test_a_variable_may_hold_an_invalid_address(url):
    sent = webhook("${URL}", {"URL": url}).send(MESSAGE)
    assert sent.outcome == "unavailable"
    assert "s3cret" not in sent.detail


@pytest.mark.parametrize("user", [None, "us3r:p%4055"])
def test_a_user_in_the_address_overrides_the_token_and_both_override_a_netrc(
    web, tmp_path, monkeypatch, user
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    url = web.url.replace("//", f"//{user}@") if user else web.url
    webhook(url, {"TOKEN": "t0ken"}, token="${TOKEN}").send(MESSAGE)
    basic = base64.b64encode(b"us3r:p@55").decode()
    (request,) = web.requests
    assert request.headers["Authorization"] == (f"Basic {basic}" if user else "Bearer t0ken")


# Its certificate.


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure_web(authority):
    """An HTTPS server whose certificate is by an authority of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with WebService(context) as service:
        yield service


def written(authority, path):
    authority.cert_pem.write_to_path(path)
    return str(path)


def test_a_certificate_is_checked_by_the_authority_that_the_target_names(
    secure_web, authority, tmp_path
):
    own = written(authority, tmp_path / "own.pem")
    assert webhook(secure_web.url, ca=own).send(MESSAGE) == SendResult("delivered")
    assert len(secure_web.requests) == 1
    distrusted = SendResult("unavailable", "no secure connection: its certificate is not trusted")
    other = written(trustme.CA(), tmp_path / "other.pem")
    assert webhook(secure_web.url).send(MESSAGE) == distrusted
    assert webhook(secure_web.url, ca=other).send(MESSAGE) == distrusted
    wrong_host = secure_web.url.replace("127.0.0.1", "localhost")
    assert webhook(wrong_host, ca=own).send(MESSAGE) == distrusted
    gone = str(tmp_path / "gone.pem")
    sent = webhook(secure_web.url, ca=gone).send(MESSAGE)
    assert sent == SendResult("unavailable", f"there is no file {gone}, which it names as its ca")
    assert len(secure_web.requests) == 1


def test_the_environment_s_authorities_do_not_take_the_target_s_place(
    secure_web, authority, tmp_path, monkeypatch
):
    other = written(trustme.CA(), tmp_path / "other.pem")
    own = written(authority, tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", other)
    assert webhook(secure_web.url, ca=own).send(MESSAGE) == SendResult("delivered")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", own)
    assert webhook(secure_web.url, ca=other).send(MESSAGE).outcome == "unavailable"


# --alert_url.


@pytest.mark.parametrize(
    ("token", "authorization"), [(None, None), ("", None), ("t0ken\n", "Bearer t0ken")]
)
def test_an_alert_url_gets_the_same_json_as_a_webhook(web, monkeypatch, token, authorization):
    monkeypatch.delenv("ALERT_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("ALERT_TOKEN", token)
    client = url_client("a name", f"{web.url}/hook", "ALERT_TOKEN", os.environ)
    assert client.name == "a name"
    assert client.send(MESSAGE) == SendResult("delivered")
    assert webhook(f"{web.url}/hook").send(MESSAGE) == SendResult("delivered")
    request, other = web.requests
    assert request.body == other.body
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == MESSAGE.alert_id
    assert request.headers.get("Authorization") == authorization


def test_references_in_an_alert_url_are_read_for_each_alert(web):
    environ = {}
    client = url_client("a name", web.url + "/${HOOK}", "ALERT_TOKEN", environ)
    text = "the environment variable HOOK is not set"
    assert client.send(MESSAGE) == SendResult("unavailable", text)
    for environ["HOOK"] in ("one", "other"):
        assert client.send(MESSAGE) == SendResult("delivered")
    assert [request.path for request in web.requests] == ["/one", "/other"]


# What Apprise knows.


@pytest.fixture
def mails():
    with mail_server() as kept:
        yield kept


def test_a_mail_arrives_with_its_picture(mails):
    client = apprise(mails.url, {"MAIL_PASSWORD": "pa55%40word"})
    assert client.send(MESSAGE) == SendResult("delivered")
    (envelope,) = mails.envelopes
    assert envelope.rcpt_tos == ["guard@example.com"]
    mail = mails.parsed()
    assert mail["Subject"] == MESSAGE.subject
    assert "cameras@example.com" in mail["From"]
    text = mail.get_body(("plain",)).get_content()
    assert text.splitlines() == MESSAGE.text.splitlines()
    assert mail.get_body(("html",)).get_content().splitlines() == MESSAGE.html.splitlines()
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/jpeg"]
    assert picture["Content-ID"] == "<hall_2026-01-31T23-59-59Z.jpg>"
    assert picture.get_content_disposition() == "inline"
    assert picture.get_filename() == "hall_2026-01-31T23-59-59Z.jpg"
    assert picture.get_content() == MESSAGE.picture
    assert Image.open(io.BytesIO(picture.get_content())).size == (320, 240)


def test_a_mail_may_be_text_alone(mails):
    client = apprise(f"{mails.url}&format=text", {"MAIL_PASSWORD": "pa55%40word"})
    assert client.send(MESSAGE) == SendResult("delivered")
    mail = mails.parsed()
    assert mail.get_body(("html",)) is None
    assert mail.get_body(("plain",)).get_content().splitlines() == MESSAGE.text.splitlines()
    (attached,) = mail.iter_attachments()
    assert attached.get_content_disposition() == "attachment"
    assert attached.get_content() == MESSAGE.picture


def test_a_service_that_is_no_mail_gets_the_text(web):
    assert apprise(web.url.replace("http", "json")).send(MESSAGE) == SendResult("delivered")
    (request,) = web.requests
    received = json.loads(request.body)
    assert received["message"].splitlines() == MESSAGE.text.strip().splitlines()


def test_the_plain_text_of_a_mail_is_that_of_its_own_thread(mails):
    """Many mails at once, each with its own words."""
    messages = [
        replace(MESSAGE, text=f"text {number}\n", html=f"<p>page {number}</p>", picture=None)
        for number in range(20)
    ]
    client = apprise(mails.url, {"MAIL_PASSWORD": "pa55%40word"})
    with ThreadPoolExecutor(8) as threads:
        assert {result.outcome for result in threads.map(client.send, messages)} == {"delivered"}
    words = set()
    for envelope in mails.envelopes:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        words.add(tuple(mail.get_body((kind,)).get_content().strip() for kind in ("plain", "html")))
    assert words == {(f"text {number}", f"<p>page {number}</p>") for number in range(20)}


def test_a_mail_may_have_no_picture(mails):
    message = Message(**{**vars(MESSAGE), "picture": None})
    client = apprise(mails.url, {"MAIL_PASSWORD": "pa55%40word"})
    assert client.send(message) == SendResult("delivered")
    assert list(mails.parsed().iter_attachments()) == []


def test_a_hostile_label_adds_no_header_to_a_mail(mails):
    label = "person\r\nBcc: evil@example.com\r\n\r\n<script>"
    alert = {
        **ALERT,
        "threats": [{**ALERT["threats"][0], "label": label, "severity": "alert", "rule": "r",
                     "zone": None}],
        **dict.fromkeys(("image_uri", "final_uri"), "/nowhere"),
        **dict.fromkeys(("rules_version", "model_version"), "0"),
    }  # fmt: skip
    ruleset = rules.parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "rules.yaml")
    client = apprise(mails.url, {"MAIL_PASSWORD": "pa55%40word"})
    assert client.send(compose(alert, ruleset)) == SendResult("delivered")
    assert mails.envelopes[0].rcpt_tos == ["guard@example.com"]
    mail = mails.parsed()
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("person Bcc: evil@example.com <script> at hall, 2026-01-31")


@pytest.mark.parametrize(
    ("environ", "result"),
    [
        (
            {"MAIL_PASSWORD": "wrong"},
            SendResult("refused", "Apprise could not deliver it by E-Mail: SMTP status 535"),
        ),
        ({}, SendResult("unavailable", "the environment variable MAIL_PASSWORD is not set")),
    ],
)
def test_a_mail_that_cannot_be_sent(mails, environ, result):
    assert apprise(mails.url, environ).send(MESSAGE) == result
    assert mails.envelopes == []


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("550 no such user", "refused"),
        ("554 refused", "refused"),
        ("421 later", "unavailable"),
        ("451 later", "unavailable"),
        ("452 full", "unavailable"),
    ],
)
def test_a_mail_server_s_reply_says_whether_a_further_try_may_help(mails, reply, outcome):
    mails.reply = reply
    sent = apprise(mails.url, {"MAIL_PASSWORD": "pa55%40word"}).send(MESSAGE)
    text = f"Apprise could not deliver it by E-Mail: SMTP status {reply[:3]}"
    assert sent == SendResult(outcome, text)


@pytest.mark.parametrize("code", [301, 307, 400, 401, 403, 404, 410, 422])
def test_a_refusal_by_a_service_of_apprise_is_a_refusal(web, code):
    web.answers = [status(code, location=f"{web.url}/elsewhere")]
    text = f"Apprise could not deliver it by JSON: HTTP status {code}"
    assert apprise(web.url.replace("http", "json")).send(MESSAGE) == SendResult("refused", text)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503])
def test_a_transient_error_of_a_service_of_apprise_is_retried(web, code):
    web.answers = [status(code)]
    text = f"Apprise could not deliver it by JSON: HTTP status {code}"
    assert apprise(web.url.replace("http", "json")).send(MESSAGE) == SendResult("unavailable", text)


@pytest.mark.parametrize("code", [429, 503])
def test_a_service_of_apprise_may_ask_for_a_pause(web, code):
    web.answers = [status(code, retry_after="3")]
    detail = f"HTTP status {code}: the target asks for a pause"
    sent = apprise(web.url.replace("http", "json")).send(MESSAGE)
    assert sent == SendResult("paused", detail, 3)


def test_a_service_of_apprise_that_is_not_there_is_no_refusal(web):
    web.stop()
    text = "Apprise could not deliver it by JSON: no answer"
    assert apprise(web.url.replace("http", "json")).send(MESSAGE) == SendResult("unavailable", text)


@given(st.lists(st.sampled_from([200, 307, 401, 404, 429, 500, 503, "broken"]), max_size=5))
def test_answers_of_apprise_are_a_refusal_only_if_all_failures_are_refusals(answered):
    """Apprise sends several requests for one message, for several receivers for one."""
    exchange = Exchange()
    exchange.connections = len(answered)
    exchange.unanswered = answered.count("broken")
    exchange.answers = [Answer("HTTP", code, {}) for code in answered if code != "broken"]
    result = target_clients._failed_by_apprise(exchange, "JSON")
    failed = set(answered) - {200}
    assert (result.outcome == "refused") == bool(failed and failed <= {307, 401, 404})
    assert result.is_explained == bool(failed)


@pytest.mark.parametrize("url", ["nothing://s3cret", "s3cret", "mailto://"])
def test_an_address_that_apprise_does_not_know(url):
    sent = apprise("${URL}", {"URL": url}).send(MESSAGE)
    text = "not an address that Apprise knows: appriseit.com/services"
    assert sent == SendResult("unavailable", text)


def test_apprise_is_not_led_elsewhere(web):
    web.answers = [status(307, location=f"{web.url}/elsewhere")]
    sent = apprise(web.url.replace("http", "json") + "/hook").send(MESSAGE)
    assert sent.outcome == "refused"
    assert [request.path for request in web.requests] == ["/hook"]


# Secrets.

SECRETS = {"USER": "us3r", "PASSWORD": "pa55", "PATH_": "h00k", "TOKEN": "t0ken", "KEY": "s3cret"}
NOWHERE = (*SECRETS.values(), "l1nk", base64.b64encode(b"us3r:pa55").decode())
FATES = ("delivered", "refused", "busy", "hanging", "closed", "dead", "no address")


def fated(web, fate):
    """The address of a service that meets messages so."""
    web.answers = [
        {
            "refused": status(403, b"s3cret", location="/s3cret"),
            "busy": status(503, b"s3cret"),
            "hanging": web.hang,
            "closed": lambda handler, request: setattr(handler, "close_connection", True),
        }.get(fate, status(200, b"s3cret"))
    ]
    if fate == "dead":
        web.stop()
    return "t0ken" if fate == "no address" else web.url


def makers(address):
    """The target_clients that know all secrets, by their kinds."""
    host = address.partition("://")[2]
    address = "${USER}:${PASSWORD}@" + host + "/${PATH_}?key=${KEY}"
    limits = TimeLimits(1, 0.3, exchange_seconds=2, apprise_seconds=2)
    return {
        "webhook": webhook(f"http://{address}", SECRETS, limits, token="${TOKEN}", secret="${KEY}"),
        "apprise": apprise(f"json://{address}&+X-Token=${{TOKEN}}", SECRETS, limits),
        "mail": apprise(
            f"mailto://{address}&from=cameras@example.com&to=guard@example.com", SECRETS, limits
        ),
    }


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        *((kind, fate) for kind in ("webhook", "apprise") for fate in FATES),
        *(("mail", fate) for fate in ("hanging", "dead", "no address")),
    ],
)
def test_no_secret_is_reported_or_logged(web, caplog, capfd, kind, fate):
    caplog.set_level(1)
    client = makers(fated(web, fate))[kind]
    sent = client.send(MESSAGE)
    assert (sent.outcome == "delivered") == (fate == "delivered")
    text = all_output(sent, caplog, capfd)
    assert [secret for secret in NOWHERE if secret in text] == []
    if (kind, fate) != ("webhook", "no address"):  # Of which no library is told.
        assert WITHHELD in text  # There was something to log.


@pytest.mark.parametrize("password", ["pa55%40word", "pa55wr0ng"])
def test_no_secret_of_a_mail_is_reported_or_logged(mails, caplog, capfd, password):
    caplog.set_level(1)
    sent = apprise(mails.url, {"MAIL_PASSWORD": password}).send(MESSAGE)
    assert (sent.outcome == "delivered") == (password == "pa55%40word")
    text = all_output(sent, caplog, capfd)
    assert "pa55" not in text
    assert WITHHELD in text


def all_output(sent, caplog, capfd):
    ours = [entry for entry in caplog.records if not entry.name.startswith(("mail.", "asyncio"))]
    assert {logging.getLogger(name).getEffectiveLevel() for name in ("urllib3", "apprise")} == {1}
    return "\n".join((repr(sent), *(repr(vars(entry)) for entry in ours), *capfd.readouterr()))


def test_withheld_lines_would_have_been_logged(web, caplog):
    caplog.set_level(logging.DEBUG)
    requests.get(f"{web.url}/h00k?key=s3cret", timeout=5)
    assert "/h00k?key=s3cret" in caplog.text
    assert WITHHELD not in caplog.text
