"""Turns the exception of a failed job into one line that says what, where and what to do.

An exception that a step raises reaches the submitter in many forms: Beam wraps it with the step's
name, turns an error that has an errno into a RuntimeError, or passes on only the text of a
traceback from another process, inside a Java error message.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

import grpc

from beam_pipeline.console.exceptions import SetupError
from transforms.alerting.target_checks import TargetError
from transforms.models.model_files import ModelError

RESUME_ADVICE = "run the same command with --resume to continue"

_LONGEST = 500
_SELF_EXPLANATORY = (
    *("RuntimeError", "StoreLostError", "InputLostError"),
    *("ModelError", "SetupError", "TargetError"),
)
"""Exceptions whose text needs no type name before it."""
_OWN_MODULES = ("beam_pipeline.", "transforms.", "rules.")
_MISSING_STORE = "check that the disk or mount is present and responds"
_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there or ask for a larger quota",
    errno.EFBIG: "raise the file size limit (ulimit -f)",
    errno.EROFS: "mount it as writable",
    errno.EACCES: "restore this user's access to it",
    errno.EPERM: "restore this user's access to it",
    errno.ENOENT: _MISSING_STORE,
    errno.ENOTDIR: "move the file that is in the place of a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN),
        _MISSING_STORE,
    ),
}
# As Python writes an exception, and as Beam writes one within another.
_EXCEPTION = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception|Exit|Interrupt))\b:? ?(.*)$")
_WITH_ERRNO = re.compile(r"\[Errno (\d+)\] (.*?)(?:: (['\"])(.*)\3)?$")
_SETUP = re.compile(
    r"^(?:RuntimeError: )?(?:\w+\.)*(?:SetupError|ModelError|TargetError): (.+)$", re.MULTILINE
)
_OF_OTHER_STEPS = re.compile(r"savepoint (\S+)\. Cannot map checkpoint/savepoint state")
_STEP = re.compile(r" ?\[while running '([^']*)(?:'\])?.*$", re.DOTALL)


def explain(error: BaseException, advice: str = RESUME_ADVICE) -> str:
    """Returns one line that says what failed, where, and what to do.

    Args:
      error: The exception.
      advice: What to do once the fault is fixed.
    """
    if match := _OF_OTHER_STEPS.search(str(error)):
        return (
            f"the savepoint {match[1]} is of a job with other steps; start this one with the "
            "options of that job (such as --input_parts, --notifications, --repository)"
        )
    for cause in _chain(error):
        if isinstance(cause, SetupError | ModelError | TargetError):
            what, remedy = _without_step(cause), ""
            break
        if isinstance(cause, OSError):
            what, remedy = _explain_os_error(cause)
            break
        if isinstance(cause, grpc.RpcError) and isinstance(cause, grpc.Call):
            what = f"the connection to the runner was lost ({cause.details()})"
            remedy = "see why the runner has ended (it may have had too little memory)"
            break
    else:
        what, remedy = (
            _explain_text(str(error))
            if _wraps_worker_error(error)
            else (_explain_unexpected(error), "")
        )
    what = " ".join(what.split())
    if len(what) > _LONGEST:
        what = f"{what[:_LONGEST]}…"
    return f"{what}; {remedy}, and {advice}" if remedy else f"{what}; once that is fixed, {advice}"


def setup_error(text: str) -> str | None:
    """Returns what a worker says of a wrong set-up, in the text of its traceback; None if it says
    nothing.

    Such an error is the same however often a runner tries again.
    """
    match = _SETUP.search(text)
    return None if match is None else " ".join(_STEP.sub("", match[1]).split())[:_LONGEST]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the exception and those it came of, from the outermost in."""
    seen_ids: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen_ids:
        seen_ids.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _wraps_worker_error(error: BaseException) -> bool:
    """Returns whether it is one of Beam's, that holds the words of what a worker has raised."""
    return type(error) is RuntimeError or "Traceback (most recent call last)" in str(error)


def _explain_os_error(error: OSError) -> tuple[str, str]:
    if error.errno is None or error.strerror is None:
        return _without_step(error), ""
    return _explain_errno(error.errno, error.strerror, str(error.filename or ""))


def _explain_errno(number: int, what: str, where: str) -> tuple[str, str]:
    return f"{where}: {what}" if where else what, _REMEDIES.get(number, "")


def _explain_text(text: str) -> tuple[str, str]:
    """Returns what and how to remedy it from the text of a traceback, or of one line."""
    last = text.strip()
    for line in text.splitlines():
        # The last exception that begins a line: what came of all those before it.
        if _EXCEPTION.match(line):
            last = line
    step = _STEP.search(last)
    last = _STEP.sub("", last)
    name = ""
    while (match := _EXCEPTION.match(last)) and match[2]:
        name, last = match[1], match[2]
    if match := _WITH_ERRNO.search(last):
        return _explain_errno(int(match[1]), match[2], match[4] or "")
    if name and name not in _SELF_EXPLANATORY:
        last = f"{name}: {last}"
    return f"{last} (in the step {step[1]})" if step else last, ""


def _explain_unexpected(error: BaseException) -> str:
    """Returns what an unexpected error says, with its line in the program."""
    step = _STEP.search(str(error))
    places = [f"in the step {step[1]}"] if step else []
    own_lines = [
        f"{name}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (name := str(frame.f_globals.get("__name__", ""))).startswith(_OWN_MODULES)
    ]
    return (
        f"{type(error).__name__}: {_without_step(error)} ({'; '.join([*places, *own_lines[-1:]])})"
    )


def _without_step(error: BaseException) -> str:
    return _STEP.sub("", str(error))
