"""What the detector that is handed back labels: counted, shown, and written as a data set where one is wanted."""

from __future__ import annotations

from pathlib import Path

import torch

from headstart.errors import UserError
from headstart.images.dataset_yaml import dataset_of
from headstart.images.index import ImageIndex
from headstart.jobs.export_labels import boxes_only, export_labels, free
from headstart.jobs.going_on import command
from headstart.jobs.labelled import RowReader
from headstart.jobs.prepare import Job
from headstart.methods.base import GivenLabels, Method
from headstart.pseudolabels.labelling import Detections, Labelling, told
from headstart.pseudolabels.pictures import write_labelled
from headstart.run.display import Filling
from headstart.run.folder import RunFolder
from headstart.settings.method_options import LabelOptions

SHOWN = 512
"""Images without labels that are labelled at the end of a run to be looked at, where no data set is wanted."""


def label_images(
    job: Job, method: Method, images: ImageIndex, reader: RowReader, folder: RunFolder, device: torch.device
) -> Labelling | UserError | None:
    """Label images as the detector that is handed back does; all processes of a run share them.

    Args:
        job: The pretraining.
        method: Trained; it is on the CPU afterwards.
        images: The run's.
        reader: Of the method; the training's own cache is closed.
        folder: Of the run, which is told of images that cannot be read.
        device: Where to compute.

    Returns:
        None where no labels are wanted, without any where all images have labels and these are to be written; why
        there are none, where images could not be read.
    """
    rows = _wanted(job, images)
    if not rows:
        return Labelling.split(Detections.join([]), 1.0) if _exports(job) else None
    reader.reader = None
    labelled: Labelling | UserError | None
    try:
        with Filling(label="labelling") as reader.progress:
            labelled = method.to(device).label(rows, job.run.export)
    except UserError as error:
        labelled = error
    method.to("cpu")
    reader.tell(folder)
    return labelled


def write_labels(
    job: Job, method: Method, labelled: Labelling | UserError, images: ImageIndex, folder: RunFolder
) -> tuple[list[str], UserError | None]:
    """Write ``teacher.json`` and what `Job.options` ask for.

    Args:
        job: The pretraining, with labels that were given.
        method: Trained.
        labelled: From `label_images`.
        images: The run's.
        folder: Of the run.

    Returns:
        What was done, in sentences; and why labels that are wanted could not be written.
    """
    if isinstance(labelled, UserError):
        return [], _not_written(labelled, command(folder.path, job.used()))
    given, options = job.given, job.options
    assert given is not None
    assert isinstance(options, LabelOptions)
    export, unlabelled, lines = options.export_labels, _unlabelled(images, given), []
    if unlabelled:
        counts, whole = labelled.counts(given.names), len(_wanted(job, images)) == len(unlabelled)
        folder.teacher({**method.teacher_record(), "handed_back": {**counts, "all": whole}})
        lines += [told(counts, "the detector that is handed back")] if export else []
        if job.run.report:
            failed = write_labelled(folder.path / "assets", labelled, images, given.names)
            lines += [f"picture {name} could not be drawn: {why}" for name, why in failed.items()]
    if not export:
        return lines, None
    try:
        return lines + _exported(job, Path(export), labelled, images, given), None
    except UserError as error:
        return lines, _not_written(error, command(folder.path, job.used()))


def _wanted(job: Job, images: ImageIndex) -> list[int]:
    """Rows of the images to be labelled: all that have no labels, or some of them to be looked at."""
    if not job.given or not isinstance(job.options, LabelOptions):
        return []
    rows = _unlabelled(images, job.given)
    if job.options.export_labels:
        return rows
    return rows[:: max(1, -(-len(rows) // SHOWN))] if job.run.report else []


def _exports(job: Job) -> bool:
    return job.given is not None and isinstance(job.options, LabelOptions) and bool(job.options.export_labels)


def _unlabelled(images: ImageIndex, given: GivenLabels) -> list[int]:
    known = set(given.rows.tolist())
    return [row for row in range(len(images)) if row not in known]


def _exported(job: Job, path: Path, labelled: Labelling, images: ImageIndex, given: GivenLabels) -> list[str]:
    if not free(path):  # a finished run that is gone on with: they may have been corrected
        return [f"labels:    {path} is there already, and stays as it is"]
    assert isinstance(job.options, LabelOptions)
    dataset, task = dataset_of(str(job.options.labels)), job.detector.task
    held_out = {part: dataset.paths(part) for part in ("val", "test") if part in dataset.parts}
    written = export_labels(path, images, given, labelled, held_out, task=task, keypoints=dataset.keypoints())
    yours = f"{written.given:,} of them labelled by you"
    if len(given.rows) == len(images):
        yours = "all labelled by you: the teacher had nothing to label"
    left_out = [f"{written.unsure:,} on which the teacher is sure of nothing"] if written.unsure else []
    left_out += [f"{written.unread:,} that cannot be read"] if written.unread else []
    listed = f"{' and '.join(left_out)} stand in left_out.csv" if left_out else ""
    parts = (yours, listed, boxes_only(task, given))
    return [
        f"labels:    {path}, an Ultralytics data set of {written.images:,} images, {'; '.join(filter(None, parts))}"
    ]


def _not_written(error: UserError, again: str) -> UserError:
    """What to do where labels could not be written at the end of a run that is otherwise whole."""
    hint = f"the run itself is whole; where there is room, {again} writes them"
    return type(error)(error.what, where=error.where or "export_labels", hint=hint)
