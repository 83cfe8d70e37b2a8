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
    names = list(dict.fromkeys(one["reference"] for one in found))
    parts = [_in_short([one for one in found if one["reference"] == name], first=name == names[0]) for name in names]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if not text.startswith(found[0]["start"]) else f"{text}."


def _in_short(found: Sequence[Record], first: bool) -> str:
    """One start against one reference: the budgets put together by what was found, with the range of what was seen."""
    groups: dict[str, list[Record]] = {}
    for one in found:
        groups.setdefault(one["map50_95"]["verdict"], []).append(one)
    parts = []
    for kind, of in groups.items():
        seeds = len(of[0]["seeds"])
        unable = f"{seeds} seeds cannot tell" if seeds > 1 else "one seed cannot tell"
        words = {"helped": "it helped", "hurt": "it hurt", "cannot tell": unable}[kind]
        parts.append(f"{words} with {_and([labels(one['budget']) for one in of])} ({_evidence(of, kind, first)})")
    subject = (
        f"{found[0]['start']} against {found[0]['reference']}: " if first else f"against {found[0]['reference']}: "
    )
    return subject + ", and ".join(parts)


def _and(words: Sequence[str]) -> str:
    """``1%, 5% and 20% of the labels``: what the words have in common at their end is said once."""
    if len(words) > 1 and all(word.endswith("% of the labels") for word in words):
        words = [*(word.removesuffix(" of the labels") for word in words[:-1]), words[-1]]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _evidence(found: Sequence[Record], kind: str, unit: bool) -> str:
    """The differences and their intervals, of one budget or of several."""
    values = [one["map50_95"] for one in found]
    word = " points of mAP50-95" if unit else " points"
    low, high = (points(pick(value["mean"] for value in values)) for pick in (min, max))
    text = f"{low}{word}" if low == high else f"{low} to {high}{word}"
    if any(value["t_low"] is None for value in values):
        return f"{text}; give 3 seeds or more"
    if len(found) == 1:
        text += f", 95 % interval {points(values[0]['t_low'])} to {points(values[0]['t_high'])}"
    else:
        where = {"helped": "above zero", "hurt": "below zero", "cannot tell": "around zero"}[kind]
        text += f", every 95 % interval {where}"
    if kind == "cannot tell" and (counts := [value["seeds_needed"] for value in values if value["seeds_needed"]]):
        many = f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else str(counts[0])
        text += f"; about {many} seeds would tell, if it is real"
    return text


def headline(results: Record) -> list[Record]:
    """The differences that the sentence is about: those of the last checkpoint given, else of COCO, else the last."""
    kinds = {start["name"]: start["kind"] for start in results["starts"]}
    compared = list(dict.fromkeys(one["start"] for one in results["differences"]))
    for kind in ("checkpoint", "coco"):
        if of_kind := [name for name in compared if kinds[name] == kind]:
            return about(results, of_kind[-1])
    return about(results, compared[-1]) if compared else []


def about(results: Record, start: str) -> list[Record]:
    """The differences between one start and its references, COCO's first: what one would take without pretraining."""
    found = [one for one in results["differences"] if one["start"] == start]
    return sorted(found, key=lambda one: one["reference"] != "coco")


def pair_sentence(found: Sequence[Record]) -> str:
    """One start against one reference, its budgets put together by what was found."""
    groups: dict[str, list[Record]] = {}
    for one in found:
        groups.setdefault(one["map50_95"]["verdict"], []).append(one)
    words = {"helped": "helped", "hurt": "hurt", "cannot tell": "cannot tell"}
    parts = [f"{words[kind]} {', '.join(_budget(one) for one in of)}" for kind, of in groups.items()]
    return f"{found[0]['start']} against {found[0]['reference']}: {', '.join(parts)}"


def few_objects(results: Record) -> str | None:
    """Which classes have so few test objects that a single one moves the mAP by a point or more; None: no class.

    One object of n changes the average precision of its class by about 1 / n, and the mAP by that over the classes.
    """
    # Those of a search for a rate were measured on a part of the labelled images, not on the test images.
    main = [one for one in results["cells"] if (one["kind"], one["state"]) == ("main", "done")]
    done = [one["classes"] for one in main if one.get("classes")]
    if not done:
        return None
    classes = done[0]
    few = sorted((one for one in classes if len(classes) * one["objects"] <= 100), key=lambda one: int(one["objects"]))
    if not few:
        return None
    listed = ", ".join(f"{one['name']} {one['objects']}" for one in few[:5]) + (" and others" if len(few) > 5 else "")
    most = 100 / len(classes) / few[0]["objects"]
    return (
        f"{len(few)} of {len(classes)} classes have so few test objects ({listed}) that a single one, found or missed, "
        f"moves mAP50-95 by about a point or more, up to {most:.1f}: more test images make these figures firmer"
    )


def _budget(one: Record) -> str:
    values = one["map50_95"]
    where = f"with {labels(one['budget'])}"
    if values["t_low"] is None:
        return f"{where} ({points(values['mean'])} points, but one seed has no interval: give 3 or more)"
    if not any(values["differences"]):
        return f"{where} (no difference in any seed)"
    text = f"{where} ({points(values['mean'])} points, {points(values['t_low'])} to {points(values['t_high'])}"
    return f"{text}{f'; {needed(values)}' if values['verdict'] == 'cannot tell' else ''})"


def labels(budget: str) -> str:
    """A budget in words: ``5% of the labels``, ``200 labelled images``."""
    return f"{budget} of the labels" if budget.endswith("%") else f"{budget} labelled images"


def needed(values: Record) -> str:
    """How many seeds it would take to tell."""
    if values["seeds_needed"] is None:
        return "too small to be told by any practical number of seeds"
    return f"about {values['seeds_needed']} seeds would tell, if it is real"


def points(share: float | None) -> str:
    """A difference in mAP as points of a hundred, with its sign; three digits where it is small."""
    if share is None:
        return "–"
    digits = 1 if abs(share) >= 0.01 else 2
    return f"{share * 100:+.{digits}f}".replace("-", "−")


def rows(results: Record, gap: str = " ") -> list[tuple[str, ...]]:
    """Budget, start, mAP50-95 with interval, mAP50, difference to each reference with verdict and interval."""
    found = []
    for one in results["scores"]:
        scores = (_score(one["map50_95"]), f"{one['map50']['mean']:.3f}")
        against = {d["reference"]: d for d in results["differences"] if _same(d, one)}
        cells = [_difference(against.get(name), gap) for name in references(results)]
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


def _difference(one: Record | None, gap: str) -> str:
    if one is None:
        return ""
    values = one["map50_95"]
    if values["t_low"] is None:
        return f"{points(values['mean'])}{gap}one seed"
    return f"{points(values['mean'])} {values['verdict']}{gap}[{points(values['t_low'])}, {points(values['t_high'])}]"


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
    lines += [f"\n{few}."] if (few := few_objects(results)) else []
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
        shown.add_column(head.replace(", points", ""), justify="right" if 1 < at < 4 else "left", no_wrap=at < 4)
    budget = ""
    for row in rows(results, gap="\n"):
        if budget and row[0] != budget:
            shown.add_section()
        shown.add_row("" if row[0] == budget else row[0], *row[1:])
        budget = row[0]
    return shown
