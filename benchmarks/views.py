"""Milliseconds an image and core for the views of DINO, here and with lightly's DINOTransform, in turn in one run.

    python benchmarks/views.py [--images 32] [--rounds 5] [--imgsz 224] [--local 96]

Images are drawn by the program and start decoded: PIL images for lightly, a uint8 batch for headstart. One thread each.
Times are of the processor, not of the clock on the wall, so that a busy machine disturbs them less; it still does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import torch
from lightly.transforms import DINOTransform
from PIL import Image
from torch import Tensor

from headstart.views.render import make_views
from headstart.views.spec import dino_specs

SHAPES = ((300, 300), (480, 640), (640, 640))


def draw_images(number: int, height: int, width: int) -> Tensor:
    """uint8 (number, 3, height, width) with the strides of a decoded image (channels last)."""
    blobs = torch.rand(number, 3, height // 12, width // 12)
    blobs = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic")
    return blobs.clamp(0, 1).mul(255).byte().contiguous(memory_format=torch.channels_last)


def milliseconds(work: Callable[[], object], images: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000 / images


def measure(pixels: Tensor, arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Rounds of both, in turn; the first of each warms up and is left out."""
    number, _, height, width = pixels.shape
    sizes = torch.tensor([(height, width)] * number)
    specs = dino_specs(arguments.imgsz, arguments.local)
    generator = torch.Generator().manual_seed(0)
    transform = DINOTransform(arguments.imgsz, local_crop_size=arguments.local, normalize=None)
    pictures = [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in pixels]
    ours, theirs = [], []
    for _ in range(arguments.rounds + 1):
        ours.append(milliseconds(lambda: make_views(pixels, sizes, specs, generator), number))
        theirs.append(milliseconds(lambda: [transform(picture) for picture in pictures], number))
    return ours[1:], theirs[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--local", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    print(f"2 x {arguments.imgsz} + 6 x {arguments.local}, ms an image and core, median (least - most)")
    print(f"{'image':>10} {'headstart':>22} {'lightly':>22} {'ratio':>7}")
    for height, width in SHAPES:
        results = measure(draw_images(arguments.images, height, width), arguments)
        cells = [f"{statistics.median(times):.2f} ({min(times):.2f} - {max(times):.2f})" for times in results]
        ratio = statistics.median(theirs / ours for ours, theirs in zip(*results, strict=True))
        print(f"{f'{width}x{height}':>10} {cells[0]:>22} {cells[1]:>22} {ratio:>6.1f}x")


if __name__ == "__main__":
    main()
