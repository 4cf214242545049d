"""Questions, with an image or without, to a model behind an OpenAI-compatible API.

Retries are tenacity's, HTTP is httpx's. What is still refused or lost after them is a `RequestFailed`: an error of the
service, never a wrong answer of the model. An endpoint that can never answer (a refused key, a wrong address) is a
`BadConfig`, which ends the stage at once. docs/endpoints.md has the rules for users.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import httpx
from prometheus_client import Counter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from dpe_api.artifacts import Tokens
from dpe_api.endpoints import Endpoint, key_variable
from dpe_api.names import SERVED_MODEL_NAME
from dpe_jobs import tracing
from dpe_jobs.chat import Answers, Complaint, complaint, encodable, essence, messages, parse, retry_after_s
from dpe_jobs.endpoints.texts import digest
from dpe_jobs.failed import BudgetSpent, EndpointDown, Refused, RequestFailed
from dpe_jobs.ledger import Ledger
from dpe_jobs.patience import PROBED
from dpe_jobs.runtime import BadConfig
from dpe_jobs.spending import Account, Budget, Reservation, paying

__all__ = ["Account", "Answers", "Budget", "BudgetSpent", "EndpointDown", "ModelClient", "Refused", "RequestFailed"]

log = logging.getLogger(__name__)

CONNECT_S = 5.0  # a dead Service otherwise hangs for the kernel's own two minutes
WRITE_S = 30.0
GIVE_UP_S = 90.0  # longer than a rolling hiccup, shorter than a new serving attempt, which has another address
ENDPOINT_GIVE_UP_S = 300.0  # rate limits are by the minute
MAX_ATTEMPTS = 8  # those that the server itself puts off are not counted
BREAK_AFTER = 8  # requests in a row without an answer, each after its retries
READY_POLL_S = 1.0

COST = Counter("dpe_cost_total", "What tokens cost by the prices in the spec, in their currency", ["endpoint"])
TOKENS = Counter("dpe_tokens_total", "Tokens paid for", ["endpoint", "direction"])
REQUESTS = Counter("dpe_requests_total", "Requests sent, retries included", ["endpoint"])
ERRORS = Counter("dpe_request_errors_total", "Requests that brought no answer, by kind", ["endpoint", "kind"])


Files = Sequence[tuple[str, tuple[str, bytes, str]]]
"""Parts of a multipart body: field, and name, content and media type of the file."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request, apart from its repetitions."""

    path: str
    """Below the base address."""
    body: dict[str, Any]
    check: Callable[[Any], Tokens]
    """What a reply cost; ValueError: it is none."""
    files: Files = ()
    most: int = 0
    """Tokens that the reply may have."""


def _completion(n: int) -> Callable[[Any], Tokens]:
    def check(reply: Any) -> Tokens:
        answers = parse(reply, n)
        return Tokens(prompt=answers.prompt_tokens, completion=answers.completion_tokens)

    return check


class _TryAgain(Exception):
    def __init__(self, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after = kind, retry_after

    @property
    def put_off(self) -> bool:
        """The server lives, and asks for patience."""
        return self.kind == "http_429" or self.retry_after is not None


def _trouble(state: RetryCallState) -> _TryAgain | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, _TryAgain) else None


def _wait(state: RetryCallState) -> float:
    jitter = wait_random_exponential(multiplier=0.5, max=15)(state)
    trouble = _trouble(state)
    asked = trouble.retry_after if trouble else None
    return jitter if asked is None else asked + min(jitter, 1.0)


def _api_key(endpoint: Endpoint) -> str | None:
    """The key from the environment; None when the endpoint takes none. BadConfig when it is missing or no header."""
    if endpoint.api_key_secret_ref is None:
        return None
    variable = key_variable(endpoint.name)
    key = os.environ.get(variable, "").strip()  # a Secret made from a file ends with a newline
    if not key or not (key.isascii() and key.isprintable()):
        trouble = "is not one line of printable ASCII" if key else "is missing or empty"
        raise BadConfig(
            "EndpointKey",
            f"endpoint {endpoint.name}: its API key (environment variable {variable}) {trouble}: correct the Secret "
            "that its apiKeySecretRef names",
        )
    return key


