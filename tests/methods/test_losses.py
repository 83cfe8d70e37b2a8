"""Losses on fixed inputs against formulas written out here, after the papers."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.methods import distill, pyramid
from headstart.methods.dino import EntropyGuard


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features(method: nn.Module, views: list, head: str = "head") -> list[Tensor]:
    """What the heads make of the student's averaged last map, computed apart from the method."""
    return [getattr(method, head)(method.student(view.images)[-1].mean((2, 3))).detach().double() for view in views]


def test_simclr_against_equation_1() -> None:
    method = tiny.build("simclr")
    views = tiny.views(method)
    z = functional.normalize(torch.cat(features(method, views)), dim=1).numpy()
    similar, n = np.exp(z @ z.T / 0.2), tiny.BATCH
    np.fill_diagonal(similar, 0)
    expected = -np.mean([np.log(similar[i, (i + n) % (2 * n)] / similar[i].sum()) for i in range(2 * n)])
    assert float(method(views, tiny.progress(0)).detach()) == pytest.approx(expected, rel=1e-4)


def test_vicreg_against_the_papers_terms() -> None:
    method = tiny.build("vicreg", output_dim=32)
    views = tiny.views(method)
    a, b = (one.numpy() for one in features(method, views))
    expected = 25 * ((a - b) ** 2).mean()
    for z in (a, b):
        expected += 25 * np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() / 2
        covariance = np.cov(z.T)
        expected += (covariance**2 - np.diag(np.diag(covariance)) ** 2).sum() / 32
    assert float(method(views, tiny.progress(0)).detach()) == pytest.approx(expected, rel=1e-4)


def test_byol_against_its_cosines() -> None:
    method = tiny.build("byol")
    views = tiny.views(method)
    predicted = [method.predictor(one.float()).detach() for one in features(method, views, "student_head")]
    targets = [method.teacher_head(method.teacher(view.images)[-1].mean((2, 3))).detach() for view in views]
    cosines = [
        float((functional.normalize(p) * functional.normalize(t)).sum(1).mean())
        for p, t in zip(predicted, reversed(targets), strict=True)
    ]
    assert float(method(views, tiny.progress(0)).detach()) == pytest.approx(1 - sum(cosines) / 2, rel=1e-4)


def test_densecl_against_equations_1_and_2() -> None:
    """Each cell with the cell of the other view whose backbone feature is most like it; negatives from the queue."""
    method = tiny.build("densecl", output_dim=16, queue=64, dense=0.3)
    views = tiny.views(method)
    here, there = method.student(views[0].images)[-1].detach(), method.teacher(views[1].images)[-1].detach()

    def contrast(query: Tensor, key: Tensor, bank: Tensor) -> float:
        query, key = functional.normalize(query, dim=-1), functional.normalize(key, dim=-1)
        logits = torch.cat([(query * key).sum(-1, keepdim=True), query @ bank.T], 1) / 0.2
        return float(-logits.log_softmax(1)[:, 0].mean())

    pool = [method.student_head(here.mean((2, 3))), method.teacher_head(there.mean((2, 3)))]
    whole = contrast(*pool, method.whole.memory_bank.bank.clone())
    queries, keys = [], []
    for image in range(tiny.BATCH):
        mine, theirs = here[image].flatten(1).T, there[image].flatten(1).T
        best = (functional.normalize(mine) @ functional.normalize(theirs).T).argmax(1)
        queries.append(method.student_cells(mine))
        keys.append(method.teacher_cells(theirs)[best])
    dense = contrast(torch.cat(queries), torch.cat(keys), method.cells.memory_bank.bank.clone())
    assert float(method(views, tiny.progress(0)).detach()) == pytest.approx(0.7 * whole + 0.3 * dense, rel=1e-4)


