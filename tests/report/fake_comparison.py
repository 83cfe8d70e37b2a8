"""A comparison's folder, made up: for the report's tests and for looking at the page."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from headstart.comparison.records import (
    Arrived,
    AskedSettings,
    BudgetFacts,
    CellResult,
    ClassScore,
    DataFacts,
    Facts,
    Figures,
    ListFacts,
    Point,
    RateChoice,
    Results,
)
from headstart.comparison.results import conclude, write_results
from headstart.comparison.shown import Detections, FoundBox, LabelBox, ShownImage, write_detections
from headstart.comparison.start_records import (
    LeakFacts,
    LongerFacts,
    PretrainingFacts,
    RecipeFacts,
    RecipeRunFacts,
    StartFacts,
)
from headstart.comparison.used_records import CountFacts, UsedFacts

NAMES = ["bolt", "nut", "washer", "wire", "wrench", "pliers", "hose & clamp", "label <old>"]
# What each start is worth at 1 %, 5 % and 20 % of the labels in the end, and how many epochs it needs for half of it.
WORTH = {
    "scratch": (0.02, 0.11, 0.34, 12.0),
    "coco": (0.19, 0.38, 0.52, 4.0),
    "coco-backbone": (0.09, 0.27, 0.46, 7.0),
    "dino": (0.03, 0.15, 0.37, 9.0),
    "coco+dino": (0.21, 0.385, 0.523, 3.5),
}
# Starts that a comparison without recipes has not.
MORE = {"coco-longer": (0.195, 0.4, 0.53, 4.0), "selftrain": (0.27, 0.46, 0.56, 3.0)}
MORE |= {"scratch-longer": (0.03, 0.13, 0.36, 12.0)}
BUDGETS = {"1%": 59, "5%": 297, "20%": 1190}
KINDS = {"scratch": "scratch", "coco": "coco", "coco-backbone": "coco-backbone", "coco-longer": "coco-longer"}
KINDS |= {"selftrain": "recipe", "scratch-longer": "scratch-longer"}


def recipe(start: str, seeds: list[int], known: PretrainingFacts) -> RecipeFacts | None:
    """What made a start, where that was a recipe with labels: one run a list."""
    if KINDS.get(start) != "recipe":
        return None
    spent = {"steps": 2000, "shown": 32, "search_seconds": 240.0, "seconds": 1200.0}
    runs = tuple(
        RecipeRunFacts(
            budget=budget, seed=seed, search=False, folder=f"pretrainings/{start}-{budget}-seed{seed}/run",
            labels_sha256=f"{budget}{seed}", sha256=f"{start}{seed}", state="done", error="", seconds=1500.0 + seed,
            pretraining=known.model_copy(update=spent),
        )
        for seed in seeds for budget in BUDGETS
    )  # fmt: skip
    carriers = {"init": "weights/yolo11n.pt", "teacher": "vit_small_patch14_dinov2.lvd142m"}
    return RecipeFacts(
        file="selftrain.yaml", method="selftrain", labelled=True, options={"steps": 2000}, carriers=carriers, runs=runs
    )


def used(budget: str, test: int = 1462) -> UsedFacts:
    """Every image of a budget, and of the test images so many, with two objects each."""
    train = BUDGETS[budget]
    return UsedFacts(
        train=CountFacts(images=train, labelled=train, objects=2 * train),
        test=CountFacts(images=test, labelled=test, objects=2 * test),
    )


def cell(start: str, budget: str, seed: int, epochs: int = 20, random: Any = None, **changed: Any) -> CellResult:
    """A finished training whose curve rises to what `WORTH` says, give or take a little; fields may be changed."""
    random = random or np.random.default_rng([seed, *map(ord, start + budget)])
    at = list(BUDGETS).index(budget)
    luck = 1 + 0.04 * np.random.default_rng([seed, at]).normal() + 0.02 * random.normal()
    final, half = ({**WORTH, **MORE})[start][at] * luck, ({**WORTH, **MORE})[start][3]
    curve = []
    for epoch in range(1, epochs + 1):
        value = max(
            0.0, final * (1 - math.exp(-epoch / half)) / (1 - math.exp(-epochs / half)) + 0.006 * random.normal()
        )
        curve.append(Point(epoch, 3.1 * epoch, round(value, 5), round(min(1.0, 1.5 * value), 5)))
    figures = {
        "map50_95": curve[-1].map50_95, "map50": curve[-1].map50, "seconds": 64.0, "curve": tuple(curve),
        "class_scores": tuple(
            ClassScore(
                name=name, map50=0.5, objects=12 * n + 3,
                map50_95=round(max(0.0, curve[-1].map50_95 * (0.6 + 0.1 * n) + 0.03 * random.normal()), 5),
            )
            for n, name in enumerate(NAMES)
        ),
        "rows_sha256": f"{start}{budget}{seed}", "arrived": Arrived(tensors=499, model=499, ema=499),
        "parameters": 2612173, "initial_sha256": f"{start}{seed}", "device": "cuda",
        "versions": {"ultralytics": "8.4.190"}, "used": used(budget), "breaks": (),
    }  # fmt: skip
    figures |= {name: changed.pop(name) for name in list(changed) if name in figures}
    asked = {
        "kind": "main", "start": start, "budget": budget, "seed": seed, "lr": 0.001, "epochs": epochs,
        "images": BUDGETS[budget], "folder": f"cells/{start}-{budget.replace('%', 'pc')}-seed{seed}",
        "labels_sha256": f"{budget}{seed}", "start_sha256": f"{start}{seed}", "settings_sha256": "5e" * 32,
        "meant": used(budget),
    }  # fmt: skip
    return CellResult(**{**asked, "state": "done", "figures": Figures(**figures), **changed})


def scored(start: str, budget: str, scores: list[float]) -> list[CellResult]:
    """Trainings that end with these scores, seed by seed; their curves differ from each other."""
    return [
        cell(
            start,
            budget,
            seed,
            epochs=2,
            curve=((1, 1.0, 0.01 * score, 0.0), (2, 2.0, score, score)),
            map50_95=score,
            map50=score,
        )
        for seed, score in enumerate(scores)
    ]


def every_cell(starts: list[str], seeds: list[int]) -> list[CellResult]:
    return [cell(start, budget, seed) for seed in seeds for budget in BUDGETS for start in starts]


def facts(starts: list[str], seeds: list[int], **changed: Any) -> Facts:
    """What is known before a training."""
    known = PretrainingFacts(
        folder="runs/dino", data=("airfield/images",), images=5948, method="dino", model="yolo11n.yaml", steps=5000,
        seconds=3600.0, device="cuda:0", shown=64,
    )  # fmt: skip
    settings = {
        "data": "airfield/fod-a.yaml", "model": "yolo11n", "starts": starts, "labels": list(BUDGETS), "seeds": seeds,
        "epochs": 20, "steps": None, "imgsz": 320, "batch": 16, "optimizer": "AdamW", "lr": [0.001, 0.0003],
        "extra": {"close_mosaic": 0},
    }  # fmt: skip
    clean = LeakFacts(outcome="passed", words="none of 5,948 pretraining images is a test image")
    data = DataFacts(
        yaml="airfield/fod-a.yaml", names=tuple(NAMES), train_images=5948, test_images=1462, labelled_test_images=1462,
        split="val", test_sha256="0" * 64,
        leak=LeakFacts(outcome="passed", words="none of 5,948 labelled images is a test image"),
        recordings=LeakFacts(outcome="passed", words="no more test images look like their neighbors than by chance"),
    )  # fmt: skip
    content = {
        "name": "airfield", "command": "headstart compare data=fod-a.yaml",
        "settings": AskedSettings.model_validate(settings), "side_by_side": "1 side by side on 1 GPU", "data": data,
        "starts": tuple(
            StartFacts(
                name=name, kind=KINDS.get(name, "checkpoint"), weights="" if name == "scratch" else "a.pt",
                taken={"backbone": (0 if name == "scratch" else 240, 240), "neck": (0, 138), "head": (0, 121)},
                parameters=2612173, sha256={str(seed): f"{name}{seed}" for seed in seeds},
                pretraining=known if name not in KINDS else None, leak=None if name == "scratch" else clean,
                recipe=recipe(name, seeds, known),
                longer=tuple(LongerFacts(budget=one, follows="selftrain", steps=4000) for one in BUDGETS)
                if name in ("coco-longer", "scratch-longer") else (),
            )
            for name in starts
        ),
        "budgets": tuple(BudgetFacts(name=name, images=images) for name, images in BUDGETS.items()),
        "lists": tuple(
            ListFacts(budget=name, seed=seed, images=images, file=f"labels/{name}-{seed}.txt", sha256="ab" * 32)
            for name, images in BUDGETS.items()
            for seed in seeds
        ),
        "versions": {"python": "3.11.9", "headstart": "0.1.0", "ultralytics": "8.4.190"}, "git": None,
    }  # fmt: skip
    return Facts(**{**content, **changed})


def results(
    starts: list[str] | None = None, seeds: list[int] | None = None, cells: list[CellResult] | None = None, **more: Any
) -> Results:
    """The whole of ``results.json``, as a comparison concludes it."""
    starts, seeds = starts or list(WORTH), [0, 1, 2] if seeds is None else seeds
    chosen = [
        RateChoice(start=start, budget=budget, lr=0.001, validation_map50_95={"0.001": 0.2, "0.01": None})
        for start in starts
        for budget in BUDGETS
    ]
    return conclude(facts(starts, seeds, **more), every_cell(starts, seeds) if cells is None else cells, chosen)


def detections(starts: list[str]) -> Detections:
    """Two images of noise, with boxes."""
    images = []
    for number in range(2):
        noise = np.random.default_rng(number).integers(60, 190, (12, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
        _, data = cv2.imencode(".jpg", pixels)
        found = {name: (FoundBox(at % 8, 0.9, 0.2 + 0.02 * at, 0.3, 0.5, 0.6),) for at, name in enumerate(starts)}
        images.append(
            ShownImage(
                file=f"frame_{number}.jpg",
                width=320,
                height=240,
                jpeg=base64.b64encode(data.tobytes()).decode(),
                truth=(LabelBox(1, 0.2, 0.3, 0.5, 0.6),),
                found={**found, starts[0]: ()},
            )
        )
    return Detections(least_confidence=0.25, images=tuple(images))


def write_comparison(folder: Path, **more: Any) -> Results:
    """Write a comparison into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = results(**more)
    write_results(folder, content)
    write_detections(folder, detections([start.name for start in content.starts]))
    return content


if __name__ == "__main__":
    import sys

    every = every_cell(list(WORTH), [0, 1, 2])
    if "failed" in sys.argv:  # one list differs, one training failed, a start did not arrive
        every[0] = cell("scratch", "1%", 0, labels_sha256="other")
        every[1] = cell("coco", "1%", 0, state="failed", figures=None, error="out of memory")
        every[2] = cell("coco-backbone", "1%", 0, arrived=Arrived(tensors=499, model=498, ema=499))
    if "recipe" in sys.argv:  # a start made for each list of labels, and COCO trained as long
        seeds = [0, 1, 2]
        every = [one for one in every if one.start not in ("coco-backbone", "dino")]
        every += [cell("selftrain", budget, seed) for seed in seeds for budget in BUDGETS]
        every += [cell("coco-longer", budget, seed, epochs=60) for seed in seeds for budget in BUDGETS]
        made = ["scratch", "coco", "coco-longer", "coco+dino", "selftrain"]
        write_comparison(Path(sys.argv[1]), starts=made, cells=every)
    else:
        write_comparison(Path(sys.argv[1]), cells=[*every, cell("scratch", "20%", 0, epochs=60, kind="longer")])
