"""Features of images and boxes as Parquet, near-duplicates, and what to label next: ``headstart embed``."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.embedding import neighbors, selection, tables
from headstart.embedding.features import Box, Described, Describer
from headstart.embedding.neighbors import Features
from headstart.errors import UserError, few
from headstart.files import explained, write_atomically
from headstart.images.dataset_yaml import DatasetYaml, dataset_of
from headstart.images.frames import file_of
from headstart.images.index import ImageIndex, find_images
from headstart.images.judges import judges_among
from headstart.images.labels import expected, is_there, keypoints_for, label_path, read_labels, survey
from headstart.images.members import split
from headstart.images.resolved import Resolver
from headstart.images.shards import save_image
from headstart.jobs.csv_files import write_csv
from headstart.jobs.export_labels import file_names
from headstart.jobs.labelled import RowReader
from headstart.jobs.named_model import checkpoint
from headstart.launch.cores import loader_workers
from headstart.launch.group import threads_for
from headstart.machine import parse_device
from headstart.paths import expanded
from headstart.pseudolabels.search import Search
from headstart.run.display import Filling
from headstart.settings.method_options import ProposalOptions
from headstart.settings.tools import EmbedSettings
from headstart.trust import granted


@dataclass
class Embedded:
    """What was written.

    Attributes:
        files: The files, by what they hold.
        images: Images with features.
        boxes: Boxes with features.
        skipped: Path of each image that could not be read, and why.
        pairs: Near-duplicates.
        near: Distance below which two images are near-duplicates; None where the pool is too small to say.
        chosen: Images to label next, in order.
        notes: What is worth knowing, in sentences.
    """

    files: dict[str, Path]
    images: int = 0
    boxes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    pairs: int = 0
    near: float | None = None
    chosen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The same in words."""
        said = [f"{self.files['images']}: features of {self.images:,} images"]
        if "boxes" in self.files:
            said.append(f"{self.files['boxes']}: features of {self.boxes:,} boxes")
        far = "the pool is too small to say what is usual" if self.near is None else f"nearer than {self.near:.3g}"
        said.append(f"{self.files['duplicates']}: {self.pairs:,} pairs of near-duplicates ({far})")
        if "next" in self.files:
            said.append(f"{self.files['next']}: {len(self.chosen):,} images to label next")
        said.append(f"{self.files['skipped']}: {len(self.skipped):,} images could not be read")
        return [*said, *self.notes]


@dataclass(frozen=True)
class _Given:
    """What the user labelled.

    Attributes:
        dataset: Its YAML.
        boxes: Row of each labelled image -> its boxes.
        to_mend: Rows of images that a trainer leaves out for errors in their label files.
        notes: What of the labels has no use.
    """

    dataset: DatasetYaml
    boxes: dict[int, list[Box]]
    to_mend: frozenset[int]
    notes: tuple[str, ...] = ()


@threads_for(1)
def embed(s: EmbedSettings) -> Embedded:
    """Describe images and the boxes on them, and write what follows from it beside the features.

    Images are read in batches, features are written as they come, and kept in a temporary file: memory does not grow
    with the number of images.

    Raises:
        UserError: pyarrow is missing, a file is there already, or what was named cannot be used.
    """
    files = _files(s)
    device = torch.device(str(parse_device(s.device)))
    images = find_images(s.data, labels=s.labels or None, every=s.every)
    given = _labelled(s.labels, images) if s.labels else None
    with granted(s.trust):
        detector = load_detector(checkpoint(s.model), channels=images.channels)
    detector.module.to(device)
    made = Embedded(files, skipped=list(images.skipped), notes=[*images.notes, *(given.notes if given else ())])
    uncertain = _uncertain(s, detector, given)
    if not detector.trained:
        made.notes.append(f"{s.model} has random weights: its features say little")
    search = _search(s, detector, made, device)
    describe = Describer(detector, level=s.level, imgsz=s.imgsz, device=device, search=search, uncertain=uncertain)
    workers = loader_workers(s.workers, device)  # what waits to be described takes memory, too
    reader = RowReader(images, workers, skipped=made.skipped, together=describe.together)
    with explained(files["images"]):
        files["images"].parent.mkdir(parents=True, exist_ok=True)
        kept = tempfile.TemporaryFile(dir=files["images"].parent)  # noqa: SIM115 - of a folder that may refuse it
    with kept, Filling(label="describing images") as reader.progress:
        found = _described(describe, reader, images, given, made, _about(s, detector))
        rows, features, uncertainty = _kept(found, files, kept)
        _write_duplicates(s, images, rows, features, made, device)
        if s.next:
            _write_next(s, images, rows, features, uncertainty, given, made, device)
    write_csv(files["skipped"], ["image", "reason"], made.skipped)
    for path in _older(files["images"], files):
        path.unlink(missing_ok=True)
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Before anything is read
# ---------------------------------------------------------------------------------------------------------------------


