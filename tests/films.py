"""Small videos whose frames tell their own number: written by FFmpeg (PyAV), or by OpenCV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

WIDE, HIGH = 96, 64


def picture(number: int) -> np.ndarray:
    """Frame `number`, RGB: eight blocks that are its bits, white or black."""
    image = np.full((HIGH, WIDE, 3), (40, 70, 120), np.uint8)
    for bit in range(8):
        image[16:40, 8 + 10 * bit : 16 + 10 * bit] = 235 if number >> bit & 1 else 20
    return image


def number_of(image: np.ndarray) -> int:
    """The number that a frame shows."""
    gray = image[20:36].mean((0, 2))
    return sum(int(gray[10 + 10 * bit : 14 + 10 * bit].mean() > 128) << bit for bit in range(8))


def encoded(
    path: Path,
    frames: int = 90,
    *,
    codec: str = "libx264",
    rate: int = 25,
    times: list[int] | None = None,
    numbers: list[int] | None = None,
    **options: str,
) -> Path:
    """A video of another codec than OpenCV writes, with B-frames; `times` in milliseconds vary its rate."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        stream.options = {"g": "40", "bf": "3", **{key.replace("_", "-"): value for key, value in options.items()}}
        base = Fraction(1, rate) if times is None else Fraction(1, 1000)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = base
        for place, number in enumerate(numbers or range(frames)):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24")
            frame.pts, frame.time_base = place if times is None else times[place], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def written(path: Path, numbers: list[int], code: str = "MJPG", rate: float = 10.0) -> Path:
    """A video of frames with these numbers, by OpenCV."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, (WIDE, HIGH))
    assert writer.isOpened()
    for number in numbers:
        writer.write(picture(number)[..., ::-1])
    writer.release()
    return path
