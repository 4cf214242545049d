"""A model that calls tools until it is done, within a number of steps and of tokens.

The loop is pydantic-ai's: it puts tools and pictures into the protocol's form, checks arguments against the tools'
signatures, tells a model of unknown tools, wrong arguments and missing calls, and stops it. Requests go through
`ModelClient` all the same, so that retries, Retry-After, circuit breaker, budgets, counts and ledger are the same for
every question to an endpoint.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelRetry, RunContext, Tool, ToolDefinition, ToolOutput, UsageLimits
from pydantic_ai.capabilities import PrepareOutputTools, PrepareTools
from pydantic_ai.exceptions import AgentRunError, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

from dpe_jobs.client import ModelClient, Refused, RequestFailed
from dpe_jobs.runtime import StageError

__all__ = ["GaveOut", "Loop", "ModelRetry"]

_DEMANDS: tuple[dict[str, Any], ...] = (
    # one call in a reply: vLLM constrains a required call to a list of calls, which a weak model never closes
    {"tool_choice": "required", "parallel_tool_calls": False},
    {"tool_choice": "required"},
    {"tool_choice": "auto"},
)
"""What is demanded of a reply; of a server that refuses one, the next one."""
_REFUSALS = (400, 404, 422)  # statuses by which servers refuse a demand that they do not know


Offer = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""The schema of a tool's arguments as it holds now; None: the tool has no use yet."""


class GaveOut(Exception):
    """The model came to no end. The message says why."""


class _Transport(httpx.AsyncBaseTransport):
    """Takes requests of the OpenAI SDK to a ModelClient."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self._demands = _DEMANDS

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        body = {name: value for name, value in body.items() if name not in ("model", "stream")}
        return httpx.Response(200, json=_whole(await self._complete(body), self._client.model))

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A server is asked for the most that it does not refuse, from then on too."""
        refused: Refused | None = None
        for number, demand in enumerate(self._demands):
            try:
                reply = await self._client.complete(body | demand)
            except Refused as error:
                if error.status not in _REFUSALS:
                    raise
                refused = refused or error
            else:
                self._demands = self._demands[number:]
                return reply
        assert refused is not None, "there is a demand left"
        raise refused  # it was refused for another reason


def _whole(reply: dict[str, Any], model: str) -> dict[str, Any]:
    """A chat completion with all that the SDK's form of it requires; servers leave out some."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, **(reply.get("usage") or {})}
    usage.setdefault("total_tokens", usage["prompt_tokens"] + usage["completion_tokens"])
    whole = {"id": "", "created": 0, "model": model, **reply, "object": "chat.completion", "usage": usage}
    for choice in whole["choices"]:
        choice["message"].setdefault("role", "assistant")
    return whole


def _ours(error: BaseException) -> RequestFailed | StageError | None:
    """The error of this project that libraries wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RequestFailed | StageError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class Loop:
    """Tool loops with one endpoint."""

    def __init__(
        self, client: ModelClient, *, max_tokens: int, temperature: float, max_steps: int, most_tokens: int
    ) -> None:
        """`max_tokens` of one reply; `max_steps` requests and `most_tokens`, prompts included, of one loop."""
        self._client, self._steps, self._most_tokens = client, max_steps, most_tokens
        sdk = AsyncOpenAI(
            api_key="-",  # the client has it
            base_url="http://endpoint",
            max_retries=0,
            http_client=httpx.AsyncClient(transport=_Transport(client)),  # type: ignore[arg-type]  # it takes both
        )
        # the name of the field that every server knows; those that know only the newer one are told by the client
        profile = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
        self._model = OpenAIChatModel(client.model, provider=OpenAIProvider(openai_client=sdk), profile=profile)
        self._settings = OpenAIChatModelSettings(max_tokens=max_tokens, temperature=temperature)

    async def run(
        self,
        task: str,
        *,
        system: str,
        tools: Sequence[Callable[..., Any]],
        ends: Sequence[Callable[..., Any]],
        offer: Offer,
        seed: int,
    ) -> Any:
        """What one of `ends` returned: tools that end the loop when they are called with arguments that they take.

        Ends are annotated to return Any: the library makes schemas of what functions say that they return. A tool says
        no by ModelRetry, whose text the model reads. Tools run one after the other. `offer` says before each step what
        may be called, so that a server that constrains calls lets no model call what would fail. GaveOut when the model
        has used its steps or tokens, or calls nothing that there is; RequestFailed when the service fails.
        """

        def offered(_: RunContext[None], tools: list[ToolDefinition]) -> list[ToolDefinition]:
            schemas = [offer(tool.parameters_json_schema) for tool in tools]
            pairs = zip(tools, schemas, strict=True)
            return [replace(tool, parameters_json_schema=dict(now)) for tool, now in pairs if now is not None]

        agent: Agent[None, Any] = Agent(
            self._model,
            output_type=[ToolOutput(end, name=end.__name__) for end in ends],
            instructions=system,
            tools=[Tool(tool, sequential=True) for tool in tools],
            capabilities=[PrepareTools(offered), PrepareOutputTools(offered)],
            retries=self._steps,
            model_settings=self._settings | OpenAIChatModelSettings(seed=seed),
        )
        limits = UsageLimits(request_limit=self._steps, total_tokens_limit=self._most_tokens)
        try:
            return (await agent.run(task, usage_limits=limits)).output
        except UsageLimitExceeded as error:
            said = str(error).partition(". ")[0]  # then it says where its own documentation is
            raise GaveOut(f"{self._client.where}: {said}") from error
        except AgentRunError as error:
            ours = _ours(error)
            if ours is not None:
                raise ours from error
            raise GaveOut(f"{self._client.where}: {error}"[:500]) from error
