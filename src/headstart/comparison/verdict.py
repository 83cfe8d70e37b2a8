"""A comparison in a sentence, and as tables for the terminal and for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Record = Mapping[str, Any]


def sentence(results: Record) -> str:
    """What was found, for a manager: which start helped at which label budgets, by how much, how sure.

    Every claim is a 95 % interval of the paired difference over seeds; where it holds zero, it says so.
    """
    if results["faults"]:
        return f"These figures cannot be trusted: {results['faults'][0]}."
    found = headline(results)
    if not found:
        return "Nothing can be compared yet: no start and its reference were both trained with the same seed."
    seeds = max(len(one["seeds"]) for one in found)
    parts = [_pair([one for one in found if one["reference"] == name]) for name in _references(found)]
    what = f"Over {seeds} seeds" if seeds > 1 else "With a single seed"
    return f"{what}, mAP50-95 on {results['data']['test_images']:,} test images: {'; '.join(parts)}."


def headline(results: Record) -> list[Record]:
    """The differences that the sentence is about: of the last checkpoint given, or else of the last start."""
    kinds = {start["name"]: start["kind"] for start in results["starts"]}
    compared = [one for one in results["differences"] if one["start"] in kinds]
    own = [one["start"] for one in compared if kinds[one["start"]] == "checkpoint"]
    chosen = (own or [one["start"] for one in compared] or [None])[-1]
    return [one for one in compared if one["start"] == chosen]


def _references(found: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(one["reference"] for one in found))


def _pair(found: Sequence[Record]) -> str:
    """One start against one reference, its budgets put together by what was found."""
    groups: dict[str, list[Record]] = {}
    for one in found:
        groups.setdefault(one["map50_95"]["verdict"], []).append(one)
    words = {"helped": "helped", "hurt": "hurt", "cannot tell": "it cannot be told whether it helped"}
    parts = []
    for kind, of in groups.items():
        each = ", ".join(_budget(one) for one in of)
        parts.append(f"{words[kind]} {each}")
    return f"{found[0]['start']}, against {found[0]['reference']}: {' and '.join(parts)}"


def _budget(one: Record) -> str:
    values = one["map50_95"]
    text = f"{points(values['mean'])} points"
    if values["t_low"] is None:
        return f"with {labels(one['budget'])} ({text}, but one seed has no interval: give 3 or more)"
    text += f", 95 % interval {points(values['t_low'])} to {points(values['t_high'])}"
    if values["verdict"] == "cannot tell":
        text += f"; {needed(values)}"
    return f"with {labels(one['budget'])} ({text})"


def labels(budget: str) -> str:
    """A budget in words: ``5% of the labels``, ``200 labelled images``."""
    return f"{budget} of the labels" if budget.endswith("%") else f"{budget} labelled images"


def needed(values: Record) -> str:
    """How many seeds it would take to tell."""
    if values["seeds_needed"] is None:
        return "no practical number of seeds would tell a difference this small"
    return f"if the difference is real, about {values['seeds_needed']} seeds would tell"


def points(share: float | None) -> str:
    """A difference in mAP as points of a hundred, with its sign; three digits where it is small."""
    if share is None:
        return "–"
    digits = 1 if abs(share) >= 0.01 else 2
    return f"{share * 100:+.{digits}f}".replace("-", "−")


def rows(results: Record) -> list[tuple[str, ...]]:
    """Budget, start, mAP50-95 with interval, mAP50, difference to each reference with interval, verdict."""
    found = []
    for one in results["scores"]:
        scores = [_score(one[measure]) for measure in ("map50_95", "map50")]
        against = {d["reference"]: d for d in results["differences"] if _same(d, one)}
        cells = [_difference(against.get(name)) for name in references(results)]
        found.append((one["budget"], one["start"], *scores, *cells))
    return found


def references(results: Record) -> list[str]:
    """The starts that others are compared with."""
    return list(dict.fromkeys(one["reference"] for one in results["differences"]))


def _same(one: Record, other: Record) -> bool:
    return (one["start"], one["budget"]) == (other["start"], other["budget"])


def _score(values: Record) -> str:
    text = f"{values['mean']:.3f}"
    return text if values["low"] is None else f"{text} ± {values['high'] - values['mean']:.3f}"


def _difference(one: Record | None) -> str:
    if one is None:
        return ""
    values = one["map50_95"]
    if values["t_low"] is None:
        return f"{points(values['mean'])} (one seed)"
    return f"{points(values['mean'])} [{points(values['t_low'])}, {points(values['t_high'])}] {values['verdict']}"


def headers(results: Record) -> list[str]:
    """The columns of `rows`."""
    return ["labels", "start", "mAP50-95", "mAP50", *(f"against {name}, points" for name in references(results))]


def markdown(results: Record) -> str:
    """The table for a README, with the sentence and how to read it."""
    head = headers(results)
    lines = [results["verdict"], "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(results)]
    seeds = len(results["settings"]["seeds"])
    lines += ["", f"{results['settings']['model']}, {seeds} seed{'s' * (seeds > 1)}, last epoch, {HOW}"]
    return "\n".join(lines) + "\n"


HOW = (
    "figures on the test images. ± and brackets are 95 % t intervals over seeds (label list, fresh weights, order of "
    "the images); brackets are of paired differences in mAP50-95, in points. Each interval is right 95 times in 100 by "
    "itself; of many, some miss by chance."
)


def table(results: Record) -> Table:
    """The table for a terminal."""
    shown = Table(title=None, caption=None, show_edge=False, pad_edge=False)
    for at, head in enumerate(headers(results)):
        shown.add_column(head, justify="right" if 1 < at < 4 else "left", no_wrap=at < 4)
    budget = ""
    for row in rows(results):
        if budget and row[0] != budget:
            shown.add_section()
        shown.add_row("" if row[0] == budget else row[0], *row[1:])
        budget = row[0]
    return shown
