"""The package, installed outside its checkout."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = ("beam_pipeline", "transforms", "rules")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made as Beam makes it for its `--setup_file`."""
    folder = tmp_path_factory.mktemp("source")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder],
        cwd=checkout,
        check=True,
        timeout=100,
        capture_output=True,
    )
    (archive,) = folder.glob("*.tar.gz")
    return archive


def test_the_source_distribution_has_every_file_of_the_packages(source: Path) -> None:
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.splitlines()) - held == set()
    assert "pyproject.toml" in held


def test_the_installed_package_runs_on_its_samples_outside_the_checkout(
    source: Path, tmp_path: Path
) -> None:
    """Only the package itself is installed; its requirements come from this environment."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False, system_site_packages=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python),
            *("install", "--quiet", "--no-deps", source),
        ],
        check=True,
        timeout=200,
        capture_output=True,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
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
    assert str(folder) in where.stdout
    finished = subprocess.run(
        [folder / "bin" / "beam-threats", "--runner", "DirectRunner"],
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
    printed = subprocess.run(
        [folder / "bin" / "beam-threats", "--version"],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    version, beam, tensorflow = map(
        metadata.version, ("beam-threat-detection", "apache-beam", "tensorflow")
    )
    python_version = platform.python_version()
    assert printed.stdout == (
        f"beam-threats {version} "
        f"(Python {python_version}, Apache Beam {beam}, TensorFlow {tensorflow})\n"
    )
