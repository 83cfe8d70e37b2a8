"""A detector of a few layers, which is built in a moment."""

from pathlib import Path
from tempfile import TemporaryDirectory

SMALL = """\
nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, Conv, [16, 1, 1]]
  - [[2, 3, 4], 1, Detect, [nc]]
"""

_FOLDER = TemporaryDirectory()


def small_checkpoint(path: Path, channels: int) -> Path:
    """A checkpoint of it that reads images of so many channels, as Ultralytics writes it; returns `path`."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    live = YOLO(small_yaml(), verbose=False)
    live.model = DetectionModel(small_yaml(), ch=channels, nc=2, verbose=False)
    live.save(path)
    return path


def small_yaml() -> str:
    """Its YAML, in a folder that no test looks into."""
    path = Path(_FOLDER.name) / "small.yaml"
    path.write_text(SMALL)
    return str(path)
