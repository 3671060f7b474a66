"""What of a data set cannot be used: counted once each, said once, and at most one per cent of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from runtime.errors import InputError

ALLOWED = 0.01
"""Share of the records or persons that may be unusable before work stops with an error."""
LISTED = 20
"""Of a longer list, so many are named."""


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr)


def listing(problems: Sequence[str]) -> str:
    """The problems in one line; of more than `LISTED` the first ones and how many follow."""
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more


def refuse_too_many(problems: Sequence[str], total: int, what: str, source: object) -> None:
    """InputError with the list if more than `ALLOWED` of `total` `what` (a plural) of `source` are unusable."""
    if len(problems) > ALLOWED * total:
        raise InputError(
            f"{source}: {len(problems)} of {total} {what} are unusable (at most {ALLOWED:.0%} may be): "
            f"{listing(problems)}"
        )


class Damage:
    """The persons of a data set that cannot be used, each noted once.

    Args:
        total: persons of the data (or whatever `what` says), the unusable ones included.
        source: the data's name, for messages.
        known: problems that are counted from the start, such as records left out on reading.
        warn: gets a line for each further problem.
        what: a plural.
    Raises:
        InputError: more than `ALLOWED` of them are unusable; it holds the list. `note` raises it too.
    """

    def __init__(
        self,
        total: int,
        source: object,
        known: Iterable[str] = (),
        warn: Callable[[str], None] = say,
        what: str = "persons",
    ) -> None:
        self.total, self.source, self.warn, self.what = total, source, warn, what
        self.problems = list(dict.fromkeys(known))
        refuse_too_many(self.problems, total, what, source)

    def note(self, *problems: str) -> None:
        """Count problems such as "annotation 7: why", and warn of each, unless it is known."""
        further = [problem for problem in dict.fromkeys(problems) if problem not in self.problems]
        self.problems += further
        refuse_too_many(self.problems, self.total, self.what, self.source)
        for problem in further:
            self.warn(f"left out: {problem}")

    def summary(self) -> str | None:
        """One line for the end of the work; None where all was well."""
        if not self.problems:
            return None
        listed = listing(self.problems)
        return f"{self.source}: {len(self.problems)} of {self.total} {self.what} could not be used: {listed}"
