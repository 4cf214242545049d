"""Draws a second of each program, and what the rest of making a candidate costs.

    python tests/bench/generation/draws.py [DRAWS]

Programs take turns, so that a busy machine slows all of them alike; the ratio is to `shapes` in the same run. `draw` is
the program's part, `check` the validator's; PNG and thumbnail are what every candidate needs besides. One process.
"""

import importlib
import io
import random
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

from dpe_jobs.generation import writer
from dpe_jobs.generation.dedup import pixel_digest, thumbnail
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.render import PixelProgram, SceneProgram
from dpe_jobs.generation.validator import trouble

DRAWS = 200  # of each program
ROUND = 10  # draws of one program before the next one's turn


def programs() -> list[PixelProgram | SceneProgram]:
    """All of pyproject.toml."""
    page = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    entries = tomllib.loads(page)["project"]["entry-points"]["dpe.generators"].values()
    return [getattr(importlib.import_module(e.split(":")[0]), e.split(":")[1])() for e in entries]


def one(program: PixelProgram | SceneProgram, number: int, spent: dict[str, float]) -> None:
    """Make a candidate, part by part. Times in seconds, PNG in bytes."""
    category = program.categories()[number % len(program.categories())]
    knobs = choose_knobs(program.knobs(category), number, 0)
    rng = random.Random(f"{program.name} {number}")
    begin = time.perf_counter()
    drawn = program.draw(knobs, rng)
    written = writer.ask(program, category, knobs, drawn, rng)
    done = time.perf_counter()
    spent["draw"] += done - begin
    spent["slowest"] = max(spent["slowest"], done - begin)
    found = trouble(program, drawn, knobs, written)
    assert found is None, (program.name, knobs, written, found)
    spent["check"] += time.perf_counter() - done
    begin = time.perf_counter()
    pixel_digest(drawn.image)
    thumbnail(drawn.image)
    out = io.BytesIO()
    drawn.image.save(out, "PNG")
    spent["png"] += time.perf_counter() - begin
    spent["bytes"] += len(out.getvalue())
    spent["made"] += 1


def main(draws: int) -> None:
    """Print the table."""
    found = programs()
    spent: dict[str, dict[str, float]] = {program.name: defaultdict(float) for program in found}
    for program in found:
        one(program, 0, defaultdict(float))  # imports, fonts and tables are read once
    for start in range(0, draws, ROUND):
        for program in found:
            for number in range(start, min(draws, start + ROUND)):
                one(program, number, spent[program.name])
    base = spent["shapes"]["draw"] / spent["shapes"]["made"]
    print("| program | draws/s | x shapes' time | draw, ms | slowest, ms | check, ms | PNG, ms | PNG, KiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, s in spent.items():
        draw, check, png = (1000 * s[part] / s["made"] for part in ("draw", "check", "png"))
        print(
            f"| {name} | {1000 / draw:.0f} | {draw / 1000 / base:.0f} | {draw:.1f} | {1000 * s['slowest']:.0f} "
            f"| {check:.1f} | {png:.1f} | {s['bytes'] / s['made'] / 1024:.0f} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS)
