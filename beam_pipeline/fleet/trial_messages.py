"""The command `alerts test`: sends a test message to targets, and prints what they answered."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, cast

import orjson

import rules
from beam_pipeline.bundled import BUNDLED_SAMPLES, BUNDLED_TRUTH
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.rule_files import read_rules, target_errors_as_setup_errors
from rules.errors import suggestion
from rules.local_times import local_json
from transforms.alerting.alerts import AlertBody
from transforms.alerting.answers import SendResult
from transforms.alerting.delivery import TOKEN_VARIABLE
from transforms.alerting.messages import Message, compose
from transforms.alerting.target_checks import check_alert_urls, check_console, check_targets
from transforms.alerting.target_clients import TargetClient, client_for, named_urls, url_client
from transforms.records.times import canonical_time

TEST_CAMERA = "test-camera"
"""The id in test messages; it belongs to no camera."""

_NOTE = (
    "This is a test message of the command alerts test. The picture is a sample: no camera has "
    "seen anything."
)
_LABEL = "person"


def send_test_messages(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code.

    Raises:
      SetupError: The set-up is wrong; nothing was sent.
    """
    if not args.targets and not args.alert_url:
        raise SetupError("alerts test: give --target NAME with --rules FILE, or --alert_url URL")
    if args.targets and args.rules is None:
        raise SetupError("--target: give the rule file that has the target too: --rules FILE")
    with target_errors_as_setup_errors():
        check_alert_urls(args.alert_url, sends_here=True)
    ruleset = (
        rules.parse_rules("version: 1\n", "no rules")
        if args.rules is None
        else read_rules(args.rules, args.labels)
    )
    targets = [_target(ruleset, name) for name in dict.fromkeys(args.targets)]
    with target_errors_as_setup_errors():
        check_targets(targets)
        check_console(ruleset.alerting.console)
    clients: list[TargetClient] = [client_for(target, os.environ) for target in targets]
    for name, url in named_urls(args.alert_url).items():
        clients.append(url_client(name, url, TOKEN_VARIABLE, os.environ))
    message = test_message(ruleset, datetime.now(timezone.utc))
    are_accepted = [_send(client, message) for client in clients]
    return 0 if all(are_accepted) else 1


def test_message(ruleset: rules.Rules, now: datetime) -> Message:
    """Makes a message that shows how an alert reads, and says that it is none.

    Args:
      ruleset: The rules, with the templates of messages.
      now: The time that the message gives as the capture time.
    """
    file, box = _sample()
    timestamp, zone = canonical_time(now), ruleset.timezone_of(TEST_CAMERA)
    threat = {
        "detection": 0,
        "label": _LABEL,
        "conf": 0.91,
        "severity": "alert",
        "rule": f"defaults.objects.{_LABEL}",
        "zone": None,
        "bbox": box,
    }
    body: dict[str, Any] = {
        "test": True,
        "alert_id": rules.alert_id(TEST_CAMERA, timestamp, "alert"),
        "id": TEST_CAMERA,
        "timestamp": timestamp,
        "local_time": local_json(now, zone),
        "timezone": zone,
        "severity": "alert",
        "threats": [threat],
        "image_uri": file,
        "final_uri": file,
        "rules_version": ruleset.version,
        "model_version": "0" * 12,
    }
    detection = {"category": "1", "label": _LABEL, "conf": 0.91, "bbox": box}
    message = compose(
        cast(AlertBody, body), ruleset, image={"detections": [detection]}, notes=(_NOTE,)
    )
    return replace(message, subject=f"Test: {message.subject}")


def _sample() -> tuple[str, list[float]]:
    """Returns the file of a sample, and the box of the largest person in all samples."""

    def persons() -> Iterator[tuple[float, str, list[float]]]:
        for image in orjson.loads(BUNDLED_TRUTH.read_bytes())["images"]:
            for found in image["objects"]:
                if found["label"] == _LABEL:
                    box = found["bbox"]
                    yield box[2] * box[3], image["file"], box

    _, file, box = max(persons())
    return str(BUNDLED_SAMPLES / file), box


def _target(ruleset: rules.Rules, name: str) -> rules.Target:
    targets = ruleset.alerting.targets
    if name not in targets:
        hint = suggestion(name, tuple(targets), "targets") if targets else "it names no targets"
        raise SetupError(f"--target {name}: there is no such target in the rule file; {hint}")
    return targets[name]


def _send(client: TargetClient, message: Message) -> bool:
    """Sends a message, prints the answer, and returns whether it was accepted."""
    result = client.send(message)
    print(f"{client.name}: {_answer(result)}", flush=True)
    return result.outcome == "delivered"


def _answer(result: SendResult) -> str:
    if result.outcome == "delivered":
        return f"accepted ({result.answer})" if result.answer else "accepted"
    return f"not accepted: {result.detail}"
