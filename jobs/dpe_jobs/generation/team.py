"""Who takes part in a generation: sources and agents, as the spec names them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dpe_api.artifacts import Quota
from dpe_api.generation_spec import Source, SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_jobs.generation.candidates import Team
from dpe_jobs.generation.edit import load_edits
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.planner import RulePlanner
from dpe_jobs.generation.render import load_programs
from dpe_jobs.generation.schedule import NO_SOURCE
from dpe_jobs.generation.sources import BySource, EditSupply, RenderSupply, Supply, limits
from dpe_jobs.generation.validator import RuleValidator
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.generation.writer import RuleWriter
from dpe_jobs.runtime import BadConfig


def supplies_of(sources: Sequence[Source], workbench: Workbench) -> list[Supply]:
    """The sources, in the order of the spec. BadConfig: a program is not installed, or an edit has nothing to edit."""
    programs, edits = iter(load_programs(sources)), iter(load_edits(sources))
    bases = [RenderSupply(next(programs), s.share, workbench) for s in sources if s.kind is SourceKind.RENDER]
    found: list[Supply] = [*bases]
    for place, source in enumerate(sources):
        if source.kind is SourceKind.EDIT and source.program is not None:
            if not bases:
                raise BadConfig(
                    "NothingToEdit",
                    f"spec.generation.sources[{place}] is an edit, and no other source has pictures to be edited: add "
                    "one of kind render or pool",
                )
            found.append(EditSupply(next(edits), bases, source.share, workbench))
    return found


def known_limits(sources: Sequence[Source], categories: Sequence[str]) -> dict[str, int | None] | None:
    """Most samples of each category that the sources can bring; None: nothing is known, for models look for images."""
    if any(source.program is None for source in sources):
        return None
    with Workbench() as workbench:
        return limits(supplies_of(sources, workbench), categories)


def check_supply(supplies: Sequence[Supply], quotas: Sequence[Quota]) -> list[str]:
    """The categories that some source has. BadConfig: there is none."""
    wanted = [quota.name for quota in quotas if quota.quota > 0 or quota.supply == 0]
    supplied = [name for name in wanted if any(supply.supplies(name) for supply in supplies)]
    if wanted and not supplied:
        raise BadConfig(
            NO_SOURCE,
            f"spec.generation.sources: {', '.join(s.name for s in supplies)} can supply none of the probe's categories "
            f"{', '.join(wanted)}: add a source for them, or use their names",
        )
    return supplied


@contextmanager
def hire(launch: GenerationLaunch, findings: Findings, seed: int) -> Iterator[tuple[Team, list[Supply]]]:
    """The agents of a run, for as long as it takes, and the sources."""
    with Workbench() as workbench:
        supplies = supplies_of(launch.generation.sources, workbench)
        programs = {supply.name: supply.program for supply in supplies if supply.program is not None}
        team = Team(
            planner=RulePlanner(findings, supplies, seed),
            selector=BySource(supplies),
            writer=RuleWriter(programs, workbench),
            validator=RuleValidator(programs, workbench),
            workbench=workbench,
        )
        yield team, supplies
