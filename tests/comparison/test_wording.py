"""What is said of a comparison: the sentence, the words for one pair, the table."""

from __future__ import annotations

import io

import fake_comparison
import pytest
from fake_comparison import scored
from rich.console import Console

from headstart.comparison import wording
from headstart.comparison.records import CellResult, Difference, Results
from headstart.comparison.statistics import detectable, paired

STARTS = ["scratch", "coco", "dino"]


def compared(*groups: list[CellResult], starts: list[str] | None = None) -> Results:
    """A comparison whose budgets and seeds are those of the trainings."""
    cells = [cell for group in groups for cell in group]
    facts = fake_comparison.facts(starts or STARTS, sorted({cell.seed for cell in cells}))
    used = {cell.budget for cell in cells}
    budgets = tuple(one for one in facts.budgets if one.name in used)
    kept = facts.model_copy(update={"budgets": budgets})
    return fake_comparison.conclude(kept, cells, [])


def test_better_worse_and_inconclusive_in_one_sentence() -> None:
    content = compared(
        *[scored("scratch", budget, [0.10, 0.12, 0.14]) for budget in ("1%", "5%")],
        scored("scratch", "20%", [0.10, 0.13, 0.14]),
        scored("dino", "1%", [0.13, 0.15, 0.171]),  # +3.0, +3.0, +3.1
        scored("dino", "5%", [0.07, 0.09, 0.111]),  # -3.0, -3.0, -2.9
        scored("dino", "20%", [0.11, 0.12, 0.17]),  # +1, -1, +3: mean 1, deviation 2
        starts=["scratch", "dino"],
    )
    assert content.verdict == (
        "dino against scratch: better at 1% of the labels (+3.0 points of mAP50-95, 95 % interval +2.9 to +3.2), and "
        "worse at 5% of the labels (−3.0 points of mAP50-95, 95 % interval −3.1 to −2.8), and inconclusive with 3 "
        "seeds at 20% of the labels (+1.0 points of mAP50-95, 95 % interval −4.0 to +6.0; about 34 seeds would show a "
        "difference of this size with 80 % power)."
    )


def test_scratch_trained_for_as_long_is_a_reference_and_comes_before_scratch() -> None:
    content = compared(
        scored("scratch", "5%", [0.10, 0.12, 0.14]),
        scored("scratch-longer", "5%", [0.12, 0.141, 0.16]),
        scored("dino", "5%", [0.13, 0.151, 0.171]),  # +1.0, +1.0, +1.1; against scratch +3.0, +3.1, +3.1
        starts=["scratch", "scratch-longer", "dino"],
    )
    pairs = [(one.start, one.reference) for one in content.differences]
    assert pairs == [("scratch-longer", "scratch"), ("dino", "scratch"), ("dino", "scratch-longer")]
    assert content.verdict == (
        "dino against scratch-longer: better at 5% of the labels (+1.0 points of mAP50-95, 95 % interval +0.89 to "
        "+1.2); against scratch: better at 5% of the labels (+3.1 points, 95 % interval +2.9 to +3.2)."
    )


def test_a_start_alone_is_not_called_a_failure() -> None:
    """What others are added to later; with two starts it says which trainings lack."""
    alone = compared(scored("coco", "5%", [0.3, 0.31]), starts=["coco"])
    assert alone.verdict == "Nothing is compared yet: coco is the only start. Another can be added."
    lacking = compared(scored("coco", "5%", [0.3, 0.31]), starts=["coco", "dino"])
    assert lacking.verdict.startswith("Nothing can be compared yet: no start and its reference were both trained")


def test_budgets_with_one_verdict_are_put_together() -> None:
    content = compared(
        *[scored("scratch", budget, [0.10, 0.12, 0.14]) for budget in ("1%", "5%")],
        scored("dino", "1%", [0.13, 0.15, 0.171]),
        scored("dino", "5%", [0.15, 0.17, 0.191]),
        starts=["scratch", "dino"],
    )
    assert content.verdict == (
        "dino against scratch: better at 1% and 5% of the labels (+3.0 to +5.0 points of mAP50-95, every 95 % interval "
        "above zero)."
    )


