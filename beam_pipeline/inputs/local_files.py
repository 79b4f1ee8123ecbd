"""Replaces files of the user on a local disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress


def replace_file(
    path: str,
    data: bytes,
    set_access: Callable[[int], None],
    before: Callable[[], None] = lambda: None,
) -> None:
    """Puts a new file in the place of another one, which is there whole until then.

    Args:
      path: The file; a link to it stays.
      data: Its new bytes.
      set_access: Sets owner and mode of the new file, by its descriptor. Until then, only this user
        can read it.
      before: Called when the new file is written and only has to be put in place. If it raises, the
        old one stays.

    Raises:
      OSError: It can't be written; the old one stays.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with open(descriptor, "wb") as file:
            set_access(descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        before()
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
