"""Signed links to objects in S3 and GCS, which anyone can open for a limited time."""

from __future__ import annotations

import logging

from transforms.alerting.withheld_logs import logs_withheld
from transforms.records.text import one_line
from transforms.storage.object_stores import object_store

LONGEST_LINK_HOURS = 7 * 24
"""The longest validity that both stores support: one week."""

_LOGGER = logging.getLogger(__name__)
_logged: set[tuple[str, type[Exception]]] = set()


def signed_link(uri: str, hours: float) -> str | None:
    """Signs a link to an object; returns None if that is not possible.

    Whoever has the link can read the object: links belong in messages only, not in records or logs.
    A failure is logged once. No request is made, except with credentials that sign remotely
    (`--impersonate_service_account`).

    Args:
      uri: An address on any of Beam's filesystems; only `s3://` and `gs://` have links.
      hours: The validity; a week at most.
    """
    try:
        with logs_withheld():
            if store := object_store(uri):
                return store.link(uri, round(min(hours, LONGEST_LINK_HOURS) * 3600))
    except OSError as error:
        _log_once(uri.split("://")[0], error)
    return None


def _log_once(scheme: str, error: Exception) -> None:
    kind = scheme, type(error)
    if kind in _logged:
        return
    _logged.add(kind)
    # The message of a client's own error may repeat its arguments.
    reason = one_line(error) if isinstance(error, OSError) else type(error).__name__
    _LOGGER.warning("messages have no links to %s:// (%s)", scheme, reason)
