"""Measure any checkpoint without training: ``headstart probe``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.images.index import ImageIndex, find_images
from headstart.jobs.signature import plain
from headstart.launch.group import threads_for
from headstart.machine import parse_device
from headstart.probes.probe import Samples, measured
from headstart.run.display import make_console
from headstart.settings.resolve import resolve_options
from headstart.settings.schema import ProbeSettings
from headstart.trust import granted


def probe(
    source: str | Path,
    data: Any,
    *,
    every: float = 0.5,
    images: int = 256,
    imgsz: int = 224,
    labels: bool = True,
    device: str | int = "cpu",
    trust: bool = False,
) -> dict[str, dict[str, float]]:
    """Measure the features of a finished run or of any checkpoint, without training.

    Args:
        source: A run folder (its ``headstart.pt``), a ``.pt``, or a model YAML (random weights, to compare with).
        data: Images, as for `headstart.pretrain`.
        every: Seconds between two frames of a video that are looked at, near-identical ones left out; 0: every frame.
        images: How many are looked at.
        imgsz: Side to which they are stretched, a multiple of 32.
        labels: Whether boxes that lie beside the images (``labels`` for ``images``) are used for the kNN.
        device: Where to compute: ``auto``, ``cpu``, ``cuda``, ``mps``, or one GPU, as ``0`` or ``cuda:0``.
        trust: Whether code that the checkpoint holds may run.

    Returns:
        Measures of the ``backbone`` (its last map) and of the ``neck`` (its last map; the kNN on all levels).

    Raises:
        UserError: No such run, checkpoint or image.
    """
    asked = {
        "source": source,
        "data": data,
        "every": every,
        "images": images,
        "imgsz": imgsz,
        "labels": labels,
        "device": device,
        "trust": trust,
    }
    s = resolve_options(ProbeSettings, plain(asked), "probe")
    device = str(parse_device(s.device))
    path = Path(s.source)
    if path.is_dir():
        path = path / "headstart.pt"
        if not path.is_file():
            hint = "a run hands its checkpoint back at the end; while it goes on, metrics.jsonl has its probes"
            raise UserError("holds no headstart.pt", where=str(source), hint=hint)
    index, detector = _both(s, path)
    imgsz, rounded = detector.fitting(s.imgsz)
    samples = Samples.read(index, number=s.images, imgsz=imgsz, labels=s.labels)
    said = [*index.notes, *([f"imgsz={rounded}"] if rounded else [])]
    if samples.skipped:
        file, reason = samples.skipped[0]
        told = f"{len(samples.skipped)} files could not be read, others were taken: {file} ({reason})"
        said.append(told + (", ..." if len(samples.skipped) > 1 else ""))
    for line in said:
        make_console(stderr=True, soft_wrap=True).print(line, markup=False)
    trunks = {part: detector.trunk(neck=part == "neck") for part in ("backbone", "neck")}
    with threads_for(1):
        return {part: measured(trunk.to(device), samples) for part, trunk in trunks.items()}


def _both(s: ProbeSettings, path: Path) -> tuple[ImageIndex, Detector]:
    """Images and detector; what is wrong with either is said together."""
    problems: list[UserError] = []
    index = detector = None
    try:
        index = find_images(s.data, every=s.every)
    except UserError as problem:
        problems.append(problem)
    try:
        with granted(s.trust):
            detector = load_detector(str(path), where="source", channels=index.channels if index else None)
    except UserError as problem:
        problems.append(problem)
    if index is None or detector is None:
        raise UserError.several(problems)
    return index, detector


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The measures of `probe` as lines of text."""
    names = list(dict.fromkeys(name for part in found.values() for name in part))
    head = f"{'':<14}" + "".join(f"{part:>12}" for part in found)
    rows = [
        f"{name.removeprefix('probe_'):<14}"
        + "".join(f"{part.get(name, float('nan')):>12.4g}" for part in found.values())
        for name in names
    ]
    return "\n".join([head, *rows])
