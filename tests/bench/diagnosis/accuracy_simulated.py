"""Do the intervals cover the truth, and how biased are adaptive samples?

    python tests/bench/diagnosis/accuracy_simulated.py

A scripted model is right with a known probability in each category. Every run draws its sample of the probe, asks,
grades and reports through the stage's own code; only HTTP is left out (--http: not even that). Per category: how often
the 95% intervals of accuracy and pass rate hold the truth, the bias of both, and Wilson's exact coverage beside it.
"""

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import binom
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, serving

from dpe_api.artifacts import AnswerType, InputRef, SetReport
from dpe_api.diagnosis_spec import Diagnosis, Probe
from dpe_jobs.chat import Answers
from dpe_jobs.client import RequestFailed
from dpe_jobs.diagnosis import procedure
from dpe_jobs.diagnosis.intervals import wilson
from dpe_jobs.diagnosis.items import Items
from dpe_jobs.diagnosis.report import describe
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, draw
from dpe_jobs.questions import Question, write_questions

CONFIDENCE = 0.95
SPREAD = 4.0  # a row's own pass rate is drawn from Beta(SPREAD p, SPREAD (1 - p)): its rollouts are alike
ROLLOUTS = 4


@dataclass(frozen=True)
class Design:
    """What is simulated."""

    truths: tuple[float, ...]
    """Accuracy of each category, which is its pass rate too."""
    per_category: int
    """Rows asked, on average."""
    adaptive_share: float = 0.0
    error_rate: float = 0.0
    """Share of rows that the server refuses."""

    @property
    def probe_rows(self) -> int:
        """Rows of each category in the probe: enough for any allocation of the adaptive part."""
        return 4 * self.per_category

    @property
    def names(self) -> list[str]:
        """One category for each truth."""
        return [f"p{round(100 * p):03d}" for p in self.truths]


