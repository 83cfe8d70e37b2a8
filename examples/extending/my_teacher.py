"""A teacher for ``teacher=my_teacher.py``: torchvision's ResNet-18 up to its last map, with ImageNet's normalization.

``HEADSTART_TEACHER`` names a file with a state dict of the whole ResNet; without it the weights are random ones.
"""

import os

import torch
from torch import nn
from torchvision.models import resnet18

from headstart.teachers.base import FrozenTeacher


def load():
    """Called once, when the run begins."""
    network = resnet18()
    if path := os.environ.get("HEADSTART_TEACHER"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    maps = nn.Sequential(*list(network.children())[:-2])  # (B, 3, H, W) -> (B, 512, H / 32, W / 32)
    return FrozenTeacher(maps, "resnet18", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
