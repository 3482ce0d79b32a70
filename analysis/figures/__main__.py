"""python -m analysis.figures --paper --out figures

The paper's figures and tables where neither jax nor ray is installed: pandas, scipy and matplotlib
suffice. Records are drawn by naming their root and study: --root runs demo.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from analysis.errors import AnalysisError
from analysis.figures import draw_all, draw_paper
from analysis.figures.plot.style import DEFAULT_WIDTH, PAGES


def main(arguments: list[str] | None = None) -> int:
    """Draws, and returns the exit code: 2 with one line where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.figures", description=__doc__)
    parser.add_argument("study", nargs="*", help="studies under the root")
    parser.add_argument("--paper", action="store_true", help="from the paper's numbers, no records")
    parser.add_argument("--root", default="runs", help="folder of all records (default: runs)")
    parser.add_argument("--out", default="figures", help="where to (default: figures)")
    parser.add_argument("--metric", help="what quality is: eval/zero_shot/SPLIT/top1")
    parser.add_argument("--width", choices=PAGES, default=DEFAULT_WIDTH, help="of the pictures")
    parser.add_argument("--bare", action="store_true", help="no title in the pictures")
    given = parser.parse_args(arguments)
    if given.paper == bool(given.study):
        parser.error("give either --paper or studies, such as: demo --root runs")
    try:
        page: dict[str, Any] = {"width": given.width, "bare": given.bare}
        drawn = draw_paper(given.out, **page) if given.paper else []
        for study in given.study:
            drawn += draw_all(given.root, study, given.out, metric=given.metric, **page)
    except AnalysisError as error:
        print(f"analysis.figures: {error}", file=sys.stderr)
        return 2
    print("\n".join(one.line for one in drawn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
