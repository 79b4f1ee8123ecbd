"""The commands `rules check` and `rules explain`."""

from __future__ import annotations

import json
from typing import Any

import rules
from beam_pipeline.errors import SetupError
from beam_pipeline.job import BUNDLED_RULES, load_labels, read_file, read_rules
from transforms import stores
from transforms.text import one_line


def check(path: str, labels: str | None) -> str:
    """What each camera ends up with by a rule file, for a person.

    Args:
      path: The rule file.
      labels: A label map; None for COCO's.

    Raises:
      SetupError: The rule file or the label map is wrong; a line for each mistake.
    """
    names = frozenset(load_labels(labels).values())
    try:
        return rules.describe(rules.parse_rules(read_file(path, "rules check"), path, names))
    except rules.RulesError as error:
        raise SetupError("\n".join(error.messages)) from None


def explain(camera: str, file: str | None, path: str | None, labels: str | None) -> str:
    """What holds for a camera, and why there was or was no alert for a picture of it.

    Args:
      camera: Its id.
      file: The picture's JSON in `final/`; None: the camera's rules alone are told.
      path: The rule file; None: with a picture none, otherwise the bundled one.
      labels: A label map; None for COCO's.

    Raises:
      SetupError: A file can't be read or isn't right, or is another camera's.
    """
    parts = []
    if path is not None or file is None:
        source = path or str(BUNDLED_RULES)
        by = read_rules(source, labels, "rules explain")
        parts.append(f"rules {by.version} of {source}\n{rules.describe_camera(by, camera)}")
    if file is not None:
        data = _verdict(file, camera)
        if path is not None and data["threat"].get("rules_version") != by.version:
            parts.append(
                "The picture was judged by other rules; a backtest says what these would have "
                "done.\n"
            )
        try:
            parts.append(rules.explain(data))
        except ValueError as error:
            raise SetupError(f"rules explain {file}: {error}") from None
    return "\n".join(parts)


def _verdict(file: str, camera: str) -> Any:
    try:
        data = json.loads(stores.read_bytes(file))
    except FileNotFoundError:
        raise SetupError(f"rules explain {file}: no such file; give one of final/") from None
    except ValueError:
        raise SetupError(f"rules explain {file}: is not JSON; give a file of final/") from None
    except Exception as error:  # Each store's client has its own kinds of error.
        raise SetupError(f"rules explain {file}: can't be read ({one_line(error)})") from None
    if not isinstance(data, dict) or not isinstance(data.get("threat"), dict):
        raise SetupError(f"rules explain {file}: holds no verdict; give a file of final/")
    if data.get("id") != camera:
        raise SetupError(f"rules explain {file}: is of {data.get('id')!r}, not of {camera!r}")
    return data
