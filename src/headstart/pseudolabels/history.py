"""Whether a teacher drifts, told from its passes over unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_FALL = 0.1
"""By how much agreement (F1) must have fallen at least before it is called drift."""
LEAST_COUNT, MANY_TIMES = 20, 5
"""Without held-out labels: labels of a class from which its number counts, and by what factor it may change."""


def drift(history: Sequence[Mapping[str, Any]]) -> str:
    """What tells that the teacher has drifted, in words, after the last of its rounds; "" where nothing does.

    Where labels are held out it is their agreement that counts: it has fallen below the best so far by more than
    chance explains (two standard errors, and a tenth at least). Else it is the number of labels of a class an image:
    fewer than a fifth, or more than five times those of the first pass, of a class that has 20 at least.
    """
    first, last = history[0], history[-1]
    best = max(agrees(one) for one in history)
    if best > 0:
        known = max(1, sum(one["known"] for one in last["by_class"].values()))
        fallen = best - agrees(last)
        if fallen > max(LEAST_FALL, 2 * (best * (1 - best) / known) ** 0.5):
            return (
                f"the teacher has drifted: its labels agreed with the held-out ones to {best:.0%} (F1), and now to "
                f"{agrees(last):.0%}; the state that agreed best is taken, and its labels are kept"
            )
        return ""
    for name in {*first["classes"], *last["classes"]}:
        before, now = (one["classes"].get(name, 0) / max(1, one["images"]) for one in (first, last))
        counts = first["classes"].get(name, 0), last["classes"].get(name, 0)
        if max(counts) >= LEAST_COUNT and not before / MANY_TIMES <= now <= before * MANY_TIMES:
            return (
                f"the teacher has drifted: of {name!r} it gave {counts[0]:,} labels on {first['images']:,} images at "
                f"first, and now {counts[1]:,} on {last['images']:,}; the state before is taken, and its labels kept"
            )
    return ""


def agrees(entry: Mapping[str, Any]) -> float:
    """F1 of a pass on the held-out images; 0 where nothing is held out."""
    return float(entry.get("f1") or 0.0)
