"""Alerts on a real broker, as Home Assistant discovers and receives them."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

import rules
from tests.stores.servers import free_port
from tests.transforms.alerting.broker import Watcher, running_broker
from tests.transforms.pictures import jpeg
from transforms.alerting import mqtt
from transforms.alerting.answers import SendResult
from transforms.alerting.messages import Message
from transforms.alerting.mqtt import Announced, descriptions
from transforms.alerting.target_clients import TimeLimits, client_for

BODY = {"alert_id": "5f" * 16, "id": "front.door", "severity": "alert", "threats": []}
MESSAGE = Message(
    alert_id="5f" * 16,
    camera="front.door",
    timestamp="2026-01-31T23:59:59Z",
    severity="alert",
    subject="Löwe at front.door",
    text="Löwe at front.door\n",
    links={"picture": "https://store.example/p"},
    picture=jpeg(320, 240),
    body=BODY,
)
QUICK = TimeLimits(exchange_seconds=5)
ENVIRON = {"MQTT_PASSWORD": "pa55%40word"}
DEVICE = {
    "identifiers": ["beam-threats_front-2e-door"],
    "name": "front.door",
    "manufacturer": "beam-threats",
}
ALERT_CONFIG = "homeassistant/event/beam-threats_front-2e-door/alert/config"
PICTURE_CONFIG = "homeassistant/image/beam-threats_front-2e-door/picture/config"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(autouse=True)
def without_wait(monkeypatch):
    monkeypatch.setattr(mqtt, "_SUBSCRIBE_SECONDS", 0.0)


@pytest.fixture
def watcher(broker):
    watching = Watcher(broker, is_early=True)
    yield watching
    watching.close()


def client_of(url, environ=ENVIRON, limits=QUICK, **settings):
    return client_for(rules.Target("home", "mqtt", url, **settings), dict(environ), limits)


def test_home_assistant_discovers_a_camera_and_gets_the_alert(broker, watcher):
    result = client_of(broker.url()).send(MESSAGE)
    assert result == SendResult("delivered")
    assert result.answer == "acknowledged by the broker"
    (alert_config, picture_config, picture, alert) = watcher.wait_for(4)
    assert alert_config[0] == ALERT_CONFIG
    assert json.loads(alert_config[1]) == {
        "name": "Alert",
        "unique_id": "beam-threats_front-2e-door_alert",
        "state_topic": "beam-threats/front.door/alert",
        "event_types": ["alert", "detection", "digest", "fault", "warning", "test"],
        "icon": "mdi:shield-alert",
        "device": DEVICE,
        "origin": {"name": "beam-threats"},
    }
    assert picture_config[0] == PICTURE_CONFIG
    assert json.loads(picture_config[1]) == {
        "name": "Last alert",
        "unique_id": "beam-threats_front-2e-door_picture",
        "image_topic": "beam-threats/front.door/picture",
        "content_type": "image/jpeg",
        "device": DEVICE,
        "origin": {"name": "beam-threats"},
    }
    assert picture == ("beam-threats/front.door/picture", MESSAGE.picture, False)
    assert alert[0] == "beam-threats/front.door/alert"
    assert json.loads(alert[1]) == {
        "event_type": "alert",
        **BODY,
        "subject": "Löwe at front.door",
        "text": "Löwe at front.door\n",
        "links": {"picture": "https://store.example/p"},
    }


def test_descriptions_and_the_picture_are_kept_and_events_are_not(broker):
    """Home Assistant subscribes again when it starts, and must not repeat an alert."""
    client_of(broker.url()).send(MESSAGE)
    late = Watcher(broker)
    kept = {topic for topic, _, is_retained in late.wait_for(3) if is_retained}
    late.close()
    assert {ALERT_CONFIG, PICTURE_CONFIG, "beam-threats/front.door/picture"} <= kept
    assert "beam-threats/front.door/alert" not in kept


def test_the_address_sets_the_topics(broker, watcher):
    client_of(broker.url("/cameras/shop?discovery=ha")).send(MESSAGE)
    topics = [topic for topic, _, _ in watcher.wait_for(4)]
    assert topics == [
        "ha/event/cameras-2f-shop_front-2e-door/alert/config",
        "ha/image/cameras-2f-shop_front-2e-door/picture/config",
        "cameras/shop/front.door/picture",
        "cameras/shop/front.door/alert",
    ]


@pytest.mark.parametrize(
    ("changes", "camera", "kind"),
    [
        ({"severity": "detection"}, "front.door", "detection"),
        ({"body": {**BODY, "digest": {}}}, "front.door", "digest"),
        ({"body": {**BODY, "digest": {}}, "camera": ""}, "_all", "digest"),
        ({"severity": "fault"}, "front.door", "fault"),
        ({"body": {**BODY, "test": True}}, "front.door", "test"),
    ],
)
def test_the_type_of_an_event(broker, watcher, changes, camera, kind):
    message = replace(MESSAGE, picture=None, **changes)
    assert client_of(broker.url()).send(message) == SendResult("delivered")
    topic, payload, _ = watcher.wait_for(3)[2]
    assert topic == f"beam-threats/{camera}/alert"
    assert json.loads(payload)["event_type"] == kind
    assert kind in json.loads(watcher.received[0][1])["event_types"]


def test_a_test_message_leaves_nothing_on_the_broker(broker):
    body = {**BODY, "test": True}
    message = replace(MESSAGE, camera="test-camera", body=body)
    assert client_of(broker.url()).send(message) == SendResult("delivered")
    late = Watcher(broker)
    time.sleep(0.3)
    assert not [topic for topic, _, _ in late.received if "test-camera" in topic]
    late.close()


def test_the_first_alert_of_a_camera_waits_until_home_assistant_has_subscribed(
    broker, watcher, monkeypatch
):
    monkeypatch.setattr(mqtt, "_SUBSCRIBE_SECONDS", 0.5)
    client = client_of(broker.url())
    with ThreadPoolExecutor(4) as threads:
        started = time.monotonic()
        results = list(threads.map(client.send, [MESSAGE] * 4))
        assert time.monotonic() - started >= 0.5
    assert results == [SendResult("delivered")] * 4
    topics = [topic for topic, _, _ in watcher.wait_for(16)]
    assert topics.index("beam-threats/front.door/alert") >= topics.index(PICTURE_CONFIG) + 1
    started = time.monotonic()
    client.send(MESSAGE)
    assert time.monotonic() - started < 0.4


def test_the_wait_is_counted_from_the_first_description(monkeypatch):
    monkeypatch.setattr(mqtt, "_SUBSCRIBE_SECONDS", 2.0)
    now = [100.0]
    monkeypatch.setattr(mqtt.time, "monotonic", lambda: now[0])
    announced = Announced()
    assert announced.add("hall") == 2.0
    now[0] = 101.5
    assert announced.add("hall") == 0.5
    assert announced.add("yard") == 2.0
    now[0] = 110.0
    assert announced.add("hall") < 0


@pytest.mark.parametrize(
    ("user", "environ", "path", "result"),
    [
        ("robot", {"MQTT_PASSWORD": "hunter2"}, "", SendResult("refused", "MQTT: Not authorized")),
        ("nobody", ENVIRON, "", SendResult("refused", "MQTT: Not authorized")),
        ("stranger", ENVIRON, "", SendResult("refused", "MQTT: Not authorized")),
        ("robot", ENVIRON, "/elsewhere", SendResult("refused", "MQTT: Not authorized")),
        ("robot", {}, "", SendResult("unavailable", "the environment variable MQTT_PASSWORD is "
         "not set")),
        (
            "robot",
            {"MQTT_PASSWORD": "hunter2@/#+"},
            "",
            SendResult("unavailable", "not an address like "
             "mqtt://robot:${MQTT_PASSWORD}@broker.local/cameras"),
        ),
    ],
)  # fmt: skip
def test_a_refusal_of_the_broker_is_reported_without_the_password(
    broker, caplog, capfd, user, environ, path, result
):
    caplog.set_level(1)
    assert client_of(broker.url(path, user=user), environ).send(MESSAGE) == result
    assert "hunter2" not in caplog.text + "".join(capfd.readouterr())


def test_a_broker_that_is_not_there_is_retried():
    url = f"mqtt://robot:${{MQTT_PASSWORD}}@127.0.0.1:{free_port()}"
    assert client_of(url).send(MESSAGE) == SendResult(
        "unavailable", "no connection (ConnectionRefusedError)"
    )


def test_a_service_that_never_answers_is_not_waited_for(web):
    url = web.url.replace("http://", "mqtt://robot:${MQTT_PASSWORD}@")
    started = time.monotonic()
    result = client_of(url, limits=TimeLimits(exchange_seconds=1)).send(MESSAGE)
    assert result.outcome == "unavailable"
    assert time.monotonic() - started < 5


def test_a_broker_s_certificate_is_checked(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(own)
    trustme.CA().cert_pem.write_to_path(other)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = f"certfile {tmp_path / 'cert.pem'}\nkeyfile {tmp_path / 'key.pem'}\n"
    with running_broker(tmp_path, tls) as broker:
        watcher = Watcher(broker, tls=lambda client: client.tls_set(str(own)))
        url = broker.url(scheme="mqtts")
        assert client_of(url, ca=str(own)).send(MESSAGE) == SendResult("delivered")
        assert len(watcher.wait_for(4)) == 4
        distrusted = SendResult("unavailable", "no secure connection: its certificate is not "
                                "trusted")  # fmt: skip
        assert client_of(url, ca=str(other)).send(MESSAGE) == distrusted
        assert client_of(url).send(MESSAGE) == distrusted
        gone = str(tmp_path / "gone.pem")
        assert client_of(url, ca=gone).send(MESSAGE) == SendResult(
            "unavailable", f"there is no file {gone}, which it names as its ca"
        )
        watcher.close()


IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
TOPIC = re.compile(r"homeassistant/(event|image)/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/config")
"""`<discovery_prefix>/<component>/<node_id>/<object_id>/config`, by Home Assistant's manual."""


@given(IDS)
def test_any_camera_has_topics_that_home_assistant_reads(camera):
    for each in descriptions(replace(MESSAGE, camera=camera), "beam-threats", "homeassistant"):
        assert TOPIC.fullmatch(each.topic)
