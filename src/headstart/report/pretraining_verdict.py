"""What a pretraining came to, in sentences: did it work, what was handed back, what to do next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.report.run_reader import FoundRun
from headstart.report.teacher_labels import drifted, learned_labels, often_wrong, teacher_sentence
from headstart.run.display import NO_BREAK, duration
from headstart.run.health import WARMUP, Health
from headstart.settings.resolve import in_memory

_JUDGED = (
    "loss", "teacher_entropy", "teacher_entropy_max", "feature_spread", "spread_alarm",
    "probe_rankme", "probe_rankme_start", "probe_knn", "probe_knn_start", "weight_growth",
)  # fmt: skip
PARTS = ("backbone", "neck", "head")
_NAMED = 5
"""How many lost tensors a sentence names."""


@dataclass(frozen=True)
class Step:
    """Something to do next: why, and the command for it."""

    why: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """The run in short.

    Attributes:
        tone: ``good``, ``warn``, ``bad`` or ``calm``, for its color.
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
    """Tensors of one part of the detector.

    Attributes:
        name: backbone, neck or head.
        total: How many it has.
        trained: How many of them were pretrained.
        back: How many of these arrived.
    """

    name: str
    total: int
    trained: int
    back: int


@dataclass(frozen=True)
class Lost:
    """A tensor that did not arrive, and why."""

    name: str
    reason: str


def judge(run: FoundRun) -> Verdict:
    """The verdict on `run`, from its metrics, events and hand-back."""
    health, replayed = _replay(run)
    written = [event for event in run.events if event.get("kind") == "alarm" and isinstance(event.get("step"), int)]
    alarms = [(event["step"], str(event["message"])) for event in written] or replayed
    tone, label, finding = _finding(run, health, bool(replayed))
    if not_back(run) and label != "Blown up":
        tone, label = "bad", "Not finite" if not_finite(run) else "Not handed back whole"
    if not run.finished and tone != "bad":
        tone, label = ("warn", "Not finished") if len(run.column("step")) else ("calm", "Nothing logged yet")
    objects, misled = _objects(run)
    if misled and tone in ("good", "calm"):
        tone, label = "warn", "Doubtful objects"
    if drifted(run) and tone in ("good", "calm"):
        tone, label = "warn", "Teacher drifted"
    elif often_wrong(run) and tone in ("good", "calm"):
        tone, label = "warn", "Teacher mostly wrong"
    sentences = [_what(run), teacher_sentence(run), finding, objects, _handed_back(run)]
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
    if "weights" in health.active:
        return "bad", "Blown up", "The weights grew beyond bounds: do not expect them to help."
    if health.active:
        return "bad", "Collapsed", "At the end a collapse alarm was sounding: do not expect these weights to help."
    if steps[-1] < WARMUP + 1 or len(steps) < health.patience:
        return "calm", "Too short to judge", f"A collapse shows after {WARMUP} steps or more; this is too early to say."
    if not {"teacher_entropy", "feature_spread"} & run.metrics.keys():
        return (
            "calm",
            "Not measured",
            "The method logged neither teacher entropy nor feature spread: a collapse would not be seen.",
        )
    if alarmed:
        return "warn", "Recovered", "A collapse alarm sounded on the way and was over by the end."
    return "good", "No collapse", "There was no sign of collapse at any step."


def _objects(run: FoundRun) -> tuple[str, bool]:
    """What is to be said of objects that do not fit the images, and whether they were learnt all the same."""
    found = run.option("objects")
    if not isinstance(found, dict) or found.get("fits") is not False:
        return "", False
    said = str(found.get("found", ""))
    if not found.get("used"):
        return f"It was not taught objects, for {said}.", False
    return (
        f"Beware: {said}. What it learnt as objects need not be things, and true ones were taught as background: look "
        "at the clusters below; method=pyramid needs no objects.",
        True,
    )


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
    time = f" in {duration(run.seconds, gap=NO_BREAK)}" if run.seconds else ""
    # What was trained elsewhere, on labels, and led this training.
    led = [f"{name}={run.option(name)}" for name in ("teacher", "proposals") if run.option(name)]
    parts = [learned_labels(run), f"led by {' and '.join(led)}" if led else ""]
    how = f", {', '.join(filter(None, parts)) or 'without a label'},"
    return f"Trained on {many}{f' from {data}' if data else ''}{how} for {done} steps{time}."


