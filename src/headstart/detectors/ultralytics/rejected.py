"""Images that Ultralytics leaves out of a training, told before it: it tells them in its log alone.

The rules are those of its ``verify_image_label``, which would write some files anew, and have pip install something for
others. Nothing here imports Ultralytics.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress

from headstart.detectors.rejected import with_reason
from headstart.images.sources import SUFFIXES

LEAST = 10
"""Pixels that a side has at least."""
_FORMATS = frozenset(suffix[1:] for suffix in SUFFIXES) | {"jpeg2000"}


def rejected(images: Sequence[str]) -> dict[str, str]:
    """Those of `images` that Ultralytics does not train on, and why."""
    from PIL import Image

    Image.init()
    with suppress(ImportError):
        importlib.import_module("pi_heif").register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, which are trained on
        return with_reason(images, _reason)


def _ends(path: str) -> bool:
    """Whether a JPEG has its end marker."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


def _reason(path: str) -> str:
    """Why an image is left out; "" for one that is trained on."""
    from PIL import Image

    if not os.path.isfile(path):  # noqa: PTH113 - a pipe is waited for without end
        return "not an ordinary file"
    # Once Ultralytics is imported, Image.open has pip install something for a file that it does not know.
    opened = getattr(Image.open, "__globals__", {}).get("_image_open", Image.open)
    try:
        with opened(path) as image:
            kind, (width, height) = str(image.format), image.size
            image.verify()
        # A JPEG without an end Ultralytics would write anew, and leaves out where it cannot. Of all but JPEG and PNG
        # verify() reads no pixels, nor does Ultralytics before the training, which ends at one that cannot be read.
        if not _ends(path) if kind == "JPEG" else kind != "PNG":
            with opened(path) as image:
                image.load()
    except Exception as error:  # whatever a damaged file makes a decoder say
        return "empty file" if not os.path.getsize(path) else f"no image that can be read ({type(error).__name__})"  # noqa: PTH202
    if min(width, height) < LEAST:
        return f"{width} x {height} pixels; {LEAST} a side are the least"
    return "" if kind.lower() in _FORMATS else f"a {kind}, whatever its name says"
