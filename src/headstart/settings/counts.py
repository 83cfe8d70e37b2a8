"""A count that stands for the numbers below it: ``seeds=3`` are the seeds 0, 1 and 2."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

MOST = 1000
"""A larger count is meant as something else: ``seeds=2024`` as one seed."""


def is_count(value: Any) -> bool:
    """Whether it is a whole number, as such or as it is typed."""
    if isinstance(value, str):
        return value.strip().isdecimal() and len(value) < 100  # from 4,300 digits on Python reads none
    return isinstance(value, int) and not isinstance(value, bool)


def range_of(value: int | str) -> list[int] | int:
    """The numbers below a count; one that is none stays a number, for `refuse_many`."""
    count = int(value)
    return list(range(count)) if 0 <= count <= MOST else count


def refuse_many(value: Any) -> Any:
    """Of a list the list; of a count below 0 or above `MOST`, what pydantic makes an error of."""
    if is_count(value) and not isinstance(value, str):
        if value < 0:
            raise PydanticCustomError("few", "must be at least 1")
        what = "must be {most} at most, or the seeds themselves as [{seed}]"
        raise PydanticCustomError("many", what, {"most": f"{MOST:,}", "seed": value})
    return value
