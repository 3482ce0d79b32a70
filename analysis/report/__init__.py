"""A study as one HTML file: question, verdicts, figures, tables, and where the numbers come from.

>>> from analysis.report import StudyInfo, write_report
>>> write_report("demo.html", "runs", StudyInfo(study="demo"))

The file loads nothing: style and figures are in it, and it has no script. The same records give
the same bytes.
"""

from analysis.report.page import Assumption, StudyInfo, render_page, write_report

__all__ = ["Assumption", "StudyInfo", "render_page", "write_report"]