def test_budgets_that_are_inconclusive_for_other_reasons_stay_apart() -> None:
    budgets = {"1%": [0.0, 0.0, 0.0], "5%": [0.0001, -0.05, 0.05], "20%": [0.01, -0.01, 0.03]}
    found = [
        Difference(start="dino", reference="coco", budget=budget, seeds=(0, 1, 2), map50_95=values, map50=values)
        for budget, values in ((budget, paired(differences)) for budget, differences in budgets.items())
    ]
    # 20%: as above. 5%: a mean of 1/300 of a point, a deviation of 5: 12.42 / 2 * 2 either side, no number of seeds.
    assert wording._in_short(found, first=True) == (
        "dino against coco: inconclusive with 3 seeds at 1% of the labels (+0.00 points of mAP50-95; no difference in "
        "any seed), and inconclusive with 3 seeds at 5% of the labels (+0.003 points of mAP50-95, 95 % interval −12.4 "
        "to +12.4; more than 1,000 seeds would show a difference of this size with 80 % power), and inconclusive with "
        "3 seeds at 20% of the labels (+1.0 points of mAP50-95, 95 % interval −4.0 to +6.0; about 34 seeds would show "
        "a difference of this size with 80 % power)"
    )


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.02], "inconclusive at 5% of the labels (+2.0 points; one seed has no interval: give 3 or more)"),
        ([0.02, 0.02], "inconclusive at 5% of the labels (+2.0 points; the same in every seed)"),
        ([0.0, 0.0], "inconclusive at 5% of the labels (+0.00 points; no difference in any seed)"),
        (
            [0.0001, -0.01, 0.01],
            "inconclusive at 5% of the labels (+0.003 points, −2.5 to +2.5; more than 1,000 seeds would show a "
            "difference of this size with 80 % power)",
        ),
        ([0.03, 0.03, 0.031], "better at 5% of the labels (+3.0 points, +2.9 to +3.2)"),
        ([-0.03, -0.03, -0.031], "worse at 5% of the labels (−3.0 points, −3.2 to −2.9)"),
    ],
)
def test_a_pair_in_words(differences: list[float], said: str) -> None:
    found = paired(differences)
    seeds = tuple(range(len(differences)))
    one = Difference(start="dino", reference="coco", budget="5%", seeds=seeds, map50_95=found, map50=found)
    assert wording.pair_sentence([one]) == f"dino against coco: {said}"


def test_what_the_seeds_can_show() -> None:
    content = compared(
        scored("scratch", "1%", [0.10, 0.13, 0.14]),
        scored("dino", "1%", [0.11, 0.12, 0.17]),  # a deviation of 2 points
        starts=["scratch", "dino"],
    )
    # 3.264 deviations with 3 seeds: see the test of detectable.
    assert f"{100 * detectable(0.02, 3):.1f}" == "6.5"
    assert wording.detectable(content) == (
        "With 3 seeds and the spread seen here, a real difference of 6.5 points of mAP50-95 is shown with 80 % power; "
        "a smaller one is often inconclusive"
    )
    assert f"{wording.detectable(content)}." in wording.markdown(content)
    # Differences of 1, 1.0001 and 1.0002 points: a deviation of 0.0001, of which 3.264 are not a tenth of a point.
    near = compared(scored("scratch", "1%", [0.1, 0.2, 0.3]), scored("dino", "1%", [0.11, 0.210001, 0.310002]))
    assert "a real difference of less than 0.1 points of mAP50-95" in str(wording.detectable(near))
    assert wording.detectable(compared(scored("scratch", "1%", [0.1]), scored("dino", "1%", [0.2]))) is None


def test_the_table_takes_names_as_they_are() -> None:
    text = fake_comparison.results(starts=["scratch", "coco"]).model_dump_json()
    content = Results.model_validate_json(text.replace('"1%"', '"[red]1%[/red]"'))
    console = Console(file=io.StringIO(), width=200)
    console.print(wording.table(content))
    assert "[red]1%[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_names_are_no_markup_of_a_readme() -> None:
    text = fake_comparison.results(starts=["scratch", "coco"]).model_dump_json()
    made = wording.markdown(Results.model_validate_json(text.replace('"1%"', '"<b>1|2"')))
    rows = [line for line in made.splitlines() if line.startswith("| &lt;b>1")]
    assert rows
    assert all(row.startswith("| &lt;b>1\\|2 |") for row in rows)
    assert "<" not in made


def test_no_sentence_has_the_old_words() -> None:
    content = fake_comparison.results()
    text = " ".join([content.verdict, wording.markdown(content), *(check.evidence for check in content.checks)])
    for word in ("helped", "hurt", "cannot tell", "fault", "judged"):
        assert word not in text
