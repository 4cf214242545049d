"""Questions about images to a model behind an OpenAI-compatible API.

Retries are tenacity's, HTTP is httpx's. What is still refused or lost after them is a `RequestFailed`: an error of the
service, never a wrong answer of the model.
"""

import asyncio
import base64
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
from prometheus_client import Counter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from dpe_api.artifacts import Tokens
from dpe_api.names import SERVED_MODEL_NAME

log = logging.getLogger(__name__)

CONNECT_S = 5.0  # a dead Service otherwise hangs for the kernel's own two minutes
WRITE_S = 30.0
GIVE_UP_S = 90.0  # longer than a rolling hiccup, shorter than a new serving attempt, which has another address
MAX_ATTEMPTS = 8
MAX_RETRY_AFTER_S = 60.0
READY_POLL_S = 1.0

TOKENS = Counter("dpe_tokens_total", "Tokens paid for", ["endpoint", "direction"])
REQUESTS = Counter("dpe_requests_total", "Requests sent, retries included", ["endpoint"])
ERRORS = Counter("dpe_request_errors_total", "Requests that brought no answer, by kind", ["endpoint", "kind"])


class RequestFailed(Exception):
    """The service gave no answer, in spite of retries. The message says what it said."""


class _TryAgain(Exception):
    def __init__(self, kind: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after_s = kind, retry_after_s


@dataclass(frozen=True, slots=True)
class Answers:
    """`n` answers to one question, and what they cost."""

    texts: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


def data_uri(image: bytes) -> str:
    """An image file as a data: address. The type is told by its first bytes; unknown ones are called PNG."""
    kinds = {b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"BM": "bmp"}
    kind = next((name for magic, name in kinds.items() if image.startswith(magic)), "png")
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 10.2.3: seconds or a date), capped; None without a readable one."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None


def _wait(state: RetryCallState) -> float:
    jitter = wait_random_exponential(multiplier=0.5, max=15)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, _TryAgain) else None
    return jitter if asked is None else asked + min(jitter, 1.0)


def _parse(body: Any, n: int) -> Answers:
    """Answers of a chat completion; _TryAgain when the body is not one."""
    try:
        contents = [choice["message"]["content"] for choice in body["choices"]]
        if not all(text is None or isinstance(text, str) for text in contents):
            raise TypeError("content is no text")
        texts = tuple(text or "" for text in contents)
        usage = body.get("usage") or {}
        prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _TryAgain("body", f"the answer is no chat completion: {error!r}") from error
    if len(texts) != n:
        raise _TryAgain("body", f"asked for {n} answers, got {len(texts)}")
    return Answers(texts, prompt, completion)


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
    ) -> None:
        """`base_url` is without /v1; `timeout_s` is the longest wait for an answer; `endpoint` labels the metrics."""
        self._model, self._endpoint, self._give_up_s = model, endpoint, give_up_s
        self._gate = asyncio.Semaphore(concurrency)
        # no proxy from the environment: the address is a Service in the cluster
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S, write=WRITE_S, pool=None),
            limits=httpx.Limits(max_connections=concurrency + 2, max_keepalive_connections=concurrency),
            trust_env=False,
        )
        self._prompt = self._completion = 0

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
                response = await self._http.get("/v1/models", timeout=CONNECT_S)
                names = [m["id"] for m in response.json()["data"]] if response.status_code == 200 else []
                if self._model in names:
                    return
                trouble = f"HTTP {response.status_code}, models {names}"
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                trouble = repr(error)
            if time.monotonic() >= end:
                raise RequestFailed(
                    f"{self._http.base_url} does not serve {self._model!r} after {deadline_s:g} s: {trouble}"
                )
            await asyncio.sleep(READY_POLL_S)

    async def ask(
        self,
        image: bytes,
        question: str,
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int,
        seed: int | None = None,
        top_k: int | None = None,
    ) -> Answers:
        """`n` answers about an image. RequestFailed when the service refuses or, in spite of retries, gives none."""
        body: dict[str, object] = {
            "model": self._model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": data_uri(image)}},
                        {"type": "text", "text": question},
                    ],
                }
            ],
            "n": n,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if seed is not None:
            body["seed"] = seed
        if top_k is not None:
            body["top_k"] = top_k
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_delay(self._give_up_s) | stop_after_attempt(MAX_ATTEMPTS),
            wait=_wait,
            reraise=True,
        )
        async with self._gate:
            try:
                answers: Answers = await retrying(self._once, body, n)
            except _TryAgain as error:
                raise RequestFailed(str(error)) from error
        self._count(answers)
        return answers

    def _count(self, answers: Answers) -> None:
        self._prompt += answers.prompt_tokens
        self._completion += answers.completion_tokens
        TOKENS.labels(self._endpoint, "prompt").inc(answers.prompt_tokens)
        TOKENS.labels(self._endpoint, "completion").inc(answers.completion_tokens)

    async def _once(self, body: dict[str, object], n: int) -> Answers:
        REQUESTS.labels(self._endpoint).inc()
        try:
            return await self._post(body, n)
        except _TryAgain as error:
            ERRORS.labels(self._endpoint, error.kind).inc()
            raise
        except RequestFailed:
            ERRORS.labels(self._endpoint, "refused").inc()
            raise

    async def _post(self, body: dict[str, object], n: int) -> Answers:
        try:
            response = await self._http.post("/v1/chat/completions", json=body)
        except httpx.TimeoutException as error:
            raise _TryAgain("timeout", f"{self._http.base_url}: {type(error).__name__}") from error
        except httpx.TransportError as error:
            raise _TryAgain("connection", f"{self._http.base_url}: {error!r}") from error
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:
            message = f"{self._http.base_url}: HTTP {status}: {response.text[:300]}"
            raise _TryAgain(f"http_{status}", message, retry_after_s(response.headers))
        if status != 200:
            raise RequestFailed(f"{self._http.base_url}: HTTP {status}: {response.text[:300]}")
        try:
            parsed = response.json()
        except ValueError as error:
            raise _TryAgain("body", f"{self._http.base_url}: the answer is no JSON: {error}") from error
        return _parse(parsed, n)
