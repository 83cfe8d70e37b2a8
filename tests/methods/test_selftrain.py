"""The parts of selftrain, by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from headstart.errors import UserError
from headstart.images.mixed import MixedStream
from headstart.methods import held_out
from headstart.methods.base import GivenLabels
from headstart.methods.sampling_plan import SamplingPlan
from headstart.methods.schedules import Progress
from headstart.methods.selftrain import Selftrain, Settings
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.history import History, drift
from headstart.pseudolabels.labeller import Labeller, Learnt
from headstart.pseudolabels.labelling import Detections
from headstart.settings import words

STEPS = 40


def method(**options: Any) -> Selftrain:
    made = tiny.build(
        "selftrain",
        **{"teacher": None, "held_out": 0, "labelled": 0.5, "burn_in": 0.25, "settle": 0.25, "rounds": 2, **options},
    )
    assert isinstance(made, Selftrain)
    return made


def test_the_parts_of_a_training() -> None:
    """Of 40 steps 10 on labelled images, 20 on both in halves, 10 on labelled ones, which are seen whole.

    The last three of ten, in burn-in and both rounds, have no mosaics, and so a quarter of the images.
    """
    made = method()
    order, labelled = made.order(STEPS), set(tiny.given_labels().rows.tolist())
    for step in range(STEPS):
        rows = order.rows(step)
        assert len(rows) == (tiny.BATCH if step < 30 and step % 10 < 7 else tiny.BATCH // 4)
        assert sum(row in labelled for row in rows) == (len(rows) // 2 if 10 <= step < 30 else len(rows))
    rates = [made.cycle(Progress(step, STEPS, 0.0))[:2] for step in (0, 9, 10, 19, 20, 30, 39)]
    assert rates == [(0, 10), (9, 10), (0, 10), (9, 10), (0, 10), (0, 10), (9, 10)]
    shares = [made.rate_share(Progress(step, STEPS, 0.0)) for step in (0, 29, 30, 39)]
    assert shares == [1.0, 1.0, 0.1, 0.1]
    scales = [made.specs_at(Progress(step, STEPS, 0.0))[0].scale for step in (0, 29, 30, 39)]
    assert scales == [(0.8, 1.0)] * 2 + [(1.0, 1.0)] * 2


def test_every_cycle_ends_without_mosaics() -> None:
    """Burn-in ends at step 10, the rounds at 24 and 38, the last part at 40; half of each but the last is closed."""
    made = method(settle=0.05, close_mosaic=0.5)
    order, quarter = made.order(STEPS), tiny.BATCH // 4
    closed = [step for step in range(STEPS) if len(order.rows(step)) == quarter]
    assert closed == [*range(5, 10), *range(17, 24), *range(31, 40)]


@pytest.mark.parametrize(
    ("boxes", "share"),
    [
        ({0: 49}, 0.0),
        ({0: 50}, 0.05),
        ({0: 60, 7: 39}, 0.0),  # 49.5 boxes a class
        ({3: 100, 17: 99, 79: 1}, 0.05),  # of three of 80 names: 66.7, whatever the others are
        ({}, 0.0),
    ],
)
def test_few_labels_are_not_learnt_by_heart_in_a_last_part(boxes: dict[int, int], share: float) -> None:
    classes = torch.tensor([label for label, number in boxes.items() for _ in range(number)], dtype=torch.int64)
    given: dict[str, Any] = {"batch": 8, "seed": 0, "known": 9, "unlabelled": 9, "classes": classes}
    assert SamplingPlan.of(Settings(), **given).settle == share
    assert SamplingPlan.of(Settings(settle=0.2), **given).settle == 0.2


@pytest.mark.parametrize(
    ("labelled", "steps", "burn_in"),
    [
        (1190, 7200, 4680),  # 350 x 1,190 images in steps of 0.7 x 64 + 0.3 x 16 are 8,397 steps: 0.65 of all at most
        (705, 10_000, 4975),
        (297, 7200, 2520),  # 2,096 steps: 0.35 at least
        (297, 3600, 2096),
        (297, 100, 65),
    ],
)
def test_burn_in_lasts_until_labels_alone_are_used_up(labelled: int, steps: int, burn_in: int) -> None:
    given: dict[str, Any] = {
        "batch": 64,
        "seed": 0,
        "known": labelled,
        "unlabelled": 4000,
        "classes": torch.zeros(9).long(),
    }
    plan = SamplingPlan.of(Settings(), **given)
    assert plan.between(steps) == (burn_in, steps)
    assert plan.numbers(burn_in - 1, steps) == (16, 0, 0)
    assert SamplingPlan.of(Settings(burn_in=0.1), **given).between(steps)[0] == steps // 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        # 100 steps of 0.7 x 64 + 0.3 x 16 images are 4,960, of 40 images.
        ({}, "burn-in: 100 steps on 40 labelled images, each about 124 times; then 100 on all images, by"),
        ({"rounds": 2}, "100 on all images in 2 rounds, by the teacher's labels too"),
        # Half of 0.7 of the steps: 0.35 x 64 + 0.65 x 16 = 32.8 images a step.
        ({"mosaic": 0.5}, "each about 82 times; then"),
        ({"settle": 0.1}, "then 80 on all images, by the teacher's labels too; the last 20 on labelled ones alone"),
    ],
)
def test_it_says_what_the_steps_learn_from(options: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"batch": 64, "seed": 0, "known": 40, "unlabelled": 9, "classes": torch.zeros(9).long()}
    plan = SamplingPlan.of(Settings(burn_in=0.5, settle=options.pop("settle", 0.0), **options), **given)
    assert told in plan.told(200)
    assert replace(plan, unlabelled=0).told(200) == ""
    assert "times" not in plan.told(2), "1.24 of them are none to speak of"


def test_it_is_said_at_the_first_step_alone_and_again_where_a_trial_has_said_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    made = method(settle=0.0, held_out=0.2)
    before = made.state_dict()
    for _ in range(2):
        assert made.news() == []
        for step in (0, 1):
            made.before_step(Progress(step, STEPS, 0.0))
        assert [told[:20] for _, told in made.news()] == [
            "labelled objects of ",
            "3 of 16 labelled ima",
            "burn-in: 10 steps on",
        ]
        made.before_step(Progress(0, STEPS, 0.0))
        made.load_state_dict(before)  # as budget= and compile= do after a few steps


def test_nothing_is_said_to_be_held_out_where_all_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    for options in ({"burn_in": 1.0}, {"labelled": 1.0}):
        made = method(held_out=0.2, zoom=0.5, **options)
        made.before_step(Progress(0, STEPS, 0.0))
        assert made.news() == []
        assert made.teacher_record()["held_out"] == 0


@pytest.mark.parametrize(
    ("batch", "known", "unlabelled", "step", "labelled"),
    [
        (16, 297, 4000, 199, 4),  # without mosaics: a tenth of four images, so four in ten steps
        (4, 297, 4000, 199, 1),  # of one image
        (4, 297, 4000, 100, 4),  # with mosaics, of four
        (64, 297, 4000, 100, 60),  # 6.4 are 6 in each step
        (32, 990, 10, 100, 317),  # 31.68: others come in each third step or so
        (32, 990, 10, 199, 79),  # 7.92 of eight
    ],
)
def test_of_small_batches_both_kinds_come_by_turns(
    batch: int, known: int, unlabelled: int, step: int, labelled: int
) -> None:
    """In ten steps, of 200 in one round after 100 of burn-in; the last 30 have no mosaics."""
    more: dict[str, Any] = {
        "batch": batch,
        "seed": 0,
        "known": known,
        "unlabelled": unlabelled,
        "classes": torch.zeros(9).long(),
    }
    plan = SamplingPlan.of(Settings(burn_in=0.5, close_mosaic=0.3), **more)
    first = step if step == 100 else 180
    numbers = [plan.numbers(one, 200) for one in range(first, first + 10)]
    assert sum(one[0] for one in numbers) == pytest.approx(labelled, abs=1 if labelled > 60 else 0)
    assert {sum(one) for one in numbers} == {batch if step == 100 else batch // 4}
    assert sum(one[1] for one in numbers) > 0


def test_where_no_unlabelled_image_comes_nothing_fails() -> None:
    """A share of all asks for none, and a few steps may have none by chance."""
    made = method(labelled=1.0, balance=0.5)
    assert made._plan.label_steps(STEPS) == []
    assert {made._plan.numbers(step, STEPS) for step in range(30)} == {(0, 0, tiny.BATCH), (0, 0, tiny.BATCH // 4)}
    made = method(labelled=0.999, balance=0.5, rounds=1)
    Sees(made, {})
    made.order(STEPS)
    made.before_step(Progress(10, STEPS, 0.0))
    assert made._order.coming(Progress(10, STEPS, 0.0), made._taught.labels) == []


def test_the_last_part_goes_on_from_the_mean_of_the_cycles_and_is_handed_back_alone() -> None:
    """Of 1 and 4 at the ends of two cycles the mean is 3, of the weights that learn, too; then the teacher alone."""
    made = method(rounds=1)
    Sees(made, {})
    networks = (made.student, made.teacher, made.head, made.teacher_head)
    for value, step in ((1.0, 10), (4.0, 30)):
        with torch.no_grad():
            for module in networks:
                for one in module.state_dict().values():
                    one.fill_(value)
        made.before_step(Progress(step, STEPS, 0.0))
    for module in networks:
        assert {float(one.detach().mean()) for one in module.parameters()} == {3.0}
    with torch.no_grad():
        for module in (made.teacher, made.teacher_head):
            for one in module.state_dict().values():
                one.fill_(7.0)
    assert {float(one.float().mean()) for one in made.handed_back("teacher").values()} == {7.0}


@pytest.mark.parametrize(("burn_in", "settle"), [(1.0, 0.0), (0.5, 0.5), (1.0, 0.3), (0.99, 0.0)])
def test_where_the_teacher_never_labels_all_steps_are_on_labelled_images(burn_in: float, settle: float) -> None:
    made = method(burn_in=burn_in, settle=settle, held_out=0.3)
    order, labelled = made.order(STEPS), set(tiny.given_labels().rows.tolist())
    assert {row for step in range(STEPS) for row in order.rows(step)} == labelled
    assert made._plan.label_steps(STEPS) == []


def test_held_out_images_come_in_the_last_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    made = method(held_out=0.2)
    held = set(made._held_out.rows.tolist())
    assert len(held) == round(0.2 * 16)
    made.before_step(Progress(0, STEPS, 0.0))
    (*_, (_, told), _) = made.news()
    assert told == "3 of 16 labelled images are held out to judge the teacher on; held_out=0 learns from all of them"
    order = made.order(STEPS)
    assert not held & {row for step in range(30) for row in order.rows(step)}
    assert held <= {row for step in range(30, STEPS) for row in order.rows(step)}


def test_the_teacher_is_the_average_of_the_student() -> None:
    made = method(ema=0.5)
    before = {name: one.clone() for name, one in made.teacher.state_dict().items()}
    with torch.no_grad():
        for one in made.student.parameters():
            one.add_(1.0)
    made.student.state_dict()["stages.0.1.running_mean"].add_(3.0)
    made.before_step(Progress(100, STEPS * 10, 0.0))
    after = made.teacher.state_dict()
    torch.testing.assert_close(after["stages.0.0.weight"], before["stages.0.0.weight"] + 0.5)
    torch.testing.assert_close(after["stages.0.1.running_mean"], before["stages.0.1.running_mean"] + 1.5)


@pytest.mark.parametrize("average", [True, False])
def test_the_mean_of_the_ends_of_the_cycles_labels_and_is_handed_back(average: bool) -> None:
    """Of 1 at the end of burn-in, 4 and 10 at those of the rounds: 1, 9/3, 49/7, weights, head and statistics alike."""
    made = method(average=average)
    Sees(made, {})
    names = ("stages.0.0.weight", "stages.0.1.running_mean")

    def at_the_end_of_a_cycle(value: float, step: int | None) -> dict[str, float]:
        with torch.no_grad():
            for module in (made.student, made.teacher, made.head, made.teacher_head):
                for one in module.state_dict().values():
                    one.fill_(value)
        if step is None:
            return {name: float(one.float().mean()) for name, one in made.handed_back("teacher").items()}
        made.before_step(Progress(step, STEPS, 0.0))
        return {name: float(made.teacher.state_dict()[name].float().mean()) for name in names}

    for value, step, mean in ((1.0, 10, 1.0), (4.0, 20, 3.0)):
        got = at_the_end_of_a_cycle(value, step)
        assert got == dict.fromkeys(names, mean if average else value)
        assert all(float(one.detach().mean()) == value for one in made.student.parameters()), (
            "the student goes on from its own"
        )
    again = method(average=average)
    again.set_extra_state(made.get_extra_state())
    made = again
    last = at_the_end_of_a_cycle(10.0, None)
    counters = {name for name in last if "num_batches" in name}
    assert {name: last[name] for name in counters} == dict.fromkeys(counters, 10.0)
    assert {last[name] for name in last.keys() - counters} == {7.0 if average else 10.0}


@pytest.mark.parametrize(("average", "scratch", "mean"), [(None, False, 3.0), (None, True, 4.0), (True, True, 3.0)])
def test_from_random_weights_the_last_end_alone_is_taken(average: bool | None, scratch: bool, mean: float) -> None:
    """Of 1 at the end of burn-in and 4 at that of the round, which weighs twice: 9/3, or 4."""
    made = method(average=average, rounds=1, settle=0.0)
    made.context = replace(made.context, from_scratch=scratch)
    Sees(made, {})
    for value, step in ((1.0, 10), (4.0, None)):
        with torch.no_grad():
            for module in (made.student, made.teacher, made.head, made.teacher_head):
                for one in module.state_dict().values():
                    one.fill_(value)
        if step:
            made.before_step(Progress(step, STEPS, 0.0))
    back = made.handed_back("teacher").values()
    assert {float(one.mean()) for one in back if one.is_floating_point()} == {mean}
    made.news()
    made.finish(STEPS)
    ((_, told),) = made.news()
    assert told.startswith(
        "handed back: the mean of the teachers at the ends of 2 parts"
        if mean == 3
        else "handed back: the teacher as it is"
    )


def test_the_last_step_is_in_what_is_handed_back() -> None:
    """The last part has 10 steps: the average begins with it, and takes 9/20 of the student after the tenth."""
    made = method()
    with torch.no_grad():
        for module, value in ((made.student, 3.0), (made.head, 3.0), (made.teacher, 1.0), (made.teacher_head, 1.0)):
            for one in module.state_dict().values():
                one.fill_(value)
    made._learnt["teacher"] = Learnt()
    made.finish(STEPS)
    back = made.handed_back("teacher").values()
    assert {round(float(one.mean()), 5) for one in back if one.is_floating_point()} == {round(1 + 2 * 9 / 20, 5)}
    assert not made._learnt, "what labelled images told of the weights before"


def test_burn_in_may_see_larger_views_than_what_is_trained_after_it() -> None:
    """256 pixels in the first 10 of 40 steps, and when its teacher labels; its weights are no part of the mean."""
    made = method(label_imgsz=250)
    assert [spec.size for spec in made.view_specs()] == [256]
    sizes = [made.specs_at(Progress(step, STEPS, 0.0))[0].size for step in (0, 9, 10, 39)]
    assert sizes == [256, 256, 128, 128]
    seen = Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(10, STEPS, 0.0))
    assert (seen.size, made._mean.number) == (256, 0)
    made.before_step(Progress(20, STEPS, 0.0))
    assert (seen.size, made._mean.number) == (128, 1)


def test_without_label_imgsz_all_steps_have_views_of_imgsz_whatever_it_is() -> None:
    made = method(imgsz=100)
    assert [spec.size for spec in made.view_specs()] == [100]
    assert {made.specs_at(Progress(step, STEPS, 0.0))[0].size for step in range(STEPS)} == {100}


class Sees:
    """In place of the teacher's network and head: one box on every image, as sure as its row says."""

    def __init__(self, made: Selftrain, scores: dict[int, float]) -> None:
        self.scores, self.asked = scores, []  # type: ignore[var-annotated]
        made._labeller._read = self.read
        self.rows: Tensor = torch.zeros(0)
        self.size, self.classes = 0, {}  # type: ignore[var-annotated]
        made.teacher.forward = lambda images: [images]  # type: ignore[method-assign]
        made.teacher_head.detections = self.found  # type: ignore[method-assign]

    def read(self, rows: Any, area: int) -> Any:
        self.asked.append(list(rows))
        for one in tiny.read(rows, area):
            self.rows = one.indices
            yield one

    def found(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        self.size = maps[0].shape[-1]
        scores = torch.zeros(len(self.rows), 1, 8)
        for place, row in enumerate(self.rows.tolist()):
            scores[place, 0, self.classes.get(row, 5)] = self.scores.get(row, 0.0)
        return torch.tensor([[[32.0, 32, 64, 96]]]).repeat(len(self.rows), 1, 1), scores


def test_what_is_sure_is_taught_and_what_is_not_is_left_open() -> None:
    made = method()
    unlabelled = made._unlabelled.tolist()
    sure, unsure, nothing = unlabelled[:3]
    seen = Sees(made, {sure: 0.9, unsure: 0.3, nothing: 0.01})
    made.before_step(Progress(10, STEPS, 0.0))
    coming = sorted(set(made.order(STEPS).of_kind(1, 10, 20)))
    assert seen.asked == [made._held_out.known.tolist(), coming], "where boxes end on labelled images, then what comes"
    known = set(coming)
    if {sure, unsure, nothing} <= known:
        owner, boxes, labels = made._taught.of(torch.tensor([sure, unsure, nothing]))
        assert labels[owner == 0].tolist() == [5]
        torch.testing.assert_close(boxes[owner == 0], torch.tensor([[0.25, 0.25, 0.5, 0.75]]))
        assert labels[owner == 1].unique().tolist() == [-1]
        assert labels[owner == 2].tolist() == [-1]
        torch.testing.assert_close(boxes[owner == 2], torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    entry = made._history.passes[0]
    assert entry["images"] == len(known)
    assert entry["labels"] == entry["with_labels"] == (sure in known)
    assert entry["left_open"] == (unsure in known)


@pytest.mark.parametrize(
    ("keep", "unsure", "kept"), [(0.4, 0.02, [5, -1, -1]), (0.02, 0.05, [5, 5, 5]), (0.3, 0.6, [5, -1, -1])]
)
def test_what_is_kept_is_found_however_unsure_it_may_be(keep: float, unsure: float, kept: list[int]) -> None:
    """Scores of 0.5, 0.03 and 0.03."""
    made = method(keep=keep, unsure=unsure, rounds=1)
    rows = sorted(set(made.order(STEPS).of_kind(1, 10, 30)))[:3]
    Sees(made, {rows[0]: 0.5, rows[1]: 0.03, rows[2]: 0.03})
    made.before_step(Progress(10, STEPS, 0.0))
    owner, _, labels = made._taught.of(torch.tensor(rows))
    assert [int(labels[owner == place].max()) for place in range(3)] == kept


def test_a_threshold_for_each_class_has_something_to_choose_from() -> None:
    assert method(keep="class", unsure=0.6)._labeller._least == 0.2, "the least that is chosen for one"


class First:
    """Another detector, which finds one object of class 3 on every image."""

    knows_classes = True

    def __init__(self) -> None:
        self.network, self.head, self.imgsz, self.name = torch.nn.Conv2d(3, 1, 1), torch.nn.Module(), 96, "coco"
        self.head.detections = self.detections  # type: ignore[assignment]
        self.sizes: list[int] = []

    def to(self, _: Any) -> First:
        return self

    def detections(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(maps.shape[-1])
        scores = torch.zeros(len(maps), 1, 8)
        scores[:, 0, 3] = 0.9
        return torch.tensor([[[24.0, 24, 48, 72]]]).repeat(len(maps), 1, 1), scores


def with_first(**options: Any) -> tuple[Selftrain, First]:
    made, first = method(burn_in=None, settle=0, proposals="coco.pt", **options), First()
    made.context = replace(made.context, finder=first)  # type: ignore[arg-type]
    made = Selftrain(made.settings, made.context)
    made._labeller.taught_by = lambda finder: "it finds some"  # type: ignore[method-assign]
    return made, first


def test_another_detector_labels_before_the_first_step() -> None:
    made, first = with_first(rounds=2)
    assert made.phases(STEPS) == [range(STEPS)]
    assert [made.long_ahead(Progress(step, STEPS, 0.0)) for step in (0, 1, 20)] == [True, False, True]
    weights = {name: one.clone() for name, one in made.teacher.state_dict().items()}
    made.before_step(Progress(0, STEPS, 0.0))
    assert set(first.sizes) == {96}
    rows = torch.tensor(sorted(set(made.order(STEPS).of_kind(1, 0, 20))))
    owner, _, labels = made._taught.of(rows)
    assert owner.tolist() == list(range(len(rows)))
    assert labels.unique().tolist() == [3]
    assert all(torch.equal(one, weights[name]) for name, one in made.teacher.state_dict().items())
    assert made._mean.number == 0, "weights that nobody has trained are no part of the mean"
    told = [sentence for _, sentence in made.news()]
    assert "40 steps on all images in 2 rounds, by the labels that are found too" in told
    assert "it finds some" in told
    assert any(sentence.startswith(f"coco labelled {len(rows)} of {len(rows)} images") for sentence in told)
    assert made._history.passes[0]["by"] == "coco"
    looked = len(first.sizes)
    Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(20, STEPS, 0.0))
    assert len(first.sizes) == looked, "the second time its own teacher labels"
    assert "by" not in made._history.passes[1]


def test_labels_of_another_detector_that_are_lost_are_not_made_by_one_that_knows_nothing() -> None:
    made, _ = with_first()
    made.context = replace(made.context, finder=None)
    with pytest.raises(UserError, match="proposals: the labels that this run began with are lost"):
        made.before_step(Progress(0, STEPS, 0.0))


def test_its_labels_stay_where_those_of_the_teacher_agree_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out labels say so; the weights go on as they are, and are those of no other detector."""
    monkeypatch.setattr(held_out, "LEAST", 1)
    shares, f1 = {"precision": 0.5, "recall": 0.5, "by_class": {"a": {"known": 100}}}, iter([0.9, 0.2, 0.2])
    monkeypatch.setattr(held_out.HeldOut, "judged", lambda self, sure: {"f1": next(f1), **shares})
    made, _ = with_first(rounds=2, held_out=0.3)
    made.before_step(Progress(0, STEPS, 0.0))
    taught = made._taught
    again = Selftrain(made.settings, made.context)
    again.load_state_dict(made.state_dict())
    assert again._history.best.keys() == made._history.best.keys()
    Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    before = {name: one.clone() for name, one in made.student.state_dict().items()}
    made.before_step(Progress(20, STEPS, 0.0))
    told = "the labels of coco are kept, and the weights stay as they are, for there is no earlier state of its own"
    assert told in made._history.drifted
    assert made._taught.labels is taught.labels
    assert all(torch.equal(one, before[name]) for name, one in made.student.state_dict().items())
    made.finish(STEPS)


@pytest.mark.parametrize("third", ["ends", "labels"])
def test_where_its_own_rounds_drift_the_best_of_its_own_states_comes_back(
    third: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another detector's labels agreed best; the weights to go back to are those of the first round all the same."""
    monkeypatch.setattr(held_out, "LEAST", 1)
    shares, f1 = {"precision": 0.5, "recall": 0.5, "by_class": {"a": {"known": 200}}}, iter([0.9, 0.82, 0.55])
    monkeypatch.setattr(held_out.HeldOut, "judged", lambda self, sure: {"f1": next(f1), **shares})
    made, _ = with_first(rounds=2 if third == "ends" else 3, held_out=0.3)
    _, second, last = [*sorted(made._plan.label_steps(STEPS)), STEPS][:3]
    made.before_step(Progress(0, STEPS, 0.0))
    taught = made._taught
    Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(second, STEPS, 0.0))
    assert not made._history.drifted
    good = {name: one.clone() for name, one in made.handed_back("teacher").items()}
    made.load_state_dict(made.state_dict())
    with torch.no_grad():
        for one in [*made.student.parameters(), *made.teacher.parameters()]:
            one.add_(1.0)
    if third == "ends":
        made.finish(last)
    else:
        made.before_step(Progress(last, STEPS, 0.0))
    assert "and now to 55%; the labels of coco are kept, and of the teacher's own states" in made._history.drifted
    assert torch.equal(made._taught.labels.boxes, taught.labels.boxes)
    for which in made.exports:
        for name, one in made.handed_back(which).items():
            assert torch.equal(one, good[name]), name
    assert made._history.taken is made._history.passes[1]


def test_states_of_earlier_versions_are_gone_back_to() -> None:
    """They kept the weights beside the labels, and before that in an entry of their own."""
    labels = PseudoLabels.gather(1, torch.tensor([0]), torch.rand(1, 4), torch.ones(1), torch.tensor([0])).tensors()
    one = {"history": [passed(0.9)], "drifted": "", "judged": {}}
    best = {"pass": 0, "taught": labels, "known": torch.ones(1).bool()}
    mean = {"states": {"teacher": {"a": torch.ones(1)}}, "number": 2}
    for state in (mean, {"mean": mean}):
        again = History.restored({**one, "best": {**best, **state}})
        assert again.own == {"pass": 0, **mean}
        assert again.best.keys() == {"pass", "taught", "known"}
    assert History.restored({**one, "best": best}).own == {}, "of another detector"
    assert History.restored({**one, "best": {}}).record() == History([passed(0.9)]).record()


def test_which_class_an_alarm_names_is_not_left_to_chance() -> None:
    names = [f"class {number}" for number in range(50)]
    history = [passed(**dict.fromkeys(names, 100)), passed(**dict.fromkeys(names, 1))]
    assert "of 'class 0' it gave" in drift(history)


def test_what_is_handed_back_is_not_measured_against_another_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    made, _ = with_first(rounds=1, held_out=0.3)
    made._labeller.found = (
        lambda rows, *_, **__: Detections(  # type: ignore[method-assign, assignment]
            torch.tensor(rows)[:0], torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.tensor(rows)
        )
    )
    made.before_step(Progress(0, STEPS, 0.0))
    made._history.passes[0]["f1"] = 1.0
    made.finish(STEPS)
    assert made._history.judged["recall"] == 0
    assert not made._history.drifted


def test_given_labels_stay_as_they_are() -> None:
    made = method()
    rows = tiny.given_labels().rows
    before = made._taught.of(rows)
    Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(10, STEPS, 0.0))
    for one, other in zip(before, made._taught.of(rows), strict=True):
        assert torch.equal(one, other)


