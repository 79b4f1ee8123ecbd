"""Truth files and rule files of small archives."""

from __future__ import annotations

from pathlib import Path

from transforms.records.images import DetectedImage


def truth_of(folder: Path, *rows: tuple[DetectedImage, str, int]) -> Path:
    path = folder / "truth.csv"
    lines = [f"{row.file},{label},{count}," for row, label, count in rows]
    path.write_text("\n".join(["file,main_class,count,note", *lines]) + "\n")
    return path


def rules_of(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path
