"""How single frames of videos are named, wherever a path is written; imports nothing that decodes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from headstart.images import members

SUFFIXES = (".asf", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
"""Those of videos that Ultralytics predicts on; of an animated GIF, one more of them, it trains on nothing."""
EVERY = 0.5
"""Seconds between two frames that are looked at, by default."""
_FRAME = re.compile(r"(.+)#frame=(\d+)(?:,t=(\d+\.\d+))?", re.DOTALL)


class Frame(NamedTuple):
    """One frame: the path of its video, its number from 0, and its time in seconds where that leads to it."""

    video: str
    number: int
    seconds: float | None = None

    @property
    def path(self) -> str:
        """How it is written."""
        time = "" if self.seconds is None else f",t={self.seconds:.6f}"
        return f"{self.video}#frame={self.number:06d}{time}"


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video, by its suffix alone."""
    return name.lower().endswith(SUFFIXES)


def parse(path: str) -> Frame | None:
    """The frame that `path` names; None for the path of a file."""
    if "#frame=" not in path:  # quick, and mostly enough
        return None
    found = _FRAME.fullmatch(path)
    if found is None or not is_video_name(found[1]):
        return None
    return Frame(found[1], int(found[2]), float(found[3]) if found[3] else None)


def file_of(path: str) -> str:
    """The file that holds an image: the video of a frame, the shard of a member, else `path` itself."""
    if (member := members.split(path)) is not None:
        return member.shard
    frame = parse(path)
    return path if frame is None else frame.video


def saved_name(path: str) -> str:
    """The name of the file that an image is saved as: of a frame ``clip-000241.jpg``, else its own."""
    frame = parse(path)
    return os.path.basename(path) if frame is None else f"{Path(frame.video).stem}-{frame.number:06d}.jpg"  # noqa: PTH119
