"""Edits by a model behind an OpenAI-compatible `images/edits`: nobody knows what comes back before somebody looks.

The request is multipart/form-data as OpenAI has it (image, prompt, model, n). An answer holds the picture as base64 or
as an address, whichever the server likes: no format is asked for, since some models refuse the field. Answers are kept
in the store under what was asked, refusals too: a restart pays for no edit twice. What one cost, and the address that
it is still to come from, are in the ledger.
"""

import asyncio
import base64
import binascii
import hashlib
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import Any

from PIL import Image

from dpe_api.artifacts import Tokens
from dpe_api.generation_spec import SourceKind
from dpe_jobs.chat import encodable
from dpe_jobs.client import Budget, ModelClient, Refused
from dpe_jobs.generation.dedup import pixel_digest, thumbnail
from dpe_jobs.generation.edit import licence_of
from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.fetching.reasons import NotFetched
from dpe_jobs.generation.images import Origin, Picture
from dpe_jobs.generation.roles import Rejected
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import MAX_PIXELS
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""Downloads an image from an address that a stranger gave; NotFetched says why it does not."""

MODERATED = "EditModerated"
UNREADABLE = "EditUnreadable"
UNCHANGED = "EditUnchanged"

LONGEST_PROMPT = 1000  # characters: what the shortest-winded models take
_LARGEST_SIDE = 1024  # pixels of what is sent
_UNCHANGED = 0.5  # levels of 256, mean over the thumbnail
# codes by which services say that they will not, and not that they cannot
_MODERATION = frozenset({"moderation_blocked", "content_policy_violation", "content_filter", "contentFilter"})


def found(reply: Any) -> tuple[str, str]:
    """`b64_json` or `url`, and its value. ValueError: the reply is no answer of images/edits."""
    try:
        (entry,) = reply["data"]
        for form in ("b64_json", "url"):
            if isinstance(entry.get(form), str) and entry[form]:
                return form, entry[form]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the answer holds no edited image: {error!r}") from error
    raise ValueError(f"the answer's image has neither b64_json nor url, but {sorted(entry)}")


def cost(reply: Any) -> Tokens:
    """Tokens of a reply, none where it does not say. ValueError: it is no answer of images/edits."""
    form, value = found(reply)
    if form == "b64_json":
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"the answer's b64_json is no base64: {error}") from error
    usage = reply.get("usage") or {}
    return Tokens(prompt=int(usage.get("input_tokens") or 0), completion=int(usage.get("output_tokens") or 0))


def _png(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _payment(key: str, number: int) -> str:
    """Id of the ledger's row of the `number`th payment (from 0) for an edit."""
    return f"{key}-{number}" if number else key


class Editor:
    """One endpoint that edits."""

    def __init__(self, name: str, client: ModelClient, store: Store, folder: str, fetch: Fetch, ledger: Ledger) -> None:
        """`name` of the endpoint in the spec; answers go to `folder` (s3://, of this run), costs to `ledger`."""
        self.name, self._client, self._store, self._folder, self._fetch = name, client, store, folder, fetch
        self._ledger = ledger
        # tokens of an answer: nobody knows before it comes. Rows with a reply are of chats
        paid = (row for row in ledger if row.get("endpoint") == name and "reply" not in row)
        self._dearest: int = max((row["completion_tokens"] for row in paid), default=0)

    async def edit(self, picture: Picture, instruction: str, *, seed: int = 0, budget: Budget | None = None) -> Picture:
        """The edited picture, without facts. Another `seed` is another request for the same.

        Rejected: the service will not (EditModerated), sent no picture (EditUnreadable), or left it as it was
        (EditUnchanged). NoImage: the original's licence allows no edited copies, or the answer's address cannot be
        read. RequestFailed, BudgetSpent, BadConfig: as ModelClient has them.
        """
        licence = licence_of([picture.origin])
        instruction = " ".join(instruction.split())[:LONGEST_PROMPT]
        asked = [self.name, self._client.model, instruction, pixel_digest(picture.image), seed]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
        data = await self._kept(key)
        if data is None:
            data = await self._asked(key, picture.image, instruction, budget)
        image = await asyncio.to_thread(self._decoded, data)
        await asyncio.to_thread(self._check_changed, picture.image, image)
        source = f"edit:{self.name}"
        call = {"tool": source, "arguments": {"instruction": instruction}, "result": key}
        origin = Origin(
            kind=SourceKind.EDIT,
            source=source,
            id=key,
            licence=licence,
            title=picture.origin.title,
            author=picture.origin.author,
            parents=(picture.origin,),
        )
        return Picture(image=image, origin=origin, tool_calls=(*picture.tool_calls, call))

    async def _kept(self, key: str) -> bytes | None:
        """An earlier answer to the same; Rejected when it was a refusal."""
        data = await asyncio.to_thread(self._store.find, join(self._folder, f"{key}.bin"))
        if data is not None:
            return data
        refusal = await asyncio.to_thread(self._store.find, join(self._folder, f"{key}.json"))
        if refusal is not None:
            raise Rejected(**json.loads(refusal))
        return None

    async def _asked(self, key: str, image: Image.Image, instruction: str, budget: Budget | None) -> bytes:
        """The answer to what has none in the store. An address that an earlier attempt was given is read once more."""
        addresses = [row["url"] for row in self._payments(key) if "url" in row]
        if addresses:
            data = await self._fetch(addresses[-1])
        else:
            form, value = found(await self._paid(key, await asyncio.to_thread(_png, image), instruction, budget))
            data = base64.b64decode(value) if form == "b64_json" else await self._fetch(value)
        await self._put(f"{key}.bin", data)
        return data

    async def _paid(self, key: str, png: bytes, instruction: str, budget: Budget | None) -> dict[str, Any]:
        """The service's reply; what it cost is written down before anything else can go wrong."""
        try:
            reply = await self._client.send(
                "images/edits",
                {"prompt": instruction, "n": "1"},
                cost,
                files=[("image", ("image.png", png, "image/png"))],
                most=self._dearest,
                budget=budget,
            )
        except Refused as error:
            if error.about.code not in _MODERATION:
                raise
            refusal = {"reason": MODERATED, "detail": str(error)}
            await self._put(f"{key}.json", json.dumps(refusal).encode())
            raise Rejected(**refusal) from error
        tokens, (form, value) = cost(reply), found(reply)
        self._dearest = max(self._dearest, tokens.completion)
        row = {"endpoint": self.name, "calls": 1} | ({"url": encodable(value)} if form == "url" else {})
        row |= {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion}
        await asyncio.to_thread(self._write_down, key, row)
        return reply

    def _payments(self, key: str) -> Iterator[dict[str, Any]]:
        """What the ledger has of an edit: an answer that was lost on its way to the store is paid for once more."""
        for number in count():
            row = self._ledger.get(_payment(key, number))
            if row is None:
                return
            yield row

    def _write_down(self, key: str, row: Mapping[str, Any]) -> None:
        for number in count():
            if self._ledger.append({"id": _payment(key, number), **row}):
                return

    async def _put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._store.put, join(self._folder, name), data)

    def _decoded(self, data: bytes) -> Image.Image:
        try:
            return decode(data, MAX_PIXELS)
        except NotFetched as error:
            raise Rejected(UNREADABLE, f"endpoint {self.name} sent what is no usable picture: {error}") from error

    def _check_changed(self, before: Image.Image, after: Image.Image) -> None:
        if float(abs(thumbnail(before) - thumbnail(after)).mean()) < _UNCHANGED:
            raise Rejected(UNCHANGED, f"endpoint {self.name} sent the picture back as it was")
