"""What `make mutants` changes, and what it holds the changes against."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutants

ROOT = Path(__file__).parents[1]
CODE = '''\
from __future__ import annotations

Size = int | float

def grow(size: int | None, *, by: int = 2) -> int | None:
    """Adds 1 to a size."""
    return None if size is None else size + by

print(grow(3, by=4))
'''


def test_each_change_is_one_that_could_have_an_effect() -> None:
    found = {(mutant.line, mutant.after) for mutant in mutants.mutants("rules/judging.py", CODE)}
    lines = {line for line, _ in found}
    assert lines == {5, 7, 9}
    assert (5, "def grow(size: int | None, *, by: int = 3) -> int | None:") in found
    assert (7, "return None if size is not None else size + by") in found
    assert (9, "print(grow(3, by=None))") in found
    assert all("int & None" not in after for _, after in found)


@pytest.mark.parametrize("module", mutants.modules())
def test_each_module_is_held_against_tests_that_are_there(module: str) -> None:
    tests = mutants.tests_of(module)
    assert [test for test in tests if not (ROOT / "tests" / test.split("::")[0]).is_file()] == []
    assert tests or module.endswith("__init__.py")


def test_no_other_module_is_named() -> None:
    assert set(mutants.TESTS) <= set(mutants.modules())


def test_what_is_explained_is_a_change_of_a_line_that_is_there() -> None:
    for module, before, after in mutants.explained():
        lines = {line.strip() for line in (ROOT / module).read_text().splitlines()}
        assert before.split(" / ")[0] in lines, (module, before)
        assert before != after


def test_an_exception_of_a_module_is_no_obstacle() -> None:
    text = "try:\n    x = 1\nexcept (OSError, json.JSONDecodeError):\n    x = 2\n"
    found = {mutant.after for mutant in mutants.mutants("rules/document.py", text)}
    assert any("CosmicRayTestingException" in after for after in found)
    assert any("x = 3" in after for after in found)
