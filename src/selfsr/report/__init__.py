"""The run report: one HTML page, made from run folders only, that needs no network and no other file."""

from selfsr.report.write import write_report

__all__ = ["write_report"]
