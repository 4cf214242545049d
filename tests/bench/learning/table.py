"""The tables of docs/learning.md from the results of `rounds`: `python -m tests.bench.learning.table RESULTS`."""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from tests.bench.learning.rounds import ARMS, ROUNDS

Rows = list[dict[str, Any]]


def read(path: Path) -> Rows:
    """The rounds of chains that are whole."""
    rows: Rows = [json.loads(line) for line in path.read_text().splitlines()]
    whole = {(r["arm"], r["samples"], r["seed"]) for r in rows if r["round"] == ROUNDS}
    return [r for r in rows if (r["arm"], r["samples"], r["seed"]) in whole]


def standing(rows: Rows, arm: str, samples: int, seed: int) -> list[dict[str, float]]:
    """Accuracy by category of the model that stood: at first, and after each round."""
    own = sorted(
        (r for r in rows if (r["arm"], r["samples"], r["seed"]) == (arm, samples, seed)), key=lambda r: r["round"]
    )
    found = [dict(own[0]["before"])]
    for row in own:
        after = {name: a["value"] for name, a in row["after"].items()}
        found.append(after if row["accepted"] else found[-1])
    return found


def mean(values: dict[str, float]) -> float:
    return statistics.fmean(values.values())


def seeds_of(rows: Rows, arm: str, samples: int) -> list[int]:
    return sorted({r["seed"] for r in rows if (r["arm"], r["samples"]) == (arm, samples)})


def macro_table(rows: Rows) -> list[str]:
    """Macro accuracy after each round: mean over seeds, and the widest interval among them."""
    lines = [
        "| samples a round | arm | seeds | base | "
        + " | ".join(f"round {n}" for n in range(1, ROUNDS + 1))
        + " | candidates | rejected |"
    ]
    lines.append("|---|---|---|---|" + "---|" * ROUNDS + "---|---|")
    for samples in sorted({r["samples"] for r in rows}):
        for arm in ARMS:
            seeds = seeds_of(rows, arm, samples)
            if not seeds:
                continue
            own = [r for r in rows if (r["arm"], r["samples"]) == (arm, samples)]
            courses = [[mean(m) for m in standing(rows, arm, samples, seed)] for seed in seeds]
            cells = []
            for number in range(1, ROUNDS + 1):
                values = [c[number] for c in courses]
                half = max((r["macro"]["high"] - r["macro"]["low"]) / 2 for r in own if r["round"] == number)
                each = ", ".join(f"{v:.3f}" for v in values)
                cells.append(f"**{statistics.fmean(values):.3f}** ({each}; ±{half:.3f})")
            candidates = statistics.fmean(sum(r["candidates"] for r in own if r["seed"] == s) for s in seeds)
            rejected = sum(not r["accepted"] for r in own)
            base = statistics.fmean(c[0] for c in courses)
            head = f"| {samples} | {arm} | {len(seeds)} | {base:.3f} | "
            lines.append(head + " | ".join(cells) + f" | {candidates:.0f} | {rejected} |")
    return lines


def lead_table(rows: Rows) -> list[str]:
    """By how much `dpe` is ahead after the last round, on the same seeds: mean and standard error over them."""
    lines = ["| samples a round | against | seeds | lead of dpe, points |", "|---|---|---|---|"]
    for samples in sorted({r["samples"] for r in rows}):
        for arm in ARMS:
            shared = sorted(set(seeds_of(rows, arm, samples)) & set(seeds_of(rows, "dpe", samples)))
            if arm == "dpe" or not shared:
                continue
            leads = [
                100 * (mean(standing(rows, "dpe", samples, s)[-1]) - mean(standing(rows, arm, samples, s)[-1]))
                for s in shared
            ]
            error = f" ± {statistics.stdev(leads) / math.sqrt(len(leads)):.1f}" if len(leads) > 1 else ""
            each = ", ".join(f"{lead:+.1f}" for lead in leads)
            lines.append(f"| {samples} | {arm} | {len(shared)} | {statistics.fmean(leads):+.1f}{error} ({each}) |")
    return lines


def forgetting_table(rows: Rows) -> list[str]:
    """By category: accuracy at first and after the last round, and how far that is below the best in between."""
    categories = sorted(rows[0]["before"])
    lines = ["| samples a round | arm | " + " | ".join(categories) + " |", "|---|---|" + "---|" * len(categories)]
    for samples in sorted({r["samples"] for r in rows}):
        for arm in ARMS:
            seeds = seeds_of(rows, arm, samples)
            if not seeds:
                continue
            cells = []
            for name in categories:
                courses = [[m[name] for m in standing(rows, arm, samples, seed)] for seed in seeds]
                first, last = (statistics.fmean(c[i] for c in courses) for i in (0, -1))
                lost = statistics.fmean(max(c) - c[-1] for c in courses)
                cells.append(f"{first:.2f} to {last:.2f}" + (f" (−{lost:.2f})" if lost >= 0.005 else ""))
            lines.append(f"| {samples} | {arm} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    rows = read(parser.parse_args().results)
    for lines in (macro_table(rows), lead_table(rows), forgetting_table(rows)):
        print("\n".join(lines), end="\n\n")
    below = [r for r in rows if r["accepted"] and r["delta"]["high"] < 0]
    print(f"{len(rows)} rounds, {len(below)} of them accepted although worse than their base beyond the interval")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
