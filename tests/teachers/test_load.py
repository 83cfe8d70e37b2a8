"""Teachers from a checkpoint, from timm and from memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from ultralytics import YOLO

from headstart.errors import UserError
from headstart.settings.resolve import as_plain
from headstart.teachers import load
from headstart.teachers.load import check_teacher, load_teacher

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Echo(nn.Module):
    """Gives what it was fed, pooled: what arrives at a teacher can be read off."""

    def __init__(self, shape: str = "map") -> None:
        super().__init__()
        self.shape = shape
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Any:
        fine, coarse = nn.functional.avg_pool2d(images, 8), nn.functional.avg_pool2d(images, 32)
        tokens = nn.functional.adaptive_avg_pool2d(images, 4).flatten(2).transpose(1, 2)
        with_class = torch.cat([torch.full_like(tokens[:, :1], 9.0), tokens], 1)
        answers = {"map": fine, "list": [coarse, fine], "dict": {"a": fine, "b": coarse}, "tokens": tokens}
        return {**answers, "class": with_class, "logits": images.mean((2, 3))}[self.shape]


@pytest.mark.parametrize(
    ("shape", "strides"),
    [("map", (8,)), ("list", (8, 32)), ("dict", (8, 32)), ("tokens", (64,))],
)
def test_a_module_may_give_maps_or_tokens(shape: str, strides: tuple[float, ...]) -> None:
    teacher = load_teacher(Echo(shape))
    assert (teacher.strides, teacher.widths) == (strides, (3,) * len(strides))


def test_tokens_keep_their_places() -> None:
    square = IMAGES[..., :64]
    expected = nn.functional.adaptive_avg_pool2d(square, 4)
    torch.testing.assert_close(load_teacher(Echo("tokens"))(square)[0], expected)


@pytest.mark.parametrize("shape", ["logits", "class"])
def test_a_module_without_maps_is_refused(shape: str) -> None:
    with pytest.raises(UserError, match="gives no feature map"):
        load_teacher(Echo(shape))


def test_images_are_normalised_as_the_teacher_was_trained() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    found = load_teacher(Echo(), mean, std)(IMAGES)[0]
    expected = nn.functional.avg_pool2d(torch.stack([(IMAGES[:, c] - mean[c]) / std[c] for c in range(3)], 1), 8)
    torch.testing.assert_close(found, expected)


def test_a_teacher_is_a_copy_that_stays_in_evaluation_mode() -> None:
    own = Echo().train()
    teacher = load_teacher(own)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert own.training
    assert own.norm.weight.requires_grad


def test_a_yolo_teaches_with_its_pyramid(tmp_path) -> None:
    live = YOLO("yolo11n.yaml", verbose=False)
    live.save(tmp_path / "other.pt")
    teacher = load_teacher(str(tmp_path / "other.pt"))
    assert (teacher.widths, teacher.strides) == ((64, 128, 256), (8, 16, 32))
    # The detection layer reads the pyramid: caught there, as Ultralytics feeds it.
    caught: list[Tensor] = []
    module = YOLO(tmp_path / "other.pt").model.eval()
    module.model[-1].register_forward_pre_hook(lambda _, given: caught.extend(given[0]))
    with torch.no_grad():
        module(IMAGES)
    for one, expected in zip(teacher(IMAGES), caught, strict=True):
        torch.testing.assert_close(one, expected)


def fake_timm(monkeypatch: pytest.MonkeyPatch, create: Any) -> None:
    timm = SimpleNamespace(
        is_model=lambda name: name == "net_small",
        list_models=lambda: ["net_small"],
        create_model=create,
        data=SimpleNamespace(resolve_data_config=lambda _, model: {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setattr(load, "find_spec", lambda name: object())


def test_a_timm_model_brings_its_own_normalisation_and_size(monkeypatch) -> None:
    asked: list[dict[str, Any]] = []

    def create(name: str, **options: Any) -> nn.Module:
        asked.append({"name": name, **options})
        if "dynamic_img_size" in options:
            raise TypeError("unexpected keyword argument 'dynamic_img_size'")
        net = Echo()
        net.feature_info = SimpleNamespace(reduction=lambda: [8, 48])
        net.output_fmt = SimpleNamespace(value="NHWC")
        net.forward = lambda images: [nn.functional.avg_pool2d(images, 8).permute(0, 2, 3, 1)]
        return net

    fake_timm(monkeypatch, create)
    teacher = load_teacher("net_small.tag")
    assert asked[-1] == {"name": "net_small.tag", "pretrained": True, "features_only": True}
    found = teacher(IMAGES)[0]
    assert found.shape == (2, 3, 12, 12)  # 64 x 96 becomes 96 x 96, the next multiples of 48
    flat = teacher(torch.full((1, 3, 96, 96), 0.75))[0]
    torch.testing.assert_close(flat, torch.ones(1, 3, 12, 12))  # (0.75 - 0.5) / 0.25


def test_a_download_that_fails_is_said(monkeypatch) -> None:
    def create(name: str, **options: Any) -> nn.Module:
        raise OSError("no route to host")

    fake_timm(monkeypatch, create)
    with pytest.raises(UserError, match="cannot load 'net_small': no route to host"):
        load_teacher("net_small")
    with pytest.raises(UserError, match="did you mean 'net_small'"):
        load_teacher("net_smal")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_timm_model_with_weights_from_a_file(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    net = timm.create_model(name).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    teacher = load_teacher(name, weights=str(tmp_path / "net.pt"))
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    config = timm.data.resolve_data_config({}, model=net)
    mean, std = (torch.tensor(config[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        found = teacher(images)[-1]
        if name == "test_resnet":
            expected = net.forward_features((images - mean) / std)
        else:
            tokens = net.forward_intermediates((images - mean) / std, intermediates_only=True, norm=False)
            expected = tokens[-1]
    torch.testing.assert_close(found, expected)


def test_weights_that_are_not_the_teachers(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("test_resnet").state_dict()
    lost = next(iter(state))
    torch.save({name: tensor for name, tensor in state.items() if name != lost}, tmp_path / "part.pt")
    with pytest.raises(UserError, match=f"part.pt lacks 1 of its .* tensors, such as {lost}"):
        load_teacher("test_resnet", weights=str(tmp_path / "part.pt"))
    with pytest.raises(UserError, match=r"teacher_weights: there is no file .*none\.pt"):
        load_teacher("test_resnet", weights=str(tmp_path / "none.pt"))
    assert "is for a teacher that timm makes" in str(check_teacher(Echo(), "part.pt")[0])


@pytest.mark.parametrize(
    ("teacher", "said"),
    [(3, "a int is no network"), ("nowhere.pt", "nowhere.pt"), ("yolo11n.yaml", "has random weights")],
)
def test_what_cannot_teach(teacher: Any, said: str) -> None:
    assert said in str(check_teacher(teacher)[0])


def test_without_timm_the_message_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    assert "pip install 'headstart[timm]'" in str(check_teacher("vit_small_patch14_dinov2")[0])


def test_distill_needs_a_teacher() -> None:
    with pytest.raises(UserError, match="teacher: is needed"):
        tiny.resolve({"data": "x", "method": "distill"})


def test_a_live_teacher_is_described_in_the_run(tmp_path) -> None:
    resolved = tiny.resolve({"data": "x", "method": "distill", "teacher": Echo()})
    assert as_plain(resolved.method.model_dump()["teacher"]) == {"in_memory": "Echo", "origin": None}
