"""Serper: Google's image search.

Read: clients of google.serper.dev/images (yigitkonur/serper-deno-sdk, tryAGI/Serper: request, `images[]` with
`imageUrl`, `imageWidth`, `link`), and replies as users report them: 403 `Unauthorized.`, 400 `Not enough credits`.
Google tells no licence.
"""

from typing import Any, ClassVar

from dpe_jobs.generation.search.results import ApiRequest, Complaint, Page, Result, pixels, rows, web_address
from dpe_jobs.generation.search.results import words as text

URL = "https://google.serper.dev"
PAGE_SIZE = 20
MAX_PAGES = 5


class Serper:
    """Costs a credit for each page."""

    name = "serper"
    complaints: ClassVar = {
        (400, "credit"): Complaint("QuotaSpent", "the account has no credits left: buy some"),
        (403, ""): Complaint("KeyRefused", "correct the key in its Secret"),
    }

    def __init__(self, url: str, key: str | None) -> None:
        """`key` is the account's API key."""
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"X-API-KEY": key}

    def request(self, query: str, page: int) -> ApiRequest | None:
        """The question for a page."""
        if page > MAX_PAGES:
            return None
        asked = {"q": query, "num": PAGE_SIZE, "page": page, "safe": "active"}
        return ApiRequest(f"{self._url}/images", method="POST", json=asked, headers=self._headers)

    def read(self, body: Any, page: int) -> Page:
        """The results."""
        found = rows(body, "images")
        results = tuple(
            Result(
                image,
                page_url=web_address(row.get("link")),
                title=text(row.get("title")),
                author=text(row.get("creator") or row.get("source")),
                width=pixels(row.get("imageWidth")),
                height=pixels(row.get("imageHeight")),
            )
            for row in found
            if (image := web_address(row.get("imageUrl")))
        )
        return Page(results, more=bool(found) and page < MAX_PAGES)
