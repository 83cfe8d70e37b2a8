"""Every check can pass, fail, and not be known; what fails changes the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_comparison
import pytest

from headstart.comparison.checks import make_checks
from headstart.comparison.figures import rows_hash
from headstart.comparison.records import Arrived, CellResult, Check, Results
from headstart.comparison.results import conclude
from headstart.comparison.start_records import LeakFacts
from headstart.comparison.wording import markdown
from headstart.errors import UserError

STARTS, SEEDS = ["scratch", "coco"], [0, 1, 2]
cell = fake_comparison.cell


def results(*changed: CellResult, seeds: list[int] | None = None, **more: Any) -> Results:
    """A sound comparison of two starts in which some trainings are others."""
    seeds = SEEDS if seeds is None else seeds
    cells = {(c.start, c.budget, c.seed): c for c in fake_comparison.every_cell(STARTS, seeds)}
    cells |= {(c.start, c.budget, c.seed): c for c in changed}
    return fake_comparison.results(starts=STARTS, seeds=seeds, cells=list(cells.values()), **more)


def check(content: Results, key: str) -> Check:
    (found,) = [one for one in content.checks if one.key == key]
    return found


def data(**changed: Any) -> Any:
    return fake_comparison.facts(STARTS, SEEDS).data.model_copy(update=changed)


def test_all_pass_where_all_is_well() -> None:
    content = results()
    assert [one.key for one in content.checks if one.outcome != "passed"] == []
    assert content.failed_checks == ()
    assert content.trusted
    assert not content.verdict.startswith("These figures")
    assert len({one.key for one in content.checks}) == len(content.checks)


def flat(start: str, seed: int, value: float, **more: Any) -> CellResult:
    """A training of 20 epochs whose score is `value` throughout."""
    curve = [(epoch, 1.0, value, value) for epoch in range(1, 21)]
    return cell(start, "5%", seed, curve=curve, map50_95=value, map50=value, **more)


@pytest.mark.parametrize(
    ("key", "changed", "evidence"),
    [
        (
            "lists",
            [cell("coco", "5%", 1, labels_sha256="other")],
            "at 5%, seed 1, the starts were trained on different labelled images",
        ),
        (
            "epochs",
            [cell("coco", "5%", 1, epochs=19)],
            "at 5%, the trainings have different numbers of epochs or images",
        ),
        ("settings", [cell("coco", "5%", 1, settings_sha256="other")], "the trainings were given different settings"),
        ("rates", [cell("coco", "5%", 1, lr=0.1)], "coco at 5%, seed 1: 0.1 was used, not the rate that was chosen"),
        ("network", [cell("coco", "5%", 1, parameters=1)], "the networks are not of one size"),
        (
            "arrived",
            [cell("coco", "5%", 1, arrived=Arrived(tensors=499, model=499, ema=490))],
            "coco at 5%, seed 1: 9 of 499 tensors of the start did not arrive",
        ),
        (
            "arrived",
            [cell("coco", "5%", 1, initial_sha256="other")],
            "coco at 5%, seed 1: the training began with other weights than those of its start",
        ),
        (
            "last epoch",
            [cell("coco", "5%", 1, map50_95=0.9)],
            "coco at 5%, seed 1: the figures are not those of epoch 20",
        ),
        (
            "seeds",
            [flat("coco", 0, 0.3, rows_sha256="the same"), flat("coco", 1, 0.3, rows_sha256="the same")],
            "seeds 0 and 1 of coco at 5% gave the same figures in every epoch: the seed changed nothing",
        ),
        (
            "seeds",
            [cell("coco", "5%", 1, rows_sha256="coco5%2")],
            "seeds 1 and 2 of coco at 5% gave the same figures in every epoch: the seed changed nothing",
        ),
        (
            "used",
            [cell("coco", "5%", 1, used=fake_comparison.used("5%", test=1461))],
            "coco at 5%, seed 1, test: 1,461 images, 1,461 of them with 2,922 objects were used, of 1,462 images",
        ),
        ("device", [cell("coco", "5%", 1, device="cpu")], "some trainings ran on a GPU and some did not"),
        (
            "versions",
            [cell("coco", "5%", 1, versions={"ultralytics": "9"})],
            "the trainings ran with different versions: ultralytics 8.4.190, ultralytics 9",
        ),
        (
            "labelled",
            [cell("coco", "5%", 1, class_scores=({"name": "a", "map50_95": 0, "map50": 0, "objects": 7},))],
            "7",
        ),
    ],
)
def test_what_fails_is_said(key: str, changed: list[CellResult], evidence: str) -> None:
    content = results(*changed)
    found = check(content, key)
    assert found.outcome == "failed"
    assert evidence in found.evidence
    assert [one.key for one in content.failed_checks] == [key], "and nothing else failed"
    assert content.verdict == f"These figures cannot be trusted: {found.evidence}."
    assert f"Failed check: {found.claim}: {found.evidence}." in markdown(content)
    assert not content.trusted
    assert not any(verdict in markdown(content) for verdict in ("better", "worse", "inconclusive ["))


def test_equal_scores_of_trainings_that_differ_are_no_fault() -> None:
    """Of few test objects scores take few values, and in the first epochs they are nearly 0: losses tell them apart."""
    assert check(results(flat("coco", 0, 0.3), flat("coco", 1, 0.3)), "seeds").outcome == "passed"
    cells = [flat(start, seed, 0.1 + 0.01 * seed + 0.02 * (start == "coco")) for start in STARTS for seed in SEEDS]
    content = results(*cells)
    found = check(content, "spread")
    assert found.outcome == "not known"
    assert "coco and scratch at 5% differ by the same 2.00 points in all 3 seeds" in found.evidence
    assert content.trusted


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ({"0.001": 0.2, "0.01": None}, "passed"),  # too high: it diverged
        ({"0.001": 0.2, "0.0003": None}, "not known"),  # a crash: it may have been the best
        ({"0.001": None, "0.0003": 0.1}, "passed"),
        ({"0.001": 0.2, "0.0003": 0.1}, "passed"),
    ],
)
def test_a_rate_that_failed_below_one_that_worked_leaves_open_which_is_best(
    scores: dict[str, float | None], outcome: str
) -> None:
    content = results()
    chosen = [one.model_copy(update={"validation_map50_95": scores, "lr": 0.001}) for one in content.rates]
    found = next(one for one in make_checks(content.model_copy(update={"rates": tuple(chosen)})) if one.key == "rates")
    assert found.outcome == outcome
    assert ("but not what these would have come to, which failed: scratch at 1% with 0.0003" in found.evidence) == (
        outcome == "not known"
    )


def test_a_training_that_was_stopped_and_continued_is_told() -> None:
    content = results(cell("coco", "5%", 1, breaks=(7, 12)), cell("scratch", "5%", 2, breaks=(3,)))
    found = check(content, "last epoch")
    assert found.outcome == "passed"
    assert "with the images in another order from there on" in found.evidence
    assert "seed 1, after epoch 7 and 12 and 1 more" in found.evidence or "after epoch 3 and 1 more" in found.evidence


def test_a_test_image_among_the_labelled_images() -> None:
    leak = LeakFacts(outcome="failed", words="2 labelled images are test images")
    content = results(data=data(leak=leak))
    assert check(content, "test leak").outcome == "failed"
    assert content.verdict == "These figures cannot be trusted: 2 labelled images are test images."


def test_frames_of_one_recording_are_told_and_fail_nothing() -> None:
    seen = LeakFacts(outcome="not known", words="9 of 1,462 test images look most like the labelled image beside them")
    content = results(data=data(recordings=seen))
    assert (check(content, "recordings").outcome, check(content, "recordings").evidence) == ("not known", seen.words)
    assert content.trusted
    assert check(results(data=data(recordings=None)), "recordings").outcome == "not known"


def test_a_part_that_was_asked_for_is_not_what_the_lists_say() -> None:
    """``fraction`` and ``classes`` of Ultralytics leave out some: then the starts are compared with each other."""
    settings = fake_comparison.facts(STARTS, SEEDS).settings.model_copy(update={"extra": {"fraction": 0.5}})
    half = [
        cell(start, budget, seed, used=fake_comparison.used(budget, test=731))
        for start in STARTS for budget in fake_comparison.BUDGETS for seed in SEEDS
    ]  # fmt: skip
    found = check(results(*half, settings=settings), "used")
    assert (found.outcome, found.evidence) == ("not known", "extra.fraction leaves out some")
    other = cell("coco", "5%", 1, used=fake_comparison.used("5%", test=730))
    found = check(results(*half, other, settings=settings), "used")
    assert (found.outcome, found.evidence) == ("failed", "at 5%, seed 1, the starts read different data")


@pytest.mark.parametrize("outcome", ["failed", "not known"])
def test_a_leak_of_a_pretraining(outcome: Any) -> None:
    facts = fake_comparison.facts(STARTS, SEEDS)
    leak = LeakFacts(outcome=outcome, words="they were looked at")
    scratch, coco = facts.starts
    leaky = facts.model_copy(update={"starts": (scratch, coco.model_copy(update={"leak": leak}))})
    content = conclude(leaky, results().cells, results().rates)
    found = check(content, "pretraining leak")
    assert (found.outcome, found.evidence) == (outcome, "coco: they were looked at")
    assert content.trusted == (outcome == "not known")
    assert ("Not known: No test image is among the images that a start was" in markdown(content)) == content.trusted


def test_no_labels_at_all() -> None:
    nothing = [flat(start, seed, 0.0) for start in STARTS for seed in SEEDS]
    found = check(results(data=data(labelled_test_images=0)), "labelled")
    assert (found.outcome, found.evidence) == ("failed", "no test image has a labelled object: nothing can be measured")
    # A file of format 1 does not tell how many labels there are, but every figure is 0 and nothing was counted.
    cells = [
        one.model_copy(update={"figures": one.measured.model_copy(update={"class_scores": ()})}) for one in nothing
    ]
    content = fake_comparison.results(STARTS, SEEDS, cells=cells, data=data(labelled_test_images=None))
    assert check(content, "labelled").outcome == "failed"
    assert content.verdict.endswith("every figure is 0: nothing can be measured.")


def test_all_at_zero_is_no_fault_of_the_seeds() -> None:
    """With few labels a start may find nothing with any seed: no spread, but nothing wrong."""
    content = results(*[flat(start, seed, 0.0) for start in STARTS for seed in SEEDS])
    assert check(content, "spread").outcome == "passed"
    (one,) = [one for one in content.differences if one.budget == "5%"]
    assert (one.map50_95.t_low, one.map50_95.verdict) == (None, "inconclusive")


def test_what_is_missing_leaves_the_rest_valid() -> None:
    content = results(cell("coco", "5%", 2, state="failed", figures=None, error="out of memory"))
    found = check(content, "complete")
    assert (found.outcome, found.evidence) == ("failed", "1 of 18 trainings failed or are missing: coco at 5%, seed 2")
    assert content.trusted
    assert content.failed_checks == (found,)
    assert content.verdict.startswith("coco against scratch: better at 1%")
    assert content.verdict.endswith(" Not complete: 1 of 18 trainings failed or are missing: coco at 5%, seed 2.")


def test_what_nobody_wrote_down_is_not_known() -> None:
    content = results(
        *[
            cell(
                start,
                budget,
                seed,
                settings_sha256="",
                versions={},
                class_scores=(),
                used=None,
                arrived=Arrived(tensors=0, model=0, ema=0),
            )
            for start in STARTS
            for budget in fake_comparison.BUDGETS
            for seed in SEEDS
        ]
    )
    unknown = {one.key for one in content.checks if one.outcome == "not known"}
    assert unknown == {"settings", "versions", "labelled", "arrived", "used"}
    assert content.trusted


def test_one_seed_tells_nothing_of_seeds() -> None:
    content = results(seeds=[0])
    assert {one.key for one in content.checks if one.outcome == "not known"} == {"seeds", "spread"}


@pytest.mark.parametrize(
    ("starts", "seeds", "done", "said"),
    [
        (["scratch", "coco"], [0], [0], ("there is one seed", "there is one seed")),
        (
            ["scratch", "coco"], [0, 1, 2], [0],
            ("no start was trained with two seeds", "no start and its reference were trained with two seeds"),
        ),
        (["coco"], [0, 1, 2], [0, 1, 2], ("no two seeds of a start gave the same figures", "there is one start")),
        (["coco"], [0], [0], ("there is one seed", "there is one start")),
        (["scratch", "coco"], [0, 1, 2], [], ("no training is done", "no training is done")),
    ],
)  # fmt: skip
def test_why_nothing_is_known_of_the_seeds(
    starts: list[str], seeds: list[int], done: list[int], said: tuple[str, str]
) -> None:
    content = fake_comparison.results(starts, seeds, cells=fake_comparison.every_cell(starts, done))
    assert tuple(check(content, key).evidence for key in ("seeds", "spread")) == said
    assert check(content, "spread").outcome == "not known"


def test_nothing_done() -> None:
    content = fake_comparison.results(STARTS, SEEDS, cells=[])
    outcomes = {one.key: one.outcome for one in content.checks}
    assert outcomes["complete"] == "failed"
    passed = {key for key, outcome in outcomes.items() if outcome == "passed"}
    assert passed == {"test leak", "pretraining leak", "recordings", "rates"}, "what is known before a training"


def test_one_rate_for_all() -> None:
    def of(*changed: CellResult) -> Check:
        content = results(*changed)
        bare = [one.model_copy(update={"validation_map50_95": {}}) for one in content.rates]
        return check(conclude(fake_comparison.facts(STARTS, SEEDS), content.cells, bare), "rates")

    assert (of().outcome, of().evidence) == ("passed", "0.001 for all")
    other = of(cell("coco", "5%", 1, lr=0.01))
    assert (other.outcome, other.evidence) == ("failed", "the trainings used the rates 0.001 and 0.01")


def test_the_hash_of_a_training_leaves_out_its_times_alone(tmp_path: Path) -> None:
    def hashed(text: str) -> str:
        (tmp_path / "results.csv").write_text(text)
        return rows_hash(tmp_path)

    first = hashed("epoch, time, loss\n1,2.0,0.5\n")
    assert hashed("epoch, time, loss\n1,7.5,0.5\n") == first
    assert hashed("epoch, time, loss\n1,2.0,0.6\n") != first
    assert hashed("epoch, time, loss\n1,2.0,0.5\n2,4.0") != first, "a row that was cut, or one too long, is read"
    assert hashed("epoch, time, loss\n1,2.0,0.5,9\n") != first
    (tmp_path / "results.csv").unlink()
    with pytest.raises(UserError, match=r"results\.csv: cannot be read"):
        rows_hash(tmp_path)
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"results\.csv: cannot be read"):
        rows_hash(tmp_path)


def test_a_rate_of_its_own_is_said_and_not_claimed_to_be_fair() -> None:
    """It was chosen elsewhere: that nobody looked at the test images for it is not known."""
    own = {"coco": 0.0001}
    content = results(*[cell("coco", "5%", seed, lr=0.0001) for seed in SEEDS])
    facts = fake_comparison.facts(STARTS, SEEDS)

    def rates(**changed: Any) -> Check:
        settings = facts.settings.model_copy(update={"start_lr": own, **changed})
        cells = [one for one in content.cells if one.budget == "5%"]
        return check(conclude(facts.model_copy(update={"settings": settings}), cells, content.rates), "rates")

    found = rates()
    assert found.outcome == "not known"
    assert "coco has 0.0001, given in start_lr" in found.evidence
    other = rates(start_lr={"coco": 0.01})
    assert (other.outcome, "0.0001 was used, not the rate" in other.evidence) == ("failed", True)
    assert rates(start_lr={}).outcome == "failed"
