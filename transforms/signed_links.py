"""Links that a person without an account can open for a while, to objects in S3 and GCS."""

from __future__ import annotations

import logging

from transforms.object_stores import object_store
from transforms.text import one_line
from transforms.withheld_logs import logs_withheld

LINK_HOURS = 24
"""How long links open, where nothing else is said."""

LONGEST_LINK_HOURS = 7 * 24
"""Both stores sign for a week at most."""

_log = logging.getLogger(__name__)
_said: set[tuple[str, type[Exception]]] = set()


def signed_link(uri: str, hours: float = LINK_HOURS) -> str | None:
    """A link that opens an object for so long; None where none can be had.

    Whoever has it can read the object: it is for messages alone, not for records or logs. Why there
    is none is logged once. Nothing is asked of the store, but by credentials that
    sign elsewhere (`--impersonate_service_account`).

    Args:
      uri: An address on any of Beam's filesystems; only `s3://` and `gs://` have links.
      hours: How long it opens; a week at most.
    """
    try:
        with logs_withheld():
            if store := object_store(uri):
                return store.link(uri, round(min(hours, LONGEST_LINK_HOURS) * 3600))
    except Exception as error:  # Each store's client has its own kinds of error.
        _say_once(uri.split("://")[0], error)
    return None


def _say_once(scheme: str, error: Exception) -> None:
    kind = scheme, type(error)
    if kind in _said:
        return
    _said.add(kind)
    # The message of a client's own error may repeat what it was given.
    why = one_line(error) if isinstance(error, OSError) else type(error).__name__
    _log.warning("messages have no links to %s:// (%s)", scheme, why)
