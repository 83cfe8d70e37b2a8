"""Whether other work keeps the machine busy: what is timed then takes longer than it would."""

from __future__ import annotations

import os

_OURS = 1.0
"""Of the load what is our own, about, before anything is timed."""


def busy() -> str:
    """``the machine is busy: load 4.1 on 2 cores``; "" where it is not, or where the system does not tell.

    Of the whole machine, as its load is: others on it may be in other containers.
    """
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
        return ""
    count = os.cpu_count() or 1
    if load <= count + _OURS:
        return ""
    return f"the machine is busy: load {load:.1f} on {count} core{'s' * (count > 1)}"
