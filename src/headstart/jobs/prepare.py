"""What was asked of a pretraining: checked against files and devices, completed from the run to go on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headstart.detectors.find import check_init, check_model
from headstart.errors import UserError
from headstart.images.index import check_sources
from headstart.images.sources import absolute
from headstart.machine import device_problem
from headstart.run import folder as run
from headstart.run.folder import RunFolder
from headstart.settings.schema import PretrainSettings
from headstart.teachers.load import check_teacher
from headstart.training import checkpoint

# A resumed run may be moved to another machine, and told to say more or less; all else would make it another run.
MAY_CHANGE = (
    "out", "resume", "workers", "device", "log_every", "save_every", "probe_every", "report", "cache", "cache_dir",
)  # fmt: skip


def check(given: Mapping[str, Any]) -> list[UserError]:
    """Problems that only a look at files and devices shows; nothing is read or built yet."""
    problems: list[UserError] = []
    data = given.get("data")
    if isinstance(data, (str, os.PathLike)) or (isinstance(data, list) and all(isinstance(d, str) for d in data)):
        problems += check_sources(data)
    problems += check_model(given["model"])
    init = given.get("init")
    if isinstance(init, str):
        problems += check_init(given["model"], init)
    if given.get("teacher") is not None:
        problems += check_teacher(given["teacher"], given.get("teacher_weights"))
    elif "proposals" in given:  # who must have a teacher is told so elsewhere
        left = [name for name in ("weights", "mean", "std") if given.get(f"teacher_{name}") is not None]
        problems += [UserError("says nothing without teacher=", where=f"teacher_{name}") for name in left]
    problems += _proposals(given)
    problem = device_problem(str(given["device"]))
    if problem:
        problems.append(problem)
    if given.get("out") and not given.get("resume"):
        problem = run.refusal(Path(str(given["out"])), overwrite=given.get("overwrite") is True)
        if problem:
            problems.append(problem)
    return problems


def _proposals(given: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with the detector that a method wants to find objects with."""
    if "proposals" not in given:
        return []
    proposals, model = given["proposals"], given["model"]
    if proposals is not None:
        problems = [UserError(p.what, where="proposals", hint=p.hint) for p in check_model(proposals)]
        if not problems and not str(proposals).endswith(".pt"):
            problems.append(UserError(f"must be a .pt checkpoint, not {proposals!r}", where="proposals"))
        return problems
    if given.get("init") or not isinstance(model, (str, os.PathLike)) or str(model).endswith(".pt"):
        return []
    hint = "give init= (COCO weights, say), or proposals= any trained detector's .pt; pyramid and dino need neither"
    return [UserError("random weights find no objects", where="proposals", hint=hint)]


def stored_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run to go on with, in place of those that the user leaves out.

    Raises:
        UserError: No ``out``, no run there, or an option that would make it another run.
    """
    if not options.get("out"):
        raise UserError("say which run to go on with", where="resume", hint="add out=<its folder>")
    folder = RunFolder.open(Path(str(options["out"])))
    try:
        stored = folder.read_settings()["options"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read: {error}", where=str(folder.path / "settings.yaml")) from error
    given = {key: value for key, value in options.items() if key != "cfg"}
    given |= anchored(given)
    changed = [
        UserError(f"was {stored[key]!r} when the run began, is {given[key]!r} now", where=key)
        for key in given
        if key in stored and key not in MAY_CHANGE and isinstance(given[key], (str, int, float, bool, list))
        if str(given[key]) != str(stored[key])
    ]
    if changed:
        changed.append(
            UserError("a resumed run keeps its settings", hint="leave these options out, or start a new run")
        )
        raise UserError.several(changed)
    if stored.get("budget"):  # what it came to when the run began, so that the schedules stay the same
        stored.update(budget=None, steps=folder.read_settings()["resolved"]["steps"])
    live = str(stored["model"]).startswith("live ")
    if live:
        stored["model"] = str(folder.path / "start.pt")
    if str(stored.get("teacher")).startswith("live "):
        # With proposals= it was asked before the first step, and is not needed any more.
        if given.get("teacher") is None and "proposals" not in stored:
            raise UserError("was a network in memory, which a run cannot keep", where="teacher", hint="give it again")
        stored["teacher"] = given.get("teacher")
    kept = {key: value for key, value in given.items() if key in MAY_CHANGE or key not in stored}
    return {**stored, **kept, "overwrite": False}


def anchored(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may name files, as absolute paths: a run can be gone on with from another folder."""
    found: dict[str, Any] = {}
    for key in ("model", "init", "proposals", "teacher", "teacher_weights"):
        item = options.get(key)
        if isinstance(item, (str, os.PathLike)) and Path(item).is_file():
            found[key] = str(Path(item).resolve())
    if data := options.get("data"):
        names = [os.path.expanduser(name) for name in (data if isinstance(data, list) else [data])]  # noqa: PTH111
        found["data"] = [name if "://" in name else absolute(name) for name in names]
    return found


def open_folder(s: PretrainSettings, resuming: bool) -> RunFolder:
    """The run folder: a new one, or that of the run to go on with, its metrics cut at the last checkpoint."""
    if resuming:
        folder = RunFolder.open(Path(str(s.out)))
        folder.take()
        folder.truncate_metrics(checkpoint.load(folder.checkpoints)["step"] + 1)
        return folder
    name = Path(s.model).stem if isinstance(s.model, str) else type(s.model).__name__.lower()
    path = Path(s.out) if s.out else run.new_folder(Path("runs") / "pretrain", f"{name}-{Path(s.method).stem}")
    return RunFolder.create(path, overwrite=s.overwrite)


def model_of(s: PretrainSettings, resuming: bool) -> Any:
    """The model to load; for a run to go on with that began from a live object, what that object was."""
    start = Path(str(s.out)) / "start.pt"
    return str(start) if resuming and start.is_file() else s.model
