from __future__ import annotations

import pytest

from headstart.settings.length import default_steps, published_steps


@pytest.mark.parametrize(
    ("images", "batch", "trained", "device", "expected"),
    [
        (350, 128, True, "cpu", 500),
        (1_000, 128, True, "cpu", 1_000),
        (1_000_000, 128, True, "cpu", 1_000),
        (350, 64, False, "cpu", 1_500),
        (1_000, 64, False, "cpu", 3_000),
        (350, 128, True, "cuda", 2_000),
        (999, 128, True, "cuda", 2_000),
        (1_000, 128, True, "cuda", 5_000),
        (100_000, 128, True, "cuda", 7_813),  # 10 passes: 1,000,000 / 128 = 7,812.5
        (1_000_000, 128, True, "mps", 20_000),
        (350, 64, False, "cuda", 5_000),
        (5_000, 64, False, "cuda", 15_000),
        (1_000_000, 64, False, "cuda", 156_250),  # 10 passes
    ],
)
def test_the_length_follows_images_start_and_machine(
    images: int, batch: int, trained: bool, device: str, expected: int
) -> None:
    assert default_steps(images, batch, trained=trained, device=device) == expected


@pytest.mark.parametrize(("images", "expected"), [(350, 15_000), (96_000, 15_000), (96_064, 15_010)])
def test_the_published_recipe_keeps_its_length(images: int, expected: int) -> None:
    assert published_steps(images, 64) == expected


@pytest.mark.parametrize(
    ("images", "trained", "device", "expected"),
    [
        (84, True, "cpu", 1_800),
        (4_421, True, "cpu", 3_600),
        (4_421, False, "cpu", 10_800),
        (350, True, "cuda", 3_600),
        (4_421, True, "cuda", 7_200),
        (100_000, True, "cuda", 15_625),  # 10 passes: 1,000,000 / 64
        (1_000_000, True, "cuda", 20_000),
        (4_421, False, "cuda", 15_000),
    ],
)
def test_a_run_that_learns_the_users_classes_is_a_whole_training(
    images: int, trained: bool, device: str, expected: int
) -> None:
    assert default_steps(images, 64, trained=trained, device=device, classes=True) == expected