def uniform(run: int, *parts: object) -> float:
    """A number in [0, 1) of its own for each run and thing."""
    digest = hashlib.blake2b("|".join(map(str, (run, *parts))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class ScriptedModel:
    """Right with the probability of the category; a row's rollouts are as likely right as the row itself is."""

    def __init__(self, design: Design, run: int) -> None:
        self._design, self._run = design, run
        self._truth = dict(zip(design.names, design.truths, strict=True))

    def answers(self, question: str, n: int, *, sampled: bool) -> list[str]:
        """`n` answers to a question, whose first words are category and number."""
        category, number = question.split(":")[0].split()
        p = self._truth[category]
        if sampled:
            random = np.random.default_rng([self._run, int(number), round(1000 * p)])
            p = random.beta(SPREAD * p, SPREAD * (1 - p))
            right = random.random(n) < p
        else:
            right = np.array([uniform(self._run, category, number) < p])
        return [worlds.COLORS[int(number) % 3] if r else "purple" for r in right]

    def refuses(self, question: str) -> bool:
        """Whether the server has no answer to a row: independent of whether the model would be right."""
        return uniform(self._run, "error", question) < self._design.error_rate

    def script(self, asked: Asked) -> Any:
        """Behind a real server."""
        return self.answers(asked.question, asked.n, sampled=asked.sampled)

    async def wait_ready(self, deadline_s: float) -> None:
        """In place of the client: always ready."""

    async def ask(self, image: bytes, question: str, *, n: int = 1, temperature: float = 0.0, **_: Any) -> Answers:
        """In place of the client."""
        if self.refuses(question):
            raise RequestFailed("refused")
        return Answers(tuple(self.answers(question, n, sampled=temperature > 0)), 10, 2)


@contextmanager
def in_place_of_the_client(model: ScriptedModel) -> Iterator[None]:
    """`procedure` asks the model itself."""

    class Client:
        def __init__(self, *_: object, **__: object) -> None: ...

        async def __aenter__(self) -> ScriptedModel:
            return model

        async def __aexit__(self, *_: object) -> None: ...

    with patch.object(procedure, "ModelClient", Client):
        yield


class World:
    """A probe on disk, and runs over it."""

    def __init__(self, design: Design, folder: Path) -> None:
        self.design, self.folder = design, folder
        self.path = folder / "probe.parquet"
        image = worlds.picture("red")
        rows = (
            Question(f"{c}-{n}", image, f"{c} {n}: what color?", worlds.COLORS[n % 3], AnswerType.EXACT, c)
            for c in design.names
            for n in range(design.probe_rows)
        )
        write_questions(rows, self.path)
        self.ids = {c: [f"{c}-{n}" for n in range(design.probe_rows)] for c in design.names}

    def run(self, number: int, *, http: bool = False, rollouts: int = ROLLOUTS) -> SetReport:
        """The report of one run, seeded by its number."""
        design = self.design
        probe = Probe(
            uri=worlds.PROBE_URI,
            sample_size=design.per_category * len(design.truths),
            adaptive_share=design.adaptive_share,
        )
        settings = Diagnosis(rollouts_per_item=rollouts, concurrency=8, confidence=CONFIDENCE, max_error_rate=0.05)
        drawn = draw(self.ids, probe, number, 0)
        source = InputRef(uri=probe.uri, sha256="")
        questions = QuestionSet(
            PROBE, source, drawn.ids, tuple(design.names), self.path, rollouts, drawn.spare, drawn.adaptive
        )
        model = ScriptedModel(design, number)
        launch = worlds.diagnosis("http://model", probe=probe, diagnosis=settings, benchmarks=[], seed=number)
        if http:
            with serving(model.script) as server:
                launch = launch.model_copy(update={"model": launch.model.model_copy(update={"url": server.url})})
                asked = procedure.ask(launch, MemoryStore(), source, [questions], self.folder)
        else:
            with in_place_of_the_client(model):
                asked = procedure.ask(launch, MemoryStore(), source, [questions], self.folder)
        return describe(Items(asked.items), asked.sets, source, launch.model, probe, settings).of(PROBE)


@dataclass(frozen=True)
class Coverage:
    """What came of many runs, one entry per category."""

    design: Design
    runs: int
    accuracy: NDArray[np.float64]
    """Share of runs whose interval of the accuracy holds the truth."""
    pass_rate: NDArray[np.float64]
    accuracy_bias: NDArray[np.float64]
    pass_rate_bias: NDArray[np.float64]
    rows: NDArray[np.float64]
    """Mean number of rows answered."""
    width: NDArray[np.float64]
    """Mean width of the accuracy's interval."""
    macro: float
    """Share of runs whose interval of the macro accuracy holds the truth."""


def simulate(design: Design, runs: int, *, http: bool = False, first: int = 0, rollouts: int = ROLLOUTS) -> Coverage:
    """Coverage and bias over seeded runs."""
    truth = np.array(design.truths)
    found: dict[str, list[list[float]]] = {k: [] for k in ("held", "held_rate", "value", "rate", "n", "width")}
    macro = 0
    with tempfile.TemporaryDirectory() as name:
        world = World(design, Path(name))
        for number in range(first, first + runs):
            report = world.run(number, http=http, rollouts=rollouts)
            by_name = {c.name: c for c in report.categories}
            categories = [by_name[c] for c in design.names]
            accuracies, rates = [c.accuracy for c in categories], [c.pass_rate for c in categories]
            found["held"].append([i.low <= p <= i.high for i, p in zip(accuracies, truth, strict=True)])
            found["held_rate"].append([bool(i and i.low <= p <= i.high) for i, p in zip(rates, truth, strict=True)])
            found["value"].append([i.value for i in accuracies])
            found["rate"].append([i.value if i else np.nan for i in rates])
            found["n"].append([c.n for c in categories])
            found["width"].append([i.high - i.low for i in accuracies])
            macro += report.macro.low <= truth.mean() <= report.macro.high
    means = {k: np.mean(np.array(v, dtype=float), axis=0) for k, v in found.items()}
    return Coverage(
        design,
        runs,
        means["held"],
        means["held_rate"],
        means["value"] - truth,
        means["rate"] - truth,
        means["n"],
        means["width"],
        macro / runs,
    )


def exact_coverage(p: float, n: int) -> float:
    """Coverage of the Wilson interval at n rows, by summing over all counts."""
    k = np.arange(n + 1)
    low, high = wilson(k, n, CONFIDENCE)
    return float(binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum())


Limits = tuple[NDArray[np.float64], NDArray[np.float64]]


def jeffreys(k: NDArray[np.int64], n: int) -> Limits:
    """Quantiles of Beta(k + 1/2, n - k + 1/2), opened at the ends (Brown, Cai and DasGupta 2001)."""
    low, high = (betaincinv(k + 0.5, n - k + 0.5, q) for q in (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def mid_p(k: NDArray[np.int64], n: int) -> Limits:
    """Clopper and Pearson's interval with half of the observed count's probability, by bisection."""
    tail = 0.5 - CONFIDENCE / 2

    def solve(above: bool) -> NDArray[np.float64]:
        low, high = np.zeros(len(k)), np.ones(len(k))
        for _ in range(60):
            middle = (low + high) / 2
            half = 0.5 * binom.pmf(k, n, middle)
            outside = half + (binom.cdf(k - 1, n, middle) if above else binom.sf(k, n, middle))
            too_far = outside < tail if above else outside > tail
            low, high = np.where(too_far, low, middle), np.where(too_far, middle, high)
        return (low + high) / 2

    return np.where(k == 0, 0.0, solve(False)), np.where(k == n, 1.0, solve(True))


def methods() -> str:
    """Exact coverage of three intervals over accuracies from 0.1 to 0.9, and from 0.03 to 0.97."""
    lines = [
        "| rows | interval | least | most | in 93-97% | least beyond | mean width |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    truths = np.linspace(0.03, 0.97, 471)
    core = (truths >= 0.1) & (truths <= 0.9)
    for n in (20, 30, 50, 100, 200):
        k = np.arange(n + 1)
        for name, (low, high) in {
            "Wilson": wilson(k, n, CONFIDENCE),
            "Jeffreys": jeffreys(k, n),
            "mid-p": mid_p(k, n),
        }.items():
            chances = binom.pmf(k, n, truths[:, None])
            held = (chances * ((low <= truths[:, None]) & (truths[:, None] <= high))).sum(axis=1)
            inside = np.mean((held[core] >= 0.93) & (held[core] <= 0.97))
            width = (chances * (high - low)).sum(axis=1)[core].mean()
            lines.append(
                f"| {n} | {name} | {held[core].min():.1%} | {held[core].max():.1%} | {inside:.0%} "
                f"| {held[~core].min():.1%} | {width:.3f} |"
            )
    return "\n".join(lines)


def table(found: Coverage) -> str:
    """A Markdown table, a row for each category."""
    design = found.design
    lines = [
        f"{design.per_category} rows a category, adaptive share {design.adaptive_share:g}, {found.runs} runs; "
        f"macro accuracy covered {found.macro:.1%}",
        "",
        "| truth | rows | covered | exact, even sample | bias, points | width | pass rate covered | its bias |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for i, p in enumerate(design.truths):
        lines.append(
            f"| {p:.2f} | {found.rows[i]:.0f} | {found.accuracy[i]:.1%} | {exact_coverage(p, design.per_category):.1%} "
            f"| {100 * found.accuracy_bias[i]:+.2f} | {found.width[i]:.3f} | {found.pass_rate[i]:.1%} "
            f"| {100 * found.pass_rate_bias[i]:+.2f} |"
        )
    return "\n".join(lines)


GRID = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, action="append", help="rows a category (default: 50 and 100)")
    parser.add_argument("--share", type=float, action="append", help="adaptive share (default: 0 and 0.5)")
    parser.add_argument("--http", action="store_true", help="through a real server on this machine; slower")
    parser.add_argument("--methods", action="store_true", help="only compare intervals, exactly")
    options = parser.parse_args(arguments)
    if options.methods:
        print(methods())
        return 0
    logging.disable(logging.INFO)
    for rows in options.rows or (50, 100):
        for share in options.share or (0.0, 0.5):
            began = time.monotonic()
            print(table(simulate(Design(GRID, rows, share), options.runs, http=options.http)), end="\n\n", flush=True)
            print(f"{time.monotonic() - began:.0f} s\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
