"""``finetune.yaml`` of a run: settings of the detector's own trainer, each with a comment on what it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from headstart.detectors.base import Advised
from headstart.files import write_text
from headstart.images.dataset_yaml import SUFFIXES
from headstart.jobs.prepare import Job
from headstart.settings.method_options import LabelOptions

NAME = "finetune.yaml"


def write_settings(job: Job, folder: Path) -> Path | None:
    """Write the file into the run's `folder`; None where the detector's trainer reads none."""
    if job.given:
        settings = job.detector.finetune_settings(job.run.imgsz, len(job.given.rows), detects=True)
    else:
        settings = job.detector.finetune_settings(job.run.imgsz)
    if settings is None:
        return None
    path = folder / NAME
    command = job.detector.how_to_train(folder / "headstart.pt", path, _data(job))
    heading = "".join(f"# {line}\n" for line in command.splitlines())  # a folder's name may have several
    write_text(path, heading + text(settings), "backslashreplace")
    return path


def how_to_go_on(job: Job, checkpoint: Path, settings: Path | None) -> list[str]:
    """What can be done with the checkpoint of a run: one of the user's classes finds objects at once."""
    sources = [one for one in job.images.sources if Path(one).suffix.lower() not in SUFFIXES]
    predict = job.detector.how_to_predict(checkpoint, sources[0] if sources else "your/images") if job.given else ""
    train = job.detector.how_to_train(checkpoint, settings, _data(job))
    return [*([f"predict:   {predict}"] if predict else []), f"fine-tune: {train}"]


def _data(job: Job) -> str:
    """The dataset YAML of the user's labels, where the run had any."""
    return (isinstance(job.options, LabelOptions) and job.options.labels) or "your.yaml"


def text(settings: Mapping[str, Advised]) -> str:
    """The lines of the file."""
    blocks = []
    for name, advised in settings.items():
        comment = textwrap.fill(advised.why, 118, initial_indent="# ", subsequent_indent="# ")
        blocks.append(f"{comment}\n{yaml.safe_dump({name: advised.value})}")
    return "\n".join(["", *blocks])
