from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn import functional

from headstart.errors import UserError
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.cluster import _centers, _whitening, clustered


def four() -> PseudoLabels:
    """Of 4 images: the second has two objects, the last one, the others none."""
    boxes = torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    return PseudoLabels.gather(
        4, torch.tensor([3, 1, 1]), boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([5, 6, 7])
    )


def test_objects_are_found_by_image() -> None:
    owner, boxes, labels = four().of(torch.tensor([1, 0, 3, 1]))
    assert owner.tolist() == [0, 0, 2, 3, 3]
    assert labels.tolist() == [6, 7, 5, 6, 7]
    torch.testing.assert_close(boxes[2], torch.tensor([0.5, 0.5, 1, 1]))
    assert four().first.tolist() == [0, 0, 2, 2, 3]


def test_images_without_objects() -> None:
    owner, boxes, labels = four().of(torch.tensor([0, 2]))
    assert (len(owner), boxes.shape, len(labels)) == (0, (0, 4), 0)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pseudolabels.pt"
    for rows in (None, torch.tensor([1, 3])):
        four().save(path, rows)
        again, cut_to, _ = PseudoLabels.load(path)
        assert all(torch.equal(getattr(again, name), getattr(four(), name)) for name in vars(again))
        assert cut_to is None if rows is None else torch.equal(cut_to, rows)
    path.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"pseudolabels\.pt: the pseudo-labels of this run cannot be read"):
        PseudoLabels.load(path)


def test_some_images_alone() -> None:
    """Of images 1 and 3, now 0 and 1: their three boxes with their labels and scores."""
    some = four().select(torch.tensor([1, 3]))
    assert some.first.tolist() == [0, 2, 3]
    assert some.labels.tolist() == [6, 7, 5]
    torch.testing.assert_close(some.scores, torch.tensor([0.8, 0.7, 0.9]))
    torch.testing.assert_close(some.boxes[2], torch.tensor([0.5, 0.5, 1, 1]))


def blobs(number: int = 5, each: int = 40, width: int = 24) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    middles = torch.randn(number, width, generator=random)
    label = torch.arange(number).repeat_interleave(each)
    return middles[label] + 0.05 * torch.randn(len(label), width, generator=random), label


def test_what_lies_together_gets_one_number() -> None:
    features, label = blobs()
    found = clustered([features], 5, 4, seed=1)
    pairs = found[:, None] == found[None]
    assert torch.equal(pairs, label[:, None] == label[None])


def test_where_parts_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts end when time is up: a search that was killed has other ones than one that was not."""
    monkeypatch.setattr("headstart.pseudolabels.cluster._PART", 64)
    features, _ = blobs()
    parts = [features[:1], features[1:130], features[130:131], features[131:]]
    assert torch.equal(clustered(parts, 7, 4, seed=1), clustered([features], 7, 4, seed=1))


def test_few_objects_have_numbers_of_their_own() -> None:
    assert clustered([torch.rand(3, 8)], 5, 4, seed=0).tolist() == [0, 1, 2]


def test_whitening_against_its_definition() -> None:
    sample = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    project = _whitening(sample, 6)
    made = (sample - sample.mean(0)) @ project.matrix
    torch.testing.assert_close(torch.cov(made.T), torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(project(sample).norm(dim=1), torch.ones(300))


def test_k_means_fits_as_well_as_scipys() -> None:
    points = functional.normalize(torch.randn(400, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    centers = _centers(points, 12, torch.Generator().manual_seed(0))
    assert torch.bincount((points @ centers.T).argmax(1), minlength=12).min() > 0
    theirs, label = kmeans2(points.numpy(), 12, minit="++", seed=0, iter=50)
    mine = float((points @ centers.T).amax(1).mean())
    directions = functional.normalize(torch.from_numpy(theirs), dim=1)
    other = float((points * directions[torch.from_numpy(label).long()]).sum(1).mean())
    assert mine > 0.97 * other