@pytest.mark.parametrize("batch", [8, 16])
def test_lejepa_against_the_characteristic_function(batch: int) -> None:
    """The regularizer by its definition: the batch's characteristic function against a Gaussian's, on a fine grid."""
    method = tiny.build("lejepa", output_dim=4, slices=4000, locals=1)
    method.head, torch_views = nn.Identity(), normal(3, batch, 4, seed=1)
    fed = iter(torch_views)
    method.student.forward = lambda images: [next(fed)[..., None, None]]
    views = tiny.views(method)
    method(views, tiny.progress(0))
    z = torch_views.double().numpy()
    agreement = ((z - z[:2].mean(0)) ** 2).mean()
    random = np.random.default_rng(0)
    directions = random.standard_normal((4, 4000))
    directions /= np.linalg.norm(directions, axis=0)
    t = np.linspace(0, 3, 61)
    window = np.exp(-(t**2) / 2)
    total = []
    for view in z:
        for chunk in np.array_split(view @ directions, 100, axis=1):
            angle = chunk[..., None] * t
            error = (np.cos(angle).mean(0) - window) ** 2 + np.sin(angle).mean(0) ** 2
            total.append(2 * np.trapezoid(error * window, t, axis=1))
    expected = np.concatenate(total).mean() * 128  # of 128 images, whatever the batch
    assert method.measures()["loss_agreement"] == pytest.approx(agreement, rel=1e-4)
    assert method.measures()["loss_gaussian"] == pytest.approx(expected, rel=0.1)


def test_dino_guard_moves_the_temperature_against_collapse() -> None:
    guard = EntropyGuard(64)
    for step in range(0, 30, 10):
        guard.watch(step, torch.zeros(8, 64))  # uniform answers: sharper ones are wanted
    assert guard.factor == pytest.approx(1.02**-3)
    guard.watch(31, torch.zeros(8, 64))  # looked at every tenth step only
    assert guard.factor == pytest.approx(1.02**-3)
    peaked = torch.zeros(8, 64)
    peaked[:, 3] = 50
    for step in range(0, 50, 10):
        guard.watch(step, peaked)
    assert guard.factor == pytest.approx(1.02**2)
    for step in range(0, 500, 10):
        guard.watch(step, 2.5 * normal(8, 64))  # between the lines: back to what was asked for
    assert guard.factor == 1.0
    for step in range(0, 5000, 10):
        guard.watch(step, peaked)
    assert guard.factor == 4.0


# Pyramid


def test_pyramid_contrast_against_a_sum_over_boxes() -> None:
    predicted, target = normal(1, 2, 3, 2, 8), normal(1, 2, 3, 2, 8, seed=1)
    expected = []
    for view in range(2):
        mine, theirs = (functional.normalize(one[0, view].reshape(6, 8), dim=1) for one in (predicted, target))
        for box in range(6):
            weights = torch.exp(theirs @ mine[box] / 0.2)
            expected.append(-torch.log(weights[box] / weights.sum()))
    found = pyramid.contrast(predicted, target, 0.2)
    assert float(found) == pytest.approx(2 * 0.2 * float(torch.stack(expected).mean()), rel=1e-5)


def test_pyramid_variance_by_hand() -> None:
    """Directions that fill the sphere have spread 1; the same everywhere 0; the same within each image 0 in it."""
    assert float(pyramid.spread(normal(1, 2, 40, 50, 32), "batch").mean()) == pytest.approx(1, abs=0.02)
    same = normal(1, 2, 4, 1, 32).expand(-1, -1, -1, 6, -1)
    assert float(pyramid.spread(same, "image").max()) == pytest.approx(0.01, abs=1e-3)  # the small number's root
    assert float(pyramid.floor_of_variance(same, "image")) == pytest.approx(0.99, abs=1e-3)
    assert float(pyramid.floor_of_variance(same, "batch")) < 0.3