class ModelClient:
    """A client of one model. Use as an async context manager; at most `concurrency` requests are in flight."""

    def __init__(
        self,
        base_url: str,
        *,
        concurrency: int,
        model: str = SERVED_MODEL_NAME,
        timeout_s: float = 120.0,
        give_up_s: float = GIVE_UP_S,
        endpoint: str = "model",
        key: str | None = None,
        outside: bool = False,
        account: Account | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """`base_url` is without /v1; `timeout_s` is the longest wait for an answer, `give_up_s` that for the end of
        trouble, from the first failure of a request; `endpoint` labels the metrics.

        `outside` the cluster are the spec's endpoints (see `of`): their address is used as it is. What `ledger` has an
        answer to is not asked again; new answers go there. `account` bounds what is spent.
        """
        self.model, self.concurrency = model, concurrency
        self._endpoint, self._give_up_s, self._key, self._outside = endpoint, give_up_s, key, outside
        self.account, self._ledger = account, ledger
        self._gate = asyncio.Semaphore(concurrency)
        limits = httpx.Limits(max_connections=concurrency + 2, max_keepalive_connections=concurrency)
        # a Service in the cluster is behind no proxy; outside, the environment may name one, or certificates
        served = None if outside else httpx.AsyncHTTPTransport(limits=limits, trust_env=False, socket_options=PROBED)
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + ("" if outside else "/v1"),
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S, write=WRITE_S, pool=None),
            limits=limits,
            transport=served,
            trust_env=outside,
        )
        self.where = f"endpoint {endpoint} ({base_url.rstrip('/')})" if outside else base_url.rstrip("/")
        """Who is asked, as messages call it."""
        self._prompt = self._completion = 0
        self._has_answered, self._failed_in_row = False, 0
        self._not_before = 0.0  # time.monotonic() before which the server wants no request
        self._not_taken: set[str] = set()  # fields that it does not know

    @classmethod
    def of(cls, endpoint: Endpoint, *, account: Account | None = None, ledger: Ledger | None = None) -> Self:
        """An endpoint of the spec, with its key from the environment. BadConfig when key or address are no good."""
        key = _api_key(endpoint)
        try:
            return cls(
                endpoint.url,
                concurrency=endpoint.max_concurrency,
                model=endpoint.model,
                timeout_s=endpoint.timeout_seconds,
                give_up_s=max(ENDPOINT_GIVE_UP_S, endpoint.timeout_seconds),
                endpoint=endpoint.name,
                key=key,
                outside=True,
                account=account,
                ledger=ledger,
            )
        except httpx.InvalidURL as error:
            raise BadConfig("EndpointAddress", f"endpoint {endpoint.name}: its url is no address: {error}") from error

    @property
    def tokens(self) -> Tokens:
        """Tokens paid for so far."""
        return Tokens(prompt=self._prompt, completion=self._completion)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once the service lists the model; RequestFailed with the last trouble after `deadline_s`."""
        end, trouble = time.monotonic() + deadline_s, "not asked yet"
        while True:
            try:
                response = await self._http.get("models", timeout=CONNECT_S)
                names = [m["id"] for m in response.json()["data"]] if response.status_code == 200 else []
                if self.model in names:
                    return
                trouble = f"HTTP {response.status_code}, models {names}"
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                trouble = repr(error)
            if time.monotonic() >= end:
                raise RequestFailed(f"{self.where} does not serve {self.model!r} after {deadline_s:g} s: {trouble}")
            await asyncio.sleep(READY_POLL_S)

    async def ask(
        self,
        image: bytes | Sequence[bytes] | None,
        question: str,
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int,
        seed: int | None = None,
        top_k: int | None = None,
        system: str | None = None,
        response_format: dict[str, Any] | None = None,
        budget: Budget | None = None,
    ) -> Answers:
        """`n` answers to a question, about an image or several, if there are any.

        Errors are those of `complete`.
        """
        body: dict[str, Any] = {
            "messages": messages(image, question, system),
            "n": n,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            "top_k": top_k,
            "response_format": response_format,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return parse(await self.complete(body, budget=budget), n)

    async def complete(self, body: Mapping[str, Any], *, budget: Budget | None = None) -> dict[str, Any]:
        """The chat completion, as the API has it, that a request brings; `body` is the request without `model`.

        The same request brings the same answer for ever where the client has a ledger: who wants another one gives
        another seed. RequestFailed when the service gives none: Refused at once, EndpointDown when it has long been
        silent, BudgetSpent when `budget` or account allow no more, else after retries. BadConfig when it never will.
        """
        body = {"model": self.model, **body}
        n = body.get("n", 1)
        most = n * body.get("max_tokens", body.get("max_completion_tokens", 0))
        call = _Call("chat/completions", body, _completion(n), most=most)
        if self._ledger is None:
            reply, _ = await self._through_gate(call, budget)
            return dict(encodable(reply))
        key = digest(self._endpoint, json.dumps(body, sort_keys=True))
        row = self._ledger.get(key)
        if row is None:
            reply, tokens = await self._through_gate(call, budget)
            row = {"id": key, "endpoint": self._endpoint, "reply": encodable(essence(reply)), "calls": 1}
            row |= {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion}
            await asyncio.to_thread(self._ledger.append, row)  # may flush, for as long as the store is away
        reply = row["reply"]
        return dict(reply)

    async def send(
        self,
        path: str,
        body: Mapping[str, Any],
        check: Callable[[Any], Tokens],
        *,
        files: Files = (),
        most: int = 0,
        budget: Budget | None = None,
    ) -> dict[str, Any]:
        """The reply of another part of the API: `embeddings`, `images/edits`; errors are those of `complete`.

        `check` says what a reply cost, ValueError when it is none: then it is asked for again. With `files` the body
        goes as multipart/form-data. `most` tokens are kept back for the reply. No ledger remembers it.
        """
        call = _Call(path, {"model": self.model, **body}, check, files, most)
        return (await self._through_gate(call, budget))[0]

    async def _through_gate(self, call: _Call, budget: Budget | None) -> tuple[dict[str, Any], Tokens]:
        async with self._gate:
            while True:
                sent = self._taken(call.body)
                try:
                    return await self._through_trouble(replace(call, body=sent), budget)
                except Refused as error:
                    if not self._learn(error, sent):
                        raise

    def _taken(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without the fields that this endpoint does not know; max_tokens has a newer name."""
        sent = {name: value for name, value in body.items() if name not in self._not_taken}
        if "max_tokens" in self._not_taken:
            sent["max_completion_tokens"] = body["max_tokens"]
        return sent

    def _learn(self, refused: Refused, sent: dict[str, Any]) -> bool:
        """Whether an endpoint refused only because of a field that can be left out: then it is, from now on.

        Reasoning models of OpenAI take neither max_tokens nor a temperature. A served model is never asked otherwise
        than the spec says.
        """
        name = refused.about.parameter
        known = refused.about.code in ("unsupported_parameter", "unsupported_value")
        if not (self._outside and known and name in ("max_tokens", "temperature", "seed") and name in sent):
            return False
        log.warning("%s takes no %s: it is left out", self.where, name)
        self._not_taken.add(name)
        return True

    async def _through_trouble(self, call: _Call, budget: Budget | None) -> tuple[dict[str, Any], Tokens]:
        self._check_alive()
        again, stop = retry_if_exception_type(_TryAgain), self._enough()
        retrying = AsyncRetrying(retry=again, stop=stop, wait=_wait, reraise=True)
        try:
            answered: tuple[dict[str, Any], Tokens] = await retrying(self._once, call, budget)
        except _TryAgain as error:
            self._failed_in_row += 1
            self._check_alive(error)
            raise RequestFailed(str(error)) from error
        except Refused:
            self._failed_in_row = 0
            raise
        self._has_answered, self._failed_in_row = True, 0
        return answered

    def _check_alive(self, error: _TryAgain | None = None) -> None:
        """EndpointDown when an endpoint left too many requests in a row without an answer."""
        if self._outside and self._failed_in_row >= BREAK_AFTER:
            said = f"; the last one: {error}" if error else ""
            raise EndpointDown(f"{self.where} left {self._failed_in_row} requests in a row without an answer{said}")

    def _enough(self) -> Callable[[RetryCallState], bool]:
        """Whether to give up one request: too long, too often, or the endpoint was found dead by others."""
        since: float | None = None

        def enough(state: RetryCallState) -> bool:
            nonlocal since
            trouble, now = _trouble(state), state.outcome_timestamp or time.monotonic()
            if since is None:
                # a long answer may be lost at its very end; a time-out was trouble from the start
                since = state.start_time if trouble is not None and trouble.kind == "timeout" else now
            if now - since >= self._give_up_s:
                return True
            if self._outside and self._failed_in_row >= BREAK_AFTER:
                return True
            put_off = trouble is not None and trouble.put_off
            return state.attempt_number >= MAX_ATTEMPTS and not put_off

        return enough

    async def _once(self, call: _Call, budget: Budget | None) -> tuple[dict[str, Any], Tokens]:
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:  # one request was told to wait: that holds for all, and they come back one by one
            await asyncio.sleep(wait_s + random.uniform(0, min(wait_s, 1.0)))
        async with paying(self.account, budget, call.most) as reservation:
            REQUESTS.labels(self._endpoint).inc()
            try:
                reply, tokens = await self._exchange(call, reservation)
            except _TryAgain as error:
                ERRORS.labels(self._endpoint, error.kind).inc()
                if error.retry_after is not None and self._outside:
                    self._not_before = max(self._not_before, time.monotonic() + error.retry_after)
                raise
            except (Refused, BadConfig):
                ERRORS.labels(self._endpoint, "refused").inc()
                raise
            reservation.prompt, reservation.completion = tokens.prompt, tokens.completion
        self._count(tokens)
        return reply, tokens

    def _count(self, tokens: Tokens) -> None:
        self._prompt += tokens.prompt
        self._completion += tokens.completion
        TOKENS.labels(self._endpoint, "prompt").inc(tokens.prompt)
        TOKENS.labels(self._endpoint, "completion").inc(tokens.completion)
        if self.account is not None:
            COST.labels(self._endpoint).inc(self.account.cost(tokens.prompt, tokens.completion))

    async def _exchange(self, call: _Call, reservation: Reservation) -> tuple[dict[str, Any], Tokens]:
        """Request and reply, as a span; names are those of OpenTelemetry's conventions for generative AI."""
        operation = call.path.partition("/")[0]
        named = {"gen_ai.operation.name": operation, "gen_ai.request.model": self.model, "dpe.endpoint": self._endpoint}
        url = f"{str(self._http.base_url).rstrip('/')}/{call.path}"
        with tracing.request(f"{operation} {self.model}", "POST", url, **named) as span:
            response = await self._post(call, reservation)
            tracing.answered(span, response.status_code)
            reply, tokens = self._read(response, call)
            span.set_attribute("gen_ai.usage.input_tokens", tokens.prompt)
            span.set_attribute("gen_ai.usage.output_tokens", tokens.completion)
        return reply, tokens

    async def _post(self, call: _Call, reservation: Reservation) -> httpx.Response:
        """The server's reply, whatever its status. What timed out may have cost something, what is refused has not."""
        try:
            content: dict[str, Any] = {"json": call.body}
            if call.files:
                content = {"data": call.body, "files": list(call.files)}
            response = await self._http.post(call.path, headers=tracing.headers(), **content)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
                reservation.nothing()  # nothing was sent
            raise _TryAgain("timeout", f"{self.where}: {type(error).__name__}") from error
        except httpx.RequestError as error:
            if isinstance(error, httpx.ConnectError):
                reservation.nothing()
            raise _TryAgain("connection", self._clean(f"{self.where}: {error!r}")) from error
        if response.status_code != 200:
            reservation.nothing()
        return response

    def _read(self, response: httpx.Response, call: _Call) -> tuple[dict[str, Any], Tokens]:
        status = response.status_code
        if status == 200:
            try:
                reply = response.json()
                return reply, call.check(reply)
            except ValueError as error:
                raise _TryAgain("body", self._clean(f"{self.where}: {error}")) from error
        try:
            about = complaint(response.json())
        except ValueError:
            about = Complaint()
        if self._outside:
            self._check_usable(status, about, call.path)
        message = self._clean(f"{self.where}: HTTP {status}: {response.text[:300]}")
        if status in (408, 425, 429) or status >= 500:
            raise _TryAgain(f"http_{status}", message, retry_after_s(response.headers))
        raise Refused(message, status, about)

    def _check_usable(self, status: int, about: Complaint, path: str) -> None:
        """BadConfig when no request will ever be answered. A body is not quoted: some repeat part of the key."""
        where = f"{self.where}: HTTP {status}"
        if status == 401:
            mend = "correct the key in its Secret" if self._key else "name its key in apiKeySecretRef"
            raise BadConfig(
                "EndpointRefused", f"{where}: the API key is {'refused' if self._key else 'missing'}: {mend}"
            )
        if status == 402 or about.code == "insufficient_quota":
            raise BadConfig("EndpointRefused", f"{where}: the account has no credit left: top it up and start again")
        if not self._has_answered and (300 <= status < 400 or status == 404):
            raise BadConfig(
                "EndpointRefused",
                f"{where}: it has no {path} there, or no model {self.model!r}: correct url (with /v1 where the server "
                "has one) or model",
            )

    def _clean(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")
