"""Cameras upload by FTP, and a stream judges each whole image once."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from tests.flink.ftp import Camera, ftp_server
from tests.flink.stream_job import StreamJob, wait_for
from tests.transforms.web_service import WebService

CAMERAS = ("front-door", "garden", "hall", "office", "street", "warehouse")
IMAGES = 10
"""Of each camera: each way to upload twice."""


def test_each_image_that_cameras_upload_slowly_or_twice_is_judged_once(
    stream: Callable[..., StreamJob], tmp_path: Path
) -> None:
    uploads, output = tmp_path / "in", tmp_path / "out"
    uploads.mkdir()
    images = {
        camera: {
            path.name: path.read_bytes()
            for path in sorted((BUNDLED_SAMPLES / camera).glob("*.jpg"))[-IMAGES:]
        }
        for camera in CAMERAS
    }
    whole = {
        name: hashlib.sha256(data).hexdigest()
        for of_camera in images.values()
        for name, data in of_camera.items()
    }

    def verdicts() -> dict[str, str]:
        records = (json.loads(path.read_bytes()) for path in output.glob("final/*/*.json"))
        return {record["file"]: record["sha256"] for record in records}

    with WebService() as service, ftp_server(uploads) as address:
        stream(
            *("--input", uploads, "--output", output, "--model", "bundled"),
            *("--rules", BUNDLED_RULES, "--alert_url", f"{service.url}/hook"),
            *("--alert_max_age", "off", "--poll_interval_seconds", "1"),
        )
        first = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[0]
        (uploads / first.name).write_bytes(first.read_bytes())
        whole[first.name] = hashlib.sha256(first.read_bytes()).hexdigest()
        wait_for("the first verdict", verdicts)  # From now on, the stream looks.
        cameras = [Camera(address, name, of_camera) for name, of_camera in images.items()]
        halves: set[Path] = set()
        with ThreadPoolExecutor(len(cameras)) as pool:
            uploading = [pool.submit(camera.upload) for camera in cameras]
            while not all(upload.done() for upload in uploading):
                halves.update(output.glob("invalid/corrupt_jpeg/*.json"))
                time.sleep(0.2)
        for upload in uploading:
            upload.result()
        assert halves, "each upload was faster than the stream looks, so this test shows nothing"
        wait_for("the right verdict of each image", lambda: verdicts() == whole)
        wait_for("no record of half an image", lambda: not list(output.glob("invalid/*/*.json")))

        alerts = [json.loads(path.read_bytes()) for path in output.glob("alerts/*/*.json")]
        wait_for("the alerts", lambda: len(service.requests) >= _sent(output))
    assert alerts
    received = Counter(json.loads(request.body)["alert_id"] for request in service.requests)
    assert set(received.values()) == {1}
    stored = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.glob("validated/*/*.jpg")
    }
    assert stored == whole


def _sent(output: Path) -> int:
    """How many alerts are to be sent, by the verdicts."""
    records = (json.loads(path.read_bytes()) for path in output.glob("final/*/*.json"))
    return sum(
        record["threat"]["severity"] == "alert" and record["threat"]["suppressed_by"] is None
        for record in records
    )
