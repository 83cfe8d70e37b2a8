"""The method of a pretraining, made with what it says that it needs."""

from __future__ import annotations

import torch

from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.jobs.going_on import labelled_before
from headstart.jobs.labelled import RowReader
from headstart.jobs.prepare import Job
from headstart.jobs.search import teacher_of
from headstart.methods.anchor import Anchored
from headstart.methods.base import Context, Method
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.finder import Finder
from headstart.settings.method_options import LabellerOptions, ProposalOptions


def make_method(job: Job, labels: PseudoLabels | None, rows: RowReader | None = None, start: int = 0) -> Method:
    """The method on the job's detector.

    Args:
        job: The pretraining.
        labels: Pseudo-labels of its images, where it needs them.
        rows: Brings images, where it labels some.
        start: Steps that were done before.
    """
    detector, s = job.detector, job.run
    needs = job.declared.method.needs
    neck = needs.trains != "backbone"
    levels = detector.levels if neck else [detector.backbone]
    head = detector.class_head() if needs.labels else None
    if needs.trains == "all" and isinstance(job.options, ProposalOptions):
        head = detector.pseudolabel_head(job.options.clusters)
    context = Context(
        student=detector.trunk(neck=neck),
        widths=tuple(level.width for level in levels),
        imgsz=s.imgsz,
        local_imgsz=s.local_imgsz,
        batch=s.batch_size,
        seed=s.seed,
        teacher=teacher_of(job.options) if needs.teacher else None,
        pseudolabels=labels,
        head=head,
        given=job.given,
        from_scratch=detector.began_at_random,
        finder=None if rows is None else _finder(job, start),
        read=rows,
        export=s.export,
    )
    method = job.declared.method(job.options, context)
    return Anchored(method, job.options.anchor) if job.options.anchor else method


def _finder(job: Job, start: int) -> Finder | None:
    """What labels images the first time, where a detector for that is named and they are still to be labelled.

    No random number is drawn.

    Raises:
        UserError: It cannot be loaded, or nobody tells the classes of what it finds.
    """
    options = job.options
    if job.given is None or not isinstance(options, LabellerOptions) or options.proposals is None:
        return None
    if labelled_before(start, getattr(options, "burn_in", None), job.steps):
        return None
    with torch.random.fork_rng(devices=[]):
        detector = load_detector(options.proposals, where="proposals")
    imgsz = options.proposal_imgsz or detector.trained_imgsz or job.run.imgsz
    finder = Finder.of(detector, job.given.names, imgsz)
    if not finder.knows_classes and options.teacher is None:
        what = f"{finder.name} finds objects, but does not know your classes"
        hint = "give teacher= a network that names what it finds, or a detector of your classes"
        raise UserError(what, where="proposals", hint=hint)
    return finder
