"""What `--input` finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_pipeline.sources import list_images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    top = tmp_path / "cameras [1] *?"
    for name in ("a.jpg", "b.txt", "deep/er/c.jpg", "deep/.hidden"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x" * len(name))
    return top


def found(source: str, top: Path) -> list[str]:
    return [os.path.relpath(file.uri, top) for file in list_images(source)]


def test_a_directory_is_listed_with_everything_beneath_it(pictures: Path) -> None:
    everything = ["a.jpg", "b.txt", "deep/.hidden", "deep/er/c.jpg"]
    assert found(str(pictures), pictures) == everything
    assert found(str(pictures) + "/", pictures) == everything


def test_a_file_is_itself_also_where_its_name_looks_like_a_glob(pictures: Path) -> None:
    assert found(str(pictures / "a.jpg"), pictures) == ["a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*/a.jpg", ["a.jpg"]),
        ("*/*.jpg", ["a.jpg"]),
        ("*/**.jpg", ["a.jpg", "deep/er/c.jpg"]),
        ("*/[ab].*", ["a.jpg", "b.txt"]),
        ("*/deep/e?/*", ["deep/er/c.jpg"]),
        ("*/nothing*", []),
    ],
)
def test_a_glob_is_beams(pictures: Path, pattern: str, matches: list[str]) -> None:
    assert found(str(pictures.parent / pattern), pictures) == matches


def test_a_relative_path_gives_absolute_addresses(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    assert [file.uri for file in list_images("a.jpg")] == [str(pictures / "a.jpg")]


def test_sizes_are_given_and_what_is_no_file_is_left_out(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.jpg")
    os.symlink(pictures / "gone", pictures / "dangling.jpg")
    sizes = {Path(file.uri).name: file.size_bytes for file in list_images(str(pictures))}
    assert sizes == {"a.jpg": 5, "b.txt": 5, "c.jpg": 13, ".hidden": 12, "dangling.jpg": 0}
