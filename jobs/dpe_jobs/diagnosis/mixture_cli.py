"""`python -m dpe_jobs mixture REPORT`: what each policy would make of a diagnosis. docs/mixture.md explains it.

REPORT is the report.json of a diagnosis, on disk or s3://. With s3:// it reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and
DPE_S3_SECRET_KEY.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from dpe_api.artifacts import CategoryReport, DiagnosisReport, Interval, Quota
from dpe_api.diagnosis_spec import Mixture, MixturePolicy
from dpe_api.generation_spec import Generation, Source, SourceKind
from dpe_api.names import Exit
from dpe_jobs.diagnosis.memory import read_memory
from dpe_jobs.diagnosis.mixture import mix
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.generation.team import known_limits
from dpe_jobs.importing.cli import connect
from dpe_jobs.runtime import BadConfig, BadData, classify
from dpe_jobs.store import Store


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs mixture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    policies = list(MixturePolicy)
    it.add_argument("report", metavar="REPORT", help="report.json, on disk or s3://BUCKET/PATH")
    it.add_argument(
        "--policy", type=MixturePolicy, choices=policies, action="append", help="one or more (default: all)"
    )
    it.add_argument("--samples", type=int, default=Generation().target_samples, help="targetSamples (%(default)s)")
    it.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another field of spec.mixture, as reach=0.3 or memory.smoothing=0.5",
    )
    it.add_argument(
        "--source", action="append", default=[], metavar="PROGRAM", help="what makes samples, by preference"
    )
    it.add_argument("--previous", metavar="FOLDER", help="s3:// folder of the previous round's artifacts, for memory")
    it.add_argument("--seed", type=int, default=0, help="spec.seed, for thompson (%(default)s)")
    it.add_argument("--round", type=int, default=0, help="how many iterations came before, for thompson (%(default)s)")
    it.add_argument("--region", default="us-east-1", help="of the object store (%(default)s)")
    return it


def read_mixture(fields: Sequence[str]) -> Mixture:
    """spec.mixture of FIELD=VALUE, with its defaults. BadConfig: one of them is not so written."""
    wanted: dict[str, object] = {}
    for text in fields:
        path, equals, value = text.partition("=")
        *parents, name = path.split(".")
        if not equals or len(parents) > 1:
            raise BadConfig("InvalidOption", f"--set {text}: write FIELD=VALUE, as reach=0.3 or memory.smoothing=0.5")
        if parents:
            section = wanted.setdefault(parents[0], {})
            if not isinstance(section, dict):
                raise BadConfig("InvalidOption", f"--set {text}: {parents[0]} has a value already")
            section[name] = value
        else:
            wanted[name] = value
    try:
        return Mixture.model_validate(wanted)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadConfig("InvalidOption", f"--set {wrong}: docs/reference.md has the fields of spec.mixture") from error


def table(categories: Sequence[CategoryReport], mixtures: Mapping[str, Sequence[Quota]]) -> str:
    """A Markdown table: a row for each category, a column of quotas and their shares for each policy."""
    by_policy = {policy: {q.name: q for q in quotas} for policy, quotas in mixtures.items()}
    rows = [
        ["category", "accuracy", "pass rate", *mixtures, ""],
        ["---", "---", "---", *["--:" for _ in mixtures], "---"],
    ]
    for category in sorted(categories, key=lambda c: c.name):
        quotas = [by_policy[policy][category.name] for policy in mixtures]
        rows.append(
            [
                category.name,
                _interval(category.accuracy) if category.n else "",
                "" if category.pass_rate is None else _interval(category.pass_rate),
                *(f"{q.quota} ({q.weight:.1%})" for q in quotas),
                ", ".join(_notes(category, quotas[0])),
            ]
        )
    totals = [str(sum(q.quota for q in quotas)) for quotas in mixtures.values()]
    rows.append(["sum", "", "", *totals, ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _notes(category: CategoryReport, quota: Quota) -> list[str]:
    said = {
        "never asked": not category.n,
        "out of reach": not quota.reachable,
        "strong": quota.retention,
        f"damped by {quota.damped:.0%}": quota.damped > 0,
        "no source supplies it": quota.supply == 0,
        f"at most {quota.supply}": bool(quota.supply),
    }
    return [text for text, so in said.items() if so]


def _read_report(address: str, store: Callable[[], Store]) -> DiagnosisReport:
    try:
        data = store().get(address) if address.startswith("s3://") else Path(address).read_bytes()
    except OSError as error:
        raise BadData("NotFound", f"{address}: {error.strerror}: name the report.json of a diagnosis") from error
    return DiagnosisReport.model_validate_json(data)


def compare(arguments: argparse.Namespace, store: Callable[[], Store]) -> str:
    """The table of a parsed command line. BadConfig, BadData, NotFound, OSError, ValueError: what is wrong with it."""
    mixture = read_mixture(arguments.set)
    categories = _read_report(arguments.report, store).of(PROBE).categories
    sources = [Source(kind=SourceKind.RENDER, program=name) for name in arguments.source]
    limits = known_limits(sources, [c.name for c in categories]) if sources else None
    memory = read_memory(store(), arguments.previous, mixture.memory) if arguments.previous else None
    quotas = {
        policy.value: mix(
            categories,
            mixture.model_copy(update={"policy": policy}),
            arguments.samples,
            seed=arguments.seed,
            round_number=arguments.round,
            memory=memory,
            supply=limits,
        )
        for policy in arguments.policy or MixturePolicy
    }
    return table(categories, quotas)


def main(argv: Sequence[str]) -> Exit:
    """0; 65 no such report or none that can be read, 78 a command or an environment to mend, 75 the store is away."""
    arguments = parser().parse_args(argv)
    try:
        print(compare(arguments, lambda: connect(arguments.region)))
    except Exception as error:  # noqa: BLE001 - classified and told
        code, reason, message = classify(error)
        print(f"{reason}: {message}", file=sys.stderr)
        return code
    return Exit.DONE