def _handed_back(run: FoundRun) -> str:
    """What arrived in headstart.pt, counted there, of what was pretrained."""
    kept = [f"{part.back:,} of {part.total:,} {part.name} tensors" for part in parts_back(run) if part.trained]
    if not kept:
        return ""
    if not_back(run):
        lost, broken = [one.name for one in dropped(run)], not_finite(run)
        wrong = [f"{len(lost)} tensors did not arrive as they should: {_some(lost)}"] if lost else []
        wrong += (
            [f"{len(broken)} tensor{'s hold' if len(broken) > 1 else ' holds'} a NaN or an infinity: {_some(broken)}"]
            if broken
            else []
        )
        missing = "; ".join(wrong) or "the check failed"
        return f"{' and '.join(kept)} arrived pretrained in headstart.pt, but {missing}. Do not fine-tune from it."
    return f"{' and '.join(kept)} went back into headstart.pt, read back and compared."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def not_back(run: FoundRun) -> bool:
    """Whether the check of the hand-back failed, by its own word or by the tensors that it names."""
    return run.hand_back.get("ok") is False or bool(dropped(run) or not_finite(run))


def not_finite(run: FoundRun) -> list[str]:
    """The tensors that hold a NaN or an infinity."""
    listed = run.hand_back.get("not_finite")
    return [str(name) for name in listed] if isinstance(listed, list) else []


def dropped(run: FoundRun) -> list[Lost]:
    """The tensors that did not arrive."""
    listed = run.hand_back.get("dropped")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [Lost(str(one.get("name", "?")), str(one.get("reason", ""))) for one in found]


def parts_back(run: FoundRun) -> list[PartBack]:
    """The hand-back by part, as far as ``handback.json`` tells."""
    parts, listed = run.hand_back.get("parts"), run.hand_back.get("dropped")
    lost = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = []
    for name in PARTS:
        counts = parts.get(name) if isinstance(parts, dict) else None
        numbers = [counts.get(key) for key in ("total", "trained")] if isinstance(counts, dict) else []
        whole = [number for number in numbers if isinstance(number, int)]
        if len(whole) == 2:
            gone = sum(one.get("part") == name and bool(one.get("trained")) for one in lost)
            found.append(PartBack(name, whole[0], whole[1], max(0, whole[1] - gone)))
    return found


def _next_steps(run: FoundRun, tone: str) -> list[Step]:
    resume = shlex.join(["headstart", "pretrain", "resume=true", f"out={_near(run.path)}"])
    if not run.finished and tone != "bad":
        return [Step("Go on where it stopped:", resume)]
    if not_back(run) and not not_finite(run):  # those are in the last checkpoint, too
        why = (
            "Tensors of the pretrained detector are missing in headstart.pt: a training from it would begin with other "
            "weights. Hand it back again, from the last checkpoint; where that fails too, report it with handback.json:"
        )
        return [Step(why, resume)]
    if tone == "bad":
        return [_again(run)]
    detector = run.option("detector")
    known = detector if isinstance(detector, dict) else {}
    model = known.get("architecture") or known.get("name") or Path(str(run.option("model", "yolo11n"))).stem
    labels = run.option("labels")
    commands = _recorded(run, known, str(labels or "your.yaml"))
    if labels:
        return _with_classes(run, commands, str(labels), str(model))
    start = _listed("starts", ["scratch", "coco", f"ssl={_near(run.path)}"])
    return [
        Step("Fine-tune on your labels:", commands["train"]),
        Step(
            "No collapse means that something was learnt; whether it helps your detector, only a comparison says. "
            "The same training from random weights, from COCO and from here:",
            shlex.join(["headstart", "compare", "data=your.yaml", f"model={model}", start]),
        ),
    ]


def _recorded(run: FoundRun, detector: Mapping[str, Any], data: str) -> dict[str, str]:
    """``train`` and ``predict`` as the run recorded them; Ultralytics' own, where an older one did not."""
    task, weights = str(detector.get("task", "detect")), f"model={_near(run.path / 'headstart.pt')}"
    settings = run.path / "finetune.yaml"
    cfg = [f"cfg={_near(settings)}"] if settings.is_file() else []
    folders = [one for one in sources(run) if not one.endswith((".yaml", ".yml"))]
    commands = {
        "train": shlex.join(["yolo", task, "train", *cfg, f"data={data}", weights]),
        "predict": shlex.join(["yolo", task, "predict", weights, f"source={[*folders, 'your/images'][0]}"]),
    }
    return commands | {name: _here(str(detector[name]), run) for name in commands if name in detector}


