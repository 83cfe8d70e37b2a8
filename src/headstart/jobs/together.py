"""One pretraining in several processes: the first prepares it and ends it, the others take part in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from headstart import ranks
from headstart.errors import UserError
from headstart.jobs import carried
from headstart.jobs.ending import Run
from headstart.jobs.going_on import MAY_CHANGE
from headstart.jobs.prepare import Job
from headstart.launch.children import PARENT
from headstart.launch.group import explained, say
from headstart.launch.places import launched
from headstart.methods import find
from headstart.plugins import is_python_file
from headstart.run.display import hushed
from headstart.run.folder import RunFolder
from headstart.run.stopping import ended_by_signals
from headstart.run.unwritten import Unwritten
from headstart.settings.resolve import collect
from headstart.settings.schema import PretrainSettings, which
from headstart.training.memory import known


class Work(Protocol):
    """A pretraining at work."""

    def run(self) -> Run:
        """All of it."""


def agreed(options: Mapping[str, Any]) -> None:
    """See that those who were started as one of several were asked for one run: what the others give is not looked at.

    What may be another on each machine is left out; so are the processes that the first one starts, without options.

    Raises:
        UserError: Runs of their own were meant, as in a sweep; in all of them, and told once.
    """
    if not ranks.joined() or PARENT in os.environ:
        return
    own = {name: _plain(value) for name, value in options.items() if name == "out" or name not in MAY_CHANGE}
    with explained():
        given = ranks.of_all({name: value for name, value in own.items() if value is not None})
    for rank, one in enumerate(given):
        if apart := sorted(name for name in one if one[name] != given[0].get(name)):
            raise _several(apart, [given[0].get(apart[0]), one[apart[0]]], rank, len(given))


def _several(names: list[str], values: list[Any], rank: int, world: int) -> UserError:
    what = f"not the same in the {world} processes of this one run, as srun or torchrun started them: "
    what += f"{names[0]}={values[0]} in the first, {names[0]}={values[1]} in process {rank}"
    hint = "for a run of its own in each, begin the command with env -u SLURM_STEP_NUM_TASKS (torchrun: env -u RANK)"
    error = UserError(what, where=", ".join(names), hint=hint)
    error.told = not ranks.first()
    return error


def _plain(value: object) -> object:
    """An option as it can be sent and compared; of an object in memory its class."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float)) else type(value).__name__


@contextmanager
def told_to_others() -> Iterator[None]:
    """What the first process does by itself while the others wait for `share`; what it raises is raised in all."""
    try:
        with ranks.alone():
            yield
    except BaseException as error:
        ranks.from_first((ranks.portable(error), None, ""))
        raise


def share(job: Job, folder: RunFolder) -> None:
    """Give the job to the other processes.

    Raises:
        UserError: It holds an object in memory that cannot be sent.
    """
    if ranks.world() == 1:
        return
    try:
        data, kept = carried.packed(job)
    except Exception as error:  # whatever an object of the user's raises
        raise _unsent(error) from error
    ranks.from_first((None, job.run.method if is_python_file(job.run.method) else None, str(folder.path.absolute())))
    carried.bring(kept)
    ranks.from_first(data)


def of_another_machine(options: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """``device``, ``devices`` and ``nodes`` of a process that was started by hand on another machine than the first."""
    given = collect(options, [])
    nodes = given.get("nodes", 1)
    if launched() or not isinstance(nodes, int) or nodes < 2 or os.environ.get("NODE_RANK", "0") == "0":
        return None
    return str(given.get("device", "auto")), str(which(given.get("devices", "1"))), nodes


def taken_part(make: Callable[[Job, RunFolder], Work]) -> Run:
    """Take part in the pretraining of the first process, and say nothing of it.

    Args:
        make: The pretraining at work, from what `share` gives.
    """
    try:
        with hushed(), ended_by_signals(), explained():
            nothing: Any = (None, None, "")
            error, file, path = ranks.from_first(nothing)
            if error is not None:
                raise error
            kept = carried.bring([])
            data = ranks.from_first(b"")
            if file:  # its classes are then found by their names
                find.find(file)
            return make(_unpacked(data, kept), Unwritten(Path(path))).run()
    except BaseException as raised:
        ended = known(raised) or raised
        vars(ended)["told"] = say(ended)
        if ended is not raised:
            raise ended from None
        raise


def _unpacked(data: bytes, kept: list[carried.Kept]) -> Job:
    try:
        job: Job = carried.unpacked(data, kept)
    except UserError:
        raise
    except Exception as error:
        raise _unsent(error) from error
    return job


def _unsent(error: Exception) -> UserError:
    what = f"an object in memory cannot be sent to the other processes of the run: {error}"
    hint = "give a file in its place; or define its class in a module that can be imported, or start with torchrun"
    return UserError(what, where="devices", hint=hint)


# -- what is said of it -----------------------------------------------------------------------------------------------


def shared_facts(s: PretrainSettings) -> dict[str, Any]:
    """How the batch is shared out, for ``settings.yaml``."""
    return {
        "processes": ranks.world(),
        "accumulate": s.accumulate,
        "sync_bn": ranks.world() > 1 and s.sync_bn is not False,
    }


def sharing(s: PretrainSettings) -> list[str]:
    """How the batch is shared out, in a sentence; none where one device takes all of it at once."""
    world, parts = ranks.world(), s.accumulate
    if world * parts == 1:
        return []
    each = f"{s.batch_size // world} images of each batch" if world > 1 else f"each batch of {s.batch_size} images"
    words = [f"{world} processes, one a device, take {each}" if world > 1 else f"{each} is taken"]
    words += [f"in {parts} parts" if parts > 1 else "at once"]
    norm = f"; batch norm is over {'all of them' if s.sync_bn is not False else 'those of one device'}" * (world > 1)
    return [" ".join(words) + norm]


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another where a run goes on with other devices than it began with, in a sentence."""
    defaults = {"processes": 1, "accumulate": 1, "sync_bn": False}
    then = {name: before.get(name, default) for name, default in defaults.items()}
    if all(then[name] == now[name] for name in defaults):
        return []
    told = [", ".join(f"{name}={one[name]}" for name in defaults) for one in (then, now)]
    return [
        f"began with {told[0]}, goes on with {told[1]}: images, views, rates and schedules stay the same; sums are "
        "rounded otherwise, and what a method does among the images of one device or part is done among others"
    ]
