"""Vectors of texts from an OpenAI-compatible /v1/embeddings endpoint."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from dpe_api.artifacts import Tokens
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import Account, ModelClient

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


class Embedder:
    """A model that embeds texts."""

    def __init__(self, endpoint: Endpoint, account: Account | None = None) -> None:
        self._endpoint, self._account = endpoint, account
        self.model = endpoint.model
        """By which the index remembers whose vectors it holds."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, all of one length. RequestFailed, BadConfig: as ModelClient has them."""
        async with ModelClient.of(self._endpoint, account=self._account) as client:

            async def some(batch: Sequence[str]) -> list[list[float]]:
                body = {"input": [text or " " for text in batch], "encoding_format": "float"}
                reply = await client.send("embeddings", body, lambda reply: _cost(reply, len(batch)))
                return vectors(reply, len(batch))

            found = await asyncio.gather(*(some(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)))
        return [vector for batch in found for vector in batch]

    def embed_now(self, texts: Sequence[str]) -> list[list[float]]:
        """The same, where no event loop runs."""
        return asyncio.run(self.embed(texts))
