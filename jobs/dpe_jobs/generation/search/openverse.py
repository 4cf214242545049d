"""Openverse: openly licensed images, with their licences.

Read: its API's schema (WordPress/openverse, packages/python/api-client: `Image`, `PaginatedImageList`), request
serializers (`q` of 200 characters at most, `page_size` of 20 at most without a token, 401 beyond; 240 images in all for
each query, docs of api.openverse.org), and licence constants. A token expires.
"""

from typing import Any, ClassVar

from dpe_jobs.generation.search import licences
from dpe_jobs.generation.search.results import ApiRequest, Complaint, Page, Result, mapping, pixels, rows, web_address
from dpe_jobs.generation.search.results import words as text

URL = "https://api.openverse.org/v1"
PAGE_SIZE = 20
MAX_PAGES = 12  # 240 results is all that it shows of a query


class Openverse:
    """Without a token 20 requests a minute and 200 a day."""

    name = "openverse"
    complaints: ClassVar = {
        (status, ""): Complaint("KeyRefused", "the token is wrong or has expired: get another, or go without")
        for status in (401, 403)
    }

    def __init__(self, url: str, key: str | None) -> None:
        """`key` is an access token."""
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def request(self, query: str, page: int) -> ApiRequest | None:
        """The question for a page."""
        if page > MAX_PAGES:
            return None
        asked: dict[str, str | int] = {"q": query, "page": page, "page_size": PAGE_SIZE, "mature": "false"}
        return ApiRequest(f"{self._url}/images/", parameters=asked, headers=self._headers)

    def read(self, body: Any, page: int) -> Page:
        """The results."""
        results = tuple(
            Result(
                image,
                page_url=web_address(row.get("foreign_landing_url")),
                title=text(row.get("title")),
                author=text(row.get("creator")),
                licence=licences.openverse(text(row.get("license")).lower(), text(row.get("license_version"))),
                width=pixels(row.get("width")),
                height=pixels(row.get("height")),
            )
            for row in rows(body, "results")
            if (image := web_address(row.get("url"))) and row.get("mature") is not True
        )
        pages = mapping(body).get("page_count")
        return Page(results, more=isinstance(pages, int) and page < min(pages, MAX_PAGES))
