"""The order of labelled and unlabelled images."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest

from headstart.images.index import find_images
from headstart.images.loader import ImageLoader
from headstart.images.mixed import Balance, MixedStream, Repeats


def plan(step: int) -> tuple[int, int]:
    """Labelled ones alone, then both, then half a step of labelled ones."""
    return (4, 0) if step < 5 else (1, 3) if step < 25 else (2, 0)


def stream(**more: int) -> MixedStream:
    return MixedStream([range(10), range(100, 130)], plan, steps=30, seed=3, **more)


def test_so_many_of_each_kind_a_step() -> None:
    one = stream()
    for step in range(30):
        rows = one.rows(step)
        assert [sum(row < 100 for row in rows), sum(row >= 100 for row in rows)] == list(plan(step))


def test_each_image_of_a_kind_comes_once_an_epoch() -> None:
    one = stream()
    known = one.of_kind(0, 0, 30)  # 20 + 20 + 10: five epochs of ten
    assert len(known) == 50
    for epoch in range(5):
        assert sorted(known[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert Counter(one.of_kind(1, 0, 30)) == dict.fromkeys(range(100, 130), 2)
    assert [row for step in range(30) for row in one.rows(step) if row >= 100] == one.of_kind(1, 0, 30)


def test_a_row_that_stands_twice_comes_twice() -> None:
    assert Counter(MixedStream([[1, 2, 2]], lambda step: (3,), 4, 0).of_kind(0, 0, 4)) == {1: 4, 2: 8}


def test_a_function_of_seed_and_step_alone() -> None:
    one, other = stream(), pickle.loads(pickle.dumps(stream()))
    assert [other.rows(step) for step in (17, 3, 29)] == [one.rows(step) for step in (17, 3, 29)]
    assert MixedStream([range(10), range(100, 130)], plan, 30, seed=4).rows(3) != one.rows(3)


def test_ranks_share_a_step() -> None:
    parts = [stream(rank=rank, world=2) for rank in (0, 1)]
    for step in (2, 10):
        assert parts[0].rows(step) + parts[1].rows(step) == stream().rows(step)
    assert [sum(row < 100 for row in part.rows(10)) for part in parts] == [1, 0]
    assert [len(part.rows(10)) for part in parts] == [2, 2]


def test_ranks_get_as_many_images_each() -> None:
    """Of three and two of the kinds, where each by itself would leave one more to the first; and of five in all."""
    both = [MixedStream([range(3), range(10, 15)], lambda step: (3, 3), 4, 0, rank, 2).rows(0) for rank in (0, 1)]
    assert [len(rows) for rows in both] == [3, 3]
    assert len({*both[0], *both[1]}) == 6
    odd = [MixedStream([range(3), range(10, 15)], lambda step: (3, 2), 4, 0, rank, 2).rows(0) for rank in (0, 1)]
    assert [len(rows) for rows in odd] == [3, 3]
    assert len({*odd[0], *odd[1]}) == 5


def test_spares_come_from_all_kinds_those_of_the_image_first() -> None:
    assert {*stream().spares(3)} == {*range(10), *range(100, 130)}
    assert set(list(stream().spares(10, 0))[:20]) == set(range(10))
    assert set(list(stream().spares(10, 1))[:60]) == set(range(100, 130))
    one = MixedStream([range(5), range(10, 13), range(20, 30)], lambda step: (1, 1, 0), 4, 0)
    assert list(dict.fromkeys(row // 10 for row in one.spares(0, 1))) == [1, 0, 2], "of what no step has yet last"


@pytest.mark.parametrize("world", [1, 2])
def test_of_which_kind_the_image_at_a_place_is(world: int) -> None:
    for rank in range(world):
        one = stream(rank=rank, world=world)
        for step in (2, 10, 28):
            kinds = [one.kind(step, place) for place in range(len(one.rows(step)))]
            assert kinds == [int(row >= 100) for row in one.rows(step)]


def test_an_unreadable_image_is_replaced_by_one_of_its_kind(image_folder: Path, tmp_path: Path) -> None:
    """Of 12 images: four labelled, one of them broken, two others held out; six without labels, one of them broken."""
    good = [path for path in sorted(image_folder.iterdir()) if path.suffix == ".jpg"][:3]
    for place in range(12):
        (tmp_path / f"{place:02}.jpg").write_bytes(b"no" if place in (1, 7) else good[place % 3].read_bytes())
    index = find_images(str(tmp_path))
    kinds = [range(4), range(6, 12), range(6)]
    order = MixedStream(kinds, lambda step: (2, 3, 0), 20, 0)
    with ImageLoader(index, batch=5, max_area=64 * 64, workers=0, seed=0, steps=20, stream=order) as loader:
        for batch in loader:
            rows = batch.indices.tolist()
            assert [row < 4 for row in rows] == [True, True, False, False, False]
            assert not {1, 4, 5, 7} & set(rows)


def test_some_rows_come_more_often() -> None:
    """Epochs of 1 + 1 + 4 places; with a factor of 2.5 of 2 or 3 in 5 places of 4.5, which is rounded up."""
    order = Repeats([1, 1, 4], [3])
    assert order.length == 6
    for epoch in range(4):
        assert Counter(order.at(6 * epoch + place) for place in range(6)) == {0: 1, 1: 1, 2: 4}
    assert [order.at(place) for place in range(6)] != [order.at(place) for place in range(6, 12)]
    order = Repeats([1, 1, 2.5], [3])
    assert order.length == 5
    drawn = [Counter(order.at(5 * epoch + place) for place in range(5)) for epoch in range(400)]
    assert {one[2] for one in drawn} <= {2, 3}
    assert all(one[0] >= 1 and one[1] >= 1 for one in drawn)
    assert abs(sum(one[2] for one in drawn) / 400 - 2.5 * 5 / 4.5) < 0.07  # three standard errors


def balanced(**more: int) -> MixedStream:
    """Of the second kind in steps 10 to 19 three rows, one of them four times as often."""
    one = MixedStream([range(10), range(100, 130)], plan, 30, seed=3, repeats=[[1.0] * 9 + [3.0], None], **more)
    one.balance(1, [Balance(10, 20, [101, 105, 107], [1.0, 1.0, 4.0])])
    return one


def test_a_kind_is_balanced_for_some_steps() -> None:
    one = balanced()
    assert Counter(one.of_kind(0, 0, 3)) == {**dict.fromkeys(range(9), 1), 9: 3}  # 12 places are an epoch
    assert one.of_kind(1, 0, 10) == stream().of_kind(1, 0, 10)
    assert one.of_kind(1, 20, 30) == stream().of_kind(1, 20, 30)
    assert Counter(one.of_kind(1, 10, 20)) == {101: 5, 105: 5, 107: 20}  # 30 places: five epochs of six
    assert [row for step in range(30) for row in one.rows(step) if row >= 100] == one.of_kind(1, 0, 30)
    assert {*one.spares(3)} == {*range(10), *range(100, 130)}


def test_a_balanced_order_is_a_function_of_what_was_given_alone() -> None:
    one, other = balanced(), pickle.loads(pickle.dumps(balanced()))
    assert [other.rows(step) for step in (17, 3, 12)] == [one.rows(step) for step in (17, 3, 12)]
    parts = [balanced(rank=rank, world=2).rows(12) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(one.rows(12))
    one.balance(1, [])
    assert one.of_kind(1, 0, 30) == stream().of_kind(1, 0, 30)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_loaded_ahead_is_loaded_anew(image_folder: Path, workers: int) -> None:
    """The order changes after the second batch, from the third on."""
    changed = MixedStream([range(3), range(3, 24)], lambda step: (1, 3), 6, seed=3)
    with ImageLoader(
        find_images(str(image_folder)), batch=4, max_area=None, workers=workers, seed=0, steps=6, stream=changed
    ) as loader:
        seen = []
        batches = iter(loader)
        while len(seen) < 6:
            seen.append(next(batches).indices.tolist())
            if len(seen) == 2:
                changed.balance(1, [Balance(2, 6, [20, 21], [1.0, 1.0])])
                loader.begin_at(2)
                batches = iter(loader)
    assert seen == [changed.rows(step) for step in range(6)]
    assert all({*rows[1:]} == {20, 21} for rows in seen[2:])


def test_ranks_have_as_many_images_each() -> None:
    """Whatever the kinds: of 3 and 5 images four each, not three and five."""
    parts = [MixedStream([range(10), range(100, 130)], lambda step: (3, 5), 4, 0, rank, 2) for rank in (0, 1)]
    assert [len(part.rows(1)) for part in parts] == [4, 4]
    assert parts[0].rows(1) + parts[1].rows(1) == MixedStream(
        [range(10), range(100, 130)], lambda step: (3, 5), 4, 0
    ).rows(1)
