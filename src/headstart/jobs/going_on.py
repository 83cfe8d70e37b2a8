"""A run to go on with: what its folder says of it, and whether what is asked now is still that run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from headstart.errors import UserError, gave_out
from headstart.files import check_seal
from headstart.jobs.export_labels import refusals
from headstart.jobs.used_files import replaced
from headstart.launch.places import launched
from headstart.methods import find
from headstart.paths import expanded, located
from headstart.plugins import is_python_file
from headstart.reading import looked_at, unread
from headstart.run.display import make_console
from headstart.run.folder import RunFolder, nothing_yet
from headstart.settings.loggers import listed, names
from headstart.settings.resolve import as_plain, in_memory, unknown, untrusted
from headstart.settings.schema import RENAMED, Options, PretrainSettings, truth
from headstart.training import checkpoint

MAY_CHANGE = {
    "out", "resume", "overwrite", "workers", "device", "devices", "nodes", "accumulate", "sync_bn",
    "log_every", "save_every", "probe_every", "report", "cache",
    "cache_dir", "loggers", "trust", "export_labels",
}  # fmt: skip
"""A resumed run may be moved to another machine, or to several, and told to say more or less, or to write the labels of
its teacher to a new folder; all else would make it another run."""
NAMED = {"model", "init", "proposals", "teacher"}
"""Options that may name published weights, which a run downloads."""
START = "start.pt"
"""In a run folder: the detector that was given as an object in memory, as the run began."""
FOUND = "pseudolabels.pt"
"""In a run folder: the objects that were found before the first step."""
PARTS = "search"
"""In a run folder: what was found so far, until all is."""
_OBJECT = re.compile(r"live (\w+) \((.*)\)")
"""An object in memory, as records from before version 0.2 tell of it."""


def killed_early(given: Mapping[str, Any]) -> bool:
    """Whether the run to go on with was killed before it had settings, or even a folder: its command begins it."""
    if not given.get("out") or truth(given.get("overwrite")):
        return False
    folder = Path(str(given["out"]))
    return nothing_yet(folder) or (bool(given.get("data")) and _vacant(folder))


def _vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def continued(given: Mapping[str, Any], problems: list[UserError]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options to go on with, and what the run folder holds.

    What the user gives is compared with what was asked when the run began and with what was used: the command that
    began it goes on with it. Values are compared by the option's type: 100 epochs are 100.0.

    Raises:
        UserError: No ``out``, no run there, or options that would make it another run, all of them together.
    """
    if truth(given.get("overwrite")):
        problems = [*problems, UserError("give one of the two, not both", where="resume, overwrite")]
    if not given.get("out"):
        raise UserError("say which run to go on with", where="resume", hint="add out=<its folder>")
    folder = RunFolder.open(Path(str(given["out"])))
    record = _read(folder)
    used = _upgraded(record["options"]) | {"trust": False}  # said anew, each time: a folder must not trust itself
    asked = _upgraded(record.get("asked", used))
    # What is typed, too, is known to who types it: the command that began the run goes on with it.
    named: dict[str, Any] = {
        key: used[key] for key in ("method", "teacher") if key in used and given.get(key) != used[key]
    }
    named |= {"loggers": used["loggers"]} if "loggers" in used and "loggers" not in given else {}
    if own := untrusted(named, str(folder.path / "settings.yaml")):
        raise UserError.several(list(own.values()))
    declared = find.find(str(used["method"]))
    fields = {**PretrainSettings.model_fields, **declared.settings.model_fields}
    problems = [*problems, *unknown(given, fields, "pretrain"), *_changed(given, asked, used, fields)]
    problems += _export(given, used)
    if problems:
        raise UserError.several(problems)
    if str(used.get("preset")) not in declared.presets:
        used["preset"] = None
    early, needs = record["resolved"].get("steps", 0) is None, declared.method.needs
    found = needs.pseudolabels and (_is_whole(folder.path / FOUND) or not searches_again(record))
    if used.get("budget") and not early:  # what it came to when the run began, so that the schedules stay the same
        used |= {"budget": None, "steps": record["resolved"]["steps"]}
    elif not (early or used.get("steps") or used.get("epochs")):  # a default length, which older versions left out
        used["steps"] = record["resolved"].get("steps")
    if (folder.path / START).is_file():
        used["model"] = str(_whole(folder.path / START))
    if in_memory(used.get("teacher")):
        used["teacher"] = given.get("teacher")
        # Where pseudo-labels are needed it was used before the first step, and is not needed once they are found.
        needed = needs.teacher or (needs.pseudolabels and not found)
        if used["teacher"] is None and needed:
            what = "was a network in memory, which a run cannot keep"
            raise UserError(what, where="teacher", hint="give it again")
        if used["teacher"] is None:  # nor is what was said of it
            used |= dict.fromkeys({"teacher_weights", "teacher_mean", "teacher_std"} & used.keys())
    if launched():  # who has started the processes says how many
        used |= {"devices": "1", "nodes": 1}
    began = record["resolved"].get("files")
    saved = checkpoint.steps(folder.checkpoints)
    if needs.labels:
        found = labelled_before(max(saved, default=0), used.get("burn_in"), record["resolved"].get("steps"))
    if changed := replaced(began or {}, used, needs, saved=bool(saved), found=found):
        raise UserError.several(changed)
    kept = {key: value for key, value in given.items() if key in MAY_CHANGE}
    return {**used, **kept, "resume": True, "overwrite": False}, record


