"""A study's ``summary.md``, tables, ``report.html`` and closing table, made from the files of its folder alone."""

from asd_ray.report.page import write_report
from asd_ray.report.summary import terminal_table, write_summary

__all__ = ["terminal_table", "write_report", "write_summary"]
