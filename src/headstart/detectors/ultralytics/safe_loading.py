"""Ultralytics' ways of running what a file says, closed: pickled classes, words of YAMLs, scripts, caches beside data.

Ultralytics has a restricted way of reading checkpoints and building models, which it leaves off. It is on here, and
everything that Ultralytics loads by itself goes through it: trainers, teachers, what a checkpoint names in its turn.
"""

from __future__ import annotations

import importlib
import pickle
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.detectors.ultralytics.odd_paths import taking_files
from headstart.detectors.ultralytics.patches import attribute
from headstart.errors import UserError
from headstart.trust import refusal, trusted

_LOCK = threading.RLock()
"""Two threads would put the attributes back under each other's hands."""
# How torch words that a pickle asks for more than it may; what is no pickle is refused in other words.
_ASKS = re.compile(r"GLOBAL ([\w.]+)|unsafe getattr|[Tt]rying to (?:call|instantiate)|Can only|[Uu]nsupported class")
_ARCHIVE = re.compile(r"https?://[^\s?#]+\.(?:zip|tar|gz|tgz|xz|bz2|txz|tbz2)(?:\?\S*)?", re.IGNORECASE)


@contextmanager
def safe_loading(path: str | None = None, module: nn.Module | None = None) -> Iterator[None]:
    """Within it, Ultralytics runs nothing of what files say; with ``trust=true`` it does as it always does.

    Either way it takes a checkpoint that is there, whatever its path is.

    Args:
        path: The checkpoint that is to be read, if one is: layers of torchvision in it are read as well.
        module: A network in this process whose classes may be in a checkpoint of it: their code is here already.

    Raises:
        UserError: The installed versions have no such way.
    """
    from ultralytics.nn import tasks
    from ultralytics.utils import downloads

    with _LOCK, ExitStack() as stack:
        for owner, name, value in taking_files(tasks, downloads):
            stack.enter_context(attribute(owner, name, value))
        if not trusted():
            stack.enter_context(_nothing_runs(path, module))
        yield


@contextmanager
def _nothing_runs(path: str | None, module: nn.Module | None) -> Iterator[None]:
    from ultralytics.data import utils as data
    from ultralytics.models.yolo.world import train as world
    from ultralytics.models.yolo.yoloe import train as yoloe
    from ultralytics.nn import tasks

    _check_versions(tasks)
    changes = [(tasks, "SAFE_LOAD", True), (data, "exec", _no_script), (data, "subprocess", _NoProcess)]
    # Embeddings of class names lie beside the images.
    changes += [(one, "torch_load", _weights_only) for one in (world, yoloe)]
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(attribute(owner, name, value))
        stack.enter_context(torch.serialization.safe_globals([*_foreign(module), *_torchvision(path)]))
        yield


def refused(path: str, error: BaseException, where: str) -> UserError | None:
    """What to say where `safe_loading` kept a file from being read; None where something else was wrong with it."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    for one in causes:
        if isinstance(one, pickle.UnpicklingError) and (asks := _ASKS.search(str(one))):
            of = f" of {asks[1]}, which is no known layer" if asks[1] else " that it holds"
            return refusal(f"{path} cannot be read without running code{of}", where)
        if isinstance(one, TypeError) and "under restricted loading" in str(one):
            return refusal(f"{path} names {_quoted(str(one))} as a layer, which is no known one", where)
        if isinstance(one, TypeError) and "during restricted model load" in str(one):
            return refusal(f"{path} has an activation that is code: {_quoted(str(one))}", where)
    return None


def check_words(content: Any, path: str, where: str) -> None:
    """Raise where Ultralytics would evaluate a word of a model YAML, as it does each time it builds the model anew."""
    word = content.get("activation") if isinstance(content, dict) else None
    if not word or trusted():
        return
    from ultralytics.nn import tasks

    _check_versions(tasks)
    try:
        tasks._SafeLoad.activation(word)
    except TypeError as error:
        raise refusal(f"{path} has an activation that is code: {word!r}", where) from error


def check_script(download: str, where: str) -> None:
    """Raise where Ultralytics would run `download`, of a dataset YAML: all but the address of an archive."""
    if not trusted() and not _ARCHIVE.fullmatch(download.strip()):
        shown = download.strip().splitlines()[0]
        what = f"its images are not there, and its download: is a script, which would run ({shown!r} ...)"
        error = refusal(what, where)
        raise UserError(error.what, where=where, hint=f"put its images where it says; or {error.hint}")


def _check_versions(tasks: Any) -> None:
    if not hasattr(tasks, "SAFE_LOAD") or not tasks._SafeLoad.SUPPORTED:
        from ultralytics import __version__

        what = f"Ultralytics {__version__} with torch {torch.__version__} runs the code that a checkpoint holds"
        hint = "pip install -U ultralytics torch; or trust=true, for files whose maker you know"
        raise UserError(what, hint=hint)


def _quoted(message: str) -> str:
    found = re.search(r"'(.*)'", message, re.DOTALL)
    return repr(found[1]) if found else "one"


def _foreign(module: nn.Module | None) -> list[Any]:
    """The classes of a network's layers that are neither Ultralytics' nor torch's."""
    kinds: Iterable[type] = {type(one) for one in module.modules()} if module is not None else ()
    return [kind for kind in kinds if not kind.__module__.startswith(("ultralytics.", "torch."))]


def _torchvision(path: str | None) -> list[Any]:
    """The layers of torchvision that a checkpoint names: Ultralytics builds backbones of them, unlisted."""
    if path is None or not Path(path).is_file():
        return []
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever a file may be: who reads it says so
        return []
    found = []
    for module, _, name in (one.rpartition(".") for one in names):
        if module.startswith(("torchvision.models.", "torchvision.ops.")) and find_spec(module):
            kind = getattr(importlib.import_module(module), name, None)
            found += [kind] if isinstance(kind, type) and issubclass(kind, nn.Module) else []
    return found


def _weights_only(*args: Any, **more: Any) -> Any:
    return torch.load(*args, **{**more, "weights_only": True})


def _no_script(*_: Any, **__: Any) -> None:
    raise PermissionError("a script in a dataset YAML is not run")


class _NoProcess:
    run = staticmethod(_no_script)
