"""The types of the values in a rule file, with their units and ranges, for `rules.schema`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import time, timedelta
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from rules.camera_ids import CAMERA_ID_PATTERN
from rules.errors import suggestion
from rules.geometry import polygon_problem
from rules.name_patterns import parse_pattern
from rules.names import preset_problem
from rules.schedule import (
    DAYS,
    UnreadableError,
    parse_days,
    parse_duration,
    parse_length,
    parse_time_of_day,
    period_problem,
    timezone_problem,
)


@dataclass(frozen=True)
class Expects:
    """What a key expects, in words that follow "must be"."""

    words: str


@dataclass(frozen=True)
class KnownNames:
    """The names to which a rule file can refer: the context of validation.

    Attributes:
        labels: The labels of the model; None to accept any label.
        profiles: The profiles of the file; None if their section is no mapping.
        targets: The targets of the file; None if their section is no mapping.
    """

    labels: tuple[str, ...] | None
    profiles: tuple[str, ...] | None
    targets: tuple[str, ...] | None


def custom_error(problem: str, remedy: str) -> PydanticCustomError:
    """Returns a validation error with its own wording; see `rules.loading`."""
    return PydanticCustomError("rules", "{problem}", {"problem": problem, "remedy": remedy})


def check_label(label: str, info: ValidationInfo) -> str:
    names = info.context
    if isinstance(names, KnownNames) and names.labels is not None and label not in names.labels:
        remedy = suggestion(label, names.labels, "labels of the model")
        raise custom_error("the model does not have this label", remedy)
    return label


def check_one_line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise custom_error("is not one line of text", "write a few words without a line break")
    return text


def check_profile(profile: str, info: ValidationInfo) -> str:
    names = info.context
    if (
        isinstance(names, KnownNames)
        and names.profiles is not None
        and profile not in names.profiles
    ):
        remedy = suggestion(profile, names.profiles, "profiles")
        raise custom_error(f"there is no profile {profile!r}", remedy)
    return profile


def check_version(value: object) -> object:
    # Literal[1] alone accepts True and 1.0.
    if type(value) is not int or value != 1:
        raise custom_error("not a version that this release supports", "write version: 1")
    return value


T = TypeVar("T")


def parsed_by(parse: Callable[[Any], T], kind: type) -> PlainValidator:
    """Returns a validator that parses values of one type.

    Args:
        parse: The parser, which raises ValueError(problem, remedy).
        kind: The type that the parser accepts.
    """

    def validate(value: object) -> T:
        if not isinstance(value, kind):  # rules.loading has the wording for a wrong type.
            raise PydanticCustomError("wrong_kind", "wrong kind")
        try:
            return parse(value)
        except ValueError as error:
            raise custom_error(*error.args) from None

    return PlainValidator(validate)


def check_timezone(name: str) -> str:
    if problem := timezone_problem(name):
        raise custom_error(*problem)
    return name


def check_preset(name: str) -> str:
    if problem := preset_problem(name):
        raise custom_error(*problem)
    return name


def check_pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except UnreadableError as error:
        raise custom_error(error.problem, error.remedy) from None
    return text


def _polygon(points: Any) -> tuple[tuple[float, float], ...]:
    if problem := polygon_problem(points):
        raise ValueError(*problem)
    return tuple((float(x), float(y)) for x, y in points)


def reject_text(value: object) -> object:
    if isinstance(value, str):
        raise custom_error(*period_problem(value))
    return value


def unset() -> Any:
    """Returns the default of a value that can be left out but cannot be null; no rule uses it."""
    return None


CameraId = Annotated[
    str,
    Field(
        pattern=CAMERA_ID_PATTERN,
        description="A camera's id, as in the names of its images: 1 to 64 of A-Z a-z 0-9 . _ -, "
        "beginning with a letter or digit.",
    ),
]
Label = Annotated[
    str,
    Field(min_length=1, description="A label of the model, e.g. person."),
    AfterValidator(check_label),
]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Expects("a number from 0 to 1")]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False), Expects("a number greater than 0")]
Pixels = Annotated[int, Field(ge=1)]
Size = Annotated[
    list[Pixels],
    Field(min_length=2, max_length=2),
    Expects("[width, height] in pixels, two whole numbers of at least 1"),
]
Count = Annotated[int, Field(ge=1), Expects("a whole number of at least 1")]
Duration = Annotated[
    timedelta,
    parsed_by(parse_duration, str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+[smhd]$"}),
    Expects("a duration such as 30s, 5m, 24h or 7d"),
]
Length = Annotated[
    timedelta,
    parsed_by(parse_length, str),
    WithJsonSchema({"type": "string", "pattern": "^0*[1-9][0-9]*[smhd]$"}),
    Expects("a duration such as 30s, 5m, 24h or 7d"),
]
TrackedTime = Annotated[
    timedelta,
    parsed_by(partial(parse_length, at_most=timedelta(seconds=30)), str),
    WithJsonSchema({"type": "string", "pattern": "^0*([1-9]|[12][0-9]|30)s$"}),
    Expects("a duration from 1s to 30s"),
]
Start = Annotated[
    time,
    parsed_by(parse_time_of_day, str),
    WithJsonSchema({"type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9]$"}),
    Expects("a time of day such as 18:00"),
]
TimeZone = Annotated[
    str, AfterValidator(check_timezone), Expects("a time zone such as Europe/Berlin")
]
End = Annotated[
    time,
    parsed_by(partial(parse_time_of_day, is_end=True), str),
    WithJsonSchema({"type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9]$|^24:00$"}),
    Expects("a time of day such as 06:00"),
]
Days = Annotated[
    frozenset[int],
    parsed_by(parse_days, list),
    WithJsonSchema({"type": "array", "items": {"enum": list(DAYS)}, "minItems": 1}),
    Expects("a list of days, such as [mon, tue]"),
]
Polygon = Annotated[
    tuple[tuple[float, float], ...],
    parsed_by(_polygon, list),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 3,
            "items": {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "items": {"type": "number", "minimum": 0, "maximum": 1},
            },
        }
    ),
    Expects("the corners as fractions of the frame, such as [[0, 0.5], [1, 0.5], [1, 1]]"),
]


class Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
