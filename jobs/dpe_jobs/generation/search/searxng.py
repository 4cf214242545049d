"""SearXNG: a metasearch engine of one's own.

Read: docs.searxng.org/dev/search_api (parameters, 403 where the format is switched off), and of its source the result
types (`img_src`, `url`, `resolution`, `author`) and engines of the category images. It asks engines of others, none of
which tells a licence through it.
"""

import re
from typing import Any, ClassVar

from dpe_jobs.generation.search.results import (
    ApiRequest,
    Complained,
    Complaint,
    Page,
    Result,
    mapping,
    pixels,
    rows,
    web_address,
    words,
)

MAX_PAGES = 10
_SIZE = re.compile(r"\s*(\d{1,7})\s*[x×]\s*(\d{1,7})\b")


class SearXNG:
    """An instance, whose settings.yml must list `json` under search.formats."""

    name = "searxng"
    complaints: ClassVar = {
        (403, ""): Complaint(
            "WrongAddress",
            "add json to search.formats in the instance's settings.yml, or let this pod through its limiter",
        )
    }

    def __init__(self, url: str, key: str | None) -> None:
        """`url` is the instance's; a key is a bearer token for a proxy before it: SearXNG itself knows none."""
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def request(self, query: str, page: int) -> ApiRequest | None:
        """The question for a page."""
        if page > MAX_PAGES:
            return None
        asked: dict[str, str | int] = {"q": query, "categories": "images", "format": "json", "pageno": page}
        return ApiRequest(f"{self._url}/search", parameters=asked | {"safesearch": 2}, headers=self._headers)

    def read(self, body: Any, page: int) -> Page:
        """The results. An empty list while engines did not answer is no answer."""
        results = tuple(found for row in rows(body, "results") if (found := self._result(row)) is not None)
        silent = mapping(body).get("unresponsive_engines")
        if not results and isinstance(silent, list) and silent:
            named = ", ".join(words(" ".join(map(str, e)) if isinstance(e, list) else e) for e in silent[:5])
            raise Complained(Complaint("Unavailable", f"its engines did not answer: {named}"), retry=True)
        return Page(results, more=bool(results) and page < MAX_PAGES)

    def _result(self, row: Any) -> Result | None:
        image = web_address(row.get("img_src"), "https:")
        if not image:
            return None
        size = _SIZE.match(str(row.get("resolution") or ""))
        return Result(
            image,
            page_url=web_address(row.get("url")),
            title=words(row.get("title")),
            author=words(row.get("author")),
            width=pixels(size[1]) if size else 0,
            height=pixels(size[2]) if size else 0,
        )
