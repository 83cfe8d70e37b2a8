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
from headstart.teachers import timm as timm_source
from headstart.teachers.base import FrozenTeacher, Teacher, TeacherSource
from headstart.teachers.load import check_teacher, load_teacher

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def teacher_of(teacher: Any, weights: str | None = None) -> Teacher:
    return load_teacher(TeacherSource(teacher, weights))


def wrong(teacher: Any, weights: str | None = None) -> str:
    return "\n".join(map(str, check_teacher(TeacherSource(teacher, weights))))


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
    teacher = teacher_of(Echo(shape))
    assert (teacher.strides, teacher.widths) == (strides, (3,) * len(strides))


def test_tokens_keep_their_places() -> None:
    square = IMAGES[..., :64]
    expected = nn.functional.adaptive_avg_pool2d(square, 4)
    torch.testing.assert_close(teacher_of(Echo("tokens"))(square)[0], expected)


class Patches(nn.Module):
    """Tokens of 16 x 16 pixels, row by row."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 16).flatten(2).transpose(1, 2)


def test_tokens_are_laid_out_in_the_proportions_of_the_image() -> None:
    wide = IMAGES[..., :64, :]
    torch.testing.assert_close(teacher_of(Patches())(wide)[0], nn.functional.avg_pool2d(wide, 16))


@pytest.mark.parametrize("shape", ["logits", "class"])
def test_a_module_without_maps_is_refused(shape: str) -> None:
    with pytest.raises(UserError, match="gives no feature map"):
        teacher_of(Echo(shape))


def test_images_are_normalized_as_the_teacher_was_trained() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    found = load_teacher(TeacherSource(Echo(), None, mean, std))(IMAGES)[0]
    expected = nn.functional.avg_pool2d(torch.stack([(IMAGES[:, c] - mean[c]) / std[c] for c in range(3)], 1), 8)
    torch.testing.assert_close(found, expected)


def test_a_teacher_is_a_copy_that_stays_in_evaluation_mode() -> None:
    own = Echo().train()
    teacher = teacher_of(own)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert own.training
    assert own.norm.weight.requires_grad


def test_a_yolo_teaches_with_its_pyramid(tmp_path) -> None:
    live = YOLO("yolo11n.yaml", verbose=False)
    live.save(tmp_path / "other.pt")
    teacher = teacher_of(str(tmp_path / "other.pt"))
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
    monkeypatch.setattr(timm_source, "find_spec", lambda name: object())


def test_a_timm_model_brings_its_own_normalization_and_size(monkeypatch) -> None:
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
    teacher = teacher_of("net_small.tag")
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
        teacher_of("net_small")
    with pytest.raises(UserError, match="did you mean 'net_small'"):
        teacher_of("net_smal")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_timm_model_with_weights_from_a_file(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    net = timm.create_model(name).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    teacher = teacher_of(name, str(tmp_path / "net.pt"))
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
        teacher_of("test_resnet", str(tmp_path / "part.pt"))
    with pytest.raises(UserError, match=r"teacher_weights: there is no file .*none\.pt"):
        teacher_of("test_resnet", str(tmp_path / "none.pt"))
    assert "teacher_weights: has no effect here: a torch module brings" in wrong(Echo(), "part.pt")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (3, "a int is not a network that"),
        ("nowhere.pt", "nowhere.pt"),
        ("yolo11n.yaml", "has random weights"),
    ],
)
def test_what_cannot_teach(teacher: Any, said: str) -> None:
    assert said in wrong(teacher)


def test_without_timm_the_message_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(timm_source, "find_spec", lambda name: None)
    assert "pip install timm" in wrong("vit_small_patch14_dinov2")


def test_distill_needs_a_teacher() -> None:
    with pytest.raises(UserError, match="teacher: is needed"):
        tiny.resolve({"data": "x", "method": "distill"})


def test_a_live_teacher_is_described_in_the_run(tmp_path) -> None:
    resolved = tiny.resolve({"data": "x", "method": "distill", "teacher": Echo()})
    assert as_plain(resolved.method.model_dump()["teacher"]) == {"in_memory": "Echo", "origin": None}


# -- a user's own -----------------------------------------------------------------------------------------------------

OWN = """
from torch import nn
from headstart.teachers.base import FrozenTeacher
def load():
    return {}
