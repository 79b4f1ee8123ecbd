"""What the saboteur does is done, and undone; services fail on request."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from soak import figures, saboteur
from soak.saboteur import Saboteur
from soak.services import AlertService


def test_each_act_is_done_before_one_is_done_again(tmp_path: Path) -> None:
    names: list[str] = []

    def act(name: str) -> saboteur.Act:
        def do(_: random.Random) -> None:
            names.append(name)
            if len(names) == 9:
                thread.ended.set()

        return do

    log = tmp_path / "log"
    thread = Saboteur({name: act(name) for name in "abc"}, log, seed=1, pause_seconds=(0, 0))
    thread.run()
    assert all(set(names[at : at + 3]) == set("abc") for at in (0, 3, 6))
    done = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["act"] for entry in done] == names
    assert thread.error is None


def test_a_stream_that_does_not_recover_is_reported(tmp_path: Path) -> None:
    def never() -> None:
        raise RuntimeError("the job is FAILED")

    thread = Saboteur(
        {"a": lambda _: None}, tmp_path / "log", seed=1, pause_seconds=(0, 0), recovered=never
    )
    with pytest.raises(RuntimeError):
        thread.run()
    assert "FAILED" in str(thread.error)


def test_a_process_is_killed() -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    saboteur.kill_one(lambda: [victim.pid])(random.Random(1))
    assert victim.wait(10) == -9


@pytest.mark.parametrize("seed", range(6))
def test_the_input_is_away_and_comes_back(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "image.jpg").touch()
    listed: list[str] = []

    def look(_: float) -> None:
        try:
            listed.append(str(list(folder.iterdir())))
        except OSError as error:
            listed.append(type(error).__name__)

    monkeypatch.setattr(saboteur.time, "sleep", look)
    saboteur.move_away(folder, threading.Lock())(random.Random(seed))
    assert listed in (["FileNotFoundError"], ["OSError"])
    assert [file.name for file in folder.iterdir()] == ["image.jpg"]


def test_a_disk_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with saboteur.small_disk(tmp_path, 2) as mounted:
        if not mounted:
            pytest.skip("no disk may be mounted here")
        errors: list[int | None] = []

        def write(_: float) -> None:
            try:
                (tmp_path / "image.jpg").write_bytes(b"x")
            except OSError as error:
                errors.append(error.errno)

        monkeypatch.setattr(saboteur.time, "sleep", write)
        saboteur.fill_disk(tmp_path)(random.Random(1))
        assert errors == [28]
        (tmp_path / "image.jpg").write_bytes(b"x")


def post(service: AlertService, key: str) -> int:
    body = json.dumps({"alert_id": key})
    return requests.post(
        service.url, data=body, headers={"Idempotency-Key": key}, timeout=5
    ).status_code


def test_a_service_accepts_messages_by_default(tmp_path: Path) -> None:
    service = AlertService("guard", tmp_path / "log")
    try:
        assert post(service, "a") == 200
        with service.answering("503"):
            assert post(service, "b") == 503
        with service.answering("429"):
            answers = [post(service, f"c{number}") for number in range(8)]
        assert answers[:5] == [200] * 5
        assert 429 in answers
        with service.down(), pytest.raises(requests.ConnectionError):
            post(service, "d")
        assert post(service, "e") == 200
        taken = [message.key for message in service.accepted]
        assert taken[:2] == ["a", "c0"]
        assert taken[-1] == "e"
        assert not {"b", "d"} & set(taken)
    finally:
        service.stop()


def samples(state: list[float], worker: list[float]) -> list[dict[str, object]]:
    return [
        {"at": 5.0 * at, "state": job_state, "workers": {7: worker_state}}
        for at, (job_state, worker_state) in enumerate(zip(state, worker, strict=True))
    ]


def test_what_grows_is_reported() -> None:
    flat, grows = [500e6] * 400, [500e6 + at * 1e6 for at in range(400)]
    small, leaks = [1e6] * 400, [1e6 + at * 10e3 for at in range(400)]
    assert figures.not_flat(samples(small, flat)) == []
    assert [name for name, _ in figures.not_flat(samples(leaks, flat))] == ["checkpoint"]
    assert [name for name, _ in figures.not_flat(samples(small, grows))] == ["memory of worker 7"]
    table = "\n".join(
        figures.table([{**sample, "taskmanagers": {}} for sample in samples(leaks, flat)])
    )
    assert "| checkpoint |" in table
    assert "+7031 KiB" in table
