"""Selftrain: the whole detector learns the user's classes, from the images with labels and from those without.

Semi-supervised. First the detector learns from the labelled images alone (burn-in). Then a teacher, the exponential
moving average of the detector, labels the images that come next, and the detector learns from both kinds together,
mixed in mosaics. The learning rate falls before the teacher labels: on FOD-A 96 % of its labels were then right, 91 %
while it was high. The last part is on true labels alone. What the teacher is unsure of is neither taught as an object
nor as background. After STAC (Sohn et al., 2020, arXiv 2005.04757), Unbiased Teacher (Liu et al., 2021, arXiv
2102.09480), Efficient Teacher (Xu et al., 2023, arXiv 2302.07577) and MixPL (Chen et al., 2023, arXiv 2312.07006).

A part of the labelled images is held out until the last part, and the teacher's labels are compared with theirs.
On several devices each labels its part of the images, and all learn from what all have labelled: thresholds, agreement
and drift are told from all of them. Mosaics and the loss are as in `objects`. Batch normalization: the student
is in training mode; the teacher's statistics are averages of the student's, as its weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from headstart import ranks
from headstart.images.class_names import told_apart
from headstart.images.mixed import MixedStream
from headstart.methods.base import Context, Export, Method, Needs, frozen_copy
from headstart.methods.held_out import HeldOut
from headstart.methods.image_order import ImageOrder
from headstart.methods.sampling_plan import SamplingPlan
from headstart.methods.schedules import Progress
from headstart.methods.weight_mean import WeightMean, follow
from headstart.probes import metrics
from headstart.pseudolabels.base import PseudoLabelHead, PseudoLabels
from headstart.pseudolabels.finder import Finder
from headstart.pseudolabels.history import History
from headstart.pseudolabels.labeller import Labeller, Learnt
from headstart.pseudolabels.labelling import Detections, Labelling, kept
from headstart.pseudolabels.sizes import zoom_of
from headstart.pseudolabels.taught import Taught
from headstart.pseudolabels.thresholds import LEAST, Keep
from headstart.settings.method_options import DetectionSettings, LabellerOptions, LabelOptions
from headstart.views.draws import Purpose, draws
from headstart.views.mixup import mixed
from headstart.views.mosaic import boxes_in_view, detection_view, mosaics, shown, whole
from headstart.views.spec import View, ViewSpec

SETTLE_RATE = 0.1
"""Learning rate of the last part, in highest rates of the others."""


class Settings(DetectionSettings, LabelOptions, LabellerOptions):
    """Options of the selftrain method."""

    close_mosaic: float = Field(0.3, ge=0, le=1, description="last share of burn-in and each round without mosaics")
    burn_in: float | None = Field(
        None, ge=0, le=1, description="first share of the steps, on labelled images; none: by their number (0.35-0.65)"
    )
    settle: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the steps, at the end, on labelled images alone, whole, at a tenth of the learning rate; "
        "none: 0.05, or 0 with fewer than 50 labelled boxes a class",
    )
    labelled: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of labelled images in the steps between; none: their share of all images, a tenth at least",
    )
    rounds: int = Field(
        1, ge=1, description="how often the teacher labels the images; the learning rate falls before each time"
    )
    ema: float = Field(0.999, ge=0, lt=1, description="momentum of the teacher's weights")
    average: bool | None = Field(
        None,
        description="the mean of the teachers at the ends of cycles, not the last one; none: yes, but not from scratch",
    )
    keep: Annotated[float, Field(gt=0, le=1)] | Literal["class"] = Field(
        0.4,
        description="score from which what the teacher finds is taken for an object; class: one for each class, so "
        "that as many are kept as from 0.4 on, and of each class by its share of the labels",
    )
    unsure: float = Field(0.05, gt=0, le=1, description="score below which it is taken for background, up to keep")
    mixup: float = Field(0.0, ge=0, le=1, description="share of the mosaics that are mixed with another of their step")
    balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much more often images of rare classes come: 0 as others, 1 so often that all classes are "
        "about equally frequent, 0.5 as in LVIS; labelled images, and unlabelled ones by the labels of the teacher",
    )
    held_out: float = Field(
        0.1, ge=0, lt=1, description="share of the labelled images that the teacher's labels are judged on"
    )
    label_imgsz: int | None = Field(
        None,
        ge=32,
        description="side of the views of burn-in, and at which its teacher looks at images, pixels; none: imgsz",
    )


# imgsz: that of a detector's own training, since what is handed back finds objects in such images.
PRESETS: dict[str, dict[str, Any]] = {"default": {"export": "teacher", "schedule": "linear", "imgsz": 640}}


class Selftrain(Method):
    """Detection of the user's classes, on given labels and on a teacher's."""

    needs = Needs(trains="all", labels=True, teacher=True)
    exports = ("student", "teacher")
    namer = "tf_efficientnet_lite0"
    with_teacher = "it names what the detector finds, as in all that was shown; teacher=none: it does so itself"
    without_teacher = (
        "the detector names what it finds by itself; all that was shown is with teacher=tf_efficientnet_lite0, of timm"
    )

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        assert context.head is not None, "selftrain trains the head"
        assert context.given is not None, "there are no labels"
        self.head = context.head
        self.teacher = frozen_copy(context.student)
        self.teacher_head: PseudoLabelHead = frozen_copy(context.head)
        self._given, own = context.given, settings.label_imgsz
        self._burn_in_imgsz = -(-own // 32) * 32 if own else context.imgsz  # of views, and of what its teacher labels
        has = torch.zeros(len(context.given), dtype=torch.bool).index_fill(0, context.given.rows, True)
        self._unlabelled = (~has).nonzero().flatten()
        teaches = len(self._unlabelled) and 1 not in (settings.burn_in, settings.labelled)  # else nobody is judged
        self._held_out = HeldOut.drawn(context.given, settings.held_out if teaches else 0.0, context.seed)
        self._labeller = Labeller(
            context.read,
            context.given.labels,
            self._held_out.known,
            len(context.names),
            least=min(settings.unsure, LEAST if settings.keep == "class" else settings.keep),  # what is kept is found
            most=settings.max_objects,
            namer=context.teacher,
            calibrate=settings.calibrate,
            mirrored=settings.flip > 0,
            seed=context.seed,
        )
        self._plan = SamplingPlan.of(
            settings,
            batch=context.batch,
            seed=context.seed,
            known=len(self._held_out.known),
            unlabelled=len(self._unlabelled),
            classes=context.given.labels.labels,
            labelled_at_once=settings.proposals is not None,
        )
        kinds = self._held_out.known, self._unlabelled, context.given.rows
        self._order = ImageOrder(self._plan, kinds, settings.balance, context.seed)
        self._keep = Keep(settings.keep, context.names, context.given.labels.labels, self._unlabelled)
        self._taught = Taught(context.given.labels, has)
        self._history = History()
        self._zoom, self._zoom_why = zoom_of(context.given.labels) if settings.zoom is None else (settings.zoom, "")
        self._mean = WeightMean()
        # What labelled images tell of each detector that is handed back, until a further step changes it.
        self._learnt: dict[Export, Learnt] = {}

    # -- what it sees --------------------------------------------------------------------------------------------------

    def view_specs(self) -> list[ViewSpec]:
        """One view, as near to a detector's training as crops come: colors and shapes tell objects apart."""
        return [self._spec(max(self._burn_in_imgsz, self.context.imgsz))]

    def specs_at(self, progress: Progress) -> list[ViewSpec]:
        """Burn-in may see more than what is trained after it; the last part sees whole images, as a detector does."""
        if self._plan.settling(progress):
            return [whole(self._spec(self.context.imgsz))]
        return [self._spec(self._burn_in_imgsz if self._plan.burning(progress) else self.context.imgsz)]

    def phases(self, steps: int) -> list[range]:
        """Burn-in is one of its own: it may see larger views, and it reads other images."""
        first, _ = self._plan.between(steps)
        return [range(first), range(first, steps)] if first and self._plan.label_steps(steps) else [range(steps)]

    def _spec(self, imgsz: int) -> ViewSpec:
        s = self.settings
        return detection_view(imgsz, s.view_scale, letterbox=s.letterbox, jitter=s.jitter, flip=s.flip)

    def order(self, steps: int) -> MixedStream:
        """Labelled images alone, both kinds, labelled ones with those held out; a quarter in steps without mosaics."""
        return self._order.stream(steps, self._taught.labels)

    def reordered(self) -> bool:
        """Unlabelled images are balanced once they have labels."""
        return self._order.changed()

    def cycle(self, progress: Progress) -> Progress:
        """One for burn-in, one for every round, and one for the last part."""
        return self._plan.cycle(progress)

    def rate_share(self, progress: Progress) -> float:
        """A tenth in the last part: it moves the ends of boxes, and is not to learn the few labels by heart."""
        return SETTLE_RATE if self._plan.settling(progress) else 1.0

    def shown(self, batch: int) -> int:
        """A quarter: four images make a mosaic, and steps without mosaics have as many images."""
        return shown(batch)

    # -- a step --------------------------------------------------------------------------------------------------------

    def before_step(self, progress: Progress) -> None:
        """The teacher follows the student, and labels what comes next where it is time for that."""
        cycle = self.cycle(progress)
        if progress.step:
            self._follow(cycle.step or progress.step)
        else:  # and not before: what a trial has said goes with it
            held_out = self._held_out.told() if self._plan.label_steps(progress.steps) else ""
            self._history.say(self._zoom_why, held_out, self._plan.told(progress.steps))
        if self.long_ahead(progress):
            self._label(progress)
        elif progress.step and not cycle.step and self._plan.settling(progress):
            self._settle(progress.step)

    def long_ahead(self, progress: Progress) -> bool:
        """Where the teacher labels: all images that come until the next time may be very many."""
        return progress.step in self._plan.label_steps(progress.steps) and not self._history.drifted

    def _settle(self, step: int) -> None:
        """The last part goes on from the mean of all cycles so far, and is none of them: its weights are better."""
        self._judge(step, "teacher")
        self._take(self._averaged())
        self._mean = WeightMean()
        self._history.say("the last part begins: labelled images alone, seen whole, at a tenth of the learning rate")

    def _follow(self, step: int) -> None:
        """The average begins anew with every cycle: `step` is that of the cycle."""
        self._learnt.clear()
        momentum = min(self.settings.ema, (1 + step) / (10 + step))
        follow(self.student, self.teacher, momentum)
        follow(self.head, self.teacher_head, momentum)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The loss of the detector's own family: boxes, classes, distribution of the box's sides."""
        images, owner, boxes, labels = self._seen_of(views, progress)
        self.head.advance(progress.step / max(1, progress.steps))
        maps = self.student(images)
        parts: Tensor = self.head(maps, owner, boxes / images.shape[-1], labels)
        self._seen = (maps[-1].detach().float().mean((2, 3)), parts.detach(), int((labels >= 0).sum()) / len(images))
        return parts.sum()

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images of a step and, of the boxes on them, owner, corners, class (-1: left open)."""
        with ranks.alone():  # a report asks for them in the first process
            return self._seen_of(views, progress)

    def _seen_of(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        view = views[0]
        assert view.rows is not None
        device = view.images.device
        owner, shares, labels = self._taught.of(view.rows)
        moved, kept = boxes_in_view(view, owner, shares, labels)
        seen = view.images, owner[kept], moved[kept], labels[kept]
        if self._plan.in_mosaics(progress.step, progress.steps):
            seed, at = self.context.seed, (progress.step, progress.part)
            seen = mosaics(*seen, draws(seed, Purpose.MOSAICS, *at), (1 - self._zoom, 1 + self._zoom))
            seen = mixed(*seen, draws(seed, Purpose.MIXUP, *at), self.settings.mixup)
        images, owner, moved, labels = seen
        return images, owner.to(device), moved.to(device), labels.to(device)

    # -- the teacher's labels ------------------------------------------------------------------------------------------

    def _label(self, progress: Progress) -> None:
        """Label the images that come until the next time, and judge the labels on the held-out images."""
        rows = self._order.coming(progress, self._taught.labels)
        first = self.settings.proposals is not None and not self._history.passes  # another detector labels
        mean = self._mean if first else self._averaged()
        imgsz = self.specs_at(progress._replace(step=max(0, progress.step - 1)))[0].size  # what it was trained at
        if first:
            by = Finder.needed(self.context.finder).to(next(self.student.parameters()).device)
            self._history.say(self._labeller.taught_by(by))
        else:
            self._mean = mean
            self._take(mean, student=False)
            by = Finder("", self.teacher, self.teacher_head, imgsz)
        learnt = Learnt()

        def look(rows: list[int], both: bool) -> Detections:
            return self._labeller.found(rows, by.network, by.head, by.imgsz, learnt, both=both)

        unless = "both" if first and by.knows_classes else "network"
        named_by = self._held_out.who_names(self.settings.naming, look, unless) if self.context.teacher else {}
        both = look([*rows, *self._held_out.rows.tolist()], named_by.get("named_by") == "both")
        found = both.on(torch.tensor(rows, dtype=torch.int64))
        if imgsz != self.specs_at(progress)[0].size:  # weights that see images at another size are no part of the mean
            self._mean = WeightMean()
        keep = self._keep.of(found, self._history.taken)
        counts = Labelling.split(found, keep).counts(self.context.names)
        judged = self._held_out.judged(both.those(kept(both, keep)))
        # Nothing tells of a single round that it was for the worse but labels that are held out.
        state = mean.record if self.settings.rounds > 1 or len(self._held_out.rows) else None
        entry = {"step": progress.step, **counts, **named_by, **learnt.record(), **judged}
        best = self._history.add(entry | ({"by": by.name} if first else {}), state)
        if self._history.drifted:
            self._go_back()
            self._order.only(progress, self._unlabelled[self._taught.known[self._unlabelled]].tolist())
            return
        self._taught = self._taught.with_found(found, kept(found, keep))
        self._order.labelled(progress, rows, self._taught.labels)
        if best:
            self._history.best |= {"taught": self._taught.labels, "known": self._taught.known}

    def finish(self, steps: int) -> None:
        """Follow the last step, and judge what is handed back, where no last part has learnt from held-out labels."""
        self._follow(self.cycle(Progress(steps - 1, steps, 0.0)).step + 1)
        if not self._plan.settles(steps):
            self._judge(steps, self.context.export)
        self._history.say(self._averaged().told() if self.context.export != "student" else "")

    def _judge(self, step: int, which: Export) -> None:
        """Where the held-out labels say that the rounds were for the worse, take what was there before."""
        if self._history.best and self._burn_in_imgsz == self.context.imgsz:
            judged = self._held_out.judged(self.label(self._held_out.rows.tolist(), which).sure)
            if self._history.ends({"step": step, **judged}):
                self._go_back()

    def _go_back(self) -> None:
        """Take the labels that agreed best, and the best own state, if any; the teacher labels nothing any more."""
        best, own = self._history.best, self._history.own
        self._taught = Taught(best["taught"], best["known"])
        if not own:  # all that was good is of another detector; the weights stay what they are
            return
        mean = WeightMean(own["states"], own["number"])
        self._take(mean)
        self._mean = mean if self._burn_in_imgsz == self.context.imgsz else WeightMean()
        self._learnt.clear()

    def _take(self, mean: WeightMean, *, student: bool = True) -> None:
        """The teacher's weights are these, and those of the student, where it is to go on from them."""
        for teacher, learner in (("teacher", "student"), ("teacher_head", "head")):
            for name in (teacher, learner) if student else (teacher,):
                self.get_submodule(name).load_state_dict(mean.states[teacher])

    def _averaged(self) -> WeightMean:
        """Of the teachers at the ends of the cycles so far, if this one ended now."""
        average = not self.context.from_scratch if self.settings.average is None else self.settings.average
        mean = self._mean if average else WeightMean()
        return mean.with_another({name: self.get_submodule(name).state_dict() for name in ("teacher", "teacher_head")})

    # -- what comes out ------------------------------------------------------------------------------------------------

    def news(self) -> list[tuple[Literal["info", "alarm"], str]]:
        """What the teacher labelled, and whether it has drifted."""
        return self._history.news()

    def label(self, rows: Sequence[int], which: Export) -> Labelling:
        """What the detector that is handed back is sure of, and what it is not."""
        network, head = (self.student, self.head)
        if which == "teacher":
            averaged = self._averaged().states
            network, head = frozen_copy(self.teacher), frozen_copy(self.teacher_head)
            network.load_state_dict(averaged["teacher"])
            head.load_state_dict(averaged["teacher_head"])
        learnt = self._learnt.setdefault(which, Learnt())
        both = self._history.taken.get("named_by", self.settings.naming) == "both"
        found = self._labeller.found(list(rows), network, head, self.context.imgsz, learnt, both=both)
        return Labelling.split(found, self._keep.of(found, self._history.taken))

    def teacher_record(self) -> dict[str, Any]:
        """What the teacher has labelled so far, and by which scores."""
        return {
            "names": list(told_apart(self.context.names)),
            **self.settings.model_dump(include={"keep", "unsure"}),
            "zoom": self._zoom,
            "labelled": len(self._given.rows),
            "unlabelled": len(self._unlabelled),
            "held_out": len(self._held_out.rows),
            **self._history.summary(),
        }

    def measures(self) -> dict[str, float]:
        """The parts of the loss, labels an image, what the teacher labelled last, and how far features spread."""
        pooled, parts, number = self._seen
        values = dict(zip(("loss_box", "loss_class", "loss_sides"), parts.tolist(), strict=True))
        return {**values, "objects_per_image": number, **self._history.measures(), **metrics.spread_measures(pooled)}

    def handed_back(self, which: Export) -> dict[str, Tensor]:
        """Backbone, neck and head."""
        if which == "student":
            return {**self.student.state_dict(), **self.head.handed_back()}
        averaged, head = self._averaged().states, self.teacher_head.handed_back()
        return {**averaged["teacher"], **{name: averaged["teacher_head"][name] for name in head}}

    def get_extra_state(self) -> dict[str, Any]:
        """What the teacher has labelled, for a run that goes on."""
        taught = {"taught": self._taught.labels.tensors(), "known": self._taught.known}
        return {**taught, **self._history.record(), "mean": self._mean.record(), **self._order.record()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what `get_extra_state` gave."""
        self._learnt.clear()
        self._taught = Taught(PseudoLabels(**state["taught"]), state["known"])
        self._history = History.restored(state)
        self._mean = WeightMean(**state["mean"])
        self._order.restore(state)
