"""What a teacher labelled, from ``teacher.json``: in a sentence for the verdict, and in tables for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.report.run_reader import FoundRun

NONE = "–"
LEAST = 10
"""Labels on held-out images from which something is said of how many are right."""


@dataclass(frozen=True)
class ClassRow:
    """A class of the user: its number, its name, labels that it was given; of the held-out labels how many were found,
    and of what was given on those images how many were right, each as ``"7 of 9"``; the score from which its boxes are
    kept, "" where it is that of all classes.
    """

    number: int
    name: str
    labels: int
    found: str
    right: str
    keep: str = ""


@dataclass(frozen=True)
class TeacherLabels:
    """The part of the page on a teacher's labels.

    Attributes:
        note: What was labelled, by which scores.
        header: Of the table of passes.
        passes: Its rows: when, and the numbers.
        judged: What precision and recall rest on.
        classes: Those with labels or held-out labels, most labels first.
        counted: Which labels the table of classes counts.
        without: Names of the classes that no image got.
    """

    note: str
    header: tuple[str, ...]
    passes: list[tuple[str, ...]]
    judged: str
    classes: list[ClassRow]
    counted: str
    without: list[str]


def teacher_labels(run: FoundRun) -> TeacherLabels | None:
    """The part of the page; None for a run in which no teacher has labelled anything yet."""
    passes, handed_back = _passes(run), _dict(run.teacher.get("handed_back"))
    if not passes and not handed_back:
        return None
    by = [str(one.get("by") or "") for one in passes]
    rows = [(_when(one), *_numbers(one)) for one in passes]
    if handed_back:
        part = "" if handed_back.get("all") else ", a part of the images"
        rows.append((f"in the end, as handed back{part}", *_numbers({**handed_back, **_in_the_end(run)})))
    keep, unsure = run.teacher.get("keep"), run.teacher.get("unsure")
    least = "the score of its class below" if keep == "class" else f"a score of {keep}"
    labellers = " and then by ".join(dict.fromkeys(who or "a moving average of the detector" for who in by or [""]))
    note = (
        f"The images without labels were labelled by {labellers}. A box with {least} "
        f"and more counts as an object, one below {unsure} as background; what lies between is left open, and nothing "
        "is taught there."
    )
    source = handed_back if handed_back.get("all") or not passes else passes[-1]
    counted = "in the end, as handed back" if source is handed_back else "in the last pass"
    classes, without = _classes(run, source, _dict(passes[-1].get("by_class")) if passes else {})
    header = ("Pass", "Images", "With labels", "Labels", "Left open", "Mean score", "Recall", "Precision")
    return TeacherLabels(note, header, rows, _judged(run), classes, counted, without)


def teacher_sentence(run: FoundRun) -> str:
    """What the teacher labelled and how far that agrees with held-out labels, for the verdict; "" without a teacher."""
    passes = _passes(run)
    if not run.teacher:
        return ""
    if not passes:
        return "" if run.finished else "No image has been labelled by the teacher yet."
    last = passes[-1]
    times = f" (the last of {len(passes)} passes)" if len(passes) > 1 else ""
    if not _count(last.get("labels")):
        who = last.get("by") or "its teacher"
        return f"Of {_count(last.get('images')):,} images {who} labelled none: they taught it nothing{times}."
    said = (
        f"{last.get('by') or 'Its teacher'} gave {_count(last.get('labels')):,} labels to "
        f"{_count(last.get('with_labels')):,} of "
        f"{_count(last.get('images')):,} images{times}"
    )
    recall, precision = _share(last.get("recall")), _share(last.get("precision"))
    if recall == NONE and precision == NONE:
        return f"{said}; no labels were held out, so nothing here says how many of them are right."
    held = _count(run.teacher.get("held_out"))
    given = f"{precision} of what it gave there was right" if precision != NONE else "it gave none there"
    return f"{said}; of the labels of {held:,} held-out images it found {recall}, and {given}."


def drifted(run: FoundRun) -> bool:
    """Whether the teacher has drifted: it was taken back, where there was a state to go back to."""
    return bool(run.teacher.get("drifted"))


def often_wrong(run: FoundRun) -> bool:
    """Whether more of its labels on the held-out images were wrong than right, in the last pass."""
    passes = _passes(run)
    judged = [_dict(one) for one in _dict(passes[-1].get("by_class")).values()] if passes else []
    given, right = (sum(_count(one.get(name)) for one in judged) for name in ("given", "right"))
    return given >= LEAST and 2 * right < given


def learned_labels(run: FoundRun) -> str:
    """``"297 of them labelled"`` of a run that learns from labels, as far as that is known; "" of others.

    Where no teacher has labelled anything, as where there is nothing to label, the run's settings say how many are.
    """
    known, settings = run.teacher.get("labelled"), run.option("labels")
    known = known if isinstance(known, int) else _dict(settings).get("images")
    if isinstance(known, int):
        return "all of them labelled" if known == run.option("images") else f"{known:,} of them labelled"
    return "some of them labelled" if settings else ""


def _passes(run: FoundRun) -> list[dict[str, Any]]:
    listed = run.teacher.get("passes")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _share(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, (int, float)) else NONE


def _when(one: Mapping[str, Any]) -> str:
    step = f"step {_count(one.get('step')):,}"
    return f"{step}, by {one['by']}" if one.get("by") else step


def _numbers(one: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (f"{_count(one.get(name)):,}" for name in ("images", "with_labels", "labels", "left_open"))
    score = one.get("mean_score")
    mean = f"{score:.2f}" if isinstance(score, (int, float)) else NONE
    return (*counts, mean, _share(one.get("recall")), _share(one.get("precision")))


def _judged(run: FoundRun) -> str:
    held = _count(run.teacher.get("held_out"))
    if not held:
        return "No labelled images were held out, so recall and precision are not known."
    passes = _passes(run)
    judged = _dict(passes[-1].get("by_class")) if passes else {}
    known = sum(_count(_dict(one).get("known")) for one in judged.values())
    step, steps = (_count(one) for one in (_in_the_end(run).get("step"), run.option("steps")))
    until = " until the last part of the training, before which it was judged in the end" if 0 < step < steps else ""
    return (
        f"{held:,} labelled images with {known:,} labels were held out{until}. Recall is the share of these labels "
        "that the teacher found (class right, IoU 0.5 or more), precision the share of what it gave on these images "
        "that is right."
    )


def _in_the_end(run: FoundRun) -> dict[str, Any]:
    """How far what is handed back agrees with held-out labels; empty where nobody knows, or it was taken back."""
    return {} if drifted(run) else _dict(run.teacher.get("judged"))


def _classes(run: FoundRun, source: Mapping[str, Any], judged: Mapping[str, Any]) -> tuple[list[ClassRow], list[str]]:
    listed, counts = run.teacher.get("names"), _dict(source.get("classes"))
    names = [str(name) for name in listed] if isinstance(listed, list) else list(counts)
    rows, keep = [], _dict(source.get("keep"))
    for number, name in enumerate(names):
        held, labels = _dict(judged.get(name)), _count(counts.get(name))
        known, given, right = (_count(held.get(key)) for key in ("known", "given", "right"))
        found = f"{right:,} of {known:,}" if known else NONE
        correct = f"{right:,} of {given:,}" if given else NONE
        score = keep.get(name)
        least = f"{score:.2f}" if isinstance(score, (int, float)) else ""
        if labels or known or given:
            rows.append(ClassRow(number, name, labels, found, correct, least))
    rows.sort(key=lambda row: (-row.labels, row.number))
    without = [name for name in names if not _count(counts.get(name))]
    return rows, without
