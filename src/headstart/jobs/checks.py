"""What is wrong with a pretraining's options that only a look at files and devices shows; nothing is loaded yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.detectors.find import check_init, check_model
from headstart.errors import UserError
from headstart.images.dataset_yaml import dataset_of
from headstart.images.index import check_sources
from headstart.jobs.export_labels import refusals
from headstart.launch.devices import processes
from headstart.methods.base import Method
from headstart.methods.namer import AUTO, left_open
from headstart.paths import expanded
from headstart.run.folder import refusal
from headstart.run.loggers import check_loggers
from headstart.settings.loggers import listed
from headstart.settings.schema import truth, which
from headstart.teachers.base import TeacherSource
from headstart.teachers.load import check_teacher


def check_run(given: Mapping[str, Any]) -> list[UserError]:
    """Problems of the options that every pretraining has."""
    problems: list[UserError] = []
    data = given.get("data")
    if isinstance(data, (str, os.PathLike)) or (isinstance(data, list) and all(isinstance(d, str) for d in data)):
        problems += check_sources(data)
    problems += check_model(given["model"])
    if isinstance(given.get("init"), str):
        problems += check_init(given["model"], given["init"])
    problems += check_sharing(given)
    loggers = listed(given.get("loggers"))
    problems += check_loggers(loggers) if isinstance(loggers, list) else []
    resuming, overwriting = truth(given.get("resume")), truth(given.get("overwrite"))
    if resuming and overwriting:
        problems.append(UserError("give one of the two, not both", where="resume, overwrite"))
    elif given.get("out") and not resuming and (refused := refusal(Path(str(given["out"])), overwrite=overwriting)):
        problems.append(refused)
    if given.get("out") and overwriting:
        problems += _would_be_removed(given)
    return problems


def _would_be_removed(given: Mapping[str, Any]) -> list[UserError]:
    """Files that the run starts from and lie in the run that it is to replace, with which they would go."""
    out = Path(str(given["out"])).resolve()
    problems = []
    for name in ("model", "init", "teacher", "teacher_weights", "proposals"):
        value = given.get(name)
        if isinstance(value, (str, os.PathLike)) and Path(value).is_file() and out in Path(value).resolve().parents:
            what = f"{value} lies in the run that overwrite=true replaces: it would be lost, and the run with it"
            problems.append(UserError(what, where=name, hint="give another out=, or copy that file elsewhere first"))
    return problems


def check_sharing(given: Mapping[str, Any]) -> list[UserError]:
    """Problems of the devices, and of the batch that they share."""
    try:
        nodes = given["nodes"] if isinstance(given["nodes"], int) else 1  # what is none is told elsewhere
        world = processes(given["device"], str(which(given["devices"])), nodes)
    except UserError as problem:
        return [problem]
    problems, batch, parts = [], given.get("batch"), given["accumulate"]
    if world > 1 and given.get("cache") == "ram":
        hint = "use cache=disk: what is on the disk the system keeps in memory, once for all of them"
        problems.append(UserError("is memory of one process", where="cache", hint=hint))
    if not (isinstance(batch, int) and isinstance(parts, int) and parts > 0):
        return problems
    shares = world * parts
    if shares > 1 and (batch % shares or batch < 2 * shares):  # of one device a batch is looked at elsewhere
        below, above = max(2, batch // shares) * shares, max(2, batch // shares + 1) * shares
        sizes = f"{below}" if below == above else f"{below} or {above}"
        by = " and ".join(
            [f"{world} devices"] * (world > 1) + [f"{parts} parts{' each' if world > 1 else ''}"] * (parts > 1)
        )
        what = f"{batch} images cannot be shared out to {by}: each takes as many, two at least"
        problems.append(UserError(what, where="batch", hint=f"give {sizes}, or another multiple of {shares}"))
    return problems


def check_method(given: Mapping[str, Any], name: str, method: type[Method]) -> list[UserError]:
    """Problems of what a method needs, against what it is given."""
    problems: list[UserError] = []
    if (export := given.get("export")) in ("student", "teacher") and export not in method.exports:
        what = f"method {name!r} has no {export} whose weights could be handed back"
        problems.append(UserError(what, where="export", hint=f"use export={method.exports[0]}"))
    named = given.get("teacher")
    if left_open(given, method):
        named = method.namer if given.get("teacher_weights") is not None else None
    if (method.needs.teacher or method.needs.pseudolabels) and named is not None:
        problems += check_teacher(TeacherSource.of({**given, "teacher": named}))
    elif method.needs.pseudolabels or method.needs.labels:  # who must have a teacher is told so elsewhere
        left = [one for one in ("weights", "mean", "std") if given.get(f"teacher_{one}") is not None]
        problems += [UserError("has no effect without teacher=", where=f"teacher_{one}") for one in left]
    if method.needs.pseudolabels:
        problems += _proposals(given)
    if method.needs.labels:
        problems += _labels(given)
        if given.get("proposals") is not None and not truth(given.get("resume")):  # it may have done its part
            problems += _checkpoint(str(given["proposals"]), "proposals")
    if given.get("anchor") and random_weights(given):
        hint = "give init= as well"
        problems.append(UserError("random weights are nothing to hold on to", where="anchor", hint=hint))
    return problems


def check_beside(given: Mapping[str, Any]) -> list[UserError]:
    """Problems of labels, and of networks beside the one that is trained, while no method is chosen yet."""
    problems = _labels(given) if given.get("labels") else []
    if given.get("teacher") not in (None, AUTO):
        problems += check_teacher(TeacherSource.of(given))
    return problems if given.get("proposals") is None else [*problems, *_proposals(given)]


def refuse_rgb(given: Mapping[str, Any], channels: int) -> None:
    """Refuse networks that read RGB beside the one that is trained, where the images have other channels.

    Raises:
        UserError: There are such.
    """
    hint = "leave it out: methods without one take any channels (dino, objects, pyramid, selftrain)"
    what = f"reads RGB, and the images of the data set have {channels} channels"
    beside = [key for key in ("teacher", "proposals") if given.get(key) not in (None, AUTO) and channels != 3]
    if problems := [UserError(what, where=key, hint=hint) for key in beside]:
        raise UserError.several(problems)


def random_weights(given: Mapping[str, Any]) -> bool:
    """Whether the options say that the detector starts from random weights: a model YAML, and no init=."""
    model = given.get("model")
    return not given.get("init") and isinstance(model, (str, os.PathLike)) and not str(model).endswith(".pt")


def _proposals(given: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with the detector that finds objects."""
    if given.get("proposals") is not None:
        return _checkpoint(str(given["proposals"]), "proposals")
    if not random_weights(given):
        return []
    hint = "give init= (COCO weights, say), or proposals= any trained detector's .pt; pyramid and dino need neither"
    return [UserError("random weights find no objects", where="proposals", hint=hint)]


def _labels(given: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with the labels that a method learns from."""
    if not given.get("labels"):
        hint = "give the dataset YAML whose train part are the labelled images"
        return [UserError("are needed", where="labels", hint=hint)]
    problems = []
    if given.get("export_labels") and not truth(given.get("resume")):
        out = str(given["out"]) if given.get("out") else None
        problems += refusals(expanded(str(given["export_labels"])), out, given.get("data"), given["labels"])
    try:
        dataset_of(str(given["labels"]))
    except UserError as problem:
        problems.append(problem)
    return problems


def _checkpoint(path: str, where: str) -> list[UserError]:
    problems = check_model(path, where=where)
    if not problems and not path.endswith((".pt", ".pth")):
        problems.append(UserError(f"must be a .pt checkpoint, not {path!r}", where=where))
    return problems
