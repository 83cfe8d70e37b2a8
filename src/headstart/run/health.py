"""Is the run collapsing? The alarm lines, and what they mean in words. Free of torch: the report reads it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNIFORM = 0.98
"""Alarm above this share of log K, the entropy of K equal answers."""
PEAKED = 0.02
"""Alarm below this share of log K: nearly one answer."""
SPREAD = 0.3
"""Alarm below this share of 1/sqrt(D), the spread of features that fill the sphere evenly."""
WARMUP = 100
"""Steps without alarms (but of loss and weights that explode): a fresh teacher does answer almost uniformly."""
PATIENCE = 3
"""Readings in a row beyond a line before it is said: one odd batch is no collapse."""

RANK = 0.3
"""Alarm where a probe's RankMe is below this share of what it was before the first step."""
FORGOTTEN = 0.05
"""Alarm where a probe tells labelled boxes apart less well than before the first step, by this much."""

GROWN = 100.0
"""Alarm where the norm of what is trained is so many times what it was before the first step. Trainings from random
weights end at a few times it; batch normalization divides larger weights out, so that the loss does not show them."""

_MARGIN = 0.02
"""How far back inside the line, as a share of log K, entropy must come before its alarm may sound again."""
_SPREAD_MARGIN = 1.2
"""The same for the spread, as a factor on its line."""


_AT_ONCE = ("loss", "weights")
"""Kinds that are never a passing thing."""


@dataclass
class Health:
    """Watches a run's measures and turns a collapse into sentences, each kind said once until it recovers.

    Attributes:
        warmup: Steps before which only a non-finite loss and exploding weights are alarms.
        patience: Readings in a row beyond a line before its alarm sounds.
        active: Kinds that sound now, in the order in which they began: ``loss``, ``weights``, ``uniform``, ``peaked``,
            ``spread``, ``rank``, ``forgotten``.

    Examples:
        >>> Health().update(7, {"loss": float("nan")})[0][:36]
        'The loss at step 7 is not a number: '
    """

    warmup: int = WARMUP
    patience: int = PATIENCE
    active: list[str] = field(default_factory=list)
    _beyond: dict[str, int] = field(default_factory=dict, repr=False)

    def update(self, step: int, measures: Mapping[str, float]) -> list[str]:
        """Read the measures of one step and return the alarms that begin with it (mostly none).

        Args:
            step: The step, counted from the start of the run.
            measures: Any of ``loss``, ``weight_growth``, ``teacher_entropy`` and ``teacher_entropy_max`` (nats),
                ``feature_spread`` and ``spread_alarm``; ``probe_rankme`` and ``probe_knn``, each with its ``_start``.
                What is missing or, but for the loss, not a number is left out.
        """
        sentences = []
        for kind, beyond, back in _judge(measures):
            count = self._beyond[kind] = self._beyond.get(kind, 0) + 1 if beyond else 0
            if kind in self.active:
                if back:
                    self.active.remove(kind)
            elif (kind in _AT_ONCE and beyond) or (count >= self.patience and step >= self.warmup):
                self.active.append(kind)
                sentences.append(sentence(kind, step, measures))
        return sentences

    def state(self) -> dict[str, Any]:
        """What was said and seen, as plain values: a resumed run says nothing twice."""
        return {"active": list(self.active), "beyond": dict(self._beyond)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.active, self._beyond = list(state["active"]), dict(state["beyond"])


def _judge(measures: Mapping[str, float]) -> list[tuple[str, bool, bool]]:
    """(kind, beyond its line, safely back inside) for every kind that `measures` allow to judge."""
    judged = []
    if "loss" in measures:
        finite = math.isfinite(measures["loss"])
        judged.append(("loss", not finite, finite))
    if not math.isnan(growth := measures.get("weight_growth", math.nan)):
        judged.append(("weights", growth >= GROWN, growth < GROWN / 2))
    entropy, most = measures.get("teacher_entropy", math.nan), measures.get("teacher_entropy_max", math.nan)
    if math.isfinite(entropy) and math.isfinite(most) and most > 0:
        share = entropy / most
        judged.append(("uniform", share > UNIFORM, share < UNIFORM - _MARGIN))
        judged.append(("peaked", share < PEAKED, share > PEAKED + _MARGIN))
    spread, line = measures.get("feature_spread", math.nan), measures.get("spread_alarm", math.nan)
    if math.isfinite(spread) and math.isfinite(line):
        judged.append(("spread", spread < line, spread > line * _SPREAD_MARGIN))
    rank, first = measures.get("probe_rankme", math.nan), measures.get("probe_rankme_start", math.nan)
    if math.isfinite(rank) and math.isfinite(first):
        judged.append(("rank", rank < RANK * first, rank > _SPREAD_MARGIN * RANK * first))
    knn, first = measures.get("probe_knn", math.nan), measures.get("probe_knn_start", math.nan)
    if math.isfinite(knn) and math.isfinite(first):
        judged.append(("forgotten", knn < first - FORGOTTEN, knn > first))
    return judged


def sentence(kind: str, step: int, measures: Mapping[str, float]) -> str:
    """The alarm in words: what was measured, what it means, what to change."""
    if kind == "loss":
        return (
            f"The loss at step {step} is not a number: the update has blown up and the weights are no longer usable. "
            "Stop and start again with a lower learning rate, and in float32 if this ran in half precision."
        )
    if kind == "weights":
        return (
            f"The weights have grown to {measures['weight_growth']:.3g} times their norm at the start: the learning "
            "rate is far too high. The loss need not show it, but what they knew is lost, and little is learnt. Stop "
            "and start again with a lower learning rate."
        )
    if kind == "spread":
        return (
            f"Feature spread {measures['feature_spread']:.2g} is below its alarm line {measures['spread_alarm']:.2g}: "
            "the features of different images are becoming the same, and a detector cannot tell them apart. "
            "Lower the learning rate, use a larger batch, and check that the images are not copies of one scene."
        )
    if kind == "rank":
        return (
            f"The features use {measures['probe_rankme']:.1f} dimensions (RankMe), against "
            f"{measures['probe_rankme_start']:.1f} before the first step: they are falling into few directions. "
            "Lower the learning rate, use a larger batch, or weigh variance or contrast more."
        )
    if kind == "forgotten":
        return (
            f"Labelled boxes are told apart less well than before the first step: kNN {measures['probe_knn']:.1%}, "
            f"{measures['probe_knn_start']:.1%} at the start. What the initial weights knew is being lost. "
            "Lower the learning rate, hold the features with anchor=, or stop earlier."
        )
    entropy, most = measures["teacher_entropy"], measures["teacher_entropy_max"]
    if kind == "uniform":
        return (
            f"Teacher entropy {entropy:.2f} is almost at its maximum, log K = {most:.2f} nats: the teacher gives the "
            "same uniform answer for every image, so the student has nothing to learn from it. "
            "Lower the teacher's temperature, and the learning rate if the loss has stopped falling."
        )
    return (
        f"Teacher entropy {entropy:.2f} nats is almost 0: the teacher puts everything on one answer, which in a "
        "collapse is the same one for every image. Raise the teacher's temperature or let its center move faster, "
        "and lower the learning rate."
    )
