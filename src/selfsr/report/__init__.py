"""The run report: one HTML page that works offline, made from run folders."""

from selfsr.report.write import write_report

__all__ = ["write_report"]
