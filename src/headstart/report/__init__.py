"""Reports: one HTML file each, drawn from what the run folders hold, without torch."""

from pathlib import Path

from headstart.comparison.results import FILE, SETTINGS
from headstart.report import pretraining_page
from headstart.report.comparison_page import write_comparison_report, write_side_by_side

__all__ = ["is_comparison", "write_report", "write_side_by_side"]


def is_comparison(folder: str | Path) -> bool:
    """Whether a folder holds a comparison, finished or not, and not a pretraining."""
    return any((Path(folder) / name).is_file() for name in (FILE, SETTINGS))


def write_report(folder: str | Path) -> Path:
    """Write the ``report.html`` of a pretraining or of a comparison into its folder, and return its path.

    Raises:
        UserError: The folder holds neither, or the file cannot be written.
    """
    return write_comparison_report(folder) if is_comparison(folder) else pretraining_page.write_report(folder)
