"""Pachyderm's pipelines as Pachyderm takes them: their specs, and what it runs for a datum."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

SPECS = Path(__file__).resolve().parents[2] / "deploy" / "pachyderm"


def read_spec(name: str) -> dict[str, Any]:
    """A pipeline's spec."""
    spec: dict[str, Any] = YAML(typ="safe").load((SPECS / f"{name}.yaml").read_bytes())
    return spec


def run_datum(
    spec: Mapping[str, Any], pfs: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a pipeline's code for one datum, as a worker does, with another folder for `/pfs`.

    Args:
      spec: The pipeline's.
      pfs: Holds a folder for each input, and an empty `out`.
      environment: What a worker and the spec's secrets add; more than that replaces what the spec
        says.
    """
    transform = spec["transform"]
    assert os.listdir(pfs / "out") == []
    beside_python = os.path.dirname(sys.executable)
    return subprocess.run(
        transform["cmd"],
        input="\n".join(transform["stdin"]).replace("/pfs/", f"{pfs}/"),
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ALERT_")},
            **transform.get("env", {}),
            "PATH": f"{beside_python}:{os.environ['PATH']}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def unpublished(kind: Any, value: Any, where: str = "spec") -> list[str]:
    """Where a spec departs from a message type of Pachyderm's: unknown keys and wrong types.

    Args:
      kind: A class of `pachyderm_sdk.api`, or the type of a field of one.
      value: What the spec says there.
      where: Where that is, to be told.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:  # A field that may be left out.
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return unpublished(kind, value, where)
    if origin is list and isinstance(value, list):
        parts = [(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        parts = [(arguments[1], item, f"{where}.{key}") for key, item in value.items()]
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        fields = typing.get_type_hints(kind)
        unknown = [f"{where}.{key}: no such field" for key in value if key not in fields]
        parts = [
            (fields[key], item, f"{where}.{key}") for key, item in value.items() if key in fields
        ]
        return unknown + [problem for part in parts for problem in unpublished(*part)]
    else:
        written_as = {float: (int, float), timedelta: str}.get(kind, kind)
        fits = (
            origin is None
            and not dataclasses.is_dataclass(kind)
            and isinstance(value, written_as)
            and isinstance(value, bool) == (kind is bool)
        )
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    return [problem for part in parts for problem in unpublished(*part)]
