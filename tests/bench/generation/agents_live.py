"""The agents against a real model server: vLLM on this machine's CPU with a tiny model, or a server that runs already.

    python -m tests.bench.generation.agents_live                          # the example's model, which takes images
    python -m tests.bench.generation.agents_live --model DIR --text-only  # another one that vLLM can load
    python -m tests.bench.generation.agents_live --url http://HOST/v1 --name MODEL

What is seen is the protocol: schemas, images, calls of tools and their results, several images in a conversation, what
the server refuses. That a tiny model plans, writes or approves anything sensible is not looked at: nobody expects it.
"""

import argparse
import asyncio
import io
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.fakes.image_searches import PATHS, Catalogue, openverse
from tests.fakes.image_searches import source as search_source
from tests.fakes.memory_store import MemoryStore
from tests.fakes.web import Answer, site
from tests.unit.generation import world

from dpe_api.agents_spec import PlannerAgent, SelectorAgent, WriterAgent
from dpe_api.artifacts import AnswerType
from dpe_api.endpoints import Endpoint
from dpe_api.generation_spec import Provider, SourceKind
from dpe_api.launch import Downloads
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.generation.agents.examples import Example, Examples
from dpe_jobs.generation.agents.planner import PLANNED, EndpointPlanner
from dpe_jobs.generation.agents.seen import glance
from dpe_jobs.generation.agents.selector import EndpointSelector, Sources
from dpe_jobs.generation.agents.validator import EndpointValidator
from dpe_jobs.generation.agents.writer import EndpointWriter
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.roles import Aim, Feedback, Order, Rejected, Target
from dpe_jobs.generation.search.supply import SearchSupply, open_searches
from dpe_jobs.spending import Budget

BASE = Path("examples/shapes/base")
START_S = 240.0
TARGETS = 8
IMAGES = 40  # that the search finds
HUES = ("red", "teal", "green", "blue")


def picture(number: int) -> Picture:
    """A real drawn one."""
    drawn = Shapes().draw({"color": HUES[number % 4], "shape": "circle"}, random.Random(number))
    return Picture(drawn.image, Origin(SourceKind.SEARCH, "search:here", str(number), "CC0-1.0"))


@asynccontextmanager
async def searched() -> AsyncIterator[SearchSupply]:
    """A search over real HTTP: a server that speaks Openverse's protocol, and one that has the drawn pictures."""
    files = {}
    for number in range(IMAGES):
        jpeg = io.BytesIO()
        picture(number).image.resize((256, 256)).save(jpeg, "JPEG")
        files[f"/img/{number}.jpg"] = Answer(jpeg.getvalue())
    with site(files, host="127.0.0.3") as web, site() as api:
        api.pages[PATHS[Provider.OPENVERSE]] = openverse(Catalogue(web.url, IMAGES))
        supply = SearchSupply(0, search_source(Provider.OPENVERSE, api), "search:openverse")
        launch = world.launch("http://127.0.0.1", downloads=Downloads(user_agent="dpe-bench/1", allow=["127.0.0.3"]))
        async with open_searches(launch, MemoryStore(), [supply]):
            yield supply
        pages, downloads = (sum(v.path != "/robots.txt" for v in server.visits) for server in (api, web))
        print(f"  the search was asked for {pages} pages, the website for {downloads} pictures", flush=True)


class Watched(ModelClient):
    """Counts what replies with tools held: calls with whole arguments, calls that break off, no call that is one.

    Of calls with a raw control character in a text, which its grammar lets pass and JSON does not, vLLM leaves nothing.
    """

    calls: Counter[str]

    async def complete(self, body: Mapping[str, Any], *, budget: Budget | None = None) -> dict[str, Any]:
        reply = await super().complete(body, budget=budget)
        if "tools" in body:
            (choice,) = reply["choices"]
            said = choice["message"].get("tool_calls") or []
            for call in said:
                try:
                    json.loads(call["function"]["arguments"])
                    self.calls[call["function"]["name"]] += 1
                except ValueError:
                    self.calls["malformed"] += 1
            if not said:
                self.calls[f"no call ({choice['finish_reason']})"] += 1
        return reply


class ByHand:
    """Plans and selects where no model does."""

    async def plan(self, order: Order) -> Sequence[Target]:
        return [target(number) for number in range(order.first, order.first + order.count)]

    async def select(self, wanted: Target) -> Picture:
        raise NoImage("nobody was asked")


def target(number: int) -> Target:
    return Target(
        category="shape",
        number=number,
        kind=SourceKind.SEARCH,
        source="search:openverse",
        knobs={},
        aim=Aim("calls teal green"),
        seed=number,
        query="teal circle",
    )


