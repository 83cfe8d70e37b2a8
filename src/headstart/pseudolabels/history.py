"""The passes of a teacher over unlabelled images, and whether it drifts, told from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import told

LEAST_FALL = 0.1
"""By how much agreement (F1) must have fallen at least before it is called drift."""
LEAST_COUNT, MANY_TIMES = 20, 5
"""Without held-out labels: labels of a class from which its number counts, and by what factor it may change."""


@dataclass
class History:
    """What a teacher has labelled, pass after pass.

    Attributes:
        passes: Of each what it labelled, and how far that agrees with labels that are held out.
        drifted: What tells that it has drifted, in words; "" where nothing does.
        best: The labels of the pass that agreed best, `PseudoLabels`, as ``taught``, and its number as ``pass``; empty
            before the first. They may be those of another detector.
        own: The detector's own state at the pass of its own that agreed best, with the number of that as ``pass``;
            empty before the first.
        judged: How far the detector at the end of the rounds agrees with held-out labels; empty where nobody knows.
    """

    passes: list[dict[str, Any]] = field(default_factory=list)
    drifted: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    judged: dict[str, Any] = field(default_factory=dict)
    _news: list[tuple[Literal["info", "alarm"], str]] = field(default_factory=list)

    def add(self, entry: dict[str, Any], state: Callable[[], dict[str, Any]] | None) -> bool:
        """One more pass.

        Args:
            entry: `headstart.pseudolabels.labelling.Labelling.counts` and agreement; ``by`` whom, if by another
                detector.
            state: The detector's, to go back to where a later pass drifts; None where none follows.

        Returns:
            Whether it is the best so far: the labels of `best` are to be this pass's.
        """
        self.passes.append(entry)
        self.drifted = self._told(drift(self.passes))
        self._news.append(("info", told(entry, entry.get("by", "the teacher"))))
        self._news += [("alarm", self.drifted)] if self.drifted else []
        if self.drifted or state is None:
            return False
        if "by" not in entry and agrees(entry) >= max(agrees(one) for one in self._of_its_own):
            self.own = {"pass": len(self.passes) - 1, **state()}
        if agrees(entry) < max(agrees(one) for one in self.passes):
            return False
        self.best = {"pass": len(self.passes) - 1}
        return True

    @property
    def _of_its_own(self) -> list[dict[str, Any]]:
        return [one for one in self.passes if "by" not in one]

    def _told(self, found: str) -> str:
        """The finding that the teacher has drifted, if it is one, with what is gone back to."""
        if not found:
            return ""
        by = self.passes[self.best["pass"]].get("by") if self.best else None
        if not self.own:
            stay = "the weights stay as they are, for there is no earlier state of its own to go back to"
            return f"{found}; the labels of {by} are kept, and {stay}" if by else f"{found}; {stay}"
        which = "that agreed best" if any(map(agrees, self.passes)) else "before"
        if by:
            return f"{found}; the labels of {by} are kept, and of the teacher's own states the one {which} is taken"
        return f"{found}; the state {which} is taken, and its labels are kept"

    @property
    def taken(self) -> Mapping[str, Any]:
        """The pass that says how finds are named and kept: the last, or the one that was gone back to; empty before the
        first.
        """
        last = int((self.own or self.best)["pass"]) if self.drifted and (self.own or self.best) else -1
        return self.passes[last] if self.passes else {}

    def ends(self, judged: dict[str, Any]) -> bool:
        """The rounds are over.

        Args:
            judged: How far what they made of the detector agrees with held-out labels; without ``f1`` nobody knows.

        Returns:
            Whether it has drifted since the pass that agreed best.
        """
        if self.drifted or "f1" not in judged:
            return False
        self.judged = judged
        own = self._of_its_own  # one cannot go back to weights that are not its own
        self.drifted = self._told(drift([*own, judged])) if any(map(agrees, own)) else ""
        right = judged["precision"]
        given = "gives nothing there" if right is None else f"{right:.0%} of what it gives there is right"
        self.say(f"in the end it finds {judged['recall'] or 0:.0%} of the held-out labels, and {given}")
        self._news += [("alarm", self.drifted)] if self.drifted else []
        return bool(self.drifted)

    def say(self, *sentences: str) -> None:
        """What a user should know besides, told with the next news; "" for nothing."""
        self._news += [("info", sentence) for sentence in sentences if sentence]

    def news(self) -> list[tuple[Literal["info", "alarm"], str]]:
        """What has happened since it was last asked, in sentences."""
        news, self._news = self._news, []
        return news

    def measures(self) -> dict[str, float]:
        """What was labelled last, for metrics.jsonl; empty before the first pass."""
        last = self.passes[-1] if self.passes else {}
        known = ("with_labels", "labels", "left_open", "mean_score", "precision", "recall")
        return {f"teacher_{name}": float(last[name]) for name in known if last.get(name) is not None}

    def summary(self) -> dict[str, Any]:
        """What has happened, without states: `passes`, `drifted` and `judged`."""
        return {"passes": self.passes, "drifted": self.drifted, "judged": self.judged}

    def record(self) -> dict[str, Any]:
        """What a run goes on with; the best labels as tensors."""
        best = {**self.best, "taught": self.best["taught"].tensors()} if self.best else {}
        kept = {"best": best, "own": self.own}
        return {"history": self.passes, **kept, "drifted": self.drifted, "judged": self.judged}

    @classmethod
    def restored(cls, record: Mapping[str, Any]) -> History:
        """From what `record` gave; other entries do not matter."""
        best = record["best"]
        # Earlier versions kept the state with the best labels, if these were its own.
        before = {**best, **best.get("mean", {})}
        own = record.get("own") or {name: before[name] for name in ("pass", "states", "number") if "states" in before}
        labels = {"taught": PseudoLabels(**best["taught"])} if best else {}
        best = {name: best[name] for name in ("pass", "known") if name in best} | labels
        return cls(list(record["history"]), record["drifted"], best, own, record.get("judged", {}))


def drift(history: Sequence[Mapping[str, Any]]) -> str:
    """What tells that the teacher has drifted, in words, after the last of its rounds; "" where nothing does.

    Where labels are held out it is their agreement that counts: it has fallen below the best so far by more than
    chance explains: a tenth at least, and two standard errors of the difference of two shares of so many labels, with
    one right and one wrong added to each (Agresti and Caffo, 2000, doi:10.1080/00031305.2000.10474560), since of a pass
    that was all right the share alone would tell no error. Else it is the number of labels of a class an image: fewer
    than a fifth, or more than five times those of the first pass, of a class that had 20 at least there: one that was
    hardly found, and now is, is what rounds are for. Nor does a pass tell on so few images that fewer than 20 were to
    be expected. Passes of another detector are not counted against the teacher's.
    """
    last, best = history[-1], max(agrees(one) for one in history)
    if best > 0:
        known = max(1, sum(one["known"] for one in last["by_class"].values()))
        fallen = best - agrees(last)
        shares = ((one * known + 1) / (known + 2) for one in (best, agrees(last)))
        if fallen > max(LEAST_FALL, 2 * sum(share * (1 - share) / (known + 2) for share in shares) ** 0.5):
            return (
                f"the teacher has drifted: its labels agreed with the held-out ones to {best:.0%} (F1), and now to "
                f"{agrees(last):.0%}"
            )
        return ""
    first = next(one for one in history if one.get("by") == last.get("by"))
    for name in dict.fromkeys([*first["classes"], *last["classes"]]):  # in their order: a set has another each time
        before, now = (one["classes"].get(name, 0) / max(1, one["images"]) for one in (first, last))
        counts = first["classes"].get(name, 0), last["classes"].get(name, 0)
        enough = min(counts[0], before * last["images"]) >= LEAST_COUNT
        if enough and not before / MANY_TIMES <= now <= before * MANY_TIMES:
            return (
                f"the teacher has drifted: of {name!r} it gave {counts[0]:,} labels on {first['images']:,} images at "
                f"first, and now {counts[1]:,} on {last['images']:,}"
            )
    return ""


def agrees(entry: Mapping[str, Any]) -> float:
    """F1 of a pass on the held-out images; 0 where nothing is held out."""
    return float(entry.get("f1") or 0.0)
