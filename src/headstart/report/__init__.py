"""Reports: one HTML file each, drawn from what the run folders hold, without torch."""

from headstart.report.pretraining import write_report

__all__ = ["write_report"]
