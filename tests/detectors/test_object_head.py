"""Boxes that detectors propose, and their loss on objects, against Ultralytics' own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg

from headstart.detectors.find import load_detector
from headstart.detectors.ultralytics.head import DetectHead
from headstart.errors import UserError
from headstart.jobs.going_on import searches_again
from headstart.jobs.pretrain import pretrain
from headstart.pseudolabels import parts
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.parts import Parts
from small import SMALL, small_yaml


def images(number: int = 2, size: int = 128) -> torch.Tensor:
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    [
        "yolo11n.yaml",
        "yolov8n.yaml",
        "yolov10n.yaml",
        "yolo26n.yaml",
        "rtdetr-l.yaml",
        "yolo11n-pose.yaml",
        "yolo26n-pose.yaml",
    ],
)
def test_proposals_are_ultralytics_own_detections(name: str) -> None:
    torch.manual_seed(0)
    detector = load_detector(name)
    given = images()
    found = detector.propose(given)
    assert detector.module.training
    live = (RTDETR if "rtdetr" in name else YOLO)(name)
    live.model.load_state_dict(detector.module.state_dict())
    results = live.predict(given, conf=0.0, iou=1.0, agnostic_nms=True, max_det=300, verbose=False, device="cpu")
    for mine, theirs in zip(found, results, strict=True):
        torch.testing.assert_close(mine[0, 4], theirs.boxes.conf.max(), atol=1e-4, rtol=1e-3)
        best = theirs.boxes.xyxy[theirs.boxes.conf > theirs.boxes.conf.max() - 1e-4]
        inside = mine[0, :4].clamp(0, 128)
        assert (best - inside).abs().amax(1).min() < 0.5
        assert (mine[1:, 4] <= mine[:-1, 4] + 1e-6).all()


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolov5n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_the_loss_is_that_of_the_family(name: str) -> None:
    """With a class for each cluster and the same outputs, the loss is what Ultralytics computes."""
    torch.manual_seed(0)
    detector = load_detector(name)
    head = DetectHead(detector.module, len(detector.names))
    outputs = {name: tensor for name, tensor in detector.module.state_dict().items() if name in head.state_dict()}
    head.load_state_dict(outputs)
    owner, clusters = torch.tensor([0, 0, 1]), torch.tensor([3, 70, 5])
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.9, 0.8], [0.0, 0.3, 0.5, 0.9]])
    given = images()
    mine = head(detector.trunk(neck=True)(given), owner, boxes, clusters)

    module: Any = detector.module
    module.args = get_cfg()
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    batch = {"img": given, "batch_idx": owner, "cls": clusters[:, None], "bboxes": torch.cat([middle, sides], 1)}
    theirs, _ = module.loss(batch)
    torch.testing.assert_close(mine, theirs / 2, rtol=1e-4, atol=1e-4)
    other = torch.tensor([2, 0, 1])
    again = head(detector.trunk(neck=True)(given), owner[other], boxes[other], clusters[other])
    torch.testing.assert_close(again, mine)  # in whatever order of images


def test_what_goes_back_is_all_but_the_outputs() -> None:
    detector = load_detector("yolo11n.yaml")
    head = DetectHead(detector.module, 7)
    own = {name for name in detector.module.state_dict() if detector.part_of(name) == "head"}
    left = {f"model.23.cv3.{level}.2.{kind}" for level in range(3) for kind in ("weight", "bias")}
    assert set(head.handed_back()) == own - left
    assert head.state_dict()["model.23.cv3.0.2.weight"].shape[0] == 7
    assert detector.module.state_dict()["model.23.cv3.0.2.weight"].shape[0] == 80


def test_heads_that_are_more_than_boxes_are_refused(image_folder: Any, tmp_path: Any) -> None:
    YOLO("yolo11n-seg.yaml", verbose=False).save(tmp_path / "seg.pt")
    with pytest.raises(UserError, match=r"yolo11n-seg \(segment\) is not a detector (.|\n)* method=pyramid"):
        pretrain(
            data=str(image_folder), model=str(tmp_path / "seg.pt"), method="objects", steps=1, out=str(tmp_path / "a")
        )


def test_random_weights_find_nothing(image_folder: Any, tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"proposals: random weights find no objects\n.* give init="):
        pretrain(data=str(image_folder), model="yolo11n.yaml", method="objects", steps=1, out=str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_a_search_that_ends_at_any_batch_goes_on(
    image_folder: Any, tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    """By Ctrl-C, or by an error once a part is written; it finds what one that was never stopped finds."""
    torch.manual_seed(0)
    YOLO(small_yaml(), verbose=False).save(tmp_path / "start.pt")
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "images" / "no.jpg").write_bytes(b"none")
    given = {"data": str(tmp_path / "images"), "model": str(tmp_path / "start.pt"), "method": "objects", "steps": 6}
    given |= {"batch": 5, "imgsz": 64, "device": "cpu", "workers": 0, "report": False, "clusters": 4, "save_every": 9}
    given |= {"proposal_imgsz": 96, "log_every": 1}
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    whole = pretrain(**given, out=str(tmp_path / "whole"))
    add, batches = Parts.add, []

    def end(self: Parts, *found: Any) -> None:
        if len(batches) in (2, 3):  # the third batch, and where it goes on the fourth
            batches.append(self.batches)
            raise SystemError if len(batches) == 3 else KeyboardInterrupt
        batches.append(self.batches)
        add(self, *found)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", end)
        with pytest.raises(SystemError):
            pretrain(**given, out=str(tmp_path / "a"))
        with pytest.raises(KeyboardInterrupt):
            pretrain(**given, out=str(tmp_path / "a"), resume=True)
        assert len(list((tmp_path / "a" / "search").iterdir())) == 2
        rest = pretrain(**given, out=str(tmp_path / "a"), resume=True)
    assert batches == [0, 1, 2, 2, 2, 3, 4]
    assert "going on with the search: 10 images were searched before" in capsys.readouterr().err
    assert not (tmp_path / "a" / "search").exists()
    one, other = (PseudoLabels.load(run.folder / "pseudolabels.pt").labels for run in (whole, rest))
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
    expected, found = (YOLO(str(run.checkpoint)).model.state_dict() for run in (whole, rest))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    skipped = [(run.folder / "skipped.csv").read_text() for run in (whole, rest)]
    assert skipped[0] == skipped[1]
    assert skipped[0].count("no.jpg") == 1


@pytest.mark.parametrize("saved", [True, False])
def test_what_was_found_and_is_damaged_is_searched_again(
    image_folder: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str], saved: bool
) -> None:
    """What comes out is what would have come out, whether the run had a checkpoint or not."""
    (tmp_path / "small.yaml").write_text(SMALL)
    load_detector(str(tmp_path / "small.yaml")).save(tmp_path / "start.pt", {})
    given = {"data": str(image_folder), "model": str(tmp_path / "start.pt"), "method": "objects", "steps": 2}
    given |= {"batch": 4, "imgsz": 64, "device": "cpu", "workers": 0, "report": False, "clusters": 4, "save_every": 1}
    whole = pretrain(**given, out=str(tmp_path / "a"))
    file = whole.folder / "pseudolabels.pt"
    first, expected = PseudoLabels.load(file).labels, YOLO(str(whole.checkpoint)).model.state_dict()
    if saved:
        (whole.folder / "checkpoints" / "step-00000002.pt").unlink()
    else:
        for path in (*(whole.folder / "checkpoints").iterdir(), whole.checkpoint):
            path.unlink()
    file.write_bytes(file.read_bytes()[:-2000])
    rest = pretrain(**given, out=str(tmp_path / "a"), resume=True)
    assert "the images are searched again" in " ".join(capsys.readouterr().err.split())
    again = PseudoLabels.load(file).labels
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in first.tensors().items())
    found = YOLO(str(rest.checkpoint)).model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # With another detector other objects would be found.
    file.unlink()
    (tmp_path / "start.pt").write_bytes(b"another")
    with pytest.raises(UserError, match="is not the file that this run began with"):
        pretrain(**given, out=str(tmp_path / "a"), resume=True)


def test_what_a_budget_had_cut_is_not_searched_again(tmp_path: Any) -> None:
    """How far the search came is not known: another would find other objects."""
    record = {"options": {"budget": "10m"}, "resolved": {"steps": 20}}
    assert not searches_again(record)
    assert searches_again({**record, "resolved": {"steps": None}})
    assert searches_again({**record, "options": {}})


def test_a_run_goes_on_with_its_own_images_alone(image_folder: Any, tmp_path: Any) -> None:
    """What was found belongs to places in the index: with other images the boxes would be those of others."""
    YOLO(small_yaml(), verbose=False).save(tmp_path / "start.pt")
    shutil.copytree(image_folder, tmp_path / "images")
    given = {"data": str(tmp_path / "images"), "model": str(tmp_path / "start.pt"), "method": "objects", "steps": 2}
    given |= {"batch": 4, "imgsz": 64, "device": "cpu", "workers": 0, "report": False}
    pretrain(**given, save_every=1, out=str(tmp_path / "a"))
    (tmp_path / "images" / "05.jpg").unlink()
    with pytest.raises(UserError, match="data: the images are not those on which this run found its objects"):
        pretrain(resume=True, out=str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml", "yolo11n-seg.yaml"])
def test_detections_are_those_of_the_network(name: str) -> None:
    """All boxes and scores, before overlapping ones are joined, against Ultralytics' own decoding."""
    torch.manual_seed(0)
    detector = load_detector(name)
    module: Any = detector.module.eval()
    given = images()
    head = detector.class_head().eval()
    boxes, scores = head.detections(detector.trunk(neck=True).eval()(given))
    last = module.model[-1]
    if hasattr(last, "one2one_cv2"):  # as it answers with its one-to-many branches
        last.end2end = False
    made = module(given)[0]
    theirs = (made[0] if isinstance(made, tuple) else made).detach()
    middle, sides = theirs[:, :2].transpose(1, 2), theirs[:, 2:4].transpose(1, 2)
    torch.testing.assert_close(boxes, torch.cat([middle - sides / 2, middle + sides / 2], 2), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(scores, theirs[:, 4 : 4 + len(detector.names)].transpose(1, 2), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml"])
def test_nothing_is_taught_where_a_box_is_left_open(name: str) -> None:
    """The class scores of cells whose middle lies in it get no gradient, those of all other cells the same as ever."""
    torch.manual_seed(0)
    detector = load_detector(name)
    head = detector.class_head()
    maps = [one.detach().requires_grad_() for one in detector.trunk(neck=True)(images(1))]
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    half = torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([-1])

    def scores_of(owner: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        made: list[torch.Tensor] = []
        last = detector.module.model[-1].cv3[0][-1]  # type: ignore[index, union-attr]
        hook = last.register_forward_hook(lambda layer, given, out: made.append(out) or out.retain_grad())
        head(maps, owner, boxes, labels).sum().backward()
        hook.remove()
        grad = made[0].grad
        assert grad is not None
        return grad[0]

    all_of_it, left_open = scores_of(*nothing), scores_of(*half)
    assert all_of_it.abs().min() > 0
    assert left_open[:, :, :8].abs().max() == 0, "the left half of a map 16 cells wide"
    torch.testing.assert_close(left_open[:, :, 8:], all_of_it[:, :, 8:])


def test_the_cells_in_boxes_are_those_whose_middle_lies_in_one() -> None:
    """Of three images, one of them without a box, 300 boxes each against every cell, one by one."""
    detector = load_detector("yolo11n.yaml")
    head = detector.class_head()
    maps = detector.trunk(neck=True)(torch.rand(3, 3, 96, 160))
    random = torch.manual_seed(0)
    corners = (torch.rand(600, 2, 2, generator=random) * 1.4 - 0.2).sort(1).values
    boxes = torch.cat([(corners * torch.tensor([1.0, 1.0])).flatten(1), torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 4)])
    boxes[::7, 2:] = boxes[::7, :2] + 0.02  # many with no middle in them
    owner = torch.tensor([0, 2]).repeat(302)
    inside = head._inside(maps, owner, boxes[:, [0, 1, 2, 3]])
    expected = []
    for stride in (8, 16, 32):
        for y in range(96 // stride):
            for x in range(160 // stride):
                middle = torch.tensor([(x + 0.5) * stride / 160, (y + 0.5) * stride / 96])
                within = ((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:])).all(1)
                expected.append([bool(within[owner == image].any()) for image in range(3)])
    assert torch.equal(inside, torch.tensor(expected).T)
    assert inside.any()
    assert not inside.all()
    assert not inside[1].any()
    several = torch.zeros(20_000, dtype=torch.int64), torch.tensor([[0.1, 0.1, 0.9, 0.9]]).repeat(20_000, 1)
    began = time.perf_counter()
    head._inside(maps, *several)
    assert time.perf_counter() - began < 1.0, "it does not look at every pair of box and cell"


@pytest.mark.parametrize("name", ["yolo11n-obb.yaml", "yolo11n-cls.yaml", "rtdetr-l.yaml", "yolov8s-worldv2.yaml"])
def test_heads_that_cannot_learn_classes_say_why(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be trained on labelled boxes: .*(turned|no boxes|queries|texts)"):
        load_detector(name).class_head()


def test_a_detector_for_other_classes_is_the_one_that_ultralytics_would_train() -> None:
    torch.manual_seed(0)
    detector = load_detector("yolo11n.yaml")
    made = detector.with_classes(["a", "b", "c"])
    own, before = made.module.state_dict(), detector.module.state_dict()
    assert made.names == {0: "a", 1: "b", 2: "c"}
    assert own["model.23.cv3.0.2.weight"].shape[0] == 3
    live: Any = YOLO("yolo11n.yaml")
    model = type(live.model)(live.model.yaml, nc=3, verbose=False)
    model.load(live.model, verbose=False)  # as its trainer does: class branches become as wide as those of the weights
    theirs = model.state_dict()
    assert {name: one.shape for name, one in own.items()} == {name: one.shape for name, one in theirs.items()}
    for name, one in own.items():
        assert torch.equal(one, before[name]) or one.shape != before[name].shape or "num_batches" in name
    assert made.with_classes(["a", "b", "c"]) is made


def test_a_loss_of_two_kinds_moves_from_one_to_the_other() -> None:
    """Ultralytics' E2ELoss, by epochs, from 0.8 of the one-to-many loss to 0.1: here by the share of the steps."""
    head: Any = load_detector("yolo26n.yaml").class_head()
    head._loss(torch.device("cpu"))
    for share, many in ((0.0, 0.8), (0.5, 0.45), (1.0, 0.1)):
        head.advance(share)
        assert head._criterion[1].o2m == pytest.approx(many)
        assert head._criterion[1].o2o == pytest.approx(1 - many)


def test_objects_are_looked_for_in_images_of_any_sides() -> None:
    """Four maps of strides up to 64: an image of 352 x 160 pixels is one of 384 x 192 with gray below and beside it."""
    torch.manual_seed(0)
    detector, image = load_detector("yolov8n-p6.yaml"), torch.rand(1, 3, 160, 352)
    padded = torch.full((1, 3, 192, 384), 114 / 255)
    padded[:, :, :160, :352] = image
    with torch.no_grad():
        torch.testing.assert_close(detector.propose(image), detector.propose(padded))


@pytest.mark.parametrize("name", ["yolo11n-obb.yaml", "yolo26n-obb.yaml"])
def test_turned_boxes_are_proposed_as_the_upright_ones_around_them(name: str) -> None:
    torch.manual_seed(0)
    detector, given = load_detector(name), images()
    for branch in ("cv4", "one2one_cv4"):  # the angles of random weights are all but alike
        for layer in getattr(detector.module.model[-1], branch, []):  # type: ignore[index, union-attr]
            torch.nn.init.normal_(layer[-1].weight, std=3.0)
    found = detector.propose(given)
    live = YOLO(name)
    live.model.load_state_dict(detector.module.state_dict())
    results = live.predict(given, conf=0.0, iou=1.0, agnostic_nms=True, max_det=300, verbose=False, device="cpu")
    for mine, theirs in zip(found, results, strict=True):
        corners = theirs.obb.xyxyxyxy
        assert (corners[:, 0] - corners[:, 1]).abs().amin(1).max() > 1, "no box is turned"
        upright = torch.cat([corners.amin(1), corners.amax(1)], 1)
        far = torch.cdist(mine[:5, :4], upright, p=float("inf")).amin(1)
        assert far.max() < 1


def test_heads_without_boxes_propose_none() -> None:
    with pytest.raises(UserError, match=r"yolo11n-cls \(classify\) finds no boxes"):
        load_detector("yolo11n-cls.yaml").propose(images(size=64))


def test_depth_finds_no_boxes() -> None:
    with pytest.raises(UserError, match="cannot be trained on labelled boxes: it finds no boxes"):
        load_detector("yolo26n-depth.yaml").class_head()


def test_a_pose_model_for_other_keypoints_is_rebuilt() -> None:
    """The names of the classes alone do not tell: cv4 of 17 keypoints fits no data set of 4."""
    detector = load_detector("yolo11n-pose.yaml")
    names = list(detector.names.values())
    made = detector.with_classes(names, (4, 2))
    assert made is not detector
    assert made.module.model[-1].kpt_shape == [4, 2]  # type: ignore[index, union-attr]
    assert detector.with_classes(names, (17, 3)) is detector
    assert detector.with_classes(names) is detector


def test_one_class_of_a_starts_own_training_does_not_make_one_of_the_users(tmp_path: Path) -> None:
    """Ultralytics remembers single_cls: a training from the checkpoint would learn one class, "item"."""
    (tmp_path / "small.yaml").write_text(SMALL)
    live = YOLO(str(tmp_path / "small.yaml"), verbose=False)
    live.save(tmp_path / "first.pt")
    content = torch.load(tmp_path / "first.pt", weights_only=False)
    content["train_args"] = {**content.get("train_args", {}), "single_cls": True}
    torch.save(content, tmp_path / "single.pt")
    made = load_detector(str(tmp_path / "single.pt")).with_classes(["a", "b", "c"])
    made.save(tmp_path / "mine.pt", {})
    back = YOLO(tmp_path / "mine.pt")
    assert not back.overrides.get("single_cls")
    assert list(back.names.values()) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["yolo11n-seg.yaml", "yolov8n-seg.yaml", "yolo26n-seg.yaml"])
def test_a_model_of_masks_proposes_its_boxes(name: str) -> None:
    """Ultralytics' ``predict`` leaves out those whose mask is empty, as most of random weights are."""
    from ultralytics.utils.nms import non_max_suppression

    torch.manual_seed(0)
    detector, given = load_detector(name), images()
    found = detector.propose(given)
    network = YOLO(name).model
    network.load_state_dict(detector.module.state_dict())
    with torch.no_grad():
        (raw, _), *_ = network.eval()(given)
    theirs = non_max_suppression(raw, 0.0, 1.0, agnostic=True, max_det=300, nc=80)
    for mine, one in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine[0, 4], one[0, 4])
        equal = one[one[:, 4] > one[0, 4] - 1e-6, :4]  # random weights are as sure of several
        assert (equal - mine[0, :4]).abs().amax(1).min() < 1e-2
