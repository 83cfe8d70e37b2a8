"""How well a trained detector knows the images, and which start is then likely to do best: as far as was measured.

The sentences say what EXPERIMENTS.md and docs/evidence.md hold, and no more. A new measurement changes them here.
"""

from __future__ import annotations

import math
import shlex

from headstart.doctor.findings import Finding
from headstart.pseudolabels.fit import LABELLED, RECALL, Fit

LIKE_MEASURED = 0.8
"""Share of labelled objects that are found from which images count as like those of the one comparison (0.89)."""
_COCO = 80

OBJECTS = (
    "likely best: objects, continued from these weights, is ahead of them early in a training",
    "weak: one data set (FOD-A, of whose objects COCO's detector finds 89 %), yolo11n at 160 px, 5 % of the labels: "
    "+7.0 points of mAP50-95 [+4.3, +9.6] after 200 steps, six seeds; after 600 steps no difference could be told "
    "(+1.4 [-4.0, +6.8], three seeds)",
)
OPEN = (
    "likely best: not known; between objects and the plain weights nothing is known where such a share of "
    "the objects is found",
    "none: the one comparison is of images where 89 % are found",
)
COCO = (
    "likely best: the plain weights, fine-tuned; what objects would teach are not your objects",
    "weak: no start was compared on such images; pyramid, which needs no objects, could not be told from COCO "
    "elsewhere (-1.7 points [-10.9, +7.5], three seeds)",
)
SELFTRAIN = (
    "selftrain (labels= and images without labels): on one data set ahead of COCO of as many steps in all, which had "
    "gained little any more, by 6.8 points [4.4, 9.2] with 5 % of the labels, and by 7.5 [6.6, 8.3] with 1 % (six "
    "seeds each; 7,200 and 2,400 steps)"
)
RANDOM = "random weights: far behind COCO's with few labels (37.6 points [32.9, 42.2] at 5 %, three seeds)"


def fit_findings(fit: Fit | None, model: str, classes: int, data: str) -> list[Finding]:
    """The measure, and what it says of the starts.

    Args:
        fit: What was measured; None where no image could be read.
        model: Whose detections they are.
        classes: How many classes it has.
        data: The dataset YAML, for the command that tells more; "" for images without labels.
    """
    if fit is None:
        return [Finding("start", "unknown", "no image could be read, so nothing was measured")]
    found = [_measured(fit, model)]
    if classes != _COCO:
        words = f"{model} has {classes} classes: which start does best was compared from COCO's weights (80) alone"
        return [*found, Finding("start.likely", "unknown", words)]
    likely, sure, (words, evidence) = _likely(fit)
    facts = {"likely": likely, "sure": sure}
    details = (f"how sure: {evidence}", SELFTRAIN, RANDOM)
    measure, named = ("measure it", shlex.quote(data)) if data else ("label some of them and measure it", "YOUR.yaml")
    do = f"{measure}: headstart compare data={named} starts=coco,coco-longer,objects=RUN (docs/comparison.md)"
    return [*found, Finding("start.likely", "ok", words, do, details, facts)]


def _measured(fit: Fit, model: str) -> Finding:
    low, high = interval(fit.found, fit.labelled)
    again = (
        f"{fit.again:.0%} of the best ones are found again mirrored and smaller, their median score is {fit.score:.2g}"
    )
    facts = {
        "model": model,
        "images": fit.images,
        "labelled": fit.labelled,
        "found": fit.found,
        "again": fit.again,
        "score": fit.score,
        "fits": fit.ok,
    }
    if not fit.labelled:
        words = f"{model} on {fit.images} images, no labels looked at: {again}"
        return Finding("start.measure", "ok", words, facts=facts)
    words = (
        f"{model} finds {fit.found} of {fit.labelled} labelled objects on {fit.images} images, whatever their class "
    )
    words += f"({fit.found / fit.labelled:.0%}, 95 % interval {low:.0%} to {high:.0%}){fit.left_out()}; {again}"
    return Finding("start.measure", "ok", words, facts={**facts, "interval": [low, high]})


def _likely(fit: Fit) -> tuple[str, str, tuple[str, str]]:
    """Which start, how sure, and both in words."""
    if fit.labelled < LABELLED:  # as `Fit.ok`: too few labels to decide by
        return ("open", "none", OPEN) if fit.ok else ("coco", "weak", COCO)
    if fit.found < RECALL * fit.labelled:
        return "coco", "weak", COCO
    like = fit.found >= LIKE_MEASURED * (fit.beyond or fit.labelled)  # crowded images were not compared
    return ("objects", "weak", OBJECTS) if like else ("open", "none", OPEN)


def interval(hits: int, draws: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; objects of one image count as if they were drawn apart."""
    if not draws:
        return 0.0, 1.0
    share, grown = hits / draws, z * z / draws
    middle = (share + grown / 2) / (1 + grown)
    half = z / (1 + grown) * math.sqrt(share * (1 - share) / draws + grown / (4 * draws))
    return max(0.0, middle - half), min(1.0, middle + half)
