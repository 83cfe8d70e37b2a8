"""A backbone for other tools, checked, with a model card: ``headstart export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headstart.aside import Contents
from headstart.comparison.results import read_results
from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.export import formats
from headstart.export.card import Known, card, python_of
from headstart.files import OwnedFolder, write_text
from headstart.paths import expanded
from headstart.report.run_reader import FoundRun, find_run
from headstart.settings.tools import ExportSettings
from headstart.trust import granted

CARD = "README.md"
"""The model card; it is written last, so that an export without is not whole."""
CONTENTS = Contents(
    what="an export",
    mark="export.json",
    files=("export.json", CARD, "model.safetensors", "model.onnx"),
    folders=(),
)
"""What an export writes, and so all that overwrite=true may remove."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: It holds the file, ``README.md`` and ``export.json``.
        file: The backbone.
        checked: What was compared after writing, a sentence.
    """

    folder: Path
    file: Path
    checked: str

    def lines(self) -> list[str]:
        """The same in words."""
        return [f"{self.file}: {self.checked}", f"model card: {self.folder / CARD}"]


def export(s: ExportSettings) -> Exported:
    """Write the backbone of a run or a checkpoint in a format, check it, and write its model card.

    Raises:
        UserError: Nothing can be exported from what was named, or a package is missing.
        RunError: What was written is not what the detector gives.
    """
    checkpoint, run = _source(expanded(s.source))
    if problem := formats.missing(s.format):
        raise problem
    comparison = read_results(Path(s.comparison)) if s.comparison else None
    folder = OwnedFolder(expanded(s.out) if s.out else checkpoint.with_name(f"export-{s.format}"), CONTENTS)
    if refused := folder.refusal():
        raise refused
    if folder.replacing:  # what was to replace it was killed
        folder.take()
        folder.put_back()
        folder.release()
    if folder.begun and (folder.path / CARD).is_file() and not s.overwrite:
        raise UserError(
            "holds an export already", where=f"out={folder.path}", hint="add overwrite=true, or choose another"
        )
    with granted(s.trust):
        detector = load_detector(str(checkpoint), where="source", channels=None)
    detector.module.cpu()
    if s.format == "timm":
        detector.timm_backbone()  # or it says why there is none, before anything is written
    folder.take()
    try:
        if folder.begun:
            folder.set_aside()
        made = _written(s, folder.path, checkpoint, detector, run, comparison)
    except BaseException:
        _taken_back(folder)  # half an export is none
        raise
    folder.replaced()
    folder.release(trace=False)  # it is to be given away
    return made


def _taken_back(folder: OwnedFolder) -> None:
    """Leave what was there before."""
    if not folder.replacing:
        folder.discard()
        return
    folder.put_back()
    folder.release(trace=False)


def _source(path: Path) -> tuple[Path, FoundRun | None]:
    """The checkpoint, and the run that made it, where it lies in one's folder."""
    checkpoint = path / "headstart.pt" if path.is_dir() else path
    if not checkpoint.is_file():
        hint = "give the folder of a finished run, or a .pt"
        raise UserError(
            "holds no headstart.pt" if path.is_dir() else "there is no such file", where=str(path), hint=hint
        )
    own = checkpoint.name == "headstart.pt" and (checkpoint.parent / "settings.yaml").is_file()
    return checkpoint, find_run(checkpoint.parent) if own else None


def _written(
    s: ExportSettings, folder: Path, checkpoint: Path, detector: Detector, run: FoundRun | None, comparison: Any
) -> Exported:
    about = {"name": detector.name, "from": checkpoint.name, "format": s.format, "headstart": version("headstart")}
    write_text(folder / CONTENTS.mark, json.dumps(about, indent=1) + "\n")
    file = folder / ("model.onnx" if s.format == "onnx" else "model.safetensors")
    checked, timm = _backbone(s, file, detector, about)
    use = python_of(s.format, file.name, timm)
    known = Known(detector, s.format, file.name, checked, use, run, comparison)
    write_text(folder / CARD, card(known))
    return Exported(folder, file, checked)


def _backbone(s: ExportSettings, file: Path, detector: Detector, about: dict[str, Any]) -> tuple[str, str]:
    """Write the file; what was compared, and the name of the model in timm."""
    if s.format == "onnx":
        worst = formats.write_onnx(file, detector.trunk(), s.imgsz, detector.backbone.stride, detector.channels)
        words = (
            f"Checked: onnxruntime gives torch's maps at two sizes and batches, to {worst:.1g} of their greatest value."
        )
        return words, ""
    if s.format == "timm":
        name = formats.write_timm(file, detector, about)
        return f"Checked: timm's {name} takes every tensor, and gives the maps of the detector.", name
    state = formats.backbone_state(detector)
    formats.write_safetensors(file, state, about)
    return f"Checked: all {len(state)} tensors were read back bit by bit.", ""
