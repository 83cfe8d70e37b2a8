"""A comparison in a sentence, and as tables for the terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from headstart.comparison.records import Difference, Mean, Results
from headstart.comparison.reference import measured_against, reference_of, references_of, tested
from headstart.comparison.remarks import (
    COST_HEADERS,
    COST_NOTE,
    cost_rows,
    foreign,
    gaining,
    labels,
    listed,
    longer,
    made,
    measurable,
    worth,
)
from headstart.comparison.statistics import MOST_SEEDS, Paired


def sentence(results: Results) -> str:
    """What was found, for a manager: which start is better at which label budgets, by how much, how sure.

    Every claim is a 95 % interval of the paired difference over seeds; where it holds zero, it is inconclusive. A
    check that failed is said first, or, where it says that trainings are missing, last.
    """
    failed = results.failed_checks
    if not results.trusted:
        return f"These figures cannot be trusted: {failed[0].evidence}."
    found = headline(results)
    if len(results.starts) == 1:
        return f"Nothing is compared yet: {results.starts[0].name} is the only start. Another can be added."
    if not found:
        return "Nothing can be compared yet: no start and its reference were both trained with the same seed."
    names = list(dict.fromkeys(one.reference for one in found))
    parts = [_in_short([one for one in found if one.reference == name], first=name == names[0]) for name in names]
    more = _reference_gains(results, found)
    return f"{'; '.join(parts)}.{more}{f' Not complete: {failed[0].evidence}.' if failed else ''}"


def _reference_gains(results: Results, found: Sequence[Difference]) -> str:
    """Whether the reference had stopped gaining: said where a start is measured against it."""
    told = gaining(results)
    against = any(one.reference == results.gains[0].start for one in found) if told else False
    return f" {told}." if told and against else ""


def remarks(results: Results) -> list[str]:
    """What is said beside the verdict, each without a full stop; the labels that its start saves, if it is trusted."""
    told = [*_as_they_are(results), detectable(results), few_objects(results)]
    start = next((one.start for one in headline(results)), None)
    if results.trusted:
        told += [worth(one) for one in results.labels_worth if one.start == start]
    told += [f"{start.name}: {how}" for start in results.starts if (how := made(start) or longer(start))]
    told += [foreign(start) for start in results.starts]
    told += [measurable(results, start) for start in results.starts if start.name in tested(results)]
    return [one for one in told if one]


def _as_they_are(results: Results) -> list[str]:
    """What was found of starts that are measured as they are, where the verdict is about another one."""
    told = {one.start for one in headline(results)}
    others = [start.name for start in results.starts if start.as_is and start.name not in told]
    if not results.trusted:
        return []
    return [pair_sentence(pair) for name in others if (pair := _against_first(about(results, name)))]


def _against_first(found: Sequence[Difference]) -> list[Difference]:
    return [one for one in found if one.reference == found[0].reference]


def _in_short(found: Sequence[Difference], first: bool) -> str:
    """One start against one reference: the budgets put together by what was found, with the range of what was seen."""
    parts = []
    for of in _groups(found):
        seeds, verdict = len(of[0].seeds), of[0].map50_95.verdict
        alone = f" with {seeds} seed{'s' * (seeds > 1)}" if verdict == "inconclusive" else ""
        parts.append(f"{verdict}{alone} at {listed([labels(one.budget) for one in of])} ({_evidence(of, first)})")
    subject = f"{found[0].start} against {found[0].reference}: " if first else f"against {found[0].reference}: "
    return subject + ", and ".join(parts)


def _groups(found: Sequence[Difference]) -> list[list[Difference]]:
    """Differences of one verdict together; inconclusive ones of one number of seeds and one reason."""
    groups: dict[tuple[str, int, str], list[Difference]] = {}
    for one in found:
        values, key = one.map50_95, (one.map50_95.verdict, 0, "")
        if values.verdict == "inconclusive":
            why = _no_interval(values) if values.t_low is None else "" if values.seeds_needed else needed(values)
            key = (values.verdict, len(one.seeds), why)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _evidence(found: Sequence[Difference], unit: bool) -> str:
    """The differences and their intervals, of one budget or of several."""
    values = [one.map50_95 for one in found]
    word = " points of mAP50-95" if unit else " points"
    low, high = (points(pick(value.mean for value in values)) for pick in (min, max))
    text = f"{low}{word}" if low == high else f"{low} to {high}{word}"
    if lacking := next((value for value in values if value.t_low is None), None):
        return f"{text}; {_no_interval(lacking)}"
    if len(found) == 1:
        text += f", 95 % interval {interval(values[0])}"
    else:
        where = {"better": "above zero", "worse": "below zero", "inconclusive": "around zero"}[values[0].verdict]
        text += f", every 95 % interval {where}"
    counts = sorted(value.seeds_needed for value in values if value.seeds_needed)
    if counts and counts[0] != counts[-1]:
        return f"{text}; about {counts[0]} to {counts[-1]} seeds would show a difference of this size with 80 % power"
    return f"{text}; {needed(values[0])}" if values[0].verdict == "inconclusive" else text


def _no_interval(values: Paired) -> str:
    """Why a difference has no interval."""
    if len(values.differences) == 1:
        return "one seed has no interval: give 3 or more"
    return "the same in every seed" if values.mean else "no difference in any seed"


def headline(results: Results) -> list[Difference]:
    """The differences that the sentence is about.

    Those of the last start that is put to the test, one that was fine-tuned before one that is measured as it is; else
    of the reference, else of COCO, else the last.
    """
    compared = list(dict.fromkeys(one.start for one in results.differences))
    as_is = {start.name for start in results.starts if start.as_is}
    tuned = [name for name in tested(results) if name not in as_is]
    for of in (tuned, tested(results), [reference_of(results)], ["coco"]):
        if found := [name for name in compared if name in of]:
            return about(results, found[-1])
    return about(results, compared[-1]) if compared else []


def about(results: Results, start: str) -> list[Difference]:
    """The differences between one start and its references: the one that is measured against first, then the last."""
    found = [one for one in results.differences if one.start == start]
    order = list(dict.fromkeys([*measured_against(results), *references_of(results)[::-1]]))
    return sorted(found, key=lambda one: order.index(one.reference) if one.reference in order else len(order))


def pair_sentence(found: Sequence[Difference]) -> str:
    """One start against one reference, its budgets put together by what was found."""
    parts = [f"{of[0].map50_95.verdict} {', '.join(_budget(one) for one in of)}" for of in _groups(found)]
    return f"{found[0].start} against {found[0].reference}: {', '.join(parts)}"


def _budget(one: Difference) -> str:
    values, where = one.map50_95, f"at {labels(one.budget)}"
    if values.t_low is None:
        return f"{where} ({points(values.mean)} points; {_no_interval(values)})"
    more = f"; {needed(values)}" if values.verdict == "inconclusive" else ""
    return f"{where} ({points(values.mean)} points, {interval(values)}{more})"


def needed(values: Paired) -> str:
    """How many seeds it would take to show an inconclusive difference."""
    many = f"about {values.seeds_needed}" if values.seeds_needed else f"more than {MOST_SEEDS:,}"
    return f"{many} seeds would show a difference of this size with 80 % power"


def detectable(results: Results) -> str | None:
    """The size of a difference that the seeds at hand can show, with the spread that was seen; None without any."""
    found = [one for one in results.differences if one.map50_95.detectable is not None]
    if not found:
        return None
    sizes = sorted(100 * (one.map50_95.detectable or 0) for one in found)
    low, high = (
        f"{one:.1f}" if 0.05 <= one <= 100 else "less than 0.1" if one < 1 else "more than 100"
        for one in (sizes[0], sizes[-1])
    )
    seeds = sorted({len(one.seeds) for one in found})
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if sizes[0] > 100:
        return f"With {counts} seeds and the spread seen here no difference is shown with 80 % power: give more seeds"
    size = low if low == high else f"{low} to {high}, by start and budget,"
    return (
        f"With {counts} seeds and the spread seen here, a real difference of {size} points of mAP50-95 is shown with "
        "80 % power; a smaller one is often inconclusive"
    )


def few_objects(results: Results) -> str | None:
    """Which classes have so few test objects that a single one moves the mAP by a point or more; None: no class.

    One object of n changes the average precision of its class by about 1 / n, and the mAP by that over the classes.
    """
    # Those of a search for a rate were measured on a part of the labelled images, not on the test images.
    done = [cell.measured.class_scores for cell in results.finished() if cell.measured.class_scores]
    if not done:
        return None
    classes = [one for one in done[0] if one.objects]
    few = sorted((one for one in classes if len(classes) * one.objects <= 100), key=lambda one: one.objects)
    if not few:
        return None
    listed = ", ".join(f"{one.name} {one.objects}" for one in few[:5]) + (" and others" if len(few) > 5 else "")
    most = 100 / len(classes) / few[0].objects
    return (
        f"{len(few)} of {len(classes)} classes have so few test objects ({listed}) that a single one, found or missed, "
        f"moves mAP50-95 by about a point or more, up to {most:.1f}: more test images make these figures firmer"
    )


def points(share: float | None) -> str:
    """A difference in mAP as points of a hundred, with its sign; more digits where it is small."""
    if share is None:
        return "–"
    fitting = 1 if abs(share) >= 0.01 else 2
    # A verdict of "worse" beside an interval of -0.00 to -0.00 cannot be understood; scores have five digits.
    digits = fitting if f"{share * 100:.{fitting}f}".strip("-0.") else 3
    return f"{share * 100:+.{digits if share else fitting}f}".replace("-", "−")


def interval(values: Paired) -> str:
    """The 95 % t interval in points, or why there is none."""
    if values.t_low is None:
        return "one seed" if len(values.differences) == 1 else "same in every seed"
    return f"{points(values.t_low)} to {points(values.t_high)}"


def rows(results: Results, gap: str = " ") -> list[tuple[str, ...]]:
    """Budget, start, mAP50-95 with interval, mAP50, difference to each reference with verdict and interval.

    Figures that cannot be trusted have no verdict.
    """
    found = []
    for one in results.scores:
        against = {d.reference: d for d in results.differences if (d.start, d.budget) == (one.start, one.budget)}
        cells = [_difference(against.get(name), gap, results.trusted) for name in references(results)]
        done = len({cell.seed for cell in results.of(one.start, one.budget)})
        number = f" ({done} of {len(results.settings.seeds)} seeds)" if done < len(results.settings.seeds) else ""
        found.append((one.budget, one.start, f"{_score(one.map50_95)}{number}", f"{one.map50.mean:.3f}", *cells))
    return found


def references(results: Results) -> list[str]:
    """The starts that others are compared with."""
    return list(dict.fromkeys(one.reference for one in results.differences))


def _score(values: Mean) -> str:
    text = f"{values.mean:.3f}"
    return text if values.high is None else f"{text} ± {values.high - values.mean:.3f}"


def _difference(one: Difference | None, gap: str, trusted: bool) -> str:
    if one is None:
        return ""
    values = one.map50_95
    if values.t_low is None:
        return f"{points(values.mean)}{gap}{interval(values)}"
    verdict = f" {values.verdict}" if trusted else ""
    return f"{points(values.mean)}{verdict}{gap}[{points(values.t_low)}, {points(values.t_high)}]"


def headers(results: Results) -> list[str]:
    """The columns of `rows`."""
    return ["labels", "start", "mAP50-95", "mAP50", *(f"against {name}, points" for name in references(results))]


def markdown(results: Results) -> str:
    """The table for a README, with the sentence and how to read it."""
    lines = [results.verdict, "", *_table(headers(results), rows(results))]
    seeds = len(results.settings.seeds)
    lines += ["", f"{results.settings.model}, {seeds} seed{'s' * (seeds > 1)}. {measured_when(results)}{HOW}"]
    lines += [f"\n{one}." for one in remarks(results)]
    lines += ["", *_table(COST_HEADERS, cost_rows(results)), "", COST_NOTE] if results.costs else []
    lines += [f"\nFailed check: {check.claim}: {check.evidence}." for check in results.failed_checks]
    unknown = [check.claim for check in results.checks if check.outcome == "not known"]
    lines += [f"\nNot known: {'; '.join(unknown)}."] if unknown else []
    return ("\n".join(lines) + "\n").replace("<", "&lt;")  # in the names of classes and files, which would be markup


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (head, *body)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]


def measured_when(results: Results) -> str:
    """That figures are of the last epoch, where that was checked."""
    passed = any(check.key == "last epoch" and check.outcome == "passed" for check in results.checks)
    as_is = listed([start.name for start in results.starts if start.as_is])
    return f"Last epoch{f'; {as_is} before any' if as_is else ''}. " if passed else ""


HOW = (
    "Figures on the test images. ± and brackets are 95 % t intervals over seeds (label list, fresh weights, order of "
    "the images); brackets are of paired differences in mAP50-95, in points. Each interval is right 95 times in 100 by "
    "itself; of many, some miss by chance."
)


def table(results: Results) -> Table:
    """The table for a terminal."""
    shown = Table(title=None, caption=None, show_edge=False, pad_edge=False)
    for at, head in enumerate(headers(results)):
        shown.add_column(head.replace(", points", ""), justify="right" if 1 < at < 4 else "left", no_wrap=at < 4)
    budget = ""
    for row in rows(results, gap="\n"):
        if budget and row[0] != budget:
            shown.add_section()
        # Text: names of starts are no markup.
        shown.add_row(*(Text(cell) for cell in ("" if row[0] == budget else row[0], *row[1:])))
        budget = row[0]
    return shown
