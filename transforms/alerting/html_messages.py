"""The HTML form of a message, for mail: the words, the picture with its boxes, and the links.

Mail programs support neither style sheets nor newer properties, so all styles are attributes, and
the layout is one column. Everything that comes from a camera, a model or a rule file is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ subject }}</title>
</head>
<body style="margin:0;padding:0">
<div style="max-width:640px;margin:0 auto;padding:16px;overflow-wrap:anywhere;\
font-family:system-ui,Helvetica,Arial,sans-serif;font-size:16px;line-height:1.5">
{% for note in notes %}
<p style="margin:0 0 12px">{{ note }}</p>
{% endfor %}
{% if own_text is none %}
<h1 style="margin:0;font-size:22px;line-height:1.3">{{ labels | join(', ') }} at {{ id }}</h1>
<p style="margin:0 0 12px">{{ when }}</p>
{% if follow_up %}
<p style="margin:0 0 12px">{{ follow_up.text }}</p>
{% endif %}
{% endif %}
{% if picture_name %}
<p style="margin:0 0 12px"><img src="cid:{{ picture_name }}" \
alt="The picture, with a box around each threat" \
style="display:block;max-width:100%;height:auto;border:0"></p>
{% endif %}
{% if own_text is none %}
{% for threat in threats %}
<p style="margin:0 0 8px"><strong>{{ threat.label }}</strong>, {{ threat.sure }}
{%- if threat.zone %}, in {{ threat.zone }}{% endif %}<br>
Rule: {{ threat.rule_name }}</p>
{% endfor %}
{% if no_picture %}
<p style="margin:12px 0">There is no picture with this message: {{ no_picture }}.</p>
{% endif %}
<p style="margin:12px 0 0">Picture: <a href="{{ picture_link }}">\
{{ 'open it' if links.picture else picture_link }}</a>
{%- if report_link %}<br>
This alert in the report: <a href="{{ report_link }}">\
{{ 'open it' if links.report else report_link }}</a>
{%- endif %}</p>
{% if link_hours %}
<p style="margin:12px 0 0;font-size:14px">{{ 'These' if links.console else 'The' }} links open for \
{{ link_hours }} hours, for anyone who has them.</p>
{% endif %}
{% if mark_until %}
<p style="margin:20px 0 0">
<a href="{{ links.right }}" style="{{ button }};background:#17693a">It is right</a>
<a href="{{ links.false }}" style="{{ button }};background:#a8231b">It is false</a>
</p>
<p style="margin:0;font-size:14px">The page asks once more, and needs no log-in. Whoever has this \
message can mark the alert, until {{ mark_until }}.</p>
{% endif %}
{% if links.console %}
<p style="margin:12px 0 0"><a href="{{ links.console }}">This alert in the console</a></p>
{% endif %}
{% else %}
<div style="white-space:pre-line">{{ own_text | urlize }}</div>
{% endif %}
</div>
</body>
</html>
"""

_BUTTON = (
    "display:inline-block;margin:0 8px 8px 0;padding:12px 20px;border-radius:8px;color:#ffffff;"
    "font-weight:600;text-decoration:none"
)


def html_message(
    values: Mapping[str, Any],
    *,
    subject: str,
    notes: tuple[str, ...] = (),
    own_text: str | None = None,
    picture_name: str | None = None,
) -> str:
    """Returns a message as an HTML page.

    Args:
      values: The values of a message's templates (`MessageValues`).
      subject: The subject.
      notes: Lines that come first.
      own_text: The text by the rule file's own template, which takes the place of the built-in
        words; None for these.
      picture_name: The name of the picture among the attachments of the mail; None without one.
    """
    return _page().render(
        values,
        button=_BUTTON,
        subject=subject,
        notes=notes,
        own_text=own_text,
        picture_name=picture_name,
    )


@cache
def _page() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE)