def test_pyramid_reads_a_box_where_the_source_is() -> None:
    """Maps whose cells hold the source's coordinates: what is read of a box is its middle, mirrored or not."""
    method = tiny.build("pyramid")
    views = tiny.views(method)
    boxes = method.draw(views, tiny.progress(3))
    assert 0 < sum(view.flipped.sum() for view in views) < 2 * tiny.BATCH
    read = []
    for view, found in zip(views, boxes, strict=True):
        maps = []
        for stride in (8, 16, 32):
            middle = (torch.arange(128 // stride) + 0.5) * stride / 128
            left, top, right, bottom = view.boxes.unbind(1)
            across = torch.where(view.flipped[:, None], 1 - middle, middle) * (right - left)[:, None] + left[:, None]
            down = middle * (bottom - top)[:, None] + top[:, None]
            grid = [across[:, None].expand(-1, len(middle), -1), down[:, :, None].expand(-1, -1, len(middle))]
            maps.append(torch.stack(grid, 1))
        read.append(sum(method._read(maps, view, found, "size")))
    # Boxes off the border, where interpolation between cells stays straight.
    first, second = read
    inside = [((one > 16) & (one < 112)).all(-1).flatten() for one in boxes]
    sure = inside[0] & inside[1]
    assert sure.sum() >= 10
    torch.testing.assert_close(first[sure], second[sure], rtol=0, atol=1.5)


def test_pyramid_levels_by_size() -> None:
    method = tiny.build("pyramid", cells=4.0)
    sides = torch.tensor([10.0, 40.0, 50.0, 85.0, 95.0, 200.0])  # between levels at 4 * sqrt(8 * 16) = 45.3 and 90.5
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), 2 * sides, sides / 2], 1)
    assert method.level_of(boxes, [8.0, 16.0, 32.0]).tolist() == [0, 0, 1, 1, 2, 2]


def test_pyramid_boxes_are_a_function_of_seed_and_step() -> None:
    method, other = tiny.build("pyramid"), tiny.build("pyramid", seed=1)
    views = tiny.views(method)
    first, again, later, elsewhere = (
        m.draw(views, tiny.progress(step))[0] for m, step in ((method, 3), (method, 3), (method, 4), (other, 3))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, elsewhere)


# Distill


def test_distill_against_its_three_terms() -> None:
    method = tiny.build("distill", cosine=1.0, smooth_l1=0.7, cka=0.4)
    views = tiny.views(method)
    images = views[0].images
    taught = [one.double().numpy() for one in method._teacher[0](images)]
    own = [one.detach() for one in method.student(images)]
    expected = []
    for number, (one, target) in enumerate(zip(own, taught, strict=True)):
        projected = method.projections[number](one).detach().double().numpy()
        centered = target - target.mean((0, 2, 3), keepdims=True)
        target = centered / target.std((0, 2, 3), keepdims=True, ddof=1)
        lengths = np.linalg.norm(projected, axis=1) * np.linalg.norm(target, axis=1)
        cosine = 1 - ((projected * target).sum(1) / lengths).mean()
        gap = np.abs(projected - target)
        smooth = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
        aligned = np.mean([1 - cka(*pair) for pair in zip(one.double().numpy(), target, strict=True)])
        expected.append(cosine + 0.7 * smooth + 0.4 * aligned)
    assert float(method(views, tiny.progress(0)).detach()) == pytest.approx(np.mean(expected), rel=1e-3)


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear CKA (Kornblith et al., equation 5) between the directions of the cells of two (C, h, w) maps."""
    x, y = ((m.reshape(len(m), -1) / np.linalg.norm(m.reshape(len(m), -1), axis=0)).T for m in (one, other))
    x, y = x - x.mean(0), y - y.mean(0)
    joint = np.linalg.norm(y.T @ x) ** 2
    return float(joint / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def test_distill_matches_levels_by_stride_and_takes_the_deepest() -> None:
    class Vit(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [functional.avg_pool2d(images, 16)] * 3

    assert tiny.build("distill", teacher=Vit())._sources == [2, 2, 2]
    assert tiny.build("distill")._sources == [0, 1, 2]


def test_distill_resamples_without_holes() -> None:
    """A coarser grid is the mean of its cells, so nothing of the teacher is left out."""
    found = distill.resampled(normal(2, 3, 8, 8), torch.Size((4, 4)))
    assert float(found.mean()) == pytest.approx(float(normal(2, 3, 8, 8).mean()), abs=0.02)
    assert distill.resampled(normal(2, 3, 8, 8), torch.Size((8, 8))).equal(normal(2, 3, 8, 8))
