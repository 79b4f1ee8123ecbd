"""The error of a wrong rule file, and the wording that its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from rules.text import escaped, shortened

_COMPARED_CHARACTERS = 80
_LISTED_CHOICES = 16


class RulesError(ValueError):
    """A rule file that cannot be used. Its text is one line for a person:

        <source>:<line>: <what is wrong, with the key path>; <what would be right>

    Attributes:
        source: The name of the file, as the caller passed it.
        line: The line of the mistake, counted from 1; None if the file could not be read at all.
        problem: What is wrong, with the dotted path of the key.
        remedy: What would be right.
        others: The other mistakes of the file, by line; the one reported is the first.
    """

    def __init__(
        self,
        source: str,
        line: int | None,
        problem: str,
        remedy: str,
        others: tuple[Mistake, ...] = (),
    ) -> None:
        super().__init__(source, line, problem, remedy, others)
        self.source = source
        self.line = line
        self.problem = problem
        self.remedy = remedy
        self.others = others

    @property
    def other_count(self) -> int:
        """The number of other mistakes in the file."""
        return len(self.others)

    @property
    def messages(self) -> tuple[str, ...]:
        """A line for each mistake of the file."""
        first = RulesError(self.source, self.line, self.problem, self.remedy)
        others = (
            RulesError(self.source, mistake.line, mistake.problem, mistake.remedy)
            for mistake in self.others
        )
        return tuple(map(str, (first, *others)))

    def __str__(self) -> str:
        location = self.source if self.line is None else f"{self.source}:{self.line}"
        text = f"{location}: {self.problem}; {self.remedy}"
        if self.others:
            noun = "mistake" if self.other_count == 1 else "mistakes"
            text += f" (and {self.other_count} more {noun})"
        return escaped(text)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a rule file; `raise_first` makes a RulesError of several.

    Attributes:
        line: Its line, counted from 1.
        problem: What is wrong, with the dotted path of the key.
        remedy: What would be right.
    """

    line: int
    problem: str
    remedy: str


def raise_first(source: str, mistakes: Iterable[Mistake]) -> None:
    """Raises a RulesError for the first mistake by line; does nothing without mistakes."""
    ordered = sorted(mistakes, key=lambda mistake: mistake.line)
    if ordered:
        first, *others = ordered
        raise RulesError(source, first.line, first.problem, first.remedy, tuple(others))


def key_path(path: Iterable[str | int]) -> str:
    """Returns a path in the form that people write: ``cameras.hall.resolution.min[0]``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{shortened(key)}" if text else shortened(key)
    return text


def suggestion(word: str, choices: Iterable[str], kind: str) -> str:
    """Returns the last half of a message: the choice nearest to a word, or a list of all.

    Args:
        word: The word in the file.
        choices: The words that are allowed, in the order in which to list them.
        kind: What the choices are, in the plural, e.g. ``"labels of the model"``.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word[:_COMPARED_CHARACTERS].casefold(), by_folded, n=1)
    if close:
        return f"did you mean {by_folded[close[0]]!r}?"
    names = list(by_folded.values())
    if not names:
        return f"there are no {kind}"
    listed = ", ".join(names[:_LISTED_CHOICES])
    rest = f", ... ({len(names)} in all)" if len(names) > _LISTED_CHOICES else ""
    return f"the {kind} are: {listed}{rest}"