def _files(s: EmbedSettings) -> dict[str, Path]:
    """The files that are written, by what they hold.

    Raises:
        UserError: They cannot be, or are there already.
    """
    out = expanded(s.out)
    if out.suffix != ".parquet":
        raise UserError(f"must end in .parquet, not {s.out!r}", where="out")
    if problem := tables.missing():
        raise problem
    files = {"images": out, "duplicates": _beside(out, "duplicates.csv"), "skipped": _beside(out, "skipped.csv")}
    files |= {"boxes": _beside(out, "boxes.parquet")} if s.boxes else {}
    files |= {"next": _beside(out, "next.csv")} if s.next else {}
    if there := [path for path in (*files.values(), *_older(out, files)) if path.exists() and not s.overwrite]:
        raise UserError(f"{there[0]} is there already", where="out", hint="give another name, or overwrite=true")
    saved = _beside(out, "next")
    if s.next and saved.exists() and not (saved.is_dir() and not any(saved.iterdir())):
        hint = "move it away, with the labels that it may hold: images to label, of shards and videos, are saved there"
        raise UserError(f"{saved} is there already", where="out", hint=hint)
    for path in files.values():
        _sweep(path)
    return files


def _older(out: Path, files: Mapping[str, Path]) -> list[Path]:
    """What this call does not write, and an earlier one may have: it is of other features."""
    return [path for name in ("boxes.parquet", "next.csv") if (path := _beside(out, name)) not in files.values()]


def _sweep(path: Path) -> None:
    """Remove what a killed process has left of a file: features of very many images may be gigabytes."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = left.name.split(".")[-2]
        with suppress(OSError):
            if number.isdecimal() and not _runs(int(number)):
                left.unlink()


def _runs(process: int) -> bool:
    """Whether there is a process of this number here; where that cannot be asked, there may be."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}.{name}")


def _labelled(labels: str, images: ImageIndex) -> _Given:
    """The labels of the images of a dataset's train part that have a label file."""
    dataset, resolved = dataset_of(labels), Resolver()
    row_of = {resolved(path): row for row, path in enumerate(images)}
    classes, keypoints = len(dataset.class_names()), keypoints_for("", dataset.keypoints())
    train = list(find_images([], labels=str(dataset.file)))
    there = [path for path in train if is_there(label_path(path))]
    if not there:
        what = "none of the images of train has a label file"
        raise UserError(what, where=str(dataset.file), hint=expected(train[0]))
    known = survey(there, classes, keypoints)  # an image that a trainer leaves out is not labelled
    found: dict[int, list[Box]] = {}
    for path in known.classes:
        rows = read_labels(label_path(path), classes, keypoints).rows
        found[row_of[resolved(path)]] = [Box(row.box, "label", label=row.label) for row in rows]
    if not found:
        raise UserError(f"none of the label files of train can be used: {known.notes[0]}", where=str(dataset.file))
    to_mend = frozenset(row_of[resolved(path)] for path in known.dropped)
    if not to_mend:
        return _Given(dataset, found, to_mend, known.notes)
    told = (
        f"{len(to_mend):,} of {len(there):,} images of train have errors in their label files: "
        f"{few(known.errors)}. They are described as images without labels, and are not among those to "
        "label next: mend them"
    )
    return _Given(dataset, found, to_mend, (told, *known.ineffective))


def _uncertain(s: EmbedSettings, detector: Detector, given: _Given | None) -> bool:
    """Whether the uncertainty of the model's classes is looked at.

    Raises:
        UserError: It is wanted, and the model's head gives no classes.
    """
    if not s.next or s.uncertainty is False:
        return False
    if s.uncertainty == "auto":
        own = tuple(detector.names.values())
        if given is None or not detector.trained or own != given.dataset.class_names():
            return False
    try:
        detector.class_head()
    except UserError as error:
        if s.uncertainty == "auto":
            return False
        raise UserError(error.what, where="uncertainty", hint="leave uncertainty= out") from None
    return True


def _search(s: EmbedSettings, detector: Detector, made: Embedded, device: torch.device) -> Search | None:
    """What of the model's own detections counts as an object; None where it gives none, or none are wanted."""
    if not s.boxes:
        return None
    try:
        detector.propose(torch.zeros(1, detector.channels, 64, 64, device=device))
    except UserError:
        made.notes.append(
            f"{detector.name} ({detector.task}) finds no objects of its own: boxes are those of labels alone"
        )
        return None
    return Search.of(ProposalOptions(proposal_imgsz=s.imgsz), 0)


def _about(s: EmbedSettings, detector: Detector) -> dict[str, Any]:
    """What the features are of."""
    levels = [detector.backbone] if s.level == "backbone" else detector.levels
    widths = [level.width for level in levels]
    about = {"model": s.model, "name": detector.name, "level": s.level, "widths": widths, "imgsz": s.imgsz}
    return {**about, "headstart": version("headstart")}


