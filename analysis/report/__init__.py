"""A study as one HTML file: question, verdicts, figures, tables, and where the numbers come from.

>>> from analysis.report import StudyInfo, write
>>> write("demo.html", "runs", StudyInfo(study="demo"))

The file loads nothing: style and figures are in it, and it has no script. The same records give
the same bytes.
"""

from analysis.report.files import read, write
from analysis.report.page import html
from analysis.report.study_info import Assumption, StudyInfo

__all__ = ["Assumption", "StudyInfo", "html", "read", "write"]
