"""How the console saves a mark, whichever way it comes."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from beam_pipeline.console.exceptions import CommandError, CommandFailedError
from beam_pipeline.fleet.marking import Said, find_marked, write_said
from beam_pipeline.web.output import audit
from beam_pipeline.web.output.pictures import why_unreadable
from beam_pipeline.web.pages.console import Console
from beam_pipeline.web.pages.forms import FormError
from transforms.records.text import one_line
from transforms.storage.marks import Mark, file_name

LONGEST_WAIT_SECONDS = 30.0
"""For a picture or a mark. A store's client itself tries again for minutes."""

_LOGGER = logging.getLogger(__name__)


async def save_mark(console: Console, said: Said, camera: str | None, role: str) -> Mark:
    """Saves what somebody says, with an audit entry before it, and returns the mark.

    Args:
      console: What the routes share.
      said: What is said, and by whom.
      camera: The camera; None if it is not known.
      role: What the audit gives as the role.

    Raises:
      FormError: The mark does not fit the alert, or the store does not answer.
    """
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(
            loop.run_in_executor(console.mark_threads, _write, console, said, camera, role),
            LONGEST_WAIT_SECONDS,
        )
    except asyncio.TimeoutError:
        raise FormError(
            503,
            f"The store has not answered for {LONGEST_WAIT_SECONDS:.0f} seconds. The mark may "
            "still be saved: look again later, and mark again if it is not there.",
        ) from None
    except CommandFailedError as error:
        raise FormError(500, f"The mark was not saved: {error}") from None
    except CommandError as error:
        raise FormError(400, f"The mark was not saved: {error}") from None
    except OSError as error:
        raise FormError(
            503, f"The mark was not saved: the store does not answer ({why_unreadable(error)}). "
            "Try again.",
        ) from None  # fmt: skip


def _write(console: Console, said: Said, camera: str | None, role: str) -> Mark:
    marked = find_marked(console.output, said, camera, console.labels)
    audit.write_entry(
        console.output,
        by=said.by,
        role=role,
        action="mark",
        about={
            "id": marked.id,
            "timestamp": marked.timestamp,
            "alert_id": marked.alert_id,
            "mark": said.mark,
            "label": said.label,
        },
    )
    written = write_said(console.output, said, marked)
    console.marks += 1
    try:
        console.index.add_mark(f"marks/{written.id}/{file_name(written)}", written)
    except (sqlite3.Error, OSError) as error:  # The mark is saved, and the next look finds it.
        _LOGGER.warning("a mark that was saved is not in the index yet: %s", one_line(error))
    console.follower.changed()
    return written