"""


@pytest.mark.parametrize("made", ["nn.Conv2d(3, 5, 3, 2, 1)", "FrozenTeacher(nn.Conv2d(3, 5, 3, 2, 1), 'mine')"])
def test_a_python_file_may_give_a_module_or_a_teacher(tmp_path: Path, made: str) -> None:
    (tmp_path / "mine.py").write_text(OWN.format(made))
    teacher = teacher_of(str(tmp_path / "mine.py"))
    assert isinstance(teacher, FrozenTeacher)
    assert (teacher.widths, teacher.strides) == ((5,), (2.0,))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def load(:", r"mine\.py cannot be imported: SyntaxError"),
        ("import nowhere", r"mine\.py cannot be imported: ModuleNotFoundError"),
        ("x = 1", r"has no function load\(\)"),
        ("def load(): return 3", r"load\(\) of .*mine\.py gives a int, not a torch module"),
        ("def load(): raise RuntimeError('no weights')", r"load\(\) of .* failed: RuntimeError: no weights"),
    ],
)
def test_python_files_that_give_no_teacher(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    assert wrong(str(tmp_path / "mine.py")) == ""  # a user's code does not run before it must
    with pytest.raises(UserError, match=said) as caught:
        teacher_of(str(tmp_path / "mine.py"))
    assert caught.value.where == "teacher"


TEACHER = """
from headstart.teachers.base import Teacher
class Mine(Teacher):
    def forward(self, images):
        return [images]
def load():
    own = Mine()
"""


def test_a_teacher_of_ones_own_says_what_it_gives(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TEACHER + "    return own\n")
    with pytest.raises(UserError, match="the Mine does not set name, widths, strides"):
        teacher_of(str(tmp_path / "mine.py"))
    (tmp_path / "mine.py").write_text(
        TEACHER + "    own.name, own.widths, own.strides = 'mine', (3,), (1.0,)\n    return own\n"
    )
    assert torch.equal(teacher_of(str(tmp_path / "mine.py"))(IMAGES)[0], IMAGES)


def test_all_options_without_effect_are_told_together(tmp_path: Path) -> None:
    given = {"teacher": str(tmp_path / "gone.py"), "teacher_weights": "a", "teacher_mean": (0, 0, 0)}
    assert [problem.where for problem in check_teacher(TeacherSource.of(given))] == ["teacher"]
    (tmp_path / "x.pt").write_bytes(b"")
    found = check_teacher(TeacherSource.of({**given, "teacher": str(tmp_path / "x.pt")}))
    assert [problem.where for problem in found][-2:] == ["teacher_weights", "teacher_mean"]


def test_a_timm_model_that_cannot_be_built_without_numbers_is_built_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "net.pt")
    create = timm.create_model

    def reads_numbers(*given: Any, **options: Any) -> Any:
        torch.linspace(0, 1, 2)[0].item()  # as the transformers of older versions of timm do
        return create(*given, **options)

    monkeypatch.setattr(timm, "create_model", reads_numbers)
    assert teacher_of("test_resnet", str(tmp_path / "net.pt")) is not None


# -- batch norms ------------------------------------------------------------------------------------------------------


def settled(network: nn.Module) -> nn.Module:
    """With statistics, weights and biases as a trained network has them: none is 0 or 1."""
    random = torch.Generator().manual_seed(3)
    for one in network.modules():
        if isinstance(one, nn.BatchNorm2d):
            for tensor in (one.running_mean, one.running_var, one.weight, one.bias):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=random) + 0.5
    return network.requires_grad_(False).eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(one, nn.BatchNorm2d) for one in network.modules())


def test_a_network_of_timm_has_its_batch_norms_folded_and_the_same_maps() -> None:
    timm = pytest.importorskip("timm")
    network = settled(timm.create_model("tf_efficientnet_lite0", features_only=True))
    teacher = FrozenTeacher(network, "lite")
    expected = teacher(IMAGES)
    assert norms(network) == 48  # its 49th, of the head, is not among the features
    assert norms(teacher.quicker()) == 0
    for one, other in zip(expected, teacher(IMAGES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))
    assert norms(network) == 48, "what was given stays as it is"


def test_the_pyramid_of_a_detector_is_folded(tmp_path: Path) -> None:
    live = YOLO("yolo11n.yaml")
    settled(live.model)
    live.save(str(tmp_path / "teacher.pt"))
    teacher = teacher_of(str(tmp_path / "teacher.pt"))
    assert norms(teacher) == 0
    assert norms(live.model) > 80


class Crossed(nn.Module):
    """Names its parts in another order than it goes through them, as nobody forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.norm(self.other(self.one(images).relu())), 8)


def test_a_batch_norm_that_follows_another_convolution_stays() -> None:
    teacher = FrozenTeacher(settled(Crossed()), "crossed")
    expected = teacher(IMAGES)
    assert norms(teacher.quicker()) == 1
    torch.testing.assert_close(teacher(IMAGES), expected, rtol=0, atol=0)


def test_a_detector_of_a_larger_stride_is_fed_what_it_takes(tmp_path: Path) -> None:
    YOLO("yolov8n-p6.yaml").save(tmp_path / "p6.pt")
    teacher = load_teacher(TeacherSource(str(tmp_path / "p6.pt")), neck=True)
    for side in (96, 160, 224):
        maps = teacher(torch.rand(1, 3, side, side))
        assert maps[-1].shape[-1] == -(-side // 64)
