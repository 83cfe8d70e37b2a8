"""What the reference's own trainings tell: figures derived by hand."""

from __future__ import annotations

import math
from typing import Any

import fake_comparison
import pytest
from fake_comparison import scored
from test_wording import compared

from headstart.comparison import remarks, wording
from headstart.comparison.reference import labels_needed
from headstart.report import comparison_charts

SIZES = {"1%": 59, "5%": 297, "20%": 1190}


@pytest.mark.parametrize(
    ("scores", "target", "expected"),
    [
        ((0.1, 0.3, 0.5), 0.2, math.sqrt(59 * 297)),  # half of the way, on a logarithm
        ((0.1, 0.3, 0.5), 0.35, 297 * (1190 / 297) ** 0.25),
        ((0.1, 0.3, 0.5), 0.3, 297),
        ((0.1, 0.3, 0.5), 0.05, 59),
        ((0.1, 0.3, 0.5), 0.501, math.inf),
        ((0.1, 0.3, 0.2), 0.25, 59 * (297 / 59) ** 0.75),  # worse with more labels: as good as with fewer
        ((0.1, 0.3, 0.2), 0.31, math.inf),
        ((0.1, 0.1, 0.3), 0.2, math.sqrt(297 * 1190)),
    ],
)
def test_labels_needed(scores: tuple[float, ...], target: float, expected: float) -> None:
    assert labels_needed([59, 297, 1190], scores, target) == pytest.approx(expected)


def test_the_labels_that_a_start_is_worth() -> None:
    coco = [scored("coco", "1%", [0.1, 0.1]), scored("coco", "5%", [0.3, 0.3]), scored("coco", "20%", [0.5, 0.5])]
    content = compared(*coco, scored("dino", "1%", [0.2, 0.2]), scored("dino", "20%", [0.52, 0.4]))
    small, large = content.labels_worth
    assert (small.start, small.reference, small.budget, small.images, small.least, small.most) == (
        "dino", "coco", "1%", 59, 59, 1190,
    )  # fmt: skip
    assert small.needed == pytest.approx(132.4, abs=0.05)  # the root of 59 x 297
    assert small.interval == pytest.approx((132.4, 132.4), abs=0.05)
    # Drawn twice: 0.4 is half of the way from 297 to 1,190 images, 594.5; 0.46 four fifths; 0.52 beyond.
    assert large.needed == pytest.approx(297 * (1190 / 297) ** 0.8, abs=0.05)
    assert large.interval == (pytest.approx(594.5, abs=0.05), None)
    assert remarks.worth(large) == (
        "dino with 1,190 labelled images does as well as coco with 902 (95 % bootstrap interval over 2 seeds, too "
        "narrow with few of them: 594 to more than 1,190)"
    )
    assert remarks.worth(small).endswith(
        "with 132 (95 % bootstrap interval over 2 seeds, too narrow with few of them: 132)"
    )


@pytest.mark.parametrize(
    ("lacking", "seeds", "ends", "needed"),
    [
        # 0.3 is half of the way from 0.1 with 59 to 0.5 with 1,190 images.
        ({("5%", 1), ("5%", 2)}, (0, 1, 2), (59, 1190), math.sqrt(59 * 1190)),
        ({("5%", 1)}, (0, 1, 2), (59, 1190), math.sqrt(59 * 1190)),
        # A third of the way from 0.2 with 297 to 0.5: of five trainings at the largest budget one is missing.
        ({("20%", 4)}, (0, 1, 2, 3), (59, 1190), 297 * (1190 / 297) ** (1 / 3)),
        ({("1%", 0), ("20%", 0)}, (1, 2), (59, 1190), 297 * (1190 / 297) ** (1 / 3)),
        # Without two budgets there is no curve: what is left of the seeds has to do.
        ({("5%", 1), ("5%", 2), ("20%", 1), ("20%", 2)}, (0,), (59, 1190), 297 * (1190 / 297) ** (1 / 3)),
        ({("5%", 0), ("5%", 1), ("20%", 1), ("20%", 2), ("1%", 2), ("1%", 0)}, None, None, None),
    ],
)
def test_a_training_that_is_missing_takes_few_of_the_others_with_it(
    lacking: set[tuple[str, int]], seeds: tuple[int, ...] | None, ends: tuple[int, int], needed: float
) -> None:
    """A budget that lacks seeds is left out of the curve where more of what was trained is used so."""
    many = 5 if ("20%", 4) in lacking else 3
    curve = {"1%": 0.1, "5%": 0.2, "20%": 0.5}
    coco = [scored("coco", budget, [score] * many) for budget, score in curve.items()]
    kept = [[cell for cell in group if (cell.budget, cell.seed) not in lacking] for group in coco]
    found = compared(*kept, scored("dino", "1%", [0.3] * many)).labels_worth
    if seeds is None:
        assert found == ()
        return
    (one,) = found
    assert (one.seeds, (one.least, one.most)) == (seeds, ends)
    assert one.needed == pytest.approx(needed, abs=0.05)
    assert ("one seed has no interval" in remarks.worth(one)) == (len(seeds) == 1)


def test_rows_of_other_ranges_in_one_chart() -> None:
    """dino lacks the seeds that coco has at the largest budget; a start's own range is where its arrow stands."""
    coco = [scored("coco", budget, [score] * 2) for budget, score in (("1%", 0.1), ("5%", 0.2))]
    content = compared(
        *coco, scored("coco", "20%", [0.5, 0.5])[:1],
        scored("dino", "1%", [0.6, 0.6]), scored("coco+dino", "1%", [0.6])[:1], starts=["coco", "dino", "coco+dino"],
    )  # fmt: skip
    assert {one.start: one.most for one in content.labels_worth} == {"dino": 297, "coco+dino": 1190}
    chart = comparison_charts.labels_saved(content)
    assert chart is not None
    assert "more than the 297 to 1,190 that coco was trained with" in chart.note


