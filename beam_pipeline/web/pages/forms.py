"""Forms that pages of the console send."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from beam_pipeline.web.access.guarding import Guard

_MOST_BYTES = 64 << 10


class FormError(Exception):
    """Why a form is refused.

    Attributes:
      status: The status of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request) -> bytes:
    """Reads the body of a request.

    Raises:
      FormError: It is too large.
    """
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise FormError(413, "The form is too large.")
    return data


async def read_form(request: Request, most_fields: int = 50) -> dict[str, str]:
    """Reads a form; of a field that is there twice, the last.

    Args:
      request: The request.
      most_fields: How many fields it may have.

    Raises:
      FormError: It is too large, or no form.
    """
    data = await read_body(request)
    if request.headers.get("content-type", "").partition(";")[0] != (
        "application/x-www-form-urlencoded"
    ):
        raise FormError(415, "The form is not application/x-www-form-urlencoded.")
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=most_fields))
    except ValueError:
        raise FormError(400, "The form can't be read.") from None


def check_token(guard: Guard, request: Request, form: Mapping[str, str]) -> None:
    """Checks that a form comes from a page of this console.

    Raises:
      FormError: It does not.
    """
    if guard.is_forged(request, form.get("token", "")):
        raise FormError(
            403,
            "The form was not sent from a page of this console, or the page is older than the "
            "console. Load it again.",
        )
