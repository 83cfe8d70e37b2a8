"""What the detector that is handed back labels: counted, shown, and written as a data set where one is wanted."""

from __future__ import annotations

import shlex
from pathlib import Path

from headstart.errors import UserError
from headstart.images.index import ImageIndex
from headstart.jobs.export_labels import export_labels, free
from headstart.jobs.labelled import dataset_of
from headstart.jobs.prepare import Job
from headstart.methods.base import GivenLabels, Method
from headstart.pseudolabels.labelling import Labelling, told
from headstart.pseudolabels.pictures import write_labelled
from headstart.run.folder import RunFolder
from headstart.settings.schema import LabelOptions

SHOWN = 512
"""Images without labels that are labelled at the end of a run to be looked at, where no data set is wanted."""


def label_images(job: Job, method: Method, images: ImageIndex, folder: RunFolder) -> list[str]:
    """Label images as the detector that is handed back does; write ``teacher.json`` and what `Job.options` ask for.

    Args:
        job: The pretraining, with labels that were given.
        method: Trained, where it is to be computed.
        images: The run's.
        folder: Of the run.

    Returns:
        What was done, in sentences.

    Raises:
        UserError: The data set cannot be written.
    """
    given, options = job.given, job.options
    assert given is not None
    assert isinstance(options, LabelOptions)
    export = options.export_labels
    wanted = _unlabelled(images, given)
    rows = wanted if export else wanted[:: max(1, -(-len(wanted) // SHOWN))]
    if not rows or not (export or job.run.report):
        return []
    labelled = method.label(rows, job.run.export)
    if labelled is None:
        return []
    counts = labelled.counts(given.names)
    folder.teacher({**method.teacher_record(), "handed_back": {**counts, "all": len(rows) == len(wanted)}})
    lines = [told(counts, "the detector that is handed back")] if export else []
    if job.run.report:
        lines += _pictures(folder.path / "assets", labelled, images, given)
    return lines + (_exported(Path(export), str(options.labels), labelled, images, given) if export else [])


def _unlabelled(images: ImageIndex, given: GivenLabels) -> list[int]:
    known = set(given.rows.tolist())
    return [row for row in range(len(images)) if row not in known]


def _pictures(folder: Path, labelled: Labelling, images: ImageIndex, given: GivenLabels) -> list[str]:
    """Draw the sheets; a run that is finished stays so where that fails."""
    try:
        write_labelled(folder, labelled, images, given.names)
    except Exception as error:  # whatever drawing may raise
        return [f"pictures of the labels could not be drawn: {type(error).__name__}: {error}"]
    return []


def _exported(path: Path, labels: str, labelled: Labelling, images: ImageIndex, given: GivenLabels) -> list[str]:
    if not free(path):  # a finished run that is gone on with: they may have been corrected
        return [f"labels:    {path} is there already, and stays as it is"]
    dataset = dataset_of(labels)
    held_out = {part: dataset.paths(part) for part in ("val", "test") if part in dataset.parts}
    written, left_out = export_labels(path, images, given, labelled, held_out)
    return [
        f"labels:    {path}, an Ultralytics data set of {written:,} images, {len(given.rows):,} of them labelled by "
        f"you; {left_out:,} on which the teacher is sure of nothing stand in left_out.csv"
    ]


def not_written(error: UserError, folder: Path) -> UserError:
    """What to do where labels could not be written at the end of a run that is otherwise whole."""
    again = f"headstart pretrain resume=true out={shlex.quote(str(folder))}"
    hint = f"the run itself is whole; where there is room, {again} writes them"
    return UserError(error.what, where=error.where or "export_labels", hint=hint)
