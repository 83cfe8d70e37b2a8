"""What each start's detector finds on the same few test images, kept so that a report can show it without the data."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import trust
from headstart.comparison import child
from headstart.comparison.pool import Slot
from headstart.comparison.shown import FILE, Detections, FoundBox, LabelBox, ShownImage, there, write_detections
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.files import write_text
from headstart.images.labels import Keypoints, label_path, read_labels
from headstart.launch.children import end_with_parent

if TYPE_CHECKING:
    from headstart.comparison.launcher import Launcher
    from headstart.comparison.prepare import Prepared

LEAST_CONFIDENCE = 0.25
_SHOWN_SIDE = 480


def choose_images(test: Sequence[str], count: int, keypoints: Keypoints | None = None) -> list[str]:
    """`count` test images with objects, evenly spread over the sorted list: chosen before any result is known."""
    labelled = [image for image in sorted(test) if has_objects(image, keypoints)]
    count = min(count, len(labelled))
    step = len(labelled) / max(count, 1)
    return [labelled[int((at + 0.5) * step)] for at in range(count)]


def has_objects(image: str, keypoints: Keypoints | None = None) -> bool:
    """Whether an image has labels that can be used."""
    return bool(read_labels(label_path(image), keypoints=keypoints).rows)


def show(
    prepared: Prepared, launcher: Launcher, weights: Mapping[str, Path], budget: str, seed: int, *, changed: bool
) -> None:
    """Write ``detections.json``, unless there is one of these detectors; no page shows one of others.

    Args:
        prepared: The comparison.
        launcher: Where it is made.
        weights: Start -> its trained checkpoint.
        budget: The label budget that they were trained with.
        seed: Their seed.
        changed: Whether something was trained since.

    Raises:
        UserError: It could not be made; with the end of its log.
    """
    s, folder, keypoints = prepared.settings, prepared.folder, prepared.dataset.keypoints
    images = choose_images(prepared.dataset.test, s.pictures, keypoints)
    made = there(folder, budget, seed, weights, images, changed=changed)
    if made or not images or not weights:
        return
    model = finetuner(s.model).architecture(s.model)
    launcher.run_one(
        "detections",
        lambda place, stop: detect(folder, model, weights, images, s.imgsz, place, stop, keypoints, budget, seed),
    )


def detect(
    folder: Path,
    model: str,
    weights: Mapping[str, Path],
    images: Sequence[str],
    imgsz: int,
    place: Slot,
    stop: threading.Event | None = None,
    keypoints: Keypoints | None = None,
    budget: str = "",
    seed: int | None = None,
) -> Path:
    """Run every start's detector over the images, in a process of its own, and write ``detections.json`` into `folder`.

    Args:
        folder: The comparison's folder.
        model: Name of the architecture.
        weights: Start -> its trained checkpoint.
        images: Paths of test images.
        imgsz: Side of the images in pixels, as they were trained at.
        place: Where.
        stop: Once set, the process is ended.
        keypoints: Of a pose data set.
        budget: The label budget that they were trained with, to be told with what they find.
        seed: Their seed, likewise.

    Raises:
        Stopped: `stop` was set.
        UserError: It failed; with the end of its log.
    """
    asked: dict[str, Any] = {
        "model": model,
        "weights": {name: str(path) for name, path in weights.items()},
        "images": list(images),
    }
    asked |= {"imgsz": imgsz, "device": place.device, "keypoints": keypoints, "budget": budget, "seed": seed}
    request = folder / "detections-request.json"
    write_text(request, json.dumps(asked) + "\n")
    log = folder / "detections.log"
    try:
        if place.run("headstart.comparison.detections", [str(request)], log, stop, finetuner(model).environment):
            raise UserError(f"the detections could not be made:\n{child.tail(log)}", where=str(log))
    finally:
        request.unlink(missing_ok=True)
    return folder / FILE


def main(arguments: Sequence[str]) -> int:
    """``python -m headstart.comparison.detections REQUEST.json``; 0 when all went well."""
    end_with_parent()
    trust.from_parent()
    path = Path(arguments[0])
    asked = json.loads(path.read_text(encoding="utf-8"))
    found = {name: _found(Path(weights), asked) for name, weights in asked["weights"].items()}
    keypoints = Keypoints(*asked["keypoints"]) if asked["keypoints"] else None
    images = [
        _shown(image, keypoints, {name: boxes[at] for name, boxes in found.items()})
        for at, image in enumerate(asked["images"])
    ]
    shown = tuple(image for image in images if image is not None)
    known = {"least_confidence": LEAST_CONFIDENCE, "budget": asked["budget"], "seed": asked["seed"]}
    known["asked"] = len(images)
    write_detections(path.parent, Detections(**known, images=shown))
    return 0


def _shown(image: str, keypoints: Keypoints | None, found: Mapping[str, tuple[FoundBox, ...]]) -> ShownImage | None:
    """A test image, small enough to show, with its labels and what was found; None where it cannot be read."""
    import cv2

    from headstart.images.decode import DecodeError, read_image

    try:
        pixels = read_image(image)
    except DecodeError as error:
        print(f"{image} is not shown: {error.reason}", file=sys.stderr)
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    rows = read_labels(label_path(image), keypoints=keypoints).rows
    return ShownImage(
        file=Path(image).name,
        width=size[0],
        height=size[1],
        jpeg=base64.b64encode(data.tobytes()).decode(),
        truth=tuple(LabelBox(row.label, *(round(value, 4) for value in row.box)) for row in rows),
        found=dict(found),
    )


def _found(weights: Path, asked: Mapping[str, Any]) -> list[tuple[FoundBox, ...]]:
    """What a trained detector finds, image by image."""
    found = finetuner(asked["model"]).detect(
        weights, asked["images"], imgsz=asked["imgsz"], device=asked["device"], least=LEAST_CONFIDENCE
    )
    return [tuple(_box(int(label), confidence, box) for label, confidence, *box in rows) for rows in found]


def _box(label: int, confidence: float, corners: Sequence[float]) -> FoundBox:
    x0, y0, x1, y1 = (round(one, 4) for one in corners)
    return FoundBox(label, round(confidence, 3), x0, y0, x1, y1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
