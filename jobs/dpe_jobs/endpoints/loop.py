"""A model that calls tools until it is done, within a number of steps and of tokens.

The loop is pydantic-ai's: it puts tools and pictures into the protocol's form, checks arguments against the tools'
signatures, tells a model of unknown tools, wrong arguments and missing calls, and stops it. Requests go through
`ModelClient` all the same, so that retries, Retry-After, circuit breaker, budgets, counts and ledger are the same for
every question to an endpoint.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelRetry, Tool, ToolOutput, UsageLimits
from pydantic_ai.exceptions import AgentRunError, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

from dpe_jobs.client import ModelClient, Refused, RequestFailed
from dpe_jobs.runtime import StageError

__all__ = ["GaveOut", "Loop", "ModelRetry"]

_NO_REQUIRED = (400, 404, 422)  # statuses by which servers refuse `tool_choice: required`


class GaveOut(Exception):
    """The model came to no end. The message says why."""


class _Transport(httpx.AsyncBaseTransport):
    """Takes requests of the OpenAI SDK to a ModelClient."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self._choice = "required"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        body = {name: value for name, value in body.items() if name not in ("model", "stream")}
        return httpx.Response(200, json=_whole(await self._complete(body), self._client.model))

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A server that knows no `required` is asked politely from then on."""
        chosen = body | {"tool_choice": self._choice}
        try:
            return await self._client.complete(chosen)
        except Refused as error:
            if self._choice != "required" or error.status not in _NO_REQUIRED:
                raise
            try:
                reply = await self._client.complete(body | {"tool_choice": "auto"})
            except Refused:
                raise error from None  # it was refused for another reason
            self._choice = "auto"
            return reply


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
        seed: int,
    ) -> Any:
        """What one of `ends` returned: tools that end the loop when they are called with arguments that they take.

        Ends are annotated to return Any: the library makes schemas of what functions say that they return. A tool says
        no by ModelRetry, whose text the model reads. Tools run one after the other. GaveOut when the model has used
        its steps or tokens, or calls nothing that there is; RequestFailed when the service fails.
        """
        agent: Agent[None, Any] = Agent(
            self._model,
            output_type=[ToolOutput(end, name=end.__name__) for end in ends],
            instructions=system,
            tools=[Tool(tool, sequential=True) for tool in tools],
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