def labelled_before(step: int, burn_in: float | None, steps: int | None) -> bool:
    """Whether another detector (``proposals=``) has labelled the images of a run that goes on after `step` steps.

    It labels before the first step after burn-in, of which without ``burn_in=`` there is none then; the state of that
    very step is saved before it does.
    """
    return step > round((burn_in or 0.0) * (steps or 0))


def searches_again(record: Mapping[str, Any]) -> bool:
    """Whether a run could search its images again: not one whose steps are known and whose search a time had cut."""
    return record["resolved"].get("steps", 0) is None or not record["options"].get("budget")


def _is_whole(found: Path) -> bool:
    try:
        with looked_at(found):
            check_seal(found)
    except ValueError:
        return False
    return True


def _whole(start: Path) -> Path:
    """The detector that the run began with, as it was written.

    Raises:
        UserError: It is damaged; or it cannot be read now.
    """
    try:
        with looked_at(start):
            check_seal(start)
    except ValueError as error:
        what = f"the detector that this run began with is damaged: {error}"
        raise UserError(what, where=str(start), hint="bring back a copy of it, or start a new run") from error
    return start


def command(folder: Path, options: Mapping[str, Any]) -> str:
    """What to type to go on with a run; Python files are named again, for its folder cannot have them run.

    So is the folder for labels, which may be another one than the run began with.

    Args:
        folder: Of the run.
        options: That it uses.
    """
    words = ["headstart", "pretrain", "resume=true", f"out={folder}"]
    words += [f"{name}={options[name]}" for name in ("method", "teacher") if is_python_file(options.get(name))]
    words += [f"export_labels={export}"] if (export := options.get("export_labels")) else []
    loggers = listed(options.get("loggers")) or []
    if any(map(is_python_file, names(loggers))):
        words += [f"loggers={json.dumps(one) if isinstance(one, dict) else one}" for one in loggers]
    return shlex.join([*words, "trust=true"] if options.get("trust") else words)


def _read(folder: RunFolder) -> dict[str, Any]:
    path = folder.path / "settings.yaml"
    try:
        record = folder.read_settings()
        if not isinstance(record["options"], dict) or not isinstance(record["resolved"], dict):
            raise ValueError("options and resolved are needed")
        if not isinstance(record.get("asked", {}), dict):
            raise ValueError("asked is to be a mapping, or not there")
        if not isinstance(record["options"].get("method"), str):
            raise ValueError("options has no method")
        if record["options"].get("budget") and not isinstance(record["resolved"].get("steps", ""), (int, type(None))):
            raise ValueError("resolved has no steps")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        if gave_out(error):
            raise unread(path, error) from error
        hint = "bring back a copy of it, or start again with overwrite=true"
        raise UserError(f"cannot be read: {error}", where=str(path), hint=hint) from error
    return record


def _upgraded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options as this version names and records them."""
    now = {RENAMED.get(key, key): value for key, value in options.items()}
    told = {key: _OBJECT.fullmatch(value) for key, value in now.items() if isinstance(value, str)}
    return {**now, **{key: {"in_memory": one[1], "origin": one[2]} for key, one in told.items() if one}}


def _changed(
    given: Mapping[str, Any], asked: Mapping[str, Any], used: Mapping[str, Any], fields: Mapping[str, FieldInfo]
) -> list[UserError]:
    changed = []
    for key, value in given.items():
        if key in MAY_CHANGE or key not in fields:
            continue
        # What the record of an older version lacks was as it is by default.
        then = [part[key] for part in (asked, used) if key in part] or [fields[key].default]
        if key == "method" and value in ("default", None) and key not in asked:
            continue
        if not any(_same(fields[key], value, one) or (key in NAMED and _became(one, value)) for one in then):
            changed.append(UserError(f"was {then[0]!r} when the run began, is {as_plain(value)!r} now", where=key))
    if changed:
        hint = "leave these options out, or start a new run"
        changed.append(UserError("a resumed run keeps its settings", hint=hint))
    return changed


def _export(given: Mapping[str, Any], used: Mapping[str, Any]) -> list[UserError]:
    """Why labels cannot be written to another folder than the run began with, whose own may hold them already."""
    export = given.get("export_labels")
    if not export or "labels" not in used or export == used.get("export_labels"):
        return []
    return refusals(expanded(str(export)), str(given["out"]), used.get("data"), used["labels"])


def _became(then: Any, now: Any) -> bool:
    """Whether a bare name is a file here now: published weights, which the run itself has downloaded."""
    return isinstance(then, str) and Path(then).name == then and now == str(located(then))


def _same(field: FieldInfo, one: Any, other: Any) -> bool:
    """Whether two values of an option mean the same."""
    if in_memory(as_plain(one)) or in_memory(other):  # objects cannot be compared: the run keeps its own
        return in_memory(as_plain(one)) and in_memory(other)
    config = ConfigDict(**Options.model_config)
    config.pop("extra", None)
    parts = (field.annotation, *field.metadata)
    kind: Any = Annotated[parts] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=config)
    try:
        return bool(adapter.validate_python(one) == adapter.validate_python(other))
    except ValidationError:
        return False


def saved_state(folder: RunFolder) -> dict[str, Any] | None:
    """The newest good checkpoint of a run; None of one that ended before its first. Damaged ones are named.

    Raises:
        UserError: None is whole; or the run was finished, and has lost its own.
    """
    if not folder.result.is_file() and not checkpoint.steps(folder.checkpoints):
        return None
    state, damaged = checkpoint.newest(folder.checkpoints)
    for line in checkpoint.set_aside(damaged):
        folder.log(line)
        make_console(stderr=True, soft_wrap=True).print(line, style="bold red")
    return state
