"""The one error of a rule file, always one line, and the wording that its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN_CHARACTERS = 80
_LISTED_CHOICES = 12


class RulesError(ValueError):
    """A rule file that cannot be used. Its text is one line for a person:

        <source>:<line>: <what is wrong, with the key path>; <what would be right>

    Attributes:
        source: the name of the file, as the caller gave it.
        line: the line of the mistake, counted from 1; None where the file could not be read at all.
        problem: what is wrong, with the dotted path of the key.
        remedy: what would be right.
        others: the other mistakes of the file, by line; the one reported is the first.
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
    def more(self) -> int:
        """How many other mistakes the file has."""
        return len(self.others)

    @property
    def messages(self) -> tuple[str, ...]:
        """A line for each mistake of the file."""
        first = RulesError(self.source, self.line, self.problem, self.remedy)
        others = (RulesError(self.source, one.line, one.problem, one.remedy) for one in self.others)
        return tuple(map(str, (first, *others)))

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        text = f"{place}: {self.problem}; {self.remedy}"
        if self.more:
            text += f" (and {self.more} more {'mistake' if self.more == 1 else 'mistakes'})"
        return one_line(text)


@dataclass(frozen=True)
class Mistake:
    """One thing wrong at one line (counted from 1); `raise_first` makes a RulesError of several."""

    line: int
    problem: str
    remedy: str


def raise_first(source: str, mistakes: Iterable[Mistake]) -> None:
    """Raise a RulesError for the first mistake by line; do nothing where there is none."""
    ordered = sorted(mistakes, key=lambda mistake: mistake.line)
    if ordered:
        first, *others = ordered
        raise RulesError(source, first.line, first.problem, first.remedy, tuple(others))


def one_line(text: str) -> str:
    """The text with line breaks and every other unprintable character escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shortened(text: str) -> str:
    """The text, cut where it is too long to read in a message."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def key_path(path: Iterable[str | int]) -> str:
    """A path as a person writes it: ``cameras.hall.resolution.min[0]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{shortened(step)}" if text else shortened(step)
    return text


def suggestion(word: str, choices: Iterable[str], kind: str) -> str:
    """The nearest of the choices, or the choices themselves: the last half of a message.

    Args:
        word: what the file says.
        choices: what it could say, in the order to list them.
        kind: what the choices are, in the plural, e.g. ``"labels of the model"``.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word[:_SHOWN_CHARACTERS].casefold(), by_folded, n=1)
    if close:
        return f"did you mean {by_folded[close[0]]!r}?"
    names = list(by_folded.values())
    if not names:
        return f"there are no {kind}"
    listed = ", ".join(names[:_LISTED_CHOICES])
    rest = f", ... ({len(names)} in all)" if len(names) > _LISTED_CHOICES else ""
    return f"the {kind} are: {listed}{rest}"
