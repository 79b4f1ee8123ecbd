"""Parts that the HTML pages share: templates that escape, pictures inside the page, and a policy.

A page is one file without links to others, so that it can be sent on. Whatever comes from an
archive, a file name or a rule file is escaped, and its policy forbids the network and every style
and script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from rules.text import number_of
from transforms.images.annotating import AnnotatedImage


@dataclass(frozen=True)
class PagePicture:
    """A picture for a page.

    Attributes:
      data: As a data URI; None where it can't be shown.
      missing: Why not.
    """

    data: str | None
    missing: str | None


def page_picture(drawn: AnnotatedImage) -> PagePicture:
    """Returns an image with boxes as a picture for a page."""
    jpeg = drawn.jpeg
    return PagePicture(None if jpeg is None else data_uri("image/jpeg", jpeg), drawn.missing)


def data_uri(kind: str, data: bytes) -> str:
    """Returns bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def render(package: str, name: str, *, script: str | None = None, **values: Any) -> str:
    """Returns a page made by a template.

    The template gets `policy`, `style` and `script` besides the values.

    Args:
      package: The package that the template, its style and its script are files of.
      name: `<name>.html` is the template, `<name>.css` its style, after the shared `page.css`.
      script: The name of its script, if any.
      values: What the template shows.
    """
    folder = resources.files(package)
    css = style((package, f"{name}.css"))
    code = "" if script is None else folder.joinpath(script).read_text(encoding="utf-8")
    template = environment(package).get_template(f"{name}.html")
    return template.render(
        policy=_policy(css, code), style=Markup(css), script=Markup(code), **values
    )


def environment(*packages: str) -> Environment:
    """Returns templates that escape what they show, and refuse values that are missing.

    Args:
      packages: The packages that templates are files of; the first that has a name gives it.
    """

    def find(name: str) -> str | None:
        for package in packages:
            with suppress(FileNotFoundError):
                return resources.files(package).joinpath(name).read_text(encoding="utf-8")
        return None

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(find),
    )
    made.filters["number"] = "{:,}".format
    made.filters["number_of"] = number_of
    return made


def style(*places: tuple[str, str]) -> str:
    """Returns the shared style of pages, and further ones after it.

    Args:
      places: The package and the name of each further file.
    """
    files = ((__package__, "page.css"), *places)
    return "".join(
        resources.files(package).joinpath(name).read_text(encoding="utf-8")
        for package, name in files
    )


def _policy(css: str, script: str) -> str:
    """Returns a Content-Security-Policy that allows this style and script alone, and pictures in
    the page.

    By hashes of what is between their tags (CSP Level 3, 2.3.1), so that nothing that gets
    into the page otherwise is run.
    """
    parts = ["default-src 'none'", "img-src data:", f"style-src {_hash(css)}"]
    if script:
        parts.append(f"script-src {_hash(script)}")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
