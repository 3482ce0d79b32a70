import sys


def main() -> None:
    """The `study` command: `app.main`, quiet also where Ctrl-C comes while that is imported."""
    try:
        from sweeps.cli import app

        app.main()
    except KeyboardInterrupt:
        print("study: interrupted", file=sys.stderr)
        sys.exit(130)
