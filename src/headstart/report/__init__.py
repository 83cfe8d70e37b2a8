"""Reports: one HTML file each, drawn from what the run folders hold, without torch."""

from pathlib import Path

from headstart.comparison.results import FILE, SETTINGS
from headstart.errors import UserError
from headstart.report import pretraining_page
from headstart.report.comparison_page import write_comparison_report, write_side_by_side

__all__ = ["is_comparison", "write_report", "write_side_by_side"]


def is_comparison(folder: str | Path) -> bool:
    """Whether a folder holds a comparison, finished or not, and not a pretraining."""
    return any((Path(folder) / name).is_file() for name in (FILE, SETTINGS))


def write_report(folder: str | Path, path: Path | None = None) -> Path:
    """Write the report of a pretraining or of a comparison, by default as ``report.html`` into its folder; its path.

    Raises:
        UserError: The folder holds neither, its files hold what cannot be drawn, or the report cannot be written.
    """
    write = write_comparison_report if is_comparison(folder) else pretraining_page.write_report
    try:
        return write(folder, path)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        what = f"its files hold values that cannot be drawn ({type(error).__name__}: {error})"
        hint = "where headstart wrote them, and nobody changed them since, please report this"
        raise UserError(what, where=str(folder), hint=hint) from error
