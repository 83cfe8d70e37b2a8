"""What each start's detector finds on the same few test images, kept so that a report can show it without the data."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.comparison import child
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.files import write_text
from headstart.images.labels import label_path

FILE = "detections.json"
LEAST_CONFIDENCE = 0.25
_SHOWN_SIDE = 480


def choose_images(test: Sequence[str], count: int) -> list[str]:
    """`count` test images with objects, evenly spread over the sorted list: chosen before any result is known."""
    labelled = [image for image in sorted(test) if _has_objects(image)]
    step = len(labelled) / max(count, 1)
    return [labelled[int((at + 0.5) * step)] for at in range(min(count, len(labelled)))] if labelled else []


def _has_objects(image: str) -> bool:
    path = label_path(image)
    return path.is_file() and path.stat().st_size > 0


def detect(
    folder: Path, model: str, weights: Mapping[str, Path], images: Sequence[str], imgsz: int, device: str, pose: bool
) -> Path:
    """Run every start's detector over the images, in a process of its own, and write ``detections.json`` into `folder`.

    Args:
        folder: The comparison's folder.
        model: Name of the architecture.
        weights: Start -> its trained checkpoint.
        images: Paths of test images.
        imgsz: Side of the images in pixels, as they were trained at.
        device: One device, as `headstart.detectors.finetuner.FinetuneSettings` has it.
        pose: The labels hold keypoints after the box.

    Raises:
        UserError: It failed; with the end of its log.
    """
    asked = {"model": model, "weights": {name: str(path) for name, path in weights.items()}, "images": list(images)}
    request = folder / "detections-request.json"
    write_text(request, json.dumps({**asked, "imgsz": imgsz, "device": device, "pose": pose}) + "\n")
    log = folder / "detections.log"
    try:
        if child.run("headstart.comparison.detections", [str(request)], log, None, None, finetuner(model).environment):
            raise UserError(f"the detections could not be made:\n{child.tail(log)}", where=str(log))
    finally:
        request.unlink(missing_ok=True)
    return folder / FILE


def main(arguments: Sequence[str]) -> int:
    """``python -m headstart.comparison.detections REQUEST.json``; 0 when all went well."""
    child.end_with_parent()
    path = Path(arguments[0])
    asked = json.loads(path.read_text(encoding="utf-8"))
    images = [_truth(image, asked["pose"]) for image in asked["images"]]
    for name, weights in asked["weights"].items():
        found = finetuner(asked["model"]).detect(
            Path(weights), asked["images"], imgsz=asked["imgsz"], device=asked["device"], least=LEAST_CONFIDENCE
        )
        for one, rows in zip(images, found, strict=True):
            one["found"][name] = [[label, round(sure, 3), *(round(x, 4) for x in box)] for label, sure, *box in rows]
    content = {"least_confidence": LEAST_CONFIDENCE, "images": images}
    write_text(path.with_name(FILE), json.dumps(content) + "\n")
    return 0


def _truth(image: str, pose: bool) -> dict[str, Any]:
    """A test image, small enough to show, and its labels: class, then x0, y0, x1, y1 as shares of its sides."""
    import cv2

    from headstart.images.decode import read_image

    pixels = read_image(image)
    height, width = pixels.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    size = (round(width * scale), round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    boxes = []
    for line in label_path(image).read_text(encoding="utf-8").splitlines():
        if values := [float(word) for word in line.split()]:
            boxes.append([int(values[0]), *_corners(values[1:], pose)])
    text = base64.b64encode(data.tobytes()).decode()
    return {"file": Path(image).name, "width": size[0], "height": size[1], "jpeg": text, "truth": boxes, "found": {}}


def _corners(values: Sequence[float], pose: bool) -> list[float]:
    """Corners of a box (x, y, w, h, then the keypoints of a pose) or around a polygon (x, y, x, y, ...)."""
    if len(values) > 4 and not pose:
        xs, ys = values[0::2], values[1::2]
        return [round(value, 4) for value in (min(xs), min(ys), max(xs), max(ys))]
    x, y, w, h = values[:4]
    return [round(value, 4) for value in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
