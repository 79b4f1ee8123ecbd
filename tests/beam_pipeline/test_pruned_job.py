"""A job over an output that was pruned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from beam_pipeline import bundled, cli
from beam_pipeline.fleet.pruning import Pruning
from rules import Retention
from tests.beam_pipeline.conftest import tree
from tests.conftest import Command
from tests.transforms.archives import seen, write_output
from tests.transforms.web_service import WebService
from transforms.known_versions import known_from_output
from transforms.records.precedence import Version


def prune(output: Path, *, deletes: bool = True) -> None:
    """Prunes as in some years, so that everything is old."""
    later = datetime.now(timezone.utc) + timedelta(days=4000)
    pruning = Pruning(str(output), Retention(timedelta(days=30)), later, deletes=deletes)
    pruning.run()
    assert pruning.problems == []


def test_a_stream_does_not_know_a_pruned_image_any_more(tmp_path: Path) -> None:
    (judged,) = write_output(tmp_path, [seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9))])
    version = Version(judged=judged)
    with ThreadPoolExecutor(4) as pool:
        assert known_from_output(str(tmp_path), version, pool).versions != {}
        prune(tmp_path)
        assert known_from_output(str(tmp_path), version, pool).versions == {}


def test_a_pruned_image_is_judged_again_and_its_alert_is_not_sent_again(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    for source in sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:8]:
        (images / source.name).write_bytes(source.read_bytes())
    with WebService() as web:
        arguments = ["--model", "bundled", "--input", images, "--output", output]
        arguments += ["--alert_url", f"{web.url}/hook"]
        assert command(*arguments).code == 0
        sent, before = len(web.requests), tree(output)
        assert sent > 0
        prune(output)
        after = tree(output)
        gone = {name.split("/")[0] for name in before.keys() - after.keys()}
        assert gone == {"validated", "detections", "final"}
        assert not any(name.startswith(tuple(gone)) for name in after)
        counts = {name: data for name, data in before.items() if name.startswith("counts/")}
        assert counts.items() <= after.items()

        for words in (["counts"], ["report"], ["health", "--rules", bundled.BUNDLED_RULES]):
            assert cli.main([*map(str, words), "--output", str(output)]) in (0, 1)
            assert "Traceback" not in capsys.readouterr().err

        resumed = command(*arguments, "--resume")
        assert resumed.code == 0, resumed.err
        assert "processed in an earlier run" not in resumed.out
        assert len(web.requests) == sent
    again = tree(output, without=("report",))
    assert again == {name: data for name, data in before.items() if not name.startswith("report/")}