def passed(f1: float | None = None, known: int = 100, **classes: int) -> dict[str, Any]:
    judged = {} if f1 is None else {"f1": f1, "by_class": {"a": {"known": known, "given": 1, "right": 1}}}
    return {"images": 100, "classes": classes, **judged}


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ([passed(a=50)], ""),
        ([passed(a=50), passed(a=11)], ""),
        ([passed(a=50), passed(a=9)], "of 'a' it gave 50 labels on 100 images at first, and now 9"),
        ([passed(a=20), passed(a=101)], "of 'a' it gave 20"),
        ([passed(a=2), passed(a=19)], ""),  # too few to tell
        ([passed(), passed(b=30)], ""),  # it finds what it did not: from random weights that is what rounds are for
        ([passed(a=19), passed(a=100)], ""),
        ([passed(a=60), passed() | {"images": 0}], ""),  # nobody looked
        ([passed(a=60), passed() | {"images": 33}], ""),  # 19.8 were to be expected: too few to tell
        ([passed(a=60), passed() | {"images": 34}], "of 'a' it gave 60 labels on 100 images at first, and now 0 on 34"),
        ([passed(a=50) | {"by": "coco"}, passed(a=9)], ""),  # what another detector found says nothing of its own
        ([passed(a=50) | {"by": "coco"}, passed(a=40), passed(a=7)], "of 'a' it gave 40"),
        ([passed(0.9) | {"by": "coco"}, passed(0.7)], "to 90% (F1), and now to 70%"),
        ([passed(0.8), passed(0.9), passed(0.79, a=90)], "to 90% (F1), and now to 79%"),
        ([passed(0.9), passed(0.81)], ""),
        # Of ten labels, 10 / 12 and 8 / 12 with one right and one wrong more: 2 (0.139 / 12 + 0.222 / 12)^0.5 = 0.35.
        ([passed(0.9, 10), passed(0.7, 10)], ""),
        ([passed(0.9, 10), passed(0.5, 10)], "drifted"),
        ([passed(1.0, 12), passed(0.87, 12)], ""),  # 12 of 12, then 10 right of 11: 0.25
    ],
)
def test_drift_is_told_in_words(history: list[dict[str, Any]], words: str) -> None:
    told = drift(history)
    assert words in told
    assert bool(words) == bool(told)


