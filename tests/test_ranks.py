from __future__ import annotations

from pathlib import Path

import torch

from headstart import ranks
from processes import in_processes


def test_one_process_shares_with_nobody() -> None:
    x = torch.tensor([1.0, 2.0])
    assert (ranks.world(), ranks.rank(), ranks.first()) == (1, 0, True)
    assert ranks.gather(x) is x
    assert ranks.total(x) is x
    assert ranks.mean(x) is x
    assert ranks.from_first("a") == "a"
    assert ranks.of_all("a") == ["a"]
    assert ranks.own(x) is x
    assert ranks.take(x, torch.tensor([1, 1, 0])).tolist() == [2, 2, 1]
    ranks.wait()


def test_two_processes_share_rows_sums_and_objects(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[object, ...]:
        x = torch.tensor([[1.0, 2.0]]) * (rank + 1)
        found = ranks.gather(x), ranks.total(x), ranks.mean(x), ranks.from_first(f"of {rank}"), ranks.of_all(rank)
        ranks.wait()
        return found

    for rows, total, mean, word, numbers in in_processes(2, work, tmp_path):
        assert rows.tolist() == [[1, 2], [2, 4]]
        assert total.tolist() == [[3, 6]]
        assert mean.tolist() == [[1.5, 3]]
        assert word == "of 0"
        assert numbers == [0, 1]


def test_gradients_are_those_of_the_mean_loss_on_the_joined_batch(tmp_path: Path) -> None:
    """The loss of each row depends on all rows, as contrastive ones do: mean over rows of x_i * sum_j x_j^2."""
    rows = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0], [-1.0, 4.0]])

    def loss(own: torch.Tensor, everyone: torch.Tensor) -> torch.Tensor:
        return (own * (everyone**2).sum(dim=0)).sum(dim=1).mean()

    def work(rank: int) -> torch.Tensor:
        own = rows[2 * rank : 2 * rank + 2].clone().requires_grad_()
        loss(own, ranks.gather(own)).backward()
        assert own.grad is not None
        return own.grad / ranks.world()  # data-parallel training divides by the number of processes

    joined = rows.clone().requires_grad_()
    loss(joined, joined).backward()
    assert joined.grad is not None
    torch.testing.assert_close(torch.cat(in_processes(2, work, tmp_path)), joined.grad)


def test_gradients_of_a_sum_over_processes(tmp_path: Path) -> None:
    """Of (sum of all x)^2, in each of two processes: 2 * sum, once for each loss, over two."""

    def work(rank: int) -> torch.Tensor:
        own = torch.tensor([rank + 1.0]).requires_grad_()
        (ranks.total(own) ** 2).sum().backward()
        assert own.grad is not None
        return own.grad / ranks.world()

    assert [grad.item() for grad in in_processes(2, work, tmp_path)] == [6.0, 6.0]


def test_each_process_takes_rows_from_whoever_has_them(tmp_path: Path) -> None:
    """Of a joined batch 0 to 5: the first three places are the first process's; one twice, and uneven numbers."""
    places = torch.tensor([5, 0, 5, 1, 0, 2])

    def work(rank: int) -> tuple[list[int], list[int], float]:
        rows = torch.arange(3.0)[:, None].expand(-1, 2) + 3 * rank
        taken = ranks.take(rows, places)
        assert torch.equal(taken[:, 0], taken[:, 1])
        with ranks.alone():
            by_itself = (ranks.world(), ranks.rank(), float(ranks.total(rows).sum()))
        assert by_itself == (1, 0, float(rows.sum()))
        return taken[:, 0].int().tolist(), ranks.own(places).tolist(), float(ranks.total(rows).sum())

    assert in_processes(2, work, tmp_path) == [([5, 0, 5], [5, 0, 5], 30.0), ([1, 0, 2], [1, 0, 2], 30.0)]
