"""The JSON Schema of a rule file, for editors.

    python -m rules.json_schema > rules/rules.schema.json

A rule file names it in its first line, for the YAML language server:

    # yaml-language-server: $schema=.../rules.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from rules.schema import RuleFile


def json_schema() -> dict[str, Any]:
    """Returns the schema (draft 2020-12) with title, description and unit of every key."""
    schema: dict[str, Any] = _for_editors(RuleFile.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Rules: what is a threat, camera by camera",
    }


def _for_editors(value: Any) -> Any:
    """Removes parts of pydantic's schema that editors do not need, and adds a missing one.

    The addition: keys that do not match the pattern of camera ids are wrong.
    """
    if isinstance(value, list):
        return [_for_editors(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # Some releases of pydantic write 1, others 1.0.
    if isinstance(value, str):
        return value.replace("\n", " ")
    if not isinstance(value, dict):
        return value
    schema = {
        key: _for_editors(item)
        for key, item in value.items()
        if not (key == "default" and item is None)
    }
    if "patternProperties" in schema:
        schema["additionalProperties"] = False
    return schema


def schema_text() -> str:
    """Returns the text of ``rules.schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
