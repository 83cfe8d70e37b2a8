"""``python -m headstart.comparison.command pretrain ...``: the command, ended with the process that began it."""

from __future__ import annotations

import runpy
import sys

from headstart.launch.children import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.argv[0] = "headstart"
    runpy.run_module("headstart", run_name="__main__", alter_sys=True)
