"""``finetune.yaml`` of a run: settings of the detector's own trainer, each with a comment on what it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from headstart.detectors.base import Advised, Detector
from headstart.files import write_text

NAME = "finetune.yaml"


def write_settings(detector: Detector, folder: Path, imgsz: int) -> Path | None:
    """Write the file into the run's `folder`; None where the detector's trainer reads none."""
    settings = detector.finetune_settings(imgsz)
    if settings is None:
        return None
    path = folder / NAME
    command = detector.how_to_train(folder / "headstart.pt", path)
    write_text(path, f"# {command}\n" + text(settings))
    return path


def text(settings: Mapping[str, Advised]) -> str:
    """The lines of the file."""
    blocks = []
    for name, advised in settings.items():
        comment = textwrap.fill(advised.why, 118, initial_indent="# ", subsequent_indent="# ")
        blocks.append(f"{comment}\n{yaml.safe_dump({name: advised.value})}")
    return "\n".join(["", *blocks])
