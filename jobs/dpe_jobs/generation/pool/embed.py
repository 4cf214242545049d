"""Vectors of texts from an OpenAI-compatible /v1/embeddings endpoint."""

import asyncio
import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpe_api.artifacts import Tokens
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.texts import digest
from dpe_jobs.ledger import Ledger

_BATCH = 64  # texts of one request


def vectors(reply: Any, count: int) -> list[list[float]]:
    """The vectors of a reply, in the order of the texts. ValueError: it is none, or has not `count` of one length."""
    try:
        data = sorted(reply["data"], key=lambda entry: entry["index"])
        found = [[float(value) for value in entry["embedding"]] for entry in data]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the answer is no list of embeddings: {error!r}") from error
    if len(found) != count or len({len(vector) for vector in found}) != 1 or not found[0]:
        raise ValueError(f"asked for {count} embeddings, got {len(found)} of lengths {sorted({len(v) for v in found})}")
    if not all(math.isfinite(value) for vector in found for value in vector):
        raise ValueError("an embedding holds a value that is no number")
    return found


def _cost(reply: Any, count: int) -> Tokens:
    vectors(reply, count)
    usage = reply.get("usage") or {}
    return Tokens(prompt=int(usage.get("prompt_tokens") or 0))


async def _ask(client: ModelClient, texts: Sequence[str]) -> tuple[list[list[float]], Tokens]:
    """The vectors of one batch, and what they cost."""
    body = {"input": [text or " " for text in texts], "encoding_format": "float"}
    reply = await client.send("embeddings", body, lambda reply: _cost(reply, len(texts)))
    return vectors(reply, len(texts)), _cost(reply, len(texts))


class Embedder:
    """A model that embeds the texts of an index."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.model = endpoint.model
        """By which the index remembers whose vectors it holds."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, all of one length. RequestFailed, BadConfig: as ModelClient has them."""
        async with ModelClient.of(self._endpoint) as client:
            batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
            found = await asyncio.gather(*(_ask(client, batch) for batch in batches))
        return [vector for batch, _ in found for vector in batch]

    def embed_now(self, texts: Sequence[str]) -> list[list[float]]:
        """The same, where no event loop runs."""
        return asyncio.run(self.embed(texts))


class QueryEmbedder:
    """A model that embeds what is searched for, each text once: later attempts find its vector in a ledger."""

    def __init__(self, name: str, client: ModelClient, ledger: Ledger) -> None:
        """`name` of the endpoint, by which the ledger knows what it has cost."""
        self.model = client.model
        self._name, self._client, self._ledger = name, client, ledger
        self._turns: dict[str, asyncio.Lock] = {}

    async def embed(self, text: str) -> list[float]:
        """The vector of a text. RequestFailed, BudgetSpent, BadConfig: as ModelClient has them."""
        key = digest("embedding", self._name, self.model, text)
        async with self._turns.setdefault(key, asyncio.Lock()):  # who asks the same waits for the answer
            row = self._ledger.get(key) or await self._paid(key, text)
        self._turns.pop(key, None)
        found: list[float] = np.frombuffer(base64.b64decode(row["vector"]), "<f4").tolist()
        return found

    async def _paid(self, key: str, text: str) -> dict[str, Any]:
        ((vector,), tokens) = await _ask(self._client, [text])
        packed = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()  # as OpenAI's base64 form has it
        row = {"id": key, "endpoint": self._name, "vector": packed, "calls": 1}
        row |= {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion}
        await asyncio.to_thread(self._ledger.append, row)
        return row
