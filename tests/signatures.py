"""Beam reads the signature of each method of each DoFn many times for a job: a quarter of the
processor time of a job of one image. The tests run many jobs in a process, and read each once.
"""

from __future__ import annotations

import functools
from types import FunctionType, MethodType
from typing import Any

from apache_beam.transforms import core

Signature = tuple[list[str], list[Any]]
"""The names of a function's arguments, and the values of its defaults."""

_read = core.get_function_args_defaults


def remember() -> None:
    """Makes Beam use what was read before, in this process."""
    core.get_function_args_defaults = _remembered


def _remembered(function: Any) -> Signature:
    if not isinstance(function, MethodType) or not isinstance(function.__func__, FunctionType):
        return _read(function)
    names, defaults = _read_once(function.__func__)
    return list(names), list(defaults)


@functools.cache
def _read_once(function: FunctionType) -> Signature:
    """The signature as a method; that is the same for each object that has the method."""
    return _read(MethodType(function, object()))
