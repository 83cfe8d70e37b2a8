"""What a pretraining came to, for ``settings.yaml``: images, steps, devices, arithmetic, detector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from headstart.images.dataset_yaml import SUFFIXES
from headstart.images.index import ImageIndex
from headstart.jobs.finetune_file import NAME, commands, finetune_settings
from headstart.jobs.prepare import Job
from headstart.jobs.together import shared_facts
from headstart.jobs.used_files import labels_mark
from headstart.machine import Arithmetic


def facts_of(job: Job, images: ImageIndex, steps: int, fabric: Fabric, arithmetic: Arithmetic) -> dict[str, Any]:
    """What "auto" and the data became.

    Args:
        job: The pretraining.
        images: Those that it learns from; where a time budget allowed no more, some of the job's.
        steps: In all.
        fabric: Device and precision.
        arithmetic: How the network is computed.
    """
    detector = job.detector
    return {
        "images": len(images),
        "images_fingerprint": job.images.fingerprint(),
        "steps": steps,
        "epochs": round(steps * job.run.batch_size / len(images), 2),
        "device": str(fabric.device),
        "precision": str(fabric._precision.precision),
        "channels_last": arithmetic.channels_last,
        "compile": arithmetic.compile,
        **shared_facts(job.run),
        **found_of(job),
        "detector": {
            "name": detector.name,
            "architecture": _architecture(job),
            **_commands(job),
            "task": detector.task,
            "trained": detector.trained,
            "classes": len(detector.names),
            "channels": detector.channels,
            "backbone": {"stride": detector.backbone.stride, "width": detector.backbone.width},
            "levels": [{"stride": level.stride, "width": level.width} for level in detector.levels],
        },
    }


def _architecture(job: Job) -> str:
    model = job.run.model
    own = isinstance(model, (str, os.PathLike)) and Path(model).suffix in SUFFIXES and Path(model).is_file()
    return os.fspath(model) if own else job.detector.architecture


def _commands(job: Job) -> dict[str, str]:
    """What can be done with the checkpoint, for the report: ``RUN`` stands for the run's folder, which may move."""
    folder = Path("RUN")
    advised = finetune_settings(job) is not None
    return commands(job, folder / "headstart.pt", folder / NAME if advised else None)


def found_of(job: Job) -> dict[str, Any]:
    """Whether the objects that are found fit, and are learnt from; what the batch was chosen by; a mark of labels."""
    fit, trial, used = job.fit, job.trial, job.declared.method.needs.pseudolabels
    found: dict[str, Any] = {"objects": {**fit.as_dict(), "used": used}} if fit else {}
    found |= {"labels_mark": labels_mark(job.given)} if job.given else {}
    return found | ({"batch_trial": trial.as_dict()} if trial else {})
