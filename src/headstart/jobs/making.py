"""The method of a pretraining, made with what it says that it needs."""

from __future__ import annotations

from headstart.jobs.labelled import RowReader
from headstart.jobs.prepare import Job
from headstart.jobs.search import teacher_of
from headstart.methods.anchor import Anchored
from headstart.methods.base import Context, Method
from headstart.pseudolabels.base import PseudoLabels
from headstart.settings.method_options import ProposalOptions


def make_method(job: Job, labels: PseudoLabels | None, rows: RowReader | None = None) -> Method:
    """The method on the job's detector.

    Args:
        job: The pretraining.
        labels: Pseudo-labels of its images, where it needs them.
        rows: Brings images, where it labels some.
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
        trained=detector.trained,
        read=rows,
    )
    method = job.declared.method(job.options, context)
    return Anchored(method, job.options.anchor) if job.options.anchor else method