def test_a_teacher_that_drifts_is_taken_back() -> None:
    made = method(rounds=4, close_mosaic=0)
    seen = Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(10, STEPS, 0.0))
    made.before_step(Progress(15, STEPS, 0.0))
    good = {name: one.clone() for name, one in made.teacher.state_dict().items()}  # the mean of the cycles so far
    taught = made._taught
    with torch.no_grad():
        for one in made.student.parameters():
            one.add_(1.0)
    seen.scores = {}  # it finds nothing any more
    made.before_step(Progress(20, STEPS, 0.0))
    assert "of 'cross' it gave" in made._history.drifted or "drifted" in made._history.drifted
    assert made._taught.labels is taught.labels
    for name, one in made.student.state_dict().items():
        assert torch.equal(one, good[name]), name
    asked = len(seen.asked)
    made.before_step(Progress(25, STEPS, 0.0))
    assert len(seen.asked) == asked, "it labels no more"
    made._history.passes[-1]["named_by"] = "both"
    best = made._history.passes[made._history.best["pass"]]
    assert made._history.taken is best, "whose way of naming counts, too"


def test_labels_are_those_of_what_is_handed_back() -> None:
    """Whoever gets the student gets its labels, not the teacher's."""
    made = method(keep=0.02, unsure=0.001)
    rows = made._unlabelled[:4].tolist()
    before = {which: made.label(rows, which) for which in made.exports}
    assert torch.equal(before["student"].sure.scores, before["teacher"].sure.scores), "they begin alike"
    with torch.no_grad():
        for one in made.head.parameters():
            one.mul_(1.5)
    after = {which: made.label(rows, which) for which in made.exports}
    for part in ("sure", "unsure"):
        now, then = (getattr(one["teacher"], part) for one in (after, before))
        assert torch.equal(now.boxes, then.boxes)
    together = {which: torch.cat([one.sure.scores, one.unsure.scores]) for which, one in after.items()}
    assert not torch.equal(together["student"], together["teacher"])
    assert after["teacher"].sure.looked.tolist() == after["teacher"].unsure.looked.tolist() == rows


