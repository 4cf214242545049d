"""Files of the checkout that are made from the models."""

import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def generate(files: Sequence[str], content: str, *, check: bool) -> int:
    """Write `content` to files of the checkout; or, with `check`, 1 when one of them holds something else."""
    stale = []
    for name in files:
        path = CHECKOUT / name
        if not path.exists() or path.read_text() != content:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
    if stale and check:
        print(f"not up to date: {', '.join(stale)}: run `make generate`", file=sys.stderr)
        return 1
    return 0
