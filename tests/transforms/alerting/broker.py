"""A real MQTT broker on the loopback: Debian's mosquitto."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.absent import give_up
from tests.stores.servers import free_port

ACCESS = """\
user robot
topic write homeassistant/#
topic write beam-threats/#
topic write cameras/shop/#
topic write ha/#
user watcher
topic read #
user stranger
topic read #
"""


class Broker:
    """A running broker. The users `robot`, `watcher` and `stranger` have the password `pa55@word`.

    Attributes:
      port: The port.
    """

    def __init__(self, folder: Path, tls: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        for user in ("robot", "watcher", "stranger"):
            subprocess.run(
                ["mosquitto_passwd", "-b", passwords, user, "pa55@word"],
                check=True,
                capture_output=True,
            )
        access = folder / "access"
        access.write_text(ACCESS)
        access.chmod(0o600)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nuser root\n"
            f"password_file {passwords}\nacl_file {access}\n{tls}"
        )
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            give_up("there is no mosquitto here (Debian's package mosquitto)")
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [program, "-c", folder / "mosquitto.conf"], stdout=self._log, stderr=self._log
        )

    def url(self, path: str = "", user: str = "robot", scheme: str = "mqtt") -> str:
        """The address for a user, with a reference to `MQTT_PASSWORD`."""
        return f"{scheme}://{user}:${{MQTT_PASSWORD}}@127.0.0.1:{self.port}{path}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


class Watcher:
    """A client that has subscribed to everything, as Home Assistant would be.

    Args:
      broker: The broker.
      is_early: Whether it does not get what was retained before.
      tls: Sets up its TLS.

    Attributes:
      received: The topic, the payload, and whether it was retained, in order.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        is_early: bool = False,
        tls: Callable[[Any], None] | None = None,
    ) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.username_pw_set("watcher", "pa55@word")
        if tls is not None:
            tls(self._client)
        self._client.on_message = lambda client, data, message: self.received.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        for _ in range(100):
            try:
                self._client.connect("127.0.0.1", broker.port)
                break
            except ConnectionRefusedError:  # It is starting.
                time.sleep(0.05)
        self._client.loop_start()
        options = SubscribeOptions(qos=1, retainHandling=2 if is_early else 0)
        self._client.subscribe("#", options=options)
        assert self._subscribed.wait(10)

    def wait_for(self, number: int) -> list[tuple[str, bytes, bool]]:
        """What was received, once it is that many messages."""
        ends = time.monotonic() + 10
        while len(self.received) < number and time.monotonic() < ends:
            time.sleep(0.02)
        return self.received

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def running_broker(folder: Path, tls: str = "") -> Iterator[Broker]:
    """Runs a broker."""
    broker = Broker(folder, tls)
    try:
        if not tls:
            Watcher(broker).close()
        yield broker
    finally:
        broker.stop()
