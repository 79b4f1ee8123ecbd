"""Which Python `make` takes for its environment, and what it says where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "sh", "make", "sed", "tail", "rm", "env")
UNFIT = """\
#!/bin/sh
[ "$1" = --version ] && echo "Python 3.9.2"
exit 1
"""
FETCHES = f"""\
#!/bin/sh
[ "$*" = "venv --seed --python 3.13 $ENVIRONMENT" ] && {sys.executable} -m venv --without-pip "$ENVIRONMENT"
"""  # noqa: E501
FAILS = """\
#!/bin/sh
echo "error: Failed to download the interpreter" >&2
echo "  Caused by: error resolving DNS" >&2
exit 2
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs, the only ones that `make` finds: no Python yet."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = next(
            path
            for folder in ("/usr/local/bin", "/usr/bin", "/bin")
            if (path := Path(folder, tool)).exists()
        )
        (programs / tool).symlink_to(found)
    return programs


def install(machine: Path, **programs: str) -> None:
    for name, text in programs.items():
        path = machine / name.replace("_", ".")
        path.write_text(text)
        path.chmod(0o755)


def make_environment(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = machine.parent / "environment"
    return subprocess.run(
        ["make", "--silent", *arguments, f"VENV={environment}", f"{environment}/bin/python"],
        cwd=ROOT,
        env={"PATH": str(machine), "HOME": os.environ["HOME"], "ENVIRONMENT": str(environment)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_first_python_that_fits_is_taken(machine: Path) -> None:
    fitting = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    install(machine, python3=UNFIT, python3_12=fitting, uv=FAILS)
    made = make_environment(machine)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert (machine.parent / "environment/bin/pip").exists()


def test_where_none_fits_uv_fetches_one(machine: Path) -> None:
    install(machine, python3=UNFIT, uv=FETCHES)
    made = make_environment(machine)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == "found no Python 3.10 to 3.13: fetching Python 3.13 with uv\n"


@pytest.mark.parametrize("others", [{"uv": FAILS, "python3": UNFIT}, {}], ids=["uv", "nothing"])
def test_where_none_can_be_had_a_line_says_what_to_install(
    machine: Path, others: dict[str, str]
) -> None:
    install(machine, **others)
    made = make_environment(machine)
    line = made.stderr.splitlines()[0]
    assert made.returncode != 0
    assert line.startswith("uv could not fetch Python 3.13 (")
    assert line.endswith(
        "): install Python 3.10, 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python3.13"
    )
    assert ("error resolving DNS" in line) == bool(others)
    assert not (machine.parent / "environment").exists()


def test_a_python_that_is_named_and_does_not_fit_is_refused(machine: Path) -> None:
    install(machine, old=UNFIT, uv=FETCHES)
    made = make_environment(machine, "PYTHON=old")
    assert made.returncode != 0
    assert made.stderr.startswith("old is Python 3.9.2, which does not fit: install Python 3.10")


@pytest.mark.skipif(not Path(sys.prefix, ".ready").exists(), reason="is no environment of make's")
def test_the_size_of_the_environment_is_as_documented() -> None:
    sizes = {
        float(re.search(r"about ([0-9.]+) GB", (ROOT / file).read_text())[1])  # type: ignore[index]
        for file in ("README.md", "CONTRIBUTING.md", "Makefile")
    }
    (documented,) = sizes
    listed = subprocess.run(["du", "-sk", sys.prefix], capture_output=True, text=True, check=True)
    assert int(listed.stdout.split()[0]) / 2**20 == pytest.approx(documented, rel=0.25)
