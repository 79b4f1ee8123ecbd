"""Imports point one way: beam_pipeline to transforms to rules, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("rules", "transforms", "beam_pipeline")
MAY_NOT = {
    "rules": {"transforms", "beam_pipeline", "apache_beam", "tensorflow", "tensorflow_io"},
    "transforms": {"beam_pipeline"},
    "beam_pipeline": {"tools", "tests"},
}


def imports(file: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports(file)}


def modules(root: Path) -> dict[str, Path]:
    """Each module of the layers, and its file."""
    files = [file for layer in LAYERS for file in (root / layer).rglob("*.py")]
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def module_arrows(root: Path) -> dict[str, set[str]]:
    """Which modules each module imports."""
    known = modules(root)
    arrows: dict[str, set[str]] = {}
    for name, file in known.items():
        found = {each if each in known else each.rpartition(".")[0] for each in imports(file)}
        arrows[name] = (found & known.keys()) - {name}
    return arrows


def room_of(module: str, root: Path) -> str:
    """The package of the second level, or the layer itself with what lies at its root."""
    layer, _, rest = module.partition(".")
    first = rest.split(".")[0]
    return f"{layer}.{first}" if first and (root / layer / first).is_dir() else layer


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The shortest way from each name back to itself, where there is one."""
    found = []
    for start in sorted(arrows):
        came_from: dict[str, str] = {}
        ahead = [start]
        while ahead and start not in came_from:
            here = ahead.pop(0)
            for there in sorted(arrows.get(here, ())):
                if there not in came_from:
                    came_from[there] = here
                    ahead.append(there)
        if start in came_from:
            way = [start, came_from[start]]
            while way[-1] != start:
                way.append(came_from[way[-1]])
            found.append(way[::-1])
    return found


def room_arrows(root: Path) -> dict[str, set[str]]:
    """Which rooms each room imports."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, others in module_arrows(root).items():
        room = room_of(module, root)
        arrows[room] |= {room_of(other, root) for other in others} - {room}
    return arrows


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_the_layers_below_it(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    wrong = {str(file): bad for file in files if (bad := imported(file) & MAY_NOT[layer])}
    assert wrong == {}


def test_no_module_is_imported_in_a_circle() -> None:
    assert len(module_arrows(ROOT)) > 100
    assert circles(module_arrows(ROOT)) == []


def test_no_room_is_imported_in_a_circle() -> None:
    assert len(room_arrows(ROOT)) > 10
    assert circles(room_arrows(ROOT)) == []


def test_no_test_file_imports_another_test_file() -> None:
    wrong = {
        str(file): bad
        for file in (ROOT / "tests").rglob("*.py")
        if (bad := {name for name in imports(file) if re.match(r"tests\..*\btest_", name)})
    }
    assert wrong == {}


def test_the_check_sees_an_import_that_points_the_wrong_way(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    from transforms.x import Y\n")
    assert imported(tmp_path / "bad.py") & MAY_NOT["rules"] == {"transforms"}


def test_the_check_sees_a_circle_of_modules_and_of_rooms(tmp_path: Path) -> None:
    for path, text in {
        "transforms/a/__init__.py": "",
        "transforms/a/low.py": "",
        "transforms/a/one.py": "from transforms.b import two",
        "transforms/b/__init__.py": "",
        "transforms/b/two.py": "def f():\n    from transforms.a.low import x",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert circles(module_arrows(tmp_path)) == []
    assert circles(room_arrows(tmp_path)) == [
        ["transforms.a", "transforms.b", "transforms.a"],
        ["transforms.b", "transforms.a", "transforms.b"],
    ]
    (tmp_path / "transforms/a/low.py").write_text("import transforms.b.two")
    assert ["transforms.a.low", "transforms.b.two", "transforms.a.low"] in circles(
        module_arrows(tmp_path)
    )
