"""Addresses that the command line gives: made absolute, and tried where that can be done."""

from __future__ import annotations

import os
import tempfile

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.preflight import check_writable
from transforms.storage import stores


def absolute(option: str, uri: str) -> str:
    """Returns an address that workers see as this process does.

    Raises:
      SetupError: It is empty.
    """

    uri = uri.removeprefix("file://")
    if not uri:
        raise SetupError(f"{option} is empty; give a folder")
    return os.path.abspath(uri) if stores.is_local(uri) else uri.rstrip("/")


def writable_file(option: str, uri: str) -> str:
    """Returns the absolute address of a file that can be written, as far as is known before.

    Raises:
      SetupError: It can't be.
    """

    file = absolute(option, uri)
    folder = file.rpartition("/")[0]
    check_writable(option, folder)
    if stores.is_local(file):
        if os.path.isdir(file):
            raise SetupError(f"{option} {file}: is a folder; give the name of a file")
        writable_folder(option, folder)
    return file


def writable_folder(option: str, folder: str) -> None:
    """Makes sure that there is a folder of this machine, and that files can be made in it.

    Raises:
      SetupError: They can't be.
    """
    try:
        os.makedirs(folder or "/", exist_ok=True)
        tempfile.TemporaryFile(dir=folder or "/").close()
    except OSError as error:
        raise SetupError(
            f"{option} {folder}: can't be written ({error.strerror}); choose another"
        ) from None