def test_one_threshold_for_each_class() -> None:
    """All that the teacher finds is of one class, as sure as the row says: of it fewer are kept than from 0.4 on."""
    made = method(keep="class")
    Sees(made, {row: 0.41 + 0.01 * row for row in range(tiny.IMAGES)})
    made.before_step(Progress(10, STEPS, 0.0))
    rows = sorted(set(made.order(STEPS).of_kind(1, 10, 20)))
    labels = tiny.given_labels().labels.labels
    all_, own = len(labels), int((labels == 5).sum())
    number = round((all_ + (own - all_) * (all_ + own) / (all_ + own + 20)) * len(rows) / all_)
    assert 0 < number < len(rows)
    taught = [row for row in rows if made._taught.of(torch.tensor([row]))[2].tolist() == [5]]
    least = min(0.7, 0.41 + 0.01 * rows[-number])
    assert taught == [row for row in rows if 0.41 + 0.01 * row >= least - 1e-6]
    entry = made._history.passes[0]
    assert entry["labels"] == len(taught)
    assert entry["keep"]["cross"] == pytest.approx(least)
    assert set(entry["keep"]) == set(tiny.given_labels().names)
    assert made.teacher_record()["keep"] == "class"
    assert made.teacher_record()["passes"] == [entry]


def test_thresholds_for_labelled_images_are_those_of_the_last_pass() -> None:
    made = method(keep="class", unsure=0.001)
    Sees(made, {row: 0.41 + 0.01 * row for row in range(tiny.IMAGES)})
    made.before_step(Progress(10, STEPS, 0.0))
    again = method(keep="class", unsure=0.001)
    again.set_extra_state(made.get_extra_state())
    labelled = again.label(tiny.given_labels().rows.tolist(), "student").keep
    assert labelled is not None
    assert labelled.tolist() == list(made._history.passes[0]["keep"].values())
    both = again.label(range(tiny.IMAGES), "student").keep
    assert both is not None
    assert both.tolist() == again.label(again._unlabelled.tolist(), "student").keep.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(("typed", "value"), [("class", "class"), ("0.3", 0.3), ("1", 1.0)])
