"""A file with the detections of another detector, checked against the input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.name_checks import input_top
from beam_pipeline.sources.listing import list_images
from transforms.detect_objects import Model
from transforms.models.detection_files import (
    DetectionFile,
    DetectionFileError,
    DetectionIndex,
    read_detection_file,
)
from transforms.models.detector import ModelSpec
from transforms.records.received_names import path_below
from transforms.records.text import one_line, printable
from transforms.storage import stores

_DECODED_SIZE = (416, 416)
"""The size in pixels at which images are decoded, of which brightness and sharpness are taken."""


def open_detections(path: str) -> DetectionFile:
    """Reads the file that `--detections` names.

    Raises:
      SetupError: It is wrong.
    """
    path = path.removeprefix("file://")
    if stores.is_local(path):
        path = os.path.abspath(path)  # Workers have another working directory.
    try:
        return read_detection_file(path)
    except DetectionFileError as error:
        raise SetupError(f"--detections {error}") from None


def model_of(file: DetectionFile, min_score_kept: float) -> Model:
    """Returns what the job knows of the detector that has made a file."""
    info = file.model_info(min_score_kept)
    return Model(file.source, info, ModelSpec(file.source, _DECODED_SIZE, None, None), file.labels)


def check_entries(
    file: DetectionFile, source: str, ruleset: rules.Rules, *, follow_links: bool
) -> None:
    """Compares the paths in a file with those of the input, and prints what is missing.

    Args:
      file: The file.
      source: The input.
      ruleset: The rules.
      follow_links: Whether links in the input are followed.

    Raises:
      SetupError: The file has no entry for any image, or the input can't be listed.
    """
    top = input_top(source)
    found = missing = 0
    first: str | None = None
    with closing(DetectionIndex(file)) as index:

        def keys() -> Iterator[bytes]:
            nonlocal found, missing, first
            for image in list_images(source, follow_links=follow_links):
                key = index.key_of(image.uri, top)
                if key is None:
                    missing += 1
                    first = first or printable(path_below(image.uri, top))
                else:
                    found += 1
                    yield key

        try:
            without_image, path = index.without(keys())
        except OSError as error:
            raise SetupError(f"--input {source}: can't be listed ({one_line(error)})") from None
    where = f"--detections {file.source}"
    if missing and not found:
        example = f"; its paths are like {path}, and those of the images like {first}" * bool(path)
        raise SetupError(
            f"{where}: has no entry for any of the {missing:,} files in --input {source}{example}; "
            "give as --input the folder that the detector was given"
        )
    if missing:
        print(
            f"{where}: has no entry for {missing:,} of {found + missing:,} files, such as {first}; "
            "those that are images go to invalid/inference_failed",
            file=sys.stderr,
        )
    if without_image:
        print(
            f"{where}: {without_image:,} of its {file.entries:,} entries have no file in --input "
            f"{source}, such as {path}, and are not used",
            file=sys.stderr,
        )
    if any(camera.tiles for camera in (ruleset.defaults, *ruleset.by_camera.values())):
        print(f"{where}: the tiles of the rules have no effect, as no model runs", file=sys.stderr)
