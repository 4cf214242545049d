"""What the demo shows, as pure functions of the iteration's status: rows, lines and tables, no cluster and no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpe_api.artifacts import Interval
from dpe_api.names import Stage
from dpe_api.status import EvaluationStatus, Phase, StageState, StageStatus, Status

_SIGNS = {
    StageState.PENDING: ("·", "dim"),
    StageState.RUNNING: ("▶", "cyan"),
    StageState.BACKOFF: ("↻", "yellow"),
    StageState.DONE: ("✓", "green"),
    StageState.FAILED: ("✗", "red"),
}


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """A Kubernetes Event of the iteration."""

    key: str
    """Changes when the event is new or was counted up."""
    warning: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One line of the final table; shares are in [0, 1]."""

    name: str
    n: int | None
    before: float | None
    after: float | None
    delta: Interval | None
    quota: int | None
    kept: int | None
    reachable: bool


def duration(seconds: float) -> str:
    """A length of time as a person says it: 8 s, 2 min 05 s, 1 h 03 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    """A share in percent with one decimal; a dash when there is none."""
    return "–" if share is None else f"{100 * share:.1f}"


def points(delta: Interval | None) -> str:
    """A difference of shares in points, with its interval."""
    if delta is None:
        return "–"
    return f"{100 * delta.value:+.1f} [{100 * delta.low:+.1f}, {100 * delta.high:+.1f}]"


def stages_of(status: Status) -> list[StageStatus]:
    """All stages in order, also those that the status does not mention yet."""
    return [status.stage_status(stage) for stage in Stage]


def elapsed(stage: StageStatus, now: datetime) -> float | None:
    """Seconds since the stage's first attempt began, until now or until it was done; None before that."""
    if stage.start_time is None:
        return None
    return ((stage.completion_time or now) - stage.start_time).total_seconds()


def stage_note(stage: StageStatus, now: datetime, last: float | None) -> str:
    """One line about a stage: time taken and left, attempt, and what it waits for."""
    parts = []
    took = elapsed(stage, now)
    if took is not None:
        parts.append(duration(took))
    progress = stage.progress
    if stage.state is StageState.RUNNING and progress is not None:
        if progress.rate > 0:
            parts.append(f"{progress.rate:.3g} {progress.unit}/s")
        if progress.eta_seconds is not None:
            parts.append(f"{duration(progress.eta_seconds)} left")
    if last is not None and stage.state is not StageState.DONE:
        parts.append(f"last time {duration(last)}")
    if stage.attempt > 1:
        parts.append(f"attempt {stage.attempt}")
    if stage.state is StageState.BACKOFF and stage.next_attempt_time is not None:
        parts.append(f"again in {duration((stage.next_attempt_time - now).total_seconds())}")
    if stage.message and stage.state is not StageState.DONE:
        parts.append(stage.message)
    return ", ".join(parts)


def headline(name: str, status: Status) -> str:
    """Phase and, while it waits for something that a person must mend, why."""
    text = f"{name}: {status.phase.value}"
    accepted = next((c for c in status.conditions if c.type == "Accepted"), None)
    if accepted is not None and accepted.status == "False":
        text += f" - {accepted.reason}: {accepted.message}"
    return text


