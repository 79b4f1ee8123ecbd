"""Templates of messages: Jinja, within bounds.

Jinja's sandbox protects Python's internals from a template, but not the machine: constant folding
of ``{{ 'a' * 9999999999 }}`` at compilation needs 10 GB, and two nested loops over ``range(99999)``
block a worker for ever. Here the compilation folds no constants, and a rendering has a budget: each
iteration, call, filter and operator costs steps, by the size of its result, and values and texts
have a maximum size. Operations whose result depends on a number (widths, repetitions, powers) are
checked beforehand. Macros, imports and recursive loops are rejected.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypedDict

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateRuntimeError,
    TemplateSyntaxError,
    meta,
    nodes,
    pass_context,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from rules.errors import suggestion

MAX_TEMPLATE_CHARACTERS = 20_000
MAX_VALUE_SIZE = 20_000
"""The maximum number of characters and items of one value, including nested values."""
MAX_TEXT_CHARACTERS = 100_000
"""The maximum number of characters of a rendered text."""
MAX_STEPS = 20_000
"""The maximum number of steps of a rendering: one for each iteration, call, filter and operator,
and one for each 64 characters or items of their results."""

MAX_THREATS = 50
"""The maximum number of threats in a message."""


class MessageValues(TypedDict):
    """The values of the variables in the templates of a message; docs/alerts.md describes them."""

    id: str
    timestamp: str
    local_time: str
    timezone: str
    when: str
    severity: str
    labels: Sequence[str]
    threats: Sequence[Mapping[str, object]]
    follow_up: Mapping[str, object] | None
    links: Mapping[str, str | None]
    picture_link: str
    report_link: str | None
    link_hours: str | None
    mark_until: str | None
    image_uri: str
    final_uri: str
    no_picture: str | None
    alert_id: str
    rules_version: str
    model_version: str


VARIABLES = tuple(MessageValues.__annotations__)
"""The names of the variables in the templates of a message."""

FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
    *("format", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower"),
    *("map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select"),
    *("selectattr", "sort", "string", "title", "trim", "truncate", "unique", "upper", "urlencode"),
    *("wordcount", "wordwrap"),
)
"""The filters of Jinja that a template can use."""

_MAX_ARGUMENT = 1_000
"""The maximum number as an argument of a filter or function, and the maximum length of a text."""
_CHARACTERS_PER_STEP = 64
_MAX_BITS = 256
_GLOBALS = ("range", "dict", "namespace")
_GROWING_METHODS = frozenset(
    (
        *("center", "encode", "expandtabs", "format", "format_map", "join", "ljust", "maketrans"),
        *("replace", "rjust", "translate", "zfill"),
    )
)
_FILTERS_WITH_ANY_ARGUMENT = frozenset(("format", "default", "d"))
_WIDE_CONVERSION = re.compile(r"%(\([^)]*\))?[-#0 +]*([0-9]{4}|\*|[0-9]*\.([0-9]{4}|\*))")
"""A conversion of the operator % with a width or precision of more than 999, or a variable one."""
_REJECTED_NODES = {
    nodes.Macro: "macros",
    nodes.CallBlock: "call blocks",
    nodes.FilterBlock: "filter blocks",
    nodes.Include: "includes",
    nodes.Import: "imports",
    nodes.FromImport: "imports",
    nodes.Extends: "inheritance",
    nodes.Block: "blocks",
    nodes.EvalContextModifier: "autoescape blocks",
}


class TemplateLimitError(TemplateRuntimeError):
    """A template exceeds its limits."""


class TemplateMistakeError(ValueError):
    """A mistake in a template: what is wrong, and what would be right."""


class _Budget:
    def __init__(self) -> None:
        self._steps: float = MAX_STEPS
        self._characters: float = MAX_TEXT_CHARACTERS
        self.largest_value: float = MAX_VALUE_SIZE

    def spend_steps(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TemplateLimitError(f"needs more than {MAX_STEPS} steps")

    def spend_characters(self, characters: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise TemplateLimitError(f"renders more than {MAX_TEXT_CHARACTERS} characters")


class _UnlimitedBudget(_Budget):
    def __init__(self) -> None:
        self._steps = self._characters = self.largest_value = math.inf


_budget: ContextVar[_Budget] = ContextVar("budget")


def _size(value: Any, limit: int = MAX_VALUE_SIZE) -> int:
    """Counts the characters and items of a value and its items, until it exceeds the limit."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 8
    if isinstance(value, Mapping):
        items: Iterable[Any] = (part for item in value.items() for part in item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    else:
        return 1
    size = len(value)
    for item in items:
        if size > limit:  # A list can contain itself.
            break
        size += _size(item, limit - size)
    return size


def _charge(value: Any) -> Any:
    """Returns a value after spending the steps for its size."""
    size = _size(value)
    budget = _budget.get()
    if size > budget.largest_value:
        raise TemplateLimitError(
            f"computes a value of more than {MAX_VALUE_SIZE} characters or items"
        )
    budget.spend_steps(1 + size // _CHARACTERS_PER_STEP)
    return _charge_each(value) if isinstance(value, Iterator) else value


def _charge_each(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        yield _charge(value)


def _check_argument(value: Any) -> None:
    if isinstance(value, (int, float)) and abs(value) > _MAX_ARGUMENT:
        raise TemplateLimitError(f"passes a filter or function a number above {_MAX_ARGUMENT}")
    if isinstance(value, str) and len(value) > _MAX_ARGUMENT:
        raise TemplateLimitError(
            f"passes a filter or function a text of more than {_MAX_ARGUMENT} characters"
        )


def _check_growth(operator: str, left: Any, right: Any) -> None:
    """Rejects an operation whose result would be far larger than its operands."""
    if operator == "%" and isinstance(left, str) and _WIDE_CONVERSION.search(left):
        raise TemplateLimitError("formats a value to a width of more than 999")
    if operator == "*":
        for value, times in ((left, right), (right, left)):
            is_repetition = isinstance(value, (str, list, tuple)) and isinstance(times, int)
            if is_repetition and len(value) * times > MAX_VALUE_SIZE:
                raise TemplateLimitError(f"repeats a value {times} times")
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), 1)
        if (operator == "**" and abs(right) * bits > _MAX_BITS) or (
            operator == "*" and bits + right.bit_length() > _MAX_BITS
        ):
            raise TemplateLimitError(f"computes a number of more than {_MAX_BITS} bits")


def _limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a filter so that it costs steps.

    Jinja never folds it at compilation, because it depends on the context.
    """
    first_argument = getattr(function, "jinja_pass_arg", None)

    @pass_context
    @functools.wraps(function, updated=())
    def limited(context: Context, value: Any, *args: Any, **options: Any) -> Any:
        for argument in (*args, *options.values()):
            if name not in _FILTERS_WITH_ANY_ARGUMENT:
                _check_argument(argument)
        if name == "format":
            _check_growth("%", str(value), None)
        if isinstance(value, Iterator):
            value = _charge_each(value)
        if first_argument is None:
            return _charge(function(value, *args, **options))
        passed = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }[first_argument.name]
        return _charge(function(passed, value, *args, **options))

    return limited


@pass_context
def _each(context: Context, values: Iterable[Any], steps: int) -> Iterator[Any]:
    """Yields the values of a loop, each of which costs steps."""
    for value in values:
        _budget.get().spend_steps(steps)
        yield value


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    """Charges for a value in the text; it takes the context so that Jinja folds nothing."""
    return _charge(value)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_finalize,
        )
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        self.filters = {name: _limited_filter(name, self.filters[name]) for name in FILTERS}
        self.filters["_each"] = _each

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, (int, float, bytes)):
            return False
        if isinstance(obj, str) and attr in _GROWING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Returns None, so that `str.format` is unsafe; the operator % replaces it."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_growth(operator, left, right)
        return _charge(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):
            _check_argument(argument)
        return _charge(super().call(__context, __obj, *args, **kwargs))


class _Limiter(NodeTransformer):
    """Makes loops and ``~`` cost steps, and rejects nodes without a limit."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        for kind, plural in _REJECTED_NODES.items():
            if isinstance(node, kind):
                raise TemplateSyntaxError(f"{plural} are not allowed", node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not allowed", node.lineno)
        characters = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        steps = nodes.Const(1 + characters // _CHARACTERS_PER_STEP)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_each", [steps], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)


_ENVIRONMENT = _Environment()


class MessageTemplate:
    """A template whose grammar and names were checked.

    Args:
        text: The template.

    Raises:
        TemplateMistakeError: Its grammar or a name is wrong.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateMistakeError(
                f"has {len(text)} characters", f"must be at most {MAX_TEMPLATE_CHARACTERS}"
            )
        try:
            tree = _Limiter().visit(_ENVIRONMENT.parse(text))
            names = meta.find_undeclared_variables(tree)
            code = _ENVIRONMENT.compile(tree)
        except TemplateSyntaxError as error:
            raise TemplateMistakeError(
                f"not a template: {error.message}", "see https://jinja.palletsprojects.com"
            ) from None
        except (ValueError, RecursionError, OverflowError, SyntaxError) as error:
            # Numbers of thousands of digits, or thousands of brackets.
            raise TemplateMistakeError(
                f"not a template: {type(error).__name__}", "make it simpler"
            ) from None
        for name in sorted(names - {*VARIABLES, *_GLOBALS}):
            raise TemplateMistakeError(
                f"there is no variable {name!r}", suggestion(name, VARIABLES, "variables")
            )
        self._template = Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))

    def render(self, values: Mapping[str, object], *, is_built_in: bool = False) -> str:
        """Renders the template.

        Args:
            values: The values of the variables that it uses, by name; see `MessageValues`.
            is_built_in: Whether it is this program's own template, which has no limits, so that it
                renders any alert.

        Raises:
            TemplateLimitError: It exceeds its limits.
            Exception: Any other error that unexpected values cause in a template.
        """
        token = _budget.set(_UnlimitedBudget() if is_built_in else _Budget())
        try:
            pieces: list[str] = []
            for piece in self._template.generate(values):
                _budget.get().spend_characters(len(piece))
                pieces.append(piece)
            return "".join(pieces)
        finally:
            _budget.reset(token)


def template_problem(text: str) -> tuple[str, str] | None:
    """Returns what is wrong with a template, and what would be right.

    Renders the template for an alert with as many threats as a message can show, so that a template
    beyond its limits is rejected with the rule file. Other errors depend on the alert, not on the
    template.

    Returns:
        The problem and the remedy; None for a valid template.
    """
    try:
        MessageTemplate(text).render(_example())
    except TemplateLimitError as error:
        return (
            f"the template {error.message}",
            "make it simpler, or leave it out for the built-in one",
        )
    except SecurityError as error:
        return f"the template can't do this: {error.message}", "use a filter instead"
    except TemplateMistakeError as error:
        return error.args[0], error.args[1]
    except Exception:  # It may work with the values of another alert.
        pass
    return None


def _example() -> MessageValues:
    threat = {
        "label": "person",
        "conf": 0.91,
        "severity": "alert",
        "rule": "cameras.front-door.zones.path.objects.person",
        "zone": "path",
        "bbox": [0.1, 0.2, 0.05, 0.3],
        "rule_name": "person (zone path of camera front-door)",
        "sure": "91% sure",
    }
    return {
        "id": "front-door",
        "timestamp": "2026-01-31T23:59:59Z",
        "local_time": "2026-02-01 00:59:59",
        "timezone": "Europe/Berlin",
        "when": "2026-02-01 00:59:59 (Europe/Berlin, UTC+1)",
        "severity": "alert",
        "labels": [f"label {number}" for number in range(MAX_THREATS)],
        "threats": [{**threat, "label": f"label {number}"} for number in range(MAX_THREATS)],
        "follow_up": {
            "incident": "0" * 32,
            "began": "2026-02-01 00:29:59 (Europe/Berlin, UTC+1)",
            "last_alert": "2026-02-01 00:29:59 (Europe/Berlin, UTC+1)",
            "images": 17,
            "new_labels": [f"label {number}" for number in range(MAX_THREATS)],
            "more": [
                {"label": f"label {number}", "before": 1, "now": 3} for number in range(MAX_THREATS)
            ],
            "text": "The incident that began at 2026-02-01 00:29:59 (Europe/Berlin, UTC+1) goes "
            "on. Since the alert of that time: 17 more images; new: label 1; up to 3 label 2 in "
            "one image, before 1.",
        },
        "links": {
            "picture": "https://example.com/picture",
            "data": "https://example.com/data",
            "report": "https://example.com/report.html#front-door_20260131T235959Z",
            "console": f"https://example.com/alerts/{'0' * 32}",
            "right": f"https://example.com/m/{'x' * 120}.{'0' * 64}",
            "false": f"https://example.com/m/{'y' * 120}.{'0' * 64}",
        },
        "picture_link": "https://example.com/picture",
        "report_link": "https://example.com/report.html#front-door_20260131T235959Z",
        "link_hours": "24",
        "mark_until": "2026-02-08 00:59:59 (Europe/Berlin, UTC+1)",
        "image_uri": "s3://bucket/front-door_20260131T235959Z.jpg",
        "final_uri": "s3://bucket/final/front-door/front-door_20260131T235959Z.json",
        "no_picture": None,
        "alert_id": "0" * 32,
        "rules_version": "0" * 12,
        "model_version": "0" * 12,
    }
