"""States compared tensor by tensor: by name, by shape, bit by bit. Every comparison of weights is made here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from headstart.detectors.finetuner import Built
from headstart.detectors.handback import PARTS, Part


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` as a checkpoint holds it: float32, on the CPU."""
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def differences(state: Mapping[str, Tensor], other: Mapping[str, Tensor], place: str) -> dict[str, str]:
    """Tensors of `state` that `other` lacks or has in another shape: name -> what is wrong, in words."""
    wrong = {}
    for name, tensor in state.items():
        if name not in other:
            wrong[name] = f"is not in {place}"
        elif other[name].shape != tensor.shape:
            wrong[name] = f"has shape {tuple(other[name].shape)} in {place}, not {tuple(tensor.shape)}"
    return wrong


def mismatches(expected: Mapping[str, Tensor], held: Mapping[str, Tensor], place: str) -> dict[str, str]:
    """Tensors that `held` does not hold bit by bit: name -> what is wrong, in words; on whatever device they are."""
    wrong = differences(expected, held, place)
    for name, tensor in expected.items():
        if name not in wrong and not same_bits(tensor, held[name]):
            wrong[name] = f"has other values in {place}"
    return wrong


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are of one type and shape and hold the same bits: a NaN equals itself, 0.0 is not -0.0."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def not_finite(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the tensors that hold a NaN or an infinity: equal bits say nothing good of those."""
    return tuple(name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all()))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of a state."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def built(module: nn.Module, given: Mapping[str, Tensor], part_of: Callable[[str], Part]) -> Built:
    """What a start holds of the `given` tensors, counted part by part."""
    state = own_state(module)
    taken, total = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, tensor in state.items():
        total[part_of(name)] += 1
        taken[part_of(name)] += name in given and same_bits(given[name], tensor)
    return Built(taken, total, state, sum(parameter.numel() for parameter in module.parameters()))