def test_keep_is_a_number_or_a_word(typed: str, value: float | str) -> None:
    field = Settings.model_fields["keep"]
    assert words.typed(field, typed) == value
    assert method(keep=words.typed(field, typed)).settings.keep == value


@pytest.mark.parametrize("wrong", ["classes", 0, 1.5])
def test_another_word_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match=r"keep: .*'class'"):
        method(keep=wrong)


class Names(Labeller):
    """In place of a labeller: a box on every held-out image, of the right class as one or the other names it."""

    def __init__(self, made: Selftrain, right: str) -> None:
        self.made, self.right, self.asked = made, right, []  # type: ignore[var-annotated]

    def found(self, rows: Any, *_: Any, both: bool = False, **__: Any) -> Detections:
        self.asked.append((len(rows), both))
        given = self.made.context.given
        assert given is not None
        owner, boxes, labels = given.labels.of(torch.tensor(rows))
        right = (self.right == "both") is both
        named = labels if right else (labels + 1) % len(given.names)
        return Detections(torch.tensor(rows)[owner], boxes, torch.ones(len(boxes)), named, torch.tensor(rows))


@pytest.mark.parametrize("right", ["network", "both"])
@pytest.mark.parametrize("naming", ["auto", "network", "both"])
def test_who_names_is_told_by_held_out_labels(naming: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    monkeypatch.setattr(held_out, "NAMED_FROM", 1)
    made = method(teacher="hog", held_out=0.4, naming=naming)
    assert made._held_out.boxes >= 1
    seen = made._labeller = Names(made, right)
    made.before_step(Progress(10, STEPS, 0.0))
    entry = made._history.passes[0]
    taken = right if naming == "auto" else naming
    assert entry["named_by"] == taken
    assert seen.asked[-1][1] is (taken == "both")
    held = len(made._held_out.rows)
    assert seen.asked[:-1] == ([(held, False), (held, True)] if naming == "auto" else [])
    if naming == "auto":
        assert entry["naming_precision"] == {right: 1.0, "both" if right == "network" else "network": 0.0}
    made.label([0], "student")
    assert seen.asked[-1] == (1, taken == "both"), "what is handed back names as it was labelled last"
    again = method(teacher="hog", held_out=0.4, naming=naming)
    again.set_extra_state(made.get_extra_state())
    later = again._labeller = Names(again, right)
    again.label([0], "student")
    assert later.asked == [(1, taken == "both")], "after a resume, too"


def test_of_many_held_out_images_some_tell_who_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    monkeypatch.setattr(held_out, "MOST", 2)
    made = method(teacher="hog", held_out=0.5)
    held = made._held_out
    assert len(held.rows) > 2
    assert 1 <= len(held.some()) <= 2
    assert set(held.some().tolist()) < set(held.rows.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_of_no_class_more_images_are_held_out_than_stay(seed: int) -> None:
    """100 images show class 0, one of them class 1, two class 2, three class 3."""
    classes = [0] * 100 + [1, 2, 2, 3, 3, 3]
    rows = torch.tensor([*range(100), 7, 20, 21, 40, 41, 42])
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2]]).repeat(len(rows), 1)
    labels = PseudoLabels.gather(100, rows, boxes, torch.ones(len(rows)), torch.tensor(classes))
    given = GivenLabels(("a", "b", "c", "d"), torch.arange(100), labels)
    drawn = held_out.HeldOut.drawn(given, 0.5, seed)
    assert 45 <= len(drawn.rows) <= 50
    assert sorted([*drawn.rows.tolist(), *drawn.known.tolist()]) == list(range(100))
    held = set(drawn.rows.tolist())
    assert 7 not in held
    assert len(held & {20, 21}) <= 1
    assert len(held & {40, 41, 42}) <= 1


