"""What `--input` finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_pipeline.sources.folders import Folder, source_of, walk
from beam_pipeline.sources.listing import files_in, list_folders, list_images
from tests.beam_pipeline.simulated_disk import TOP, SimulatedDisk


@pytest.fixture
def images(tmp_path: Path) -> Path:
    top = tmp_path / "cameras [1] *?"
    for name in ("a.jpg", "b.txt", "deep/er/c.jpg", "deep/.hidden"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x" * len(name))
    return top


def listed(source: str, top: Path) -> list[str]:
    return [os.path.relpath(file.uri, top) for file in list_images(source)]


def test_a_directory_is_listed_with_everything_beneath_it(images: Path) -> None:
    everything = ["a.jpg", "b.txt", "deep/.hidden", "deep/er/c.jpg"]
    assert listed(str(images), images) == everything
    assert listed(str(images) + "/", images) == everything


def test_a_file_is_itself_also_where_its_name_looks_like_a_glob(images: Path) -> None:
    assert listed(str(images / "a.jpg"), images) == ["a.jpg"]


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
def test_a_glob_is_beams(images: Path, pattern: str, matches: list[str]) -> None:
    assert listed(str(images.parent / pattern), images) == matches


def test_a_relative_path_gives_absolute_addresses(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    assert [file.uri for file in list_images("a.jpg")] == [str(images / "a.jpg")]


def test_sizes_are_given_and_what_is_no_file_is_left_out(images: Path) -> None:
    os.mkfifo(images / "pipe.jpg")
    os.symlink(images / "gone", images / "dangling.jpg")
    os.symlink("/nowhere", images / "out.jpg")
    sizes = {Path(file.uri).name: file.size_bytes for file in list_images(str(images))}
    assert sizes == {"a.jpg": 5, "b.txt": 5, "c.jpg": 13, ".hidden": 12, "dangling.jpg": 0}


def test_links_that_lead_out_are_skipped_and_those_within_are_read(images: Path) -> None:
    outside = images.parent / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"x")
    (images / "secret.jpg").symlink_to(outside / "secret.jpg")
    (images / "gate").symlink_to(outside)
    (images / "same.jpg").symlink_to(images / "a.jpg")
    (images / "deep" / "round").symlink_to(images)
    within = ["a.jpg", "b.txt", "same.jpg", "deep/.hidden", "deep/er/c.jpg"]
    assert listed(str(images), images) == within
    followed = [
        os.path.relpath(file.uri, images) for file in list_images(str(images), follow_links=True)
    ]
    assert sorted(followed) == sorted([*within, "secret.jpg", "gate/secret.jpg"])


def test_folders_and_files_are_listed_by_name_in_whatever_order_a_disk_gives_them() -> None:
    disk = SimulatedDisk()
    for name in ("c", "a", "b"):
        disk.put(f"{TOP}/{name}", disk.node(is_folder=True))
        disk.put(f"{TOP}/{name}/2.jpg", disk.node())
        disk.put(f"{TOP}/{name}/1.jpg", disk.node())
    disk.failing |= {f"stat {TOP}/b/1.jpg", f"stat {TOP}/b/2.jpg"}
    folders = [folder for folder in walk(source_of(TOP), disk) if isinstance(folder, Folder)]
    assert [folder.path for folder in folders] == [TOP, *(f"{TOP}/{name}" for name in "abc")]
    assert [[file.name for file in files_in(folder)] for folder in folders] == [
        [],
        *[["1.jpg", "2.jpg"]] * 3,
    ]
    assert [path for path, _ in folders[2].unread] == [f"{TOP}/b/1.jpg", f"{TOP}/b/2.jpg"]


def test_a_link_that_is_named_itself_is_followed(images: Path) -> None:
    latest = images.parent / "latest.jpg"
    latest.symlink_to(images / "a.jpg")
    assert [file.uri for file in list_images(str(latest))] == [str(latest)]


def test_a_glob_looks_into_no_folder_that_it_can_not_reach(images: Path) -> None:
    """What can't be listed beside the files of a glob is none of its business."""
    looked = [
        os.path.relpath(folder.path, images.parent)
        for folder in list_folders(str(images.parent / "cam*" / "*.jpg"))
    ]
    assert looked == [".", images.name]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(list_images(str(tmp_path / "nowhere")))
