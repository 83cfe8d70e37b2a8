"""Which versions and which state of the user's project made a result."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import Any

from packaging.requirements import Requirement


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (
        "headstart",
        "torch",
        "torchvision",
        "ultralytics",
        "lightly",
        "pytorch-lightning",
        "numpy",
        "opencv-python",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def untested() -> tuple[str, ...]:
    """A warning for each installed dependency whose version is outside the bounds that this package was tested within.

    An installer keeps to the bounds; whoever installs something else afterwards is told once, and goes on.
    """
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("headstart") or ()]
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return ()
    found = []
    for one in wanted:
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:  # opencv-python-headless in the place of opencv-python
            continue
        if not one.specifier.contains(version, prereleases=True):
            what = f"WARNING: {one.name} {version} was not tested with headstart ({one.specifier})"
            found.append(f"{what}: pip install '{one.name}{one.specifier}'")
    return tuple(found)


def git_state() -> dict[str, Any] | None:
    """Commit of the user's project in the current folder, and whether it has changes; None outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
    }


# A repository can name a program that git runs to see what has changed.
_GIT = ("git", "-c", "core.fsmonitor=false")


def _git(*arguments: str) -> str | None:
    try:
        # Names of files and branches may be of any bytes.
        done = subprocess.run(
            [*_GIT, *arguments], capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
