"""A family of detectors: ``model=tiny:8`` is a small network with three maps and a head, 8 channels wide at first.

What a family has is said in `headstart.detectors.find`, what a detector has in `headstart.detectors.base`.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from headstart.detectors.base import Detector, Level, Trunk
from headstart.detectors.handback import HandBack
from headstart.detectors.tensors import mismatches, not_finite, own_state
from headstart.errors import UserError
from headstart.files import write_atomically

CLASSES = 3
STRIDES = (8, 16, 32)


class Network(nn.Module):
    """The detector as its own training code has it: images -> a map of class scores and boxes at each stride."""

    def __init__(self, width):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width, 16 * width)
        self.backbone = nn.ModuleList(block(*pair) for pair in pairwise(widths))
        self.neck = nn.ModuleList(nn.Conv2d(one, 4 * width, 1) for one in widths[-3:])
        self.head = nn.ModuleList(nn.Conv2d(4 * width, CLASSES + 4, 1) for _ in STRIDES)


def block(before, after):
    """Half the resolution."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


class TinyTrunk(Trunk):
    """The network's own layers, under the network's own names: training it trains the detector."""

    def __init__(self, network, neck):
        super().__init__()
        self.backbone, self.neck = network.backbone, network.neck if neck else None

    def forward(self, images):
        maps = []
        for layer in self.backbone:
            images = layer(images)
            maps.append(images)
        return [layer(one) for layer, one in zip(self.neck, maps[-3:], strict=True)] if self.neck else maps[-1:]


class Tiny(Detector):
    """Detects, by ``task``; its checkpoint is a state dict."""

    task = "detect"

    def __init__(self, width, state=None, init=None):
        self.name, self.width = f"tiny:{width}", width
        self.names = {number: f"class {number}" for number in range(CLASSES)}
        self.module = Network(width).train()
        self.trained = state is not None
        if state is not None:
            self.module.load_state_dict(state)
        self.backbone = Level(layer=4, stride=STRIDES[-1], width=16 * width)
        self.levels = tuple(Level(layer=place, stride=one, width=4 * width) for place, one in enumerate(STRIDES))
        if init is not None:
            self.start_from(read(init)["state"], str(init))

    def trunk(self, neck=False):
        return TinyTrunk(self.module, neck)

    def part_of(self, tensor_name):
        return tensor_name.split(".")[0]

    def save(self, path, info):
        content = {"tiny": self.width, "state": own_state(self.module), "info": {key: str(info[key]) for key in info}}
        write_atomically(Path(path), lambda temporary: torch.save(content, temporary))

    def how_to_train(self, path, settings=None, data="your.yaml"):
        return f"network.load_state_dict(torch.load({str(path)!r}, weights_only=True)['state'])"

    def verify(self, path, trained):
        """Read it back, as the training code will, and compare every tensor."""
        expected, fresh = own_state(self.module), Network(self.width)
        fresh.load_state_dict(read(path)["state"])
        lost = mismatches(expected, fresh.state_dict(), "a fresh network")
        facts = {"places": ("a fresh network",), "not_finite": not_finite(expected)}
        return HandBack.compared(expected, lost, self.part_of, trained, **facts)


def read(path):
    """A checkpoint that `Tiny.save` wrote; no code in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"cannot be read: {type(error).__name__}", where=str(path)) from error


# The family ----------------------------------------------------------------------------------------------------------


def accepts(model):
    """Whether a live object, or an existing file, is one of ours."""
    try:
        return isinstance(model, (str, Path)) and "tiny" in read(model)
    except UserError:
        return False


def check(model):
    """What is wrong with ``model=``, before anything is loaded."""
    width = str(model).removeprefix("tiny:")
    if accepts(model) or (width.isdecimal() and int(width) > 0):
        return []
    return [UserError(f"{model} is no tiny detector", where="model", hint="give its width: tiny:8")]


def load(model, init=None):
    """The detector that ``model=`` names."""
    if accepts(model):
        content = read(model)
        return Tiny(content["tiny"], content["state"], init)
    return Tiny(int(str(model).removeprefix("tiny:")), init=init)