def test_one_budget_or_no_coco_tells_no_labels() -> None:
    one = compared(scored("coco", "1%", [0.1, 0.1]), scored("dino", "1%", [0.2, 0.2]))
    assert one.labels_worth == ()
    assert comparison_charts.labels_saved(one) is None
    scratch = [scored("scratch", "1%", [0.1, 0.1]), scored("scratch", "5%", [0.2, 0.2])]
    assert compared(*scratch, scored("dino", "1%", [0.2, 0.2]), starts=["scratch", "dino"]).labels_worth == ()


def rising(budget: str, *curves: tuple[float, ...]) -> list[Any]:
    return [
        fake_comparison.cell(
            "coco", budget, seed, epochs=len(curve), map50_95=curve[-1],
            curve=tuple((at + 1, float(at), value, value) for at, value in enumerate(curve)),
        )
        for seed, curve in enumerate(curves)
    ]  # fmt: skip


def test_whether_coco_had_stopped_gaining() -> None:
    """After 4 of 6 epochs 0.50 and 0.40, in the end 0.508 and 0.400: 0.4 points; at 5 % 0.6 points."""
    content = compared(
        rising("1%", (0.1, 0.2, 0.3, 0.5, 0.5, 0.508), (0.1, 0.2, 0.3, 0.4, 0.5, 0.4)),
        rising("5%", (0.1, 0.2, 0.3, 0.5, 0.5, 0.512), (0.1, 0.2, 0.3, 0.4, 0.5, 0.4)),
        *[[fake_comparison.cell("dino", budget, seed, epochs=6) for seed in (0, 1)] for budget in ("1%", "5%")],
        starts=["coco", "dino"],
    )
    assert [one.last_third for one in content.gains] == pytest.approx([0.004, 0.006])
    assert [one.stopped for one in content.gains] == [True, False]
    assert (
        "coco had stopped gaining at 1% of the labels, and still gained 0.6 points over its last third at 5% of the "
        "labels: a longer training may bring it more." in content.verdict
    )


def test_who_has_hardly_begun_to_gain_has_not_stopped() -> None:
    """By hand: 0.001 and 0.002 in the end tell nothing; of 0.024 a tenth are 0.0024, and 0.004 are more.

    With seeds of 0.008 and 0.016 the mean is 0.012, of which 0.0012 are a tenth; they brought 0.001 on average.
    """
    curves: dict[str, list[tuple[float, ...]]] = {
        "1%": [(0.0, 0.001, 0.001), (0.0, 0.001, 0.002)],
        "5%": [(0.0, 0.02, 0.024)],
        "20%": [(0.0, 0.008, 0.008), (0.0, 0.014, 0.016)],
    }
    content = compared(
        *[rising(budget, *of_seeds) for budget, of_seeds in curves.items()],
        *[[fake_comparison.cell("dino", budget, seed, epochs=3) for seed in (0, 1)] for budget in curves],
        starts=["coco", "dino"],
    )
    assert {one.budget: one.stopped for one in content.gains} == {"5%": False, "20%": True}
    assert [one.last_third for one in content.gains] == pytest.approx([0.004, 0.001])
    told = "coco had stopped gaining at 20% of the labels, and still gained 0.4 points over its last third at 5% of"
    assert told in content.verdict


def test_trainings_of_two_epochs_tell_nothing_of_gains() -> None:
    content = compared(scored("coco", "1%", [0.1, 0.2]), scored("dino", "1%", [0.2, 0.3]))
    assert content.gains == ()


def test_figures_of_zero_tell_nothing() -> None:
    """A reference that found nothing has not stopped gaining, and a start that found nothing is worth no labels."""
    zeros = [scored("coco", budget, [0.0, 0.0]) for budget in ("1%", "5%")]
    content = compared(rising("1%", (0.0, 0.0, 0.0)), rising("5%", (0.0, 0.0, 0.0)), scored("dino", "1%", [0.2, 0.2]))
    assert content.gains == ()
    assert compared(*zeros, scored("dino", "1%", [0.0, 0.0])).labels_worth == ()


def test_what_a_start_costs() -> None:
    """Batches of 16. A recipe of 2,000 steps that show 32 images is 4,000 batches; 20 epochs of 59 images are 80."""
    starts = ["coco", "coco-longer", "coco+dino", "selftrain"]
    cells = [fake_comparison.cell(name, "1%", seed) for name in starts for seed in (0, 1)]
    facts = fake_comparison.facts(starts, [0, 1])
    content = fake_comparison.conclude(facts, cells, [])
    cost = {one.start: one for one in content.costs}
    coco, dino, made = cost["coco"], cost["coco+dino"], cost["selftrain"]
    assert (coco.finetuning_steps, coco.steps, coco.seconds, coco.pretraining_steps) == (80, 80, 64.0, None)
    # 5,000 steps of 64 images are 20,000 batches; 3,600 s and one fine-tuning of 64 s.
    assert (dino.pretraining_steps, dino.steps, dino.seconds) == (5000, 20080, 3664.0)
    # 1,500 s and 1,501 s in all, of which the search took 240.
    assert (made.search_seconds, made.pretraining_seconds, made.seconds) == (240.0, 1260.5, 1564.5)
    assert (made.pretraining_steps, made.steps) == (2000, 4080)
    text = remarks.cost_rows(content)
    assert text[3] == ("1%", "selftrain", "4 min 00 s", "21 min, 2,000 steps", "1 min 04 s, 80 steps",
                       "26 min", "4,080")  # fmt: skip
    assert "| 1% | selftrain | 4 min 00 s |" in wording.markdown(content)
