"""``finetune.yaml`` of a run: settings of the detector's own trainer, each with a comment on what it rests on."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from headstart.detectors.base import Advised
from headstart.errors import UserError
from headstart.files import write_text
from headstart.images.dataset_yaml import SUFFIXES, dataset_of
from headstart.images.frames import file_of
from headstart.images.members import is_address, is_shard_name, split
from headstart.jobs.prepare import Job
from headstart.settings.method_options import DetectionSettings, LabelOptions

NAME = "finetune.yaml"


def finetune_settings(job: Job) -> Mapping[str, Advised] | None:
    """The settings; None where the detector's trainer reads none."""
    # Where left and right tell classes apart, they do so in the training that follows, too.
    flip = job.options.flip if isinstance(job.options, DetectionSettings) else None
    if job.given:
        return job.detector.finetune_settings(job.run.imgsz, len(job.given.rows), detects=True, flip=flip)
    return job.detector.finetune_settings(job.run.imgsz, flip=flip)


def write_settings(job: Job, folder: Path) -> Path | None:
    """Write the file into the run's `folder`; None where the detector's trainer reads none."""
    settings = finetune_settings(job)
    if settings is None:
        return None
    path = folder / NAME
    command = _train(job, folder / "headstart.pt", path)
    heading = "".join(f"# {line}\n" for line in command.splitlines())  # a folder's name may have several
    write_text(path, heading + text(settings), "backslashreplace")
    return path


def how_to_go_on(job: Job, checkpoint: Path, settings: Path | None) -> list[str]:
    """What can be done with the checkpoint of a run: one of the user's classes finds objects at once."""
    found = commands(job, checkpoint, settings)
    named = {"predict": "predict:  ", "train": "fine-tune:"}
    return [f"{named[key]} {command}" for key, command in found.items()]


def commands(job: Job, checkpoint: Path, settings: Path | None) -> dict[str, str]:
    """How a checkpoint finds objects (``predict``, where it can), and how a training starts from it (``train``)."""
    predict = job.detector.how_to_predict(checkpoint, _some_images(job)) if job.given else ""
    return {**({"predict": predict} if predict else {}), "train": _train(job, checkpoint, settings)}


def _train(job: Job, checkpoint: Path, settings: Path | None) -> str:
    labels = job.options.labels if isinstance(job.options, LabelOptions) else None
    data = labels if labels and _trained_on(job, labels) else "your.yaml"
    return job.detector.how_to_train(checkpoint, settings, data)


def _trained_on(job: Job, labels: str) -> bool:
    """Whether a trainer takes the dataset YAML as it is: it reads files, and ends where there is no ``val``."""
    try:
        parts = dataset_of(labels).parts
    except UserError:  # taken away while the run was at work
        return False
    if "val" not in parts or any(map(_is_shard, (*parts.get("train", ()), *parts["val"]))):
        return False
    rows = job.given.rows.tolist() if job.given and job.images.shards else []  # a list may name members of shards
    return not any(split(job.images.path(row)) for row in rows)


def _is_shard(name: str) -> bool:
    return is_address(name) or is_shard_name(name)


def _some_images(job: Job) -> str:
    """A source that a trainer's ``predict`` takes: it looks into no folder of a folder, and into no shard."""
    sources = [one for one in job.images.sources if Path(one).suffix.lower() not in SUFFIXES]
    first = sources[0].rstrip(os.sep) if sources else ""
    if os.path.isfile(first) and not is_shard_name(first):  # noqa: PTH113 - may be an address
        return first
    within = ""
    for path in job.images if first else ():
        file = file_of(path)
        folder = "" if _is_shard(file) else os.path.dirname(file)  # noqa: PTH120 - of many
        if folder == first:
            return first
        if folder.startswith(first + os.sep):
            within = min(within or folder, folder)
    return within or "your/images"


def text(settings: Mapping[str, Advised]) -> str:
    """The lines of the file."""
    blocks = []
    for name, advised in settings.items():
        comment = textwrap.fill(advised.why, 118, initial_indent="# ", subsequent_indent="# ")
        blocks.append(f"{comment}\n{yaml.safe_dump({name: advised.value})}")
    return "\n".join(["", *blocks])
