"""Imports point one way: beam_pipeline to transforms to rules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rules", "transforms", "beam_pipeline")
MAY_NOT = {
    "rules": {"transforms", "beam_pipeline", "apache_beam", "tensorflow", "tensorflow_io"},
    "transforms": {"beam_pipeline"},
    "beam_pipeline": set(),
}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = {str(file): bad for file in files if (bad := imported(file) & MAY_NOT[room])}
    assert wrong == {}


def test_the_check_sees_an_import_that_points_the_wrong_way(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    from transforms.records import ImageFile\n")
    assert imported(tmp_path / "bad.py") & MAY_NOT["rules"] == {"transforms"}