@pytest.mark.parametrize("settle", [0.0, 0.25])
def test_a_round_that_was_for_the_worse_is_taken_back_in_the_end(
    settle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round, the default: what burn-in made of the detector is handed back."""
    monkeypatch.setattr(held_out, "LEAST", 1)
    made = method(teacher="hog", held_out=0.4, naming="network", rounds=1, settle=settle)
    made._labeller = Names(made, "network")
    made.before_step(Progress(10, STEPS, 0.0))
    good = {name: one.clone() for name, one in made.handed_back("teacher").items()}
    with torch.no_grad():
        for one in [*made.student.parameters(), *made.teacher.parameters()]:
            one.add_(1.0)
    made.news()
    made._labeller = Names(made, "both")  # it names everything wrongly
    if settle:
        made.before_step(Progress(30, STEPS, 0.0))
    else:
        made.finish(STEPS)
    told = made.news()
    assert (told[0][0], told[0][1]) == (
        "info",
        "in the end it finds 0% of the held-out labels, and 0% of what it gives there is right",
    )
    assert told[1][0] == "alarm"
    assert "100% (F1), and now to 0%" in told[1][1]
    for which in made.exports:
        for name, one in made.handed_back(which).items():
            assert torch.equal(one, good[name]), name
    assert made.teacher_record()["judged"]["f1"] == 0
    again = method(teacher="hog", held_out=0.4, naming="network", rounds=1, settle=settle)
    again.set_extra_state(made.get_extra_state())
    assert again.teacher_record() == made.teacher_record()


def test_a_round_that_was_for_the_better_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "LEAST", 1)
    made = method(teacher="hog", held_out=0.4, naming="network", rounds=1, settle=0.0)
    made._labeller = Names(made, "network")
    made.before_step(Progress(10, STEPS, 0.0))
    with torch.no_grad():
        for one in (*made.teacher.parameters(), *made.student.parameters()):  # which the teacher follows once more
            one.add_(1.0)
    expected = {name: one.clone() for name, one in made.handed_back("teacher").items()}
    made.finish(STEPS)
    assert made.teacher_record()["judged"]["f1"] == 1
    assert made.teacher_record()["drifted"] == ""
    assert all(torch.equal(one, expected[name]) for name, one in made.handed_back("teacher").items())


@pytest.mark.parametrize(("export", "settle", "f1"), [("student", 0, 0), ("teacher", 0, 1), ("student", 0.25, 1)])
def test_what_is_handed_back_is_judged(export: str, settle: float, f1: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the student, where it is that; before a last part the mean, which both go on from."""
    monkeypatch.setattr(held_out, "LEAST", 1)
    options = {"teacher": "hog", "held_out": 0.4, "naming": "network", "rounds": 1, "settle": settle, "export": export}
    made = method(**options)

    class OfTheTeacher(Names):
        def found(self, rows: Any, network: Any = None, *_: Any, **__: Any) -> Detections:
            self.right = "both" if network is made.student else "network"
            return super().found(rows)

    made._labeller = OfTheTeacher(made, "network")
    made.before_step(Progress(10, STEPS, 0.0))
    if settle:
        made.before_step(Progress(30, STEPS, 0.0))
    made.finish(STEPS)
    assert made.teacher_record()["judged"]["f1"] == f1
    assert bool(made.teacher_record()["drifted"]) == (f1 == 0), "whoever gets it is given the better state"


def test_without_enough_held_out_boxes_the_network_names() -> None:
    made = method(teacher="hog", held_out=0.0)
    seen = made._labeller = Names(made, "both")
    made.before_step(Progress(10, STEPS, 0.0))
    assert made._history.passes[0]["named_by"] == "network"
    assert [both for _, both in seen.asked] == [False]


@pytest.mark.parametrize(
    ("knows", "naming", "by"), [(True, "auto", "both"), (False, "auto", "network"), (True, "network", "network")]
)
def test_another_detector_of_the_users_classes_has_a_say_in_them(knows: bool, naming: str, by: str) -> None:
    made, first = with_first(teacher="hog", naming=naming, rounds=2)
    first.knows_classes = knows
    seen = made._labeller = Names(made, "both")
    seen.taught_by = lambda finder: ""  # type: ignore[attr-defined]
    made.before_step(Progress(0, STEPS, 0.0))
    assert made._history.passes[0]["named_by"] == by
    made.before_step(Progress(20, STEPS, 0.0))
    assert made._history.passes[1]["named_by"] == "network", "of its own teacher's finds"


def test_phases_are_burn_in_and_the_rest() -> None:
    assert method().phases(STEPS) == [range(10), range(10, 40)]
    assert method(burn_in=1).phases(STEPS) == [range(40)]


def taught_rows(made: Selftrain, first: int, last: int, kind: int = 1) -> list[int]:
    return made.order(STEPS).of_kind(kind, first, last)


def test_labelled_images_of_rare_classes_come_more_often() -> None:
    """In an epoch each comes as often as its rarest class asks for: the largest number of images over that class's."""
    made, given = method(balance=1.0), tiny.given_labels()
    own = [set(given.labels.of(torch.tensor([row]))[2].tolist()) for row in given.rows.tolist()]
    of_class = Counter(one for classes in own for one in classes)
    repeats = [max((max(of_class.values()) / of_class[one] for one in classes), default=1.0) for classes in own]
    assert 1 < max(repeats) <= 10
    assert made._order._repeats(given.rows, given.labels) == pytest.approx(repeats)
    drawn = Counter(MixedStream([given.rows.tolist()], lambda _: (1,), 4000, 0, repeats=[repeats]).of_kind(0, 0, 4000))
    for row, factor in zip(given.rows.tolist(), repeats, strict=True):
        assert drawn[row] / 4000 == pytest.approx(factor / sum(repeats), rel=0.15)  # of whole numbers by chance
    assert taught_rows(made, 0, 10, kind=0) != taught_rows(method(), 0, 10, kind=0)


def test_unlabelled_images_are_balanced_by_what_the_teacher_labels_them_as() -> None:
    made = method(balance=1.0)
    plain = taught_rows(method(balance=1.0), 0, STEPS)
    rows = sorted(set(taught_rows(made, 10, 20)))
    rare = rows[:2]
    seen = Sees(made, dict.fromkeys(rows, 0.9))
    seen.classes = dict.fromkeys(rare, 3)
    assert not made.reordered()
    stream = made._order._stream
    made.before_step(Progress(10, STEPS, 0.0))
    assert made.reordered()
    assert not made.reordered()
    assert stream is not None
    balanced = stream.of_kind(1, 0, STEPS)
    here = len(stream.of_kind(1, 0, 11)), len(stream.of_kind(1, 0, 20))
    assert balanced[: here[0]] == plain[: here[0]], "the step that labels has its images already"
    assert balanced[here[1] :] == plain[here[1] :], "what comes next is not labelled yet"
    part, drawn = made._order._balanced[0], Counter(balanced[here[0] : here[1]])
    assert part.repeats == [min(10.0, (len(rows) - 2) / 2) if row in rare else 1.0 for row in rows]
    assert sum(drawn[row] for row in rare) > 3 * sum(Counter(plain[here[0] : here[1]])[row] for row in rare)
    # What goes on from there has the same order, whether it was asked for before the state came or after it.
    for early in (True, False):
        again = method(balance=1.0)
        asked = again.order(STEPS) if early else None
        again.set_extra_state(made.get_extra_state())
        assert (asked or again.order(STEPS)).of_kind(1, 0, STEPS) == balanced
        assert not again.reordered()


def test_without_balance_nothing_is_reordered() -> None:
    made = method()
    Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    before = taught_rows(made, 0, STEPS)
    made.before_step(Progress(10, STEPS, 0.0))
    assert not made.reordered()
    assert taught_rows(made, 0, STEPS) == before
    assert "balanced" not in made.get_extra_state()


def test_mosaics_are_mixed_where_that_is_wanted() -> None:
    """Two mosaics of eight images each get the boxes of both; without mosaics nothing is mixed."""
    plain, made = method(), method(mixup=1.0)
    views = tiny.views(made)
    for step, factor in ((0, 2), (39, 1)):
        before, after = (one.examples(views, Progress(step, STEPS, 0.0)) for one in (plain, made))
        assert len(after[1]) == factor * len(before[1]) > 0
        assert torch.equal(after[0], before[0]) == (factor == 1)
        assert sorted(after[3].tolist()) == sorted(before[3].tolist() * factor)


def test_what_names_the_boxes_is_learnt_once_for_each_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    made = method(teacher=tiny.Trunk(neck=True))
    learnt: list[int] = []

    class Names:
        def named(self, batch: Any, found: Any, own: Any) -> Any:
            return found

    def classifier(*_: Any) -> Any:
        learnt.append(1)
        return Names()

    monkeypatch.setattr(Labeller, "_classifier", classifier)
    rows = made._unlabelled[:4].tolist()
    made.label(rows, "teacher")
    made.label(made._given.rows[:4].tolist(), "teacher")
    assert len(learnt) == 1
    made.label(rows, "student")
    assert len(learnt) == 2
    made.before_step(Progress(1, STEPS, 0.0))
    made.label(rows, "teacher")
    assert len(learnt) == 3, "a step changes the detector"
    made.load_state_dict(made.state_dict())
    made.label(rows, "teacher")
    assert len(learnt) == 4


def test_after_drift_images_come_that_have_labels() -> None:
    """Those that nobody has labelled teach nothing, and were nine of ten in the rounds that were left."""
    made = method(rounds=4, close_mosaic=0, labelled=0.25)
    stream = made.order(STEPS)
    seen = Sees(made, dict.fromkeys(range(tiny.IMAGES), 0.9))
    made.before_step(Progress(10, STEPS, 0.0))
    seen.scores = {}
    made.before_step(Progress(15, STEPS, 0.0))
    assert made._history.drifted
    with_labels = set(made._unlabelled[made._taught.known[made._unlabelled]].tolist())
    last = made._plan.between(STEPS)[1]
    come = set(stream.of_kind(1, 16, last))
    assert come
    assert come <= with_labels
    assert made.reordered()
