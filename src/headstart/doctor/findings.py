"""What a check found: words for people, facts for scripts, and whether it would spoil a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.errors import UserError

FORMAT = 1
SHOWN = 5
"""Examples that are printed; ``json=`` has all."""
SPOILED = 0.01
"""Share of a part's images that may be lost before that spoils a training; fewer are a note."""
Outcome = Literal["ok", "note", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        about: What was looked at, for scripts: ``labels.train``.
        outcome: ``ok``; ``note``, worth knowing; ``wrong``, would spoil a training; ``unknown``, was not looked at.
        words: What was found.
        do: What to do about it.
        details: Examples, a line each.
        facts: The same in numbers and plain values.
    """

    about: str
    outcome: Outcome
    words: str
    do: str = ""
    details: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """As it is printed."""
        mark = {"ok": "ok", "note": "note", "wrong": "WRONG", "unknown": "-"}[self.outcome]
        more = len(self.details) - SHOWN
        shown = [_in_one_line(one) for one in self.details[:SHOWN]]
        below = [*shown, *([f"and {more:,} more (json=FILE lists all)"] if more > 0 else [])]
        return [f"  {mark:<6} {_in_one_line(self.words)}", *(f"           {one}" for one in below)] + (
            [f"         -> {_in_one_line(self.do)}"] if self.do else []
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "about": self.about,
            "outcome": self.outcome,
            "words": self.words,
            "do": self.do,
            "details": list(self.details),
            "facts": dict(self.facts),
        }


def _in_one_line(text: str) -> str:
    """`text` with line breaks, which a file's name may have, written out: what stands below looks like a finding."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


@dataclass(frozen=True)
class Report:
    """All findings, by the heading that they stand under."""

    sections: tuple[tuple[str, tuple[Finding, ...]], ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, in order."""
        return tuple(one for _, found in self.sections for one in found)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that would spoil a training."""
        return all(one.outcome != "wrong" for one in self.findings)

    def text(self) -> str:
        """As it is printed."""
        lines = []
        for title, found in self.sections:
            lines += [title, *(line for one in found for line in one.lines()), ""]
        wrong = sum(one.outcome == "wrong" for one in self.findings)
        notes = sum(one.outcome == "note" for one in self.findings)
        told = f"{wrong} wrong, {notes} to note" if wrong or notes else "nothing is wrong"
        return "\n".join([*lines, told])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``json=``."""
        return {"format": FORMAT, "ok": self.ok, "findings": [one.as_dict() for one in self.findings]}


def of_error(about: str, error: UserError) -> list[Finding]:
    """What a user error says, a finding for each of its problems."""
    return [
        Finding(about, "wrong", f"{one.where}: {one.what}" if one.where else one.what, one.hint or "")
        for one in error.parts
    ]


def lost(count: int, total: int) -> Outcome:
    """Whether as many lost images are worth a note, or spoil a training."""
    return "ok" if not count else "note" if count <= SPOILED * total else "wrong"


def pairs(found: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """``one and other``, a line each."""
    return tuple(f"{one} and {other}" for one, other in found)
