"""The model card: what the weights are, how they were made, what is known of them, and under which license."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headstart.comparison.records import Results
from headstart.detectors.base import Detector
from headstart.errors import printable
from headstart.report.run_reader import FoundRun

AGPL = (
    "Ultralytics publishes its models and code under AGPL-3.0, or under an enterprise license of its own; its "
    "checkpoints say so themselves. Weights that were made from its models, or are used with its code, fall under that "
    "license. The images that they learnt from may have terms of their own."
)
_KINDS = {1: "gray", 3: "RGB"}
_LICENSES = {"AGPL-3.0": "agpl-3.0", "BSD-3-Clause": "bsd-3-clause"}
_OPTIONS = ("method", "preset", "teacher", "proposals", "labels", "lr", "batch", "imgsz", "seed")
_PATHS = {"teacher", "proposals", "labels"}


@dataclass(frozen=True)
class Known:
    """What a card is written from.

    Attributes:
        detector: Of which the backbone is.
        format: Of the file.
        file: Its name.
        checked: What was compared after writing, a sentence.
        use: Lines of Python that load it.
        run: The pretraining; None for a checkpoint of which nothing else is known.
        comparison: One that is named; None for none.
    """

    detector: Detector
    format: str
    file: str
    checked: str
    use: str
    run: FoundRun | None = None
    comparison: Results | None = None


def card(known: Known) -> str:
    """The text of ``README.md``: a head of YAML, as model hubs read it, and sections."""
    detector = known.detector
    license = _LICENSES.get(detector.license, "other")
    head: dict[str, Any] = {"library_name": {"timm": "timm"}.get(known.format, known.format), "license": license}
    head |= {"tags": ["object-detection", "backbone", "headstart"]}
    level, images = detector.backbone, _KINDS.get(detector.channels, f"of {detector.channels} channels")
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# Backbone of {text(detector.name)}\n",
        f"`{known.file}`: the backbone alone, up to its last map ({level.width} channels, stride {level.stride}). "
        f"Images are {images}, float, in [0, 1]{_normalized(known)}; sides are multiples of {level.stride}.\n",
        f"```python\n{known.use}\n```\n",
        f"{known.checked}\n",
        "## How it was made\n",
        *_made(known),
        "## What is known of it\n",
        *_probes(known.run),
        *_verdict(known.comparison),
        "## License\n",
        f"{AGPL if detector.license == 'AGPL-3.0' else _other(detector)}\n",
    ]
    return "\n".join(parts)


def _normalized(known: Known) -> str:
    """What is to be done to images in [0, 1] before they are given to what the file holds."""
    if known.format == "timm":
        return ", less timm's mean and divided by its deviation"
    # An ONNX graph is the whole trunk, which normalizes; tensors are those of the layers behind that.
    if known.format == "onnx" or known.detector.license == "AGPL-3.0":
        return ""
    return ", normalized as the detector's own transform does"


def _made(known: Known) -> list[str]:
    """Data, method, steps and options of the pretraining."""
    run = known.run
    if run is None:
        weights = "trained weights" if known.detector.trained else "random weights"
        return [f"From a checkpoint with {weights}; how it was made is not known here.\n"]
    steps = run.column("step")
    done = int(steps[-1]) if len(steps) else None
    rows = [("data", f"{_names(run.option('data'))}, {_count(run.option('images'))} images")]
    rows += [("steps", f"{done:,} of {_count(run.option('steps'))}" if done else "not known")]
    rows += [("started from", _start(run))]
    given = {name: run.option(name) for name in _OPTIONS}
    rows += [
        (name, _names(value) if name in _PATHS else text(value)) for name, value in given.items() if value is not None
    ]
    versions = run.settings.get("versions")
    if isinstance(versions, Mapping):
        names = ("headstart", "torch", "ultralytics", "torchvision")
        rows.append(("versions", ", ".join(f"{name} {text(versions[name])}" for name in names if name in versions)))
    rows.append(("handed back", _handed_back(run)))
    return ["| | |\n|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]


def _start(run: FoundRun) -> str:
    """What the run began with. An object that was made from a YAML may have been trained since: the run knows."""
    init, model, detector = run.option("init"), run.option("model"), run.option("detector")
    if init:
        return _names(init)
    trained = detector.get("trained") if isinstance(detector, dict) else None
    random = str(model).endswith((".yaml", ".yml")) if trained is None else not trained
    return _names(model) + (" (random weights)" if random else "")


def _handed_back(run: FoundRun) -> str:
    if not run.hand_back:
        return "not known"
    lines = run.hand_back.get("lines")
    said = "; ".join(map(text, lines)) if isinstance(lines, list) else ""
    return said if run.hand_back.get("ok") else f"NOT WHOLE: {said}"


def _names(value: Any) -> str:
    """Last names of paths: where a machine keeps its files is nobody's business."""
    named = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(text(Path(str(one)).name) if one is not None else "not known" for one in named)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _probes(run: FoundRun | None) -> list[str]:
    """The last probes, and those before the first step."""
    names = sorted(name for name in run.metrics if name.startswith("probe_")) if run else []
    rows = []
    for name in [one for one in names if not one.endswith("_start")]:
        assert run is not None
        last, start = _last(run, name), _last(run, f"{name}_start")
        if last is not None:
            rows.append(
                f"| {text(name.removeprefix('probe_'))} | {'' if start is None else f'{start:.4g}'} | {last:.4g} |"
            )
    if not rows:
        return ["No probe was taken.\n"]
    said = "Probes of the features (they order starts poorly where these are near each other):\n"
    return [said, "| probe | before | at the end |\n|---|---|---|", *rows, ""]


def _last(run: FoundRun, name: str) -> float | None:
    values = [float(one) for one in run.column(name) if math.isfinite(one)]
    return values[-1] if values else None


def _verdict(comparison: Results | None) -> list[str]:
    if comparison is None:
        return ["No comparison is named: whether it is better than another start is not known from this card.\n"]
    trusted = "" if comparison.trusted else " (checks of it failed)"
    return [f"Of a comparison on {_names(comparison.data.yaml)}{trusted}: {text(comparison.verdict)}\n"]


def _other(detector: Detector) -> str:
    known = f"The code and published weights of this family are under {detector.license}." if detector.license else ""
    return f"{known} The images that they learnt from may have terms of their own.".strip()


def text(value: Any) -> str:
    """A value as it stands in a table: what came from a file is no markup, and one line."""
    plain = " ".join(printable(str(value)).split())
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", plain)


def python_of(format: str, file: str, timm: str = "") -> str:
    """Lines that load a file."""
    if format == "onnx":
        session = f'session = onnxruntime.InferenceSession("{file}")'
        return f'import onnxruntime\n\n{session}\n(features,) = session.run(None, {{"images": images}})'
    if format == "timm":
        return f'import timm\n\nmodel = timm.create_model("{timm}", num_classes=0, checkpoint_path="{file}")'
    return f'from safetensors.torch import load_file\n\nstate = load_file("{file}")  # by the names of the detector'