# ---------------------------------------------------------------------------------------------------------------------
# The images, batch by batch
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stream:
    """Batches of what is described, and what is written of them."""

    parts: Iterable[Described]
    images: ImageIndex
    given: _Given | None
    made: Embedded
    about: dict[str, Any]


def _described(
    describe: Describer,
    reader: RowReader,
    images: ImageIndex,
    given: _Given | None,
    made: Embedded,
    about: dict[str, Any],
) -> _Stream:
    batches = reader(range(len(images)), 2 * describe.imgsz**2)
    labels = given.boxes if given and "boxes" in made.files else None
    return _Stream((describe(batch, labels) for batch in batches), images, given, made, about)


def _kept(found: _Stream, files: dict[str, Path], kept: Any) -> tuple[list[int], Features, dict[int, float]]:
    """Write the tables; the features are kept in a file as well, to be compared with each other.

    Returns:
        Rows of the index that have features, these ``(N, D)``, and the uncertainty of each row, where it is known.
    """
    rows: list[int] = []
    uncertainty: dict[int, float] = {}
    width = sum(found.about["widths"])

    def write(images: Path, boxes: Path | None) -> None:
        table = tables.Tables(images, boxes, width, found.about)
        for part in found.parts:
            labelled = [found.given is not None and row in found.given.boxes for row in part.rows]
            table.write(part, [found.images.path(row) for row in part.rows], labelled)
            kept.write(part.features.float().contiguous().numpy().tobytes())
            rows.extend(part.rows)
            uncertainty.update(zip(part.rows, part.uncertainty or [], strict=False))
            found.made.images += len(part.rows)
            found.made.boxes += sum(map(len, part.boxes))
        kept.flush()  # here, where a full disk is said in words
        table.close()

    if "boxes" in files:
        write_atomically(files["images"], lambda one: write_atomically(files["boxes"], lambda two: write(one, two)))
    else:
        write_atomically(files["images"], lambda one: write(one, None))
    with explained(files["images"]):  # what earlier features led to: stopped here, it would be taken for these ones'
        for name in files.keys() - {"images", "boxes"}:
            files[name].unlink(missing_ok=True)
    if not rows:
        raise UserError("no image can be read of those that are there", where="data", hint="look at the files")
    features: Features = np.memmap(kept, np.float32, "r", shape=(len(rows), width))
    return rows, features, uncertainty


def _write_duplicates(
    s: EmbedSettings, images: ImageIndex, rows: Sequence[int], features: Features, made: Embedded, device: torch.device
) -> None:
    near = neighbors.nearest(features, device)
    made.near = s.near if s.near is not None else neighbors.threshold(near)
    pairs = [] if made.near is None else neighbors.duplicates(near, made.near)
    made.pairs = len(pairs)
    lines = [(images.path(rows[one]), images.path(rows[two]), f"{far:.5f}") for one, two, far in pairs]
    write_csv(made.files["duplicates"], ["image", "other", "distance"], lines)


def _write_next(
    s: EmbedSettings,
    images: ImageIndex,
    rows: Sequence[int],
    features: Features,
    uncertainty: dict[int, float],
    given: _Given | None,
    made: Embedded,
    device: torch.device,
) -> None:
    # Those to mend are labelled soon, and by less work: what looks like them is not to be labelled either.
    labelled = [place for place, row in enumerate(rows) if given and (row in given.boxes or row in given.to_mend)]
    judges = judges_among(images, s.data, given.dataset) if given else set()
    if judges:
        made.notes.append(f"{len(judges):,} images of val or test are described, and not among those to label next")
    others = sorted(place for place in set(range(len(rows))) - set(labelled) if rows[place] not in judges)
    sure = [uncertainty.get(row, 0.0) for row in rows]
    candidates = selection.least_sure(sure, others, s.next) if uncertainty else others
    chosen = selection.k_center(features, s.next, labelled=labelled, candidates=candidates, device=device)
    made.chosen = [images.path(rows[one.row]) for one in chosen]
    _save_frames(made, _beside(expanded(s.out), "next"))
    lines = [
        (
            rank,
            path,
            "" if np.isinf(one.distance) else f"{one.distance:.5f}",
            f"{sure[one.row]:.4f}" if uncertainty else "",
        )
        for rank, (path, one) in enumerate(zip(made.chosen, chosen, strict=True), start=1)
    ]
    write_csv(made.files["next"], ["rank", "image", "distance", "uncertainty"], lines)


def _save_frames(made: Embedded, folder: Path) -> None:
    """The frames and members of shards among the images to label, as files that can be labelled."""
    parts = [path for path in made.chosen if file_of(path) != path]
    if not parts:
        return
    with explained(folder):
        folder.mkdir(exist_ok=True)
        for path, name in zip(parts, file_names(parts), strict=True):
            save_image(path, folder / name)
    shards = sum(split(path) is not None for path in parts)
    what = "in shards" if shards == len(parts) else "in shards or frames of videos" if shards else "frames of videos"
    made.notes.append(f"{folder}: {len(parts):,} of the images to label, which are {what}, saved as images")