def _with_classes(run: FoundRun, commands: Mapping[str, str], labels: str, model: str) -> list[Step]:
    """What to do with a detector that has the user's classes, for it has learned from labels."""
    own = f"mine={_near(run.path / 'settings.yaml')}"
    recipe = [_listed("starts", ["coco", "coco-longer", own, "mine-as-is"])]
    recipe += [f"imgsz={size}"] if (size := run.option("imgsz")) else []
    why = (
        "Whether the images without labels helped, only a comparison says. This run as a recipe, made anew from "
        "each list of labels, fine-tuned and as it is, against COCO's weights fine-tuned for as many steps:"
    )
    compare = shlex.join(["headstart", "compare", f"data={labels}", f"model={model}", *recipe])
    if lost := _in_memory(run):
        files = ", ".join(f"{name}: {file or 'the path of one'}" for name, file in lost.items())
        why = (
            f"Whether the images without labels helped, only a comparison says. {_objects_of(lost)} in memory, which a "
            f"recipe cannot be: copy {_near(run.path / 'settings.yaml')}, name a file there below asked: ({files}), "
            "and give headstart compare the copy as a start, such as mine=copy.yaml."
        )
    return [
        Step("It has your classes, and finds objects as it is:", commands["predict"]),
        Step("Fine-tune it on your labels:", commands["train"]),
        Step(why, "" if lost else compare),
    ]


def _listed(option: str, items: Sequence[str]) -> str:
    """A list as one types it: with quotation marks where a comma is in one of them."""
    plain = not any("," in one for one in items)
    return f"{option}={','.join(items) if plain else json.dumps(items, ensure_ascii=False)}"


def _in_memory(run: FoundRun) -> dict[str, str]:
    """What was asked for as an object in memory, with the file that can be named in its place; "" where none is known.

    The detector is kept in the run's folder as the run began with it, and may be another by now where it came from.
    """
    asked = run.settings.get("asked")
    lost = {name: value for name, value in asked.items() if in_memory(value)} if isinstance(asked, dict) else {}
    files = {name: str(value.get("origin") or "") for name, value in lost.items()}
    start = run.path / "start.pt"
    return files | ({"model": _near(start)} if "model" in files and start.is_file() else {})


def _objects_of(lost: Mapping[str, str]) -> str:
    return f"Of this run {' and '.join(lost)} {'was an object' if len(lost) == 1 else 'were objects'}"


def _again(run: FoundRun) -> Step:
    """The run once more, with all that was asked for but the rate."""
    lr = run.option("lr")
    rate = float(f"{lr / 3:.1g}") if isinstance(lr, (int, float)) else 3e-4
    # All that was asked for stays; the rate that is recorded is that of the run's batch already.
    asked = [f"cfg={_near(run.path / 'settings.yaml')}"]
    given = asked if isinstance(run.settings.get("asked"), dict) else [f"data={one}" for one in sources(run)]
    folder = run.path.resolve()  # drawn from inside it, it is "."
    lost, out = _in_memory(run), _near(folder.with_name(f"{folder.name}-2"))
    if not all(lost.values()):
        return Step(
            "Pretrain again, at a third of the learning rate, and from Python, as this run was begun: "
            f"{_objects_of(lost)} in memory, which no command can name. What changes: lr={rate:g}, lr_for=None, "
            f"out={out!r}."
        )
    words = [*given, *(f"{name}={file}" for name, file in lost.items())]
    words += [f"lr={rate:g}", "lr_for=none", f"out={out}"]
    return Step("Pretrain again, at a third of the learning rate:", shlex.join(["headstart", "pretrain", *words]))


def _here(command: str, run: FoundRun) -> str:
    """A command of ``settings.yaml``, where ``RUN`` stands for the folder of the run."""
    for name in ("headstart.pt", "finetune.yaml"):
        path = _near(run.path / name)
        command = command.replace(f"'RUN/{name}'", repr(path)).replace(f"RUN/{name}", shlex.quote(path))
    return command


def sources(run: FoundRun) -> list[str]:
    """What was given as data."""
    data = run.option("data") or []
    return [str(one) for one in data] if isinstance(data, Sequence) and not isinstance(data, str) else [str(data)]


def _near(path: Path) -> str:
    """`path` as one would type it: relative where it lies below the current folder."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def text_of(value: Any) -> str:
    """A setting's value as a user would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
