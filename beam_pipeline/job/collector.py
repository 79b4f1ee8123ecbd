"""Python's collector of unused objects, which is to look only at what a job makes.

After the imports, a process has a million objects that last until its end. Each full collection
looks at all of them, for a quarter of a second in which no other thread runs Python.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def objects_kept() -> Iterator[None]:
    """Collects nothing during this block, and never looks at the objects that it leaves."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def kept_until_its_end() -> Iterator[None]:
    """After this block, the objects of :func:`objects_kept` are looked at again."""
    try:
        yield
    finally:
        gc.unfreeze()