def live(
    name: str, status: Status, now: datetime, last: Mapping[str, float], event: ObjectEvent | None, trouble: str | None
) -> RenderableType:
    """The view while it runs: one row per stage, the newest event below."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for stage in stages_of(status):
        sign, style = _SIGNS[stage.state]
        bar: RenderableType = ""
        count = ""
        if stage.progress is not None and stage.state is not StageState.PENDING:
            bar = ProgressBar(total=max(stage.progress.total, 1), completed=stage.progress.done, width=24)
            count = f"{stage.progress.done}/{stage.progress.total} {stage.progress.unit}"
        table.add_row(
            Text(sign, style), Text(stage.name.value, style), bar, count, stage_note(stage, now, last.get(stage.name))
        )
    lines: list[RenderableType] = [Text(headline(name, status), "bold"), table]
    if event is not None:
        lines.append(Text(f"{event.reason}: {event.message}", "yellow" if event.warning else "dim"))
    if trouble is not None:
        lines.append(Text(trouble, "yellow"))
    return Group(*lines)


def changes(before: Status | None, after: Status, now: datetime, last: Mapping[str, float]) -> list[str]:
    """Lines for a log: every stage whose state, attempt or message is another than before."""
    lines = []
    if before is None or headline("", before) != headline("", after):
        lines.append(headline("phase", after).removeprefix("phase: "))
    for stage in stages_of(after):
        old = StageStatus(name=stage.name) if before is None else before.stage_status(stage.name)
        if (old.state, old.attempt, old.message) != (stage.state, stage.attempt, stage.message):
            note = stage_note(stage, now, last.get(stage.name))
            lines.append(f"{stage.name.value}: {stage.state.value}" + (f" ({note})" if note else ""))
    return lines


def progress_line(status: Status, now: datetime, last: Mapping[str, float]) -> str | None:
    """One line for a log about the batch stage that runs; None when nothing counts."""
    for stage in stages_of(status):
        if stage.state is StageState.RUNNING and stage.progress is not None and not stage.name.is_serving:
            counted = f"{stage.progress.done}/{stage.progress.total} {stage.progress.unit}"
            return f"{stage.name.value}: {counted}, {stage_note(stage, now, last.get(stage.name))}"
    return None


def headline_comparison(status: Status) -> EvaluationStatus | None:
    """What the table is about: the first benchmark, without any the probe; None before the evaluation."""
    benchmarks = [e for e in status.evaluation if e.name != "probe"]
    return next(iter([*benchmarks, *status.evaluation]), None)


def category_rows(status: Status) -> list[CategoryRow]:
    """The final table, weakest category first: what was diagnosed, made and reached."""
    comparison = headline_comparison(status)
    changed = {c.name: c for c in comparison.categories} if comparison else {}
    diagnosed = {c.name: c for c in status.diagnosis.categories} if status.diagnosis else {}
    kept = status.samples.kept_by_category if status.samples else {}
    rows = []
    for name in dict.fromkeys([*diagnosed, *changed]):
        change, found = changed.get(name), diagnosed.get(name)
        rows.append(
            CategoryRow(
                name=name,
                n=change.n if change else None,
                before=change.before if change else found.accuracy if found else None,
                after=change.after if change else None,
                delta=change.delta if change else None,
                quota=found.quota if found else None,
                kept=kept.get(name, 0) if status.samples else None,
                reachable=found.reachable if found else True,
            )
        )
    return sorted(rows, key=lambda row: (row.before is None, row.before))


def result_table(status: Status) -> Table:
    """The final table for a terminal."""
    comparison = headline_comparison(status)
    title = f"Benchmark {comparison.name}, {comparison.n} questions, accuracy in %" if comparison else "Diagnosis"
    table = Table(title=title, box=box.SIMPLE, show_footer=comparison is not None)
    samples, diagnosis = status.samples, status.diagnosis
    quota = sum(c.quota for c in diagnosis.categories) if diagnosis else None
    table.add_column("category", "macro")
    for heading, footer in (
        ("n", str(comparison.n) if comparison else ""),
        ("before", percent(comparison.before) if comparison else ""),
        ("after", percent(comparison.after) if comparison else ""),
        (r"change \[interval]", points(comparison.delta) if comparison else ""),
        ("quota", "–" if quota is None else str(quota)),
        ("kept", "–" if samples is None else str(samples.kept)),
    ):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    for row in category_rows(status):
        table.add_row(
            row.name + ("" if row.reachable else " (out of reach)"),
            "–" if row.n is None else str(row.n),
            percent(row.before),
            percent(row.after),
            points(row.delta),
            "–" if row.quota is None else str(row.quota),
            "–" if row.kept is None else str(row.kept),
        )
    return table


def verdict(name: str, status: Status) -> str:
    """How the iteration ended, in one or two lines."""
    condition = next((c for c in status.conditions if c.type == "ModelAccepted"), None)
    why = f" {condition.message}" if condition and condition.message else ""
    if status.phase is Phase.SUCCEEDED:
        return f"{name} succeeded: the candidate is the accepted model.{why}"
    if status.phase is Phase.REJECTED:
        return f"{name} is complete, and the gate rejected the candidate: the accepted model stays the old one.{why}"
    return failure(name, status)


def failed_stage(status: Status) -> StageStatus | None:
    """The stage that failed, or None when the failure belongs to none."""
    return next((s for s in stages_of(status) if s.state is StageState.FAILED), None)


def failure(name: str, status: Status) -> str:
    """Which stage failed and what its pod said."""
    stage = failed_stage(status)
    condition = next((c for c in status.conditions if c.type == "Failed" and c.status == "True"), None)
    where = f" in stage {stage.name.value}, attempt {stage.attempt}" if stage else ""
    message = (stage.message if stage else None) or (condition.message if condition else "")
    reason = f" ({condition.reason})" if condition and not message.startswith(condition.reason) else ""
    return f"{name} failed{where}{reason}: {message}"


def where_next(name: str, namespace: str, status: Status, endpoint: str | None) -> Sequence[str]:
    """Commands and addresses for looking further, one a line."""
    lines = [
        f"kubectl -n {namespace} get dpei -o wide",
        f"kubectl -n {namespace} describe dpei {name}      # the story, by Events",
        f"kubectl -n {namespace} get dpei {name} -o yaml",
        f"kubectl -n {namespace} logs deployment/dpe-operator",
    ]
    stage = failed_stage(status)
    if stage is not None:
        selector = f"dpe.dev/iteration={name},dpe.dev/stage={stage.name.value}"
        lines.insert(0, f"kubectl -n {namespace} logs -l {selector} --all-containers --prefix --tail=100")
    if status.artifacts:
        lines.append(f"artifacts: {status.artifacts}/" + (f" at {endpoint}" if endpoint else ""))
    if status.model is not None:
        lines.append(f"model: {status.model.uri}")
    if status.evaluation:
        lines.append(f"make verify NAME={name}      # checksums, and this table from the Parquet files")
    return lines
