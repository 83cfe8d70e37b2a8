"""Changes to the colors and the sharpness of a batch of images, in place, each image by a value of its own.

Images are float32 ``(N, 3, H, W)``, RGB in [0, 1], and stay in [0, 1]. Values are float32 ``(N,)`` on the CPU: they are
drawn there, and this way a GPU never has to be asked for one. What an operation does to an image is what the function
of the same name in ``torchvision.transforms.v2.functional`` does.
"""

from __future__ import annotations

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from headstart import machine

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray value, as PIL has them (ITU-R 601)."""
SOLARIZE_FROM = 128 / 255
_BOXES = 3  # PIL blurs by three box filters in a row
_NO_WEIGHT = 1e-5  # taps below this change no pixel by a visible amount


def brightness(images: Tensor, factors: Tensor) -> None:
    """Scale each image by its factor (0: black, 1: unchanged)."""
    images.mul_(_each(factors, images)).clamp_(max=1)


def contrast(images: Tensor, factors: Tensor) -> None:
    """Move each image away from (factor > 1) or towards (< 1) the mean of its gray values."""
    mean = gray(images.mean((2, 3), keepdim=True))
    factor = _each(factors, images)
    images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def saturation(images: Tensor, factors: Tensor) -> None:
    """Move each pixel away from (factor > 1) or towards (< 1) its own gray value."""
    torch.lerp(gray(images), images, _each(factors, images), out=images)
    images.clamp_(0, 1)


def hue(images: Tensor, turns: Tensor) -> None:
    """Turn the hue of each image, `turns` in [-0.5, 0.5] of the color circle, as a change of H in HSV would.

    The value and the chroma of a pixel stay, so its largest and smallest channel stay M and m; the middle one moves,
    and where it would pass M or m, what is left of the turn moves the channel that it meets. In sixths of a turn d,
    |d| <= 1, that is ``clamp(x - sign(d) * shrink(v, (1 - |d|) * (M - m)), m, M)`` where v is the difference of the
    other two channels (green - blue for red, and so on around) and shrink pulls it towards 0 by the given amount: no
    division, no cases. A third of a turn is an exchange of channels, so larger turns are brought within a sixth.
    """
    thirds = [round(turn * 3) for turn in turns.tolist()]
    rest = turns * 6
    if any(thirds):
        _exchange_channels(images, torch.tensor(thirds))
        rest -= 2 * torch.tensor(thirds)
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue).unsqueeze_(1)
    low = torch.minimum(torch.minimum(red, green), blue).unsqueeze_(1)
    limit = (high - low).mul_(_each(1 - rest.abs(), images))
    move = torch.empty_like(images)
    for channel, (ahead, behind) in enumerate(((green, blue), (blue, red), (red, green))):
        torch.sub(ahead, behind, out=move[:, channel])
    move.sub_(torch.clamp(move, -limit, limit)).mul_(_each(rest.sign(), images))
    torch.clamp(images.sub_(move), low, high, out=images)


def grayscale(images: Tensor) -> None:
    """Replace the three channels by the gray value."""
    images.copy_(gray(images).expand_as(images))


def solarize(images: Tensor) -> None:
    """Invert the values from 128/255 on."""
    torch.where(images >= SOLARIZE_FROM, 1 - images, images, out=images)


def gray(images: Tensor) -> Tensor:
    """Gray values ``(N, 1, H, W)`` in [0, 1] of images ``(N, 3, H, W)``; of other channels their mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    total = images[:, 0:1] * LUMA[0]
    return total.add_(images[:, 1:2], alpha=LUMA[1]).add_(images[:, 2:3], alpha=LUMA[2])


def blur_kernels(sigmas: Tensor) -> Tensor:
    """Kernels ``(N, taps)`` of a Gaussian blur of the given standard deviations in pixels, ``(N,)`` on the CPU.

    The kernel is the one that PIL's ``GaussianBlur`` applies: three extended box filters in a row, which have the
    variance asked for exactly, come close to a Gaussian and end (after 13 taps at a deviation of 2). Gwosdek et al.,
    "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", 2011.
    """
    variance = sigmas.double().unsqueeze(1).square() / _BOXES
    inner = ((12 * variance + 1).sqrt() / 2 - 0.5).floor()  # whole pixels on either side of the middle
    edge = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1).square()))
    reach = int(inner.max()) + 1
    away = torch.arange(-reach, reach + 1, dtype=torch.float64).abs()
    box = (away <= inner) + (away == inner + 1) * edge
    box = box / box.sum(1, keepdim=True)
    taps = _BOXES * 2 * reach + 1
    # A product of spectra is a convolution; with `taps` points it does not wrap around.
    kernels: Tensor = torch.fft.irfft(torch.fft.rfft(box, n=taps) ** _BOXES, n=taps)
    return kernels.float()


def blur(images: Tensor, kernels: Tensor) -> None:
    """Blur each image by its row of `kernels` (N, taps), along both axes; edges are continued with their own value.

    OpenCV's filter is twice as fast as shifted additions in torch on a CPU core, and ten times as fast as a
    depthwise convolution; elsewhere the convolution serves.
    """
    if images.device.type == "cpu":
        for image, kernel in zip(images.numpy(), kernels.numpy(), strict=True):
            kernel = kernel[kernel > _NO_WEIGHT]
            for plane in image:
                cv2.sepFilter2D(plane, -1, kernel, kernel, dst=plane, borderType=cv2.BORDER_REPLICATE)
        return
    blur_by_convolution(images, kernels)


def blur_by_convolution(images: Tensor, kernels: Tensor) -> None:
    """The same as `blur`, as two depthwise convolutions over the whole batch."""
    number, channels, height, width = images.shape
    reach = kernels.shape[1] // 2
    weights = machine.sent(kernels, images.device).repeat_interleave(channels, 0)
    planes = F.pad(images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1).unsqueeze(0)
    planes = F.conv2d(planes, weights[:, None, None, :], groups=number * channels)
    planes = F.conv2d(planes, weights[:, None, :, None], groups=number * channels)
    images.copy_(planes.view(number, channels, height, width))


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Values ``(N,)`` of the CPU as ``(N, 1, 1, 1)`` where the images are."""
    return machine.sent(values.view(-1, 1, 1, 1), images.device)


def _exchange_channels(images: Tensor, thirds: Tensor) -> None:
    """Turn the hue of each image by whole thirds of the circle: after one third, red is where green was."""
    source = (torch.arange(3) - thirds.unsqueeze(1)) % 3
    source = machine.sent(source, images.device)[:, :, None, None].expand_as(images)
    images.copy_(images.gather(1, source))
