from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from headstart.detectors.base import Level
from headstart.detectors.find import check_init, check_model, load_detector
from headstart.detectors.torchvision import names
from headstart.detectors.torchvision.detector import TorchvisionDetector
from headstart.errors import UserError

detection = torchvision.models.detection
SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def shared() -> Any:
    torch.manual_seed(0)
    return load_detector(f"torchvision:{SMALL}")


@pytest.fixture
def detector(shared: Any) -> Any:
    return deepcopy(shared)


def changed(detector: TorchvisionDetector) -> dict[str, torch.Tensor]:
    """Other weights for backbone and pyramid, as after a pretraining."""
    random = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(tensor.shape, generator=random) if tensor.is_floating_point() else tensor + 5
        for name, tensor in detector.trunk(neck=True).state_dict().items()
    }


# Names


def test_names_are_those_that_torchvision_registers() -> None:
    assert list(names.known_names()) == sorted(torchvision.models.list_models(module=detection))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision:retinanet_resnet50_fpm", "did you mean 'retinanet_resnet50_fpn'"),
        ("torchvision:", "torchvision has no detector called ''"),
        (
            "torchvison:retinanet_resnet50_fpn",
            "called 'torchvison'\n  -> did you mean 'torchvision'?",
        ),
        ("torchvision:ssd300_vgg16", None),
    ],
)
def test_names_are_checked(model: str, message: str | None) -> None:
    found = check_model(model)
    assert [message in str(problem) for problem in found] == ([True] if message else [])


def test_a_detector_without_a_pyramid_is_refused() -> None:
    with pytest.raises(UserError, match="ssdlite320_mobilenet_v3_large has no feature pyramid"):
        load_detector("torchvision:ssdlite320_mobilenet_v3_large")


def test_a_live_model_is_refused(detector: TorchvisionDetector) -> None:
    with pytest.raises(UserError, match=r"a live FasterRCNN does not say.*\n.*torchvision:NAME"):
        load_detector(detector.module)


def test_checking_imports_no_torch_and_one_family_not_the_other() -> None:
    code = """
import sys
from headstart.detectors.find import check_init, check_model, finetuner, load_detector
assert check_model("torchvision:fcos_resnet50_fpn") == [] == check_model("yolo11n")
assert finetuner("torchvision:fcos_resnet50_fpn").check_model("torchvision:fcos_resnet50_fpn") == []
assert not {"torch", "torchvision", "ultralytics"} & set(sys.modules)
load_detector("yolo11n")
assert "headstart.detectors.torchvision.models" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# The network


def test_strides_and_widths() -> None:
    """RetinaNet reads C3 to C5 of a ResNet-50 (strides 8, 16, 32) and two maps more, all 256 wide."""
    found = load_detector("torchvision:retinanet_resnet50_fpn")
    assert found.backbone == Level(7, 32, 2048)
    assert found.levels == tuple(Level(place, 8 * 2**place, 256) for place in range(5))
    assert (found.name, found.task, len(found.names), found.names[1]) == (
        "retinanet_resnet50_fpn",
        "detect",
        91,
        "person",
    )
    assert not found.trained
    assert all(parameter.requires_grad for parameter in found.module.parameters())
    assert all(module.training for module in found.module.modules())
    counters = [value for name, value in found.module.state_dict().items() if name.endswith("num_batches_tracked")]
    assert {int(value) for value in counters} == {0}, "measuring moves no statistics"


def test_the_trunks_maps_are_those_inside_the_model(detector: TorchvisionDetector) -> None:
    """The model's own forward pass, with its own normalization, seen by hooks; images that it need not scale."""
    model: Any = detector.module.eval()
    model.transform.min_size, model.transform.max_size = (128,), 128
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    seen: dict[str, Any] = {}
    model.backbone.body.register_forward_hook(lambda _, __, out: seen.update(body=list(out.values())))
    model.backbone.register_forward_hook(lambda _, __, out: seen.update(pyramid=list(out.values())))
    with torch.no_grad():
        model(list(images))
        (last,), pyramid = detector.trunk()(images), detector.trunk(neck=True)(images)
    assert torch.equal(last, seen["body"][-1])
    assert len(pyramid) == len(seen["pyramid"]) == len(detector.levels)
    assert all(torch.equal(one, other) for one, other in zip(pyramid, seen["pyramid"], strict=True))


def test_the_trunk_has_the_detectors_names_and_weights(detector: TorchvisionDetector) -> None:
    state = detector.module.state_dict()
    body = {name for name in state if name.startswith("backbone.body.")}
    assert set(detector.trunk().state_dict()) == body
    assert (
        set(detector.trunk(neck=True).state_dict()) == {name for name in state if name.startswith("backbone.")} > body
    )
    teacher = deepcopy(detector.trunk())
    with torch.no_grad():
        next(detector.trunk().parameters()).fill_(2.0)
    assert detector.module.state_dict()["backbone.body.0.0.weight"].unique().tolist() == [2.0]
    assert next(teacher.parameters()).unique().numel() > 1


def test_its_head_is_not_trained_on_clusters(detector: TorchvisionDetector) -> None:
    with pytest.raises(
        UserError, match=r"is not a detector whose head can be trained on boxes alone\n.*method=pyramid"
    ):
        detector.pseudolabel_head(5)


# The file


