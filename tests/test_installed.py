"""The package, installed outside its checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]


def test_the_installed_package_runs_on_its_samples_outside_the_checkout(tmp_path: Path) -> None:
    """Only the package itself is installed; its requirements come from this environment."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, system_site_packages=False)
    python = place / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python),
            *("install", "--quiet", "--no-deps", ROOT),
        ],
        check=True,
        timeout=200,
        capture_output=True,
    )
    (packages,) = place.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "requirements-of-the-tests.pth").write_text("\n".join(here))
    workplace = tmp_path / "elsewhere"
    workplace.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import beam_pipeline, rules, transforms; print(beam_pipeline.__file__)"],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(place) in where.stdout
    finished = subprocess.run(
        [python, "-m", "beam_pipeline", "--runner", "DirectRunner"],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    with Image.open(workplace / "output" / "chart" / "threats.png") as chart:
        chart.verify()
    assert list((workplace / "output" / "final").rglob("*.json"))
