"""`python -m dev.dashboards [--check]`."""

import argparse
import sys

from dev.dashboards import DASHBOARDS, FOLDER, text
from dev.paths import CHECKOUT


def main() -> int:
    """Write the files, or say which differs: exit code 1."""
    parser = argparse.ArgumentParser(prog="dev.dashboards", description="The chart's Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check, stale = parser.parse_args().check, 0
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.name}.json"
        if path.exists() and path.read_text() == text(dashboard):
            continue
        stale += 1
        if check:
            print(f"{path.relative_to(CHECKOUT)} differs from dev/dashboards: run `make generate`", file=sys.stderr)
        else:
            path.write_text(text(dashboard))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
