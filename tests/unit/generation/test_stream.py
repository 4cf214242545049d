"""The stream of candidates with agents that are as fast as a test wants."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Script, serving
from tests.unit.generation import world

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_api.quality_spec import Quality
from dpe_jobs.client import ModelClient
from dpe_jobs.generation.candidates import Candidate, Team, make
from dpe_jobs.generation.dedup import Seen
from dpe_jobs.generation.gallery import Gallery
from dpe_jobs.generation.images import Origin, Picture
from dpe_jobs.generation.judge import Judge
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Aim, Feedback, Order, Rejection, Target
from dpe_jobs.generation.samples import SampleFiles
from dpe_jobs.generation.schedule import Schedule
from dpe_jobs.generation.stream import Flow, Spool, Stream
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import ProgressReporter


class Twins:
    """Every target gets the same picture and question; those in `last` wait until the served model was asked."""

    def __init__(self, last: Sequence[int]) -> None:
        self._last, self.asked = last, threading.Event()

    async def plan(self, order: Order) -> list[Target]:
        numbers = range(order.first, order.first + order.count)
        return [Target(order.category, n, SourceKind.RENDER, "render:twins", {}, Aim(""), n) for n in numbers]

    async def select(self, target: Target) -> Picture:
        if target.number in self._last:
            assert await asyncio.to_thread(self.asked.wait, 20)
        picture = Image.linear_gradient("L").convert("RGB")
        return Picture(picture, Origin(SourceKind.RENDER, "render:twins", "1", "MIT"))

    async def write(self, target: Target, picture: Picture) -> Written:
        return Written("what color is it?", "gray", AnswerType.EXACT)

    async def validate(self, target: Target, picture: Picture, written: Written) -> Rejection | None:
        return None

    def answers(self, told: Script) -> Script:
        def script(asked: Asked) -> list[str]:
            self.asked.set()
            answer = told(asked)
            assert isinstance(answer, list)
            return answer

        return script


async def rejected(launch: GenerationLaunch, agents: Twins, folder: Path) -> list[dict[str, Any]]:
    """Why none of two targets is kept."""
    store, schedule = MemoryStore(), Schedule(world.quotas({"shape": 2}), ["shape"], 2)
    with (
        Workbench() as workbench,
        Seen() as seen,
        Ledger(store, "s3://b/ledger") as ledger,
        SampleFiles(store, launch.output, launch.output, folder, schedule.lines) as files,
    ):
        inspector = Inspector(Quality(), Reserved(), answer_tokens=4, max_pixels=1_003_520)
        team = Team(agents, agents, agents, agents, workbench, inspector, 1_003_520)
        progress = ProgressReporter(launch, store, 2)
        gallery = Gallery(world.quotas({"shape": 2}))
        flow = Flow(launch, schedule, team, progress, Spool(folder / "spool"), files, gallery, "r0")
        async with ModelClient(launch.model.url, concurrency=2) as client:
            judge = Judge(launch, client, ledger, inspector, seen)
            await Stream(flow, judge).run()
        files.finish()
    return world.table(store, "rejected.parquet")


@pytest.mark.parametrize("last", [(0,), (1,)], ids=["the first", "the second"])
def test_what_is_a_repeat_does_not_depend_on_who_was_made_last(last, tmp_path):
    agents = Twins(last)
    with serving(agents.answers(lambda asked: ["purple"] * asked.n)) as model:
        first, second = asyncio.run(rejected(world.launch(model.url), agents, tmp_path))
    assert (first["reason"], first["pass_rate"]) == ("TooHard", 0.0)
    assert (second["reason"], second["pass_rate"], second["rollouts"]) == ("Duplicate", None, [])


class Wide(Twins):
    """Large enough as it was found, and not as a model is shown it."""

    async def select(self, target: Target) -> Picture:
        found = await super().select(target)
        return replace(found, image=found.image.resize((4000, 800)))

    async def write(self, target: Target, picture: Picture) -> Written:
        raise AssertionError("a writer is paid for a picture that cannot be used")


async def test_nobody_is_asked_about_a_picture_that_is_too_small_once_it_is_scaled_down():
    agents = Wide(())
    with Workbench() as workbench, Reserved() as reserved:
        inspector = Inspector(Quality(min_side=512), reserved, answer_tokens=4, max_pixels=1_003_520)
        team = Team(agents, agents, agents, agents, workbench, inspector, 1_003_520)
        (target, *_) = await agents.plan(Order("shape", 0, 1, Feedback()))
        made = await make(team, target, "r0")
    assert isinstance(made, Candidate)
    small = "2239x447 pixels: a side is shorter than minSide 512"
    assert made.rejection == ("ImageSize", f"4000x800 pixels, scaled down to diagnosis.maxPixels: {small}")
