"""``results.json`` of older formats, as the present one has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FIGURES = ("map50_95", "map50", "seconds", "curve", "rows_sha256", "arrived", "parameters", "initial_sha256", "device")
_ASKED = ("kind", "start", "budget", "seed", "lr", "epochs", "images", "folder", "labels_sha256", "start_sha256")
_FACTS = ("name", "command", "settings", "side_by_side", "budgets", "lists", "versions", "git")


def from_1(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]], list[Any]]:
    """Facts, cells and rates of a file of format 1, from which all else follows.

    Format 1 said helped, hurt and cannot tell, listed faults alone, and kept what was known of leaks as a sentence. It
    did not say what settings each training had; that test images are not among the labelled images was looked at
    before anything was trained, so that it holds for every such file.

    Raises:
        KeyError, TypeError, AttributeError: It is no such file.
    """
    labelled = f"none of {content['data']['train_images']:,} labelled images is a test image"
    facts = {name: content[name] for name in _FACTS}
    facts["data"] = {**content["data"], "leak": {"outcome": "passed", "words": labelled}, "labelled_test_images": None}
    facts["starts"] = [{**start, "leak": _leak(start)} for start in content["starts"]]
    return facts, [_cell(cell) for cell in content["cells"]], list(content["rates"])


def _leak(start: Mapping[str, Any]) -> dict[str, str] | None:
    if start["kind"] == "scratch":
        return None
    words = start["leak"] or "the images behind published weights are not known"
    looked = re.match(r"none of ([\d,]+) ", words)
    used = (start["pretraining"] or {}).get("images") or 0
    # Where a part of the pretraining images was gone, format 1 counted those that were left.
    whole = looked is not None and int(looked[1].replace(",", "")) >= used
    return {"outcome": "passed" if whole else "not known", "words": words}


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: cell[name] for name in _ASKED}
    found |= {"state": cell["state"], "error": cell.get("error") or ""}
    if cell["state"] == "done":
        figures = {name: cell[name] for name in _FIGURES}
        found["figures"] = {**figures, "class_scores": cell["classes"], "versions": cell["versions"]}
    return found