def test_torchvision_loads_the_file_strictly(detector: TorchvisionDetector, tmp_path: Path) -> None:
    given = changed(detector)
    detector.graft(given)
    detector.save(tmp_path / "headstart.pt", {"method": "dino", "out": tmp_path})
    model = getattr(detection, SMALL)(weights=None, weights_backbone=None, num_classes=91)
    model.load_state_dict(torch.load(tmp_path / "headstart.pt", weights_only=True))
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
    assert all(torch.equal(state[name], tensor) for name, tensor in detector.module.state_dict().items())


def test_the_file_says_what_it_is(detector: TorchvisionDetector, tmp_path: Path) -> None:
    detector.save(tmp_path / "start.pt", {})
    assert not load_detector(tmp_path / "start.pt").trained
    detector.graft(changed(detector))
    detector.save(tmp_path / "headstart.pt", {})
    again = load_detector(tmp_path / "headstart.pt")
    assert isinstance(again, TorchvisionDetector)
    assert (again.name, again.names, again.trained) == (SMALL, detector.names, True)
    assert torch.equal(
        again.module.state_dict()["backbone.body.0.0.weight"], changed(detector)["backbone.body.0.0.weight"]
    )
    assert not names.is_ours(Path(__file__))


def test_everything_arrives(detector: TorchvisionDetector, tmp_path: Path) -> None:
    given = changed(detector)
    detector.graft(given)
    detector.save(tmp_path / "a.pt", {})
    before = torch.get_rng_state()
    found = detector.verify(tmp_path / "a.pt", given)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.ok
    total = len(detector.module.state_dict())
    assert sum(count.arrived for count in found.parts.values()) == total
    assert found.lines()[1].startswith(f"all {total} tensors bitwise equal in the file read back, a fresh torchvision")
    assert found.classes == (91, 3)
    # cls_score and bbox_pred of the box predictor, weight and bias each.
    assert {name.split(".")[1] for name in found.fresh} == {"box_predictor"}
    assert len(found.fresh) == 4


def damage(change: Any, path: Path) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda state: state["backbone.fpn.inner_blocks.0.0.bias"].add_(1),
            "has other values in the file read back",
        ),
        (lambda state: state.pop("backbone.fpn.inner_blocks.0.0.bias"), "is not in the file read back"),
    ],
)
def test_what_does_not_arrive_is_named(change: Any, reason: str, detector: TorchvisionDetector, tmp_path: Path) -> None:
    detector.save(tmp_path / "a.pt", {})
    damage(change, tmp_path / "a.pt")
    found = detector.verify(tmp_path / "a.pt", [])
    assert [(one.name, one.part, one.reason) for one in found.dropped] == [
        ("backbone.fpn.inner_blocks.0.0.bias", "neck", reason)
    ]


def test_nan_arrives_bit_by_bit_and_is_not_well(detector: TorchvisionDetector, tmp_path: Path) -> None:
    with torch.no_grad():
        next(detector.module.parameters()).view(-1)[0] = float("nan")
    detector.save(tmp_path / "a.pt", {})
    found = detector.verify(tmp_path / "a.pt", [])
    assert (found.dropped, found.not_finite, found.ok) == ((), ("backbone.body.0.0.weight",), False)


# init


def test_init_takes_state_dicts_as_people_have_them(detector: TorchvisionDetector, tmp_path: Path) -> None:
    """Frozen batch norms without counters, as published; names with "module."; a training's checkpoint around it."""
    given = {name: tensor for name, tensor in changed(detector).items() if "num_batches" not in name}
    state = {**detector.module.state_dict(), **given}
    state = {f"module.{name}": tensor for name, tensor in state.items() if "num_batches" not in name}
    torch.save({"model": state, "epoch": 3}, tmp_path / "theirs.pth")
    assert check_init(f"torchvision:{SMALL}", str(tmp_path / "theirs.pth")) == []
    found = load_detector(f"torchvision:{SMALL}", init=tmp_path / "theirs.pth")
    assert found.trained
    assert found.notes[-1].startswith(
        "backbone 308 of 308 tensors, neck 8 of 8 tensors, head 14 of 14 tensors came from"
    )
    assert all(torch.equal(found.module.state_dict()[name], tensor) for name, tensor in given.items())


def write_bad(folder: Path) -> None:
    other = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(other.state_dict(), folder / "other.pth")
    torch.save(torch.nn.Linear(2, 2), folder / "pickled.pt")
    torch.save([torch.zeros(2)], folder / "list.pt")
    (folder / "cut.pt").write_bytes((folder / "list.pt").read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.pth", "is of another architecture than fasterrcnn_mobilenet_v3_large_320_fpn: 626 of 626"),
        ("pickled.pt", "state dict"),
        ("list.pt", "holds no state dict"),
        ("cut.pt", "cannot be read as a state dict"),
    ],
)
def test_bad_init(name: str, message: str, bad: Path) -> None:
    with pytest.raises(UserError) as error:
        load_detector(f"torchvision:{SMALL}", init=bad / name)
    assert message in str(error.value)
    assert str(error.value).startswith("init: ")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_bad(folder)
    return folder


@pytest.mark.parametrize(
    ("init", "message"), [("none.pt", "none.pt does not exist"), ("yolo11n.yaml", "must be a state dict (.pt or .pth)")]
)
def test_init_is_checked_before(init: str, message: str) -> None:
    (problem,) = check_init(f"torchvision:{SMALL}", init)
    assert message in str(problem)
