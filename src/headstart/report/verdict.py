"""What a pretraining came to, in sentences: did it work, what was handed back, what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.report.run_reader import FoundRun
from headstart.run import display
from headstart.run.health import WARMUP, Health

_JUDGED = (
    "loss", "teacher_entropy", "teacher_entropy_max", "feature_spread", "spread_alarm",
    "probe_rankme", "probe_rankme_start", "probe_knn", "probe_knn_start",
)  # fmt: skip
PARTS = ("backbone", "neck", "head")


@dataclass(frozen=True)
class Step:
    """Something to do next: why, and the command for it."""

    why: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """The run in short.

    Attributes:
        tone: ``good``, ``warn``, ``bad`` or ``calm``, for its colour.
        label: Two or three words.
        sentences: What was done, whether it collapsed, what was handed back.
        alarms: (step, sentence) of every alarm.
        next_steps: What to do now.
    """

    tone: str
    label: str
    sentences: list[str]
    alarms: list[tuple[int, str]]
    next_steps: list[Step]


@dataclass(frozen=True)
class PartBack:
    """Tensors of one part of the detector: how many it has, how many of them were pretrained."""

    name: str
    trained: int
    total: int


def judge(run: FoundRun) -> Verdict:
    """The verdict on `run`, from its metrics, events and hand-back."""
    health, replayed = _replay(run)
    written = [event for event in run.events if event.get("kind") == "alarm" and isinstance(event.get("step"), int)]
    alarms = [(event["step"], str(event["message"])) for event in written] or replayed
    tone, label, finding = _finding(run, health, bool(alarms))
    if not run.finished and tone != "bad":
        tone, label = ("warn", "Not finished") if len(run.column("step")) else ("calm", "Nothing logged yet")
    sentences = [_what(run), finding, _handed_back(run)]
    return Verdict(tone, label, [one for one in sentences if one], alarms, _next_steps(run, tone))


def _replay(run: FoundRun) -> tuple[Health, list[tuple[int, str]]]:
    """The alarms once more, from the metrics alone: which of them still sound at the end."""
    health, alarms = Health(), []
    columns = {name: run.metrics[name].tolist() for name in _JUDGED if name in run.metrics}
    for step, *values in zip(run.column("step").tolist(), *columns.values(), strict=True):
        said = health.update(int(step), dict(zip(columns, values, strict=True)))
        alarms += [(int(step), sentence) for sentence in said]
    return health, alarms


def _finding(run: FoundRun, health: Health, alarmed: bool) -> tuple[str, str, str]:
    """Tone, label and sentence on collapse."""
    steps = run.column("step")
    if not len(steps):
        return "calm", "Nothing logged yet", "No step has been logged, so there is nothing to judge yet."
    if "loss" in health.active:
        return "bad", "Blown up", "The loss stopped being a number: these weights are not usable."
    if health.active:
        return "bad", "Collapsed", "At the end a collapse alarm was sounding: do not expect these weights to help."
    if steps[-1] < WARMUP + 1 or len(steps) < health.patience:
        return "calm", "Too short to judge", f"A collapse shows after {WARMUP} steps or more; this is too early to say."
    if not {"teacher_entropy", "feature_spread"} & run.metrics.keys():
        return (
            "calm",
            "Not judged",
            "The method logged neither teacher entropy nor feature spread: collapse not judged.",
        )
    if alarmed:
        return "warn", "Recovered", "A collapse alarm sounded on the way and was over by the end."
    return "good", "No collapse", "There was no sign of collapse at any step."


def _what(run: FoundRun) -> str:
    """What was pretrained, on what, for how long."""
    images = run.option("images")
    many = f"{images:,} images" if isinstance(images, int) else "images"
    data = ", ".join(one if len(one) < 40 else "…/" + "/".join(Path(one).parts[-2:]) for one in sources(run)[:3])
    steps = run.column("step")
    done = f"{int(steps[-1]) if len(steps) else 0:,}"
    planned = run.option("steps")
    if isinstance(planned, int) and not run.finished:
        done += f" of {planned:,}"
    time = f" in {duration(run.seconds)}" if run.seconds else ""
    return f"Trained on {many}{f' from {data}' if data else ''}, without a label, for {done} steps{time}."


def _handed_back(run: FoundRun) -> str:
    parts = {part.name: part for part in parts_back(run)}
    kept = [f"{part.trained:,} of {part.total:,} {part.name} tensors" for part in parts.values() if part.trained]
    if not kept:
        return str(run.hand_back.get("summary") or "")
    return f"{' and '.join(kept)} went back into headstart.pt, which Ultralytics trains from."


def parts_back(run: FoundRun) -> list[PartBack]:
    """The hand-back by part, as far as ``handback.json`` tells."""
    parts = run.hand_back.get("parts", run.hand_back)
    found = []
    for name in PARTS:
        values = parts.get(name) if isinstance(parts, dict) else None
        if isinstance(values, dict):
            counts = [next((values[key] for key in keys if key in values), None) for keys in _COUNTS]
        else:
            counts = list(values) if isinstance(values, list) else []
        whole = [count for count in counts if isinstance(count, int)]
        if len(whole) == 2:
            found.append(PartBack(name, whole[0], whole[1]))
    return found


_COUNTS = (("trained", "pretrained", "arrived", "equal"), ("total", "tensors", "of"))


def _next_steps(run: FoundRun, tone: str) -> list[Step]:
    if not run.finished and tone != "bad":
        return [Step("Go on where it stopped:", f"headstart pretrain resume=true out={_shown(run.path)}")]
    if tone == "bad":
        return [Step("Pretrain again, at a third of the learning rate:", _again(run))]
    detector = run.option("detector")
    task = detector.get("task", "detect") if isinstance(detector, dict) else "detect"
    tune = f"yolo {task} train data=your.yaml model={_shown(run.path / 'headstart.pt')}"
    name = detector.get("name") if isinstance(detector, dict) else None
    model = name or Path(str(run.option("model", "yolo11n"))).stem
    return [
        Step("Fine-tune on your labels:", tune),
        Step(
            "No collapse means that something was learnt; whether it helps your detector, only a comparison says. "
            "The same training from random weights, from COCO and from here:",
            f"headstart compare data=your.yaml model={model} starts=scratch,coco,ssl={_shown(run.path)}",
        ),
    ]


def _again(run: FoundRun) -> str:
    given = {name: run.option(name) for name in ("model", "method", "preset", "init", "steps", "batch", "imgsz")}
    lr = run.option("lr")
    given["lr"] = float(f"{lr / 3:.1g}") if isinstance(lr, (int, float)) else 3e-4
    words = [f"data={one}" for one in sources(run)] + [
        f"{name}={one}" for name, one in given.items() if one is not None
    ]
    return shlex.join(["headstart", "pretrain", *words, f"out={_near(run.path)}-2"])


def sources(run: FoundRun) -> list[str]:
    """What was given as data."""
    data = run.option("data") or []
    return [str(one) for one in data] if isinstance(data, Sequence) and not isinstance(data, str) else [str(data)]


def _near(path: Path) -> str:
    """`path` as one would type it: relative where it lies below the current folder."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _shown(path: Path) -> str:
    return shlex.quote(_near(path))


def duration(seconds: float) -> str:
    """Seconds for people, with no-break spaces: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    return display.duration(seconds).replace(" ", "\N{NO-BREAK SPACE}")


def text_of(value: Any) -> str:
    """A setting's value as a user would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
