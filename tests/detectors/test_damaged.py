"""Weights of which a bit was flipped since they were written: told by name, by whatever opens them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headstart.detectors.damaged import refuse_damaged
from headstart.detectors.torchvision.models import read_state
from headstart.detectors.ultralytics.opening import open_checkpoint
from headstart.errors import UserError
from headstart.teachers.timm import _from_timm


def flipped(path: Path) -> Path:
    """A file of torch with two tensors, the last bit of the second one's last number flipped."""
    torch.save({"a": torch.zeros(3), "b": torch.full((4,), 1.5)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(torch.full((4,), 1.5).numpy().tobytes())
    content[place + 12] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("opened", "where"),
    [
        (lambda path: open_checkpoint(path, where="init"), "init"),
        (lambda path: read_state(str(path), "starts"), "starts"),
        (lambda path: _from_timm("resnet18", str(path)), "teacher_weights"),
    ],
)
def test_a_flipped_bit_is_told(tmp_path: Path, opened: Callable[[Path], object], where: str) -> None:
    path = flipped(tmp_path / "w.pt")
    read = torch.load(path, weights_only=True)["b"]
    assert read.tolist() != [1.5] * 4, "torch reads it without a word"
    with pytest.raises(UserError, match=r"w\.pt is damaged: the checksums of 1 of its \d+ parts differ") as caught:
        opened(path)
    assert caught.value.where == where
    assert "data/1" in str(caught.value)


def test_what_a_run_handed_back_can_be_written_anew(tmp_path: Path) -> None:
    path = flipped(tmp_path / "headstart.pt")
    (tmp_path / "settings.yaml").write_text("")
    with pytest.raises(UserError) as caught:
        refuse_damaged(path, "source")
    assert f"headstart pretrain resume=true out={tmp_path} writes it anew" in str(caught.value)


def test_what_has_no_checksums_is_taken(tmp_path: Path) -> None:
    whole, plain = tmp_path / "whole.pt", tmp_path / "plain.pt"
    torch.save({"a": torch.ones(3)}, whole)
    torch.save({"a": torch.ones(3)}, plain, _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt").write_text("no weights")
    without = [whole, plain, tmp_path / "text.pt", tmp_path / "gone.pt"]
    if hasattr(torch.serialization, "set_crc32_options"):
        torch.serialization.set_crc32_options(compute_crc32=False)
        try:
            torch.save({"a": torch.ones(3), "b": torch.ones(70, 70)}, tmp_path / "unsummed.pt")
        finally:
            torch.serialization.set_crc32_options(compute_crc32=True)
        without.append(tmp_path / "unsummed.pt")
    for path in without:
        refuse_damaged(path, "init")
