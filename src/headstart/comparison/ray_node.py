"""What Ray runs on the nodes of its cluster: the processes of a comparison, and a look at what a node has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.comparison import child
from headstart.errors import UserError
from headstart.trust import granted

SHARED = "every machine of the cluster needs the same files under the same paths, as on a shared file system"

Look = Callable[[Sequence[tuple[str, str]], Sequence[str]], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True)
class Command:
    """A process that a node is to run, as `headstart.comparison.child.run` takes it.

    Attributes:
        node: Name of the node, for people.
        trusted: Whether files may run code of their own.
    """

    node: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    threads: int | None
    changes: Mapping[str, str | None]
    folder: Path
    patience: float
    trusted: bool


class NodeRunner:
    """Runs processes on the node that Ray put it on; two of its methods may be at work at a time."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def node(self) -> str:
        """Ray's id of the node."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, command: Command) -> int:
        """Run a process to its end, and return its exit status.

        Raises:
            Stopped: `stop` was called, or the process was ended as by Ctrl-C.
            UserError: The node does not see the folder of the process.
        """
        c = command
        for folder in (c.log.parent, c.folder):
            if not folder.is_dir():
                raise unseen(c.node, str(folder))
        with granted(c.trusted):
            return child.run(
                c.module, c.arguments, c.log, c.threads, self._stop, c.changes, folder=c.folder, patience=c.patience
            )

    def stop(self) -> None:
        """End the process that runs."""
        self._stop.set()


def unseen(node: str, path: str) -> UserError:
    """The error for a node that lacks a file or a folder."""
    return UserError(f"the node {node} does not see {path}", where="launcher", hint=SHARED)


def look() -> Look:
    """A function that tells which files a node does not see, and its versions of packages.

    A function within another travels to the node as code, so that it is run where headstart is not installed, too.
    """

    def look(files: Sequence[tuple[str, str]], packages: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        import hashlib
        import importlib.metadata
        from pathlib import Path

        missing, versions = [], {}
        for path, mark in files:
            try:
                seen = hashlib.sha256(Path(path).read_bytes()).hexdigest() == mark if mark else Path(path).exists()
            except OSError:
                seen = False
            if not seen:
                missing.append(path)
        for name in packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "not installed as a package"
        return missing, versions

    return look
