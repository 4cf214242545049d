"""What came of each address, in the object store: a second run or a restart downloads nothing again.

`FOLDER/images/<hash of the address>.json` says what came of it; the file itself is beside it as `.bin`, put before. A
failure is remembered for an hour when it may pass, else for a week; an image until somebody deletes it.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from PIL import Image

from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.fetching.download import Downloader, Limits
from dpe_jobs.generation.fetching.reasons import PASSING, NotFetched, Reason
from dpe_jobs.store import Store, join

PASSING_S = 3600.0
LASTING_S = 7 * 24 * 3600.0
DECODERS = 2  # at once: each may hold a few hundred MB for a moment
_NOT_KEPT = (Reason.BAD_ADDRESS, Reason.BLOCKED_ADDRESS)  # found without asking, and the platform's list may change


@dataclass(frozen=True, slots=True)
class WebImage:
    """A picture from the web: RGB, upright, one frame."""

    image: Image.Image
    sha256: str
    """Of the file as it came."""
    url: str = ""
    """Where it was, after redirects."""
    cached: bool = field(default=False, compare=False)


class ImageCache:
    """Pictures by address, downloaded at most once."""

    def __init__(self, store: Store, folder: str, downloader: Downloader, limits: Limits | None = None) -> None:
        """`folder` is an s3:// address, shared by as many runs as one likes."""
        self._store, self._folder, self._downloader = store, join(folder, "images"), downloader
        self._limits = limits or Limits()
        self._decoders = asyncio.Semaphore(DECODERS)
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # who waits holds it

    async def picture(self, address: str, known: Mapping[str, str] | None = None) -> WebImage:
        """The picture at an address. NotFetched when there is none. `known` (licence, page) is kept beside it."""
        name = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
        lock = self._busy.setdefault(name, asyncio.Lock())
        async with lock:
            return await self._kept(name) or await self._fetched(name, address, known or {})

    async def _kept(self, name: str) -> WebImage | None:
        record = await asyncio.to_thread(self._store.find, join(self._folder, f"{name}.json"))
        if record is None:
            return None
        entry = json.loads(record)
        if entry["reason"] is not None:
            if time.time() >= entry["until"]:
                return None
            raise NotFetched(Reason(entry["reason"]), f"{entry['message']} (remembered)")
        data = await asyncio.to_thread(self._store.find, join(self._folder, f"{name}.bin"))
        if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return None  # somebody cleaned up, or two runs put different files: it comes anew
        return WebImage(await self._decoded(data), entry["sha256"], entry["url"], cached=True)

    async def _fetched(self, name: str, address: str, known: Mapping[str, str]) -> WebImage:
        entry: dict[str, Any] = {"address": address, "at": time.time(), "known": dict(known), "reason": None}
        try:
            came = await self._downloader.get(address)
            image = await self._decoded(came.data)
        except NotFetched as error:
            if error.reason not in _NOT_KEPT:
                seconds = PASSING_S if error.reason in PASSING else LASTING_S
                entry |= {"reason": error.reason, "message": error.message, "until": time.time() + seconds}
                await self._put(name, entry)
            raise
        digest = hashlib.sha256(came.data).hexdigest()
        await asyncio.to_thread(self._store.put, join(self._folder, f"{name}.bin"), came.data)
        await self._put(name, entry | {"sha256": digest, "url": came.url, "bytes": len(came.data)})
        return WebImage(image, digest, came.url)

    async def _put(self, name: str, entry: Mapping[str, Any]) -> None:
        data = json.dumps(entry, ensure_ascii=False).encode(errors="replace")
        await asyncio.to_thread(self._store.put, join(self._folder, f"{name}.json"), data)

    async def _decoded(self, data: bytes) -> Image.Image:
        async with self._decoders:
            return await asyncio.to_thread(decode, data, self._limits.pixels)
