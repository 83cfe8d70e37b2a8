"""Label budgets: shares or counts of the labelled images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from headstart.errors import UserError


def check_budgets(budgets: Sequence[Budget], pool: int) -> None:
    """Raise a `UserError` where a budget is larger than the pool, or two come to the same number of images."""
    problems = []
    sizes: dict[int, str] = {}
    for budget in budgets:
        images = budget.images(pool)
        if images > pool:
            what = f"{budget.name} labelled images were asked for, there are {pool}"
            problems.append(UserError(what, where="labels", hint="100% takes them all"))
        elif images in sizes:
            what = f"{sizes[images]} and {budget.name} are the same {images} images"
            problems.append(UserError(what, where="labels", hint="leave one out"))
        sizes[images] = budget.name
    if problems:
        raise UserError.several(problems)


class Budget(NamedTuple):
    """A label budget: its name for people, and the share or count that it means."""

    name: str
    share: float | None
    number: int | None

    def images(self, pool: int) -> int:
        """How many of `pool` labelled images; at least one."""
        return self.number if self.number is not None else max(1, round((self.share or 0) * pool))

    @property
    def key(self) -> str:
        """The name as a part of a file name."""
        return self.name.replace("%", "pc")


def parse_budgets(words: list[str]) -> tuple[list[Budget], list[UserError]]:
    """The label budgets (``5%`` a share, ``200`` a count), and what is wrong with them."""
    budgets, problems = [], []
    for word in words:
        text = word.strip()
        share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
        if share and 0 < float(share[1]) <= 100:
            budgets.append(Budget(f"{float(share[1]):g}%", float(share[1]) / 100, None))
        elif text.isascii() and text.isdigit() and len(text) < 100 and int(text) > 0:
            budgets.append(Budget(str(int(text)), None, int(text)))
        else:
            hint = "give shares such as 10%, or counts such as 200"
            problems.append(UserError(f"{word!r} is not a label budget", where="labels", hint=hint))
    if len(set(budgets)) < len(budgets):
        problems.append(UserError("a budget is there twice", where="labels"))
    return budgets, problems
