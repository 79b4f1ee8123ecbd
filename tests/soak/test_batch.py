"""The recount and the batch job agree on a fed folder: neither shares code with the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from soak.recount import RULES, Settings
from soak.services import AlertService
from tests.conftest import Run
from tests.soak.scene import FastClock, Scene
from transforms.alerting.target_clients import named_urls


def test_a_batch_job_over_a_fed_folder_differs_in_nothing(run_job: Run, tmp_path: Path) -> None:
    services = [AlertService(name, tmp_path / name) for name in ("guard", "hook")]
    services[1].target = next(iter(named_urls([services[1].url])))
    try:
        scene = Scene(tmp_path, seed=11, seconds=120, clock=FastClock.ending_now(120))
        (tmp_path / "rules.yaml").write_text(RULES.format(guard=services[0].url, limit=3))
        model = tmp_path / "model"
        subprocess.run([sys.executable, "-m", "soak.model", model], check=True)
        done = run_job(
            *("--runner", "DirectRunner", "--input", scene.top, "--output", scene.output),
            *("--model", model, "--rules", tmp_path / "rules.yaml", "--window_seconds", "60"),
            *("--alert_url", services[1].url, "--alert_max_age", "1h"),
        )
        assert done.returncode == 0, done.stderr
        scene.accepted = [message for service in services for message in service.accepted]
        targets = tuple(service.target for service in services)
        scene.settings = Settings(60, 240, 3, targets, started=float("inf"))
        # What was deleted when it was judged was never there for this job.
        assert [
            violation
            for violation in scene.violations()
            if violation.what != "image without a verdict"
        ] == []
        assert all(violation.why == "" for violation in scene.violations())
    finally:
        for service in services:
            service.stop()
