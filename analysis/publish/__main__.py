"""`python -m analysis.publish results README.md`: write the pages, as `make results` does."""

from __future__ import annotations

import sys

from analysis.errors import AnalysisError
from analysis.publish.pages import write_pages


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print("usage: python -m analysis.publish RESULTS [README]", file=sys.stderr)
        return 2
    try:
        for path in write_pages(*arguments):
            print(path)
    except AnalysisError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