@contextmanager
def vllm(model: Path, *, text_only: bool, log: Path, extra: Sequence[str]) -> Iterator[str]:
    """A server of this model; its address, with /v1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    images = [] if text_only else ["--limit-mm-per-prompt", '{"image":16,"video":0}']
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "8192", "--max-num-seqs", "16"),
        *("--no-enable-chunked-prefill", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        *images,
        *extra,
    ]
    settings = {
        # without it vLLM takes a grammar for calls that allows white space without end; then the schemas bound a call
        "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # the tiny model was made for 2048; what it says is worthless anyway
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **settings}, start_new_session=True
        )
    started = time.monotonic()
    url = f"http://127.0.0.1:{port}"
    try:
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() - started > START_S:
                raise SystemExit(f"vLLM did not start; its last words:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(1)
        print(f"vLLM is ready after {time.monotonic() - started:.0f} s", flush=True)
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


async def tally(what: str, client: ModelClient, works: Sequence[Awaitable[Any]]) -> dict[str, int]:
    """How the works ended, how long that took and what it cost."""
    started, before = time.monotonic(), client.tokens
    ends: Counter[str] = Counter()
    for said in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(said, Rejected):
            ends[f"rejected: {said.rejection.reason}"] += 1
        elif isinstance(said, RequestFailed | NoImage):
            ends[f"{type(said).__name__}: {str(said)[:160]}"] += 1
        elif isinstance(said, BaseException):
            raise said
        else:
            ends["done" if said is None or not hasattr(said, "reason") else f"rejected: {said.reason}"] += 1
    spent = client.tokens
    tokens = f"{spent.prompt - before.prompt} + {spent.completion - before.completion} tokens"
    print(f"{what}: {dict(ends)}, {time.monotonic() - started:.1f} s, {tokens}", flush=True)
    return ends


async def exercise(endpoint: Endpoint, *, text_only: bool, loops: int) -> None:
    """Every agent, a few targets each."""
    examples = Examples(
        {
            "shape": [
                Example("p-1", "what color is it?", "teal", "green", None if text_only else glance(picture(1).image))
            ]
        }
    )
    async with Watched.of(endpoint) as client:
        planner = EndpointPlanner(
            ByHand(), client, endpoint, PlannerAgent(endpoint="x"), [], {"shape": [target(0).aim]}, examples, 7
        )
        await tally("plan", client, [planner.plan(Order("shape", 0, TARGETS, Feedback()))])
        by_model = PLANNED.labels("endpoint")._value.get()
        print(f"  targets that the model filled in: {by_model:.0f} of {TARGETS}")
        settings = SelectorAgent(endpoint="x", max_steps=12, max_tokens_per_target=100_000, temperature=1.0)
        client.calls, used = Counter(), Counter[str]()
        async with searched() as search:
            selector = EndpointSelector(client, endpoint, settings, Sources({search.name: search}), ByHand())

            async def select(number: int) -> Picture:
                found = await selector.select(target(number))
                used[" > ".join(call["tool"] for call in found.tool_calls)] += 1
                return found

            await tally("select", client, [select(n) for n in range(loops)])
        print(f"  replies: {dict(client.calls)}")
        print(f"  calls of those that ended with a picture: {dict(used)}")
        if text_only:
            return
        writer = EndpointWriter(client, endpoint, WriterAgent(endpoint="x"), examples)
        await tally("observe and write", client, [writer.write(target(n), picture(n)) for n in range(TARGETS)])
        validator = EndpointValidator(client, endpoint, client, endpoint)
        written = Written("What shape is present?", "circle", AnswerType.EXACT)
        await tally("validate", client, [validator.validate(target(n), picture(n), written) for n in range(TARGETS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BASE, help="folder of a model for vLLM")
    parser.add_argument("--url", help="a server that runs already, with /v1")
    parser.add_argument("--name", default="model", help="the model's name at --url")
    parser.add_argument("--text-only", action="store_true", help="the model takes no images: planner and selector only")
    parser.add_argument("--max-tokens", type=int, default=5000)
    parser.add_argument("--loops", type=int, default=32, help="targets that the selector looks for pictures of")
    parser.add_argument("--log", type=Path, default=Path("/tmp/agents-live-vllm.log"))
    parser.add_argument("--vllm", type=json.loads, default=[], help="more arguments for vLLM, as a JSON list")
    chosen = parser.parse_args()

    def go(url: str) -> None:
        endpoint = Endpoint(name="live", url=url, model=chosen.name, max_tokens=chosen.max_tokens, timeout_seconds=300)
        asyncio.run(exercise(endpoint, text_only=chosen.text_only, loops=chosen.loops))

    if chosen.url:
        go(chosen.url)
        return
    with vllm(chosen.model, text_only=chosen.text_only, log=chosen.log, extra=chosen.vllm) as url:
        go(url)


if __name__ == "__main__":
    main()
