"""Checks the stores of a job before it starts: a wrong bucket is one line within seconds.

The job itself is patient with a store that fails; at the start a person waits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from beam_pipeline.console.exceptions import SetupError
from transforms.storage import stores
from transforms.storage.object_stores import EMULATOR_VARIABLE, NoCredentialsHereError, object_store

_FILES = (".tflite", ".onnx", ".tar.gz", ".tgz")


def check_readable(
    option: str, uri: str | None, *, is_file: bool = False, may_be_missing: bool = False
) -> None:
    """Checks whether an address of S3 or GCS can be read; others pass.

    Args:
      option: The option that gave the address.
      uri: The address; None passes.
      is_file: Whether it is one file, for which the right to list is not needed.
      may_be_missing: Whether there may be no such file, as what it would hold is elsewhere, too.

    Raises:
      SetupError: What is missing: the bucket, the right, the credentials or the store.
    """
    store = object_store(uri, patient=False) if uri else None
    if store is None or uri is None:
        return
    _check_credentials(option, uri)
    try:
        if is_file or uri.endswith(_FILES):
            store.read(uri, at_most=1)
        else:
            next(store.list(_literal(uri)), None)
    except OSError as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            return
        raise _refused(option, error, "be read") from None


def check_arguments(outputs: Iterable[str] | None, **files: str | None) -> None:
    """Checks whether what a command is to read can be read, as far as it is in S3 or GCS.

    Args:
      outputs: What `--output` names.
      files: The files that options name, by the option.

    Raises:
      SetupError: What is missing.
    """
    for output in outputs or ():
        check_readable("--output", output)
    for option, uri in files.items():
        check_readable(f"--{option}", uri, is_file=True)


def check_output(output: str) -> None:
    """Checks whether the `--output` that a command is to read is there and can be read.

    Raises:
      SetupError: What is missing.
    """
    check_readable("--output", output)
    if stores.is_local(output) and not os.path.isdir(output):
        raise SetupError(f"--output {output}: no such directory")


def check_writable(option: str, uri: str) -> None:
    """Checks whether the job can write beneath an address of S3 or GCS; others pass.

    Raises:
      SetupError: What is missing: the bucket, the right, the credentials or the store.
    """
    store = object_store(uri, patient=False)
    if store is None:
        return
    _check_credentials(option, uri)
    try:
        store.check_writable(f"{uri.rstrip('/')}/.can-be-written")
    except OSError as error:
        raise _refused(option, error, "be written") from None


def _literal(uri: str) -> str:
    """Returns what comes before the first wildcard."""
    return min((uri.split(wildcard, 1)[0] for wildcard in "*?["), key=len)


def _refused(option: str, error: OSError, what: str) -> SetupError:
    if isinstance(error, NoCredentialsHereError) or error.errno == errno.EINVAL:
        return SetupError(f"{option} {error}")
    if isinstance(error, FileNotFoundError):
        hint = "is the name right?"
    elif isinstance(error, PermissionError):
        hint = f"do these credentials permit it to {what}?"
    elif isinstance(error, ConnectionError):
        hint = "is the store's address right (--s3_endpoint_url), and can this machine reach it?"
    else:
        hint = "is it a store of this kind, and does it work?"
    return SetupError(f"{option} {error}; {hint}")


def _check_credentials(option: str, uri: str) -> None:
    """Google's client would go on without an account, and be refused for another reason."""
    if not uri.startswith("gs://") or EMULATOR_VARIABLE in os.environ:
        return
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from google.auth import default
    from google.auth.exceptions import GoogleAuthError

    options = FileSystems.get_filesystem(uri)._pipeline_options
    if options is not None and options.view_as(GoogleCloudOptions).no_auth:
        return
    try:
        default()
    except GoogleAuthError as error:
        raise SetupError(
            f"{option} {uri}: there are no credentials for Google Cloud ({type(error).__name__}); "
            "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or "
            "give --no_auth for a bucket that is open to all"
        ) from None
