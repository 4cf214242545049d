"""Wikimedia Commons: free media, with their licences.

Read: the MediaWiki Action API as the clients of SearXNG (engines/wikicommons) and Openverse (its ingester
wikimedia_commons.py) use it: generator=search in namespace 6, prop=imageinfo with extmetadata (`License`,
`LicenseShortName`, `Artist`, `ObjectName`), `continue`, and errors that come with status 200 (`maxlag`, `ratelimited`).
Wikimedia wants a User-Agent with a contact and thumbnails of standard widths instead of originals.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from dpe_jobs.generation.search.licences import spdx
from dpe_jobs.generation.search.results import (
    ApiRequest,
    Complained,
    Complaint,
    Page,
    Result,
    html_words,
    mapping,
    pixels,
    rows,
    web_address,
    words,
)

URL = "https://commons.wikimedia.org/w/api.php"
PAGE_SIZE = 20
MAX_PAGES = 10
THUMBNAIL = 1280  # pixels wide: one of the widths that Wikimedia keeps ready
_PASSING = ("maxlag", "ratelimited", "readonly", "internal_api_error_")


class Wikimedia:
    """Bitmaps of Wikimedia Commons, or of another MediaWiki with the extension CommonsMetadata."""

    name = "wikimedia"
    complaints: ClassVar = {
        (403, ""): Complaint(
            "KeyRefused", "set the Helm value downloads.userAgent to one with a contact, or correct the token"
        )
    }

    def __init__(self, url: str, key: str | None) -> None:
        """`url` is that of api.php; `key` an OAuth 2 access token, which raises the limits."""
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def request(self, query: str, page: int) -> ApiRequest | None:
        """The question for a page."""
        if page > MAX_PAGES:
            return None
        asked: dict[str, str | int] = {
            "action": "query",
            "format": "json",
            "formatversion": 2,
            "maxlag": 5,
            "generator": "search",
            "gsrsearch": f"filetype:bitmap {query}",
            "gsrnamespace": 6,
            "gsrlimit": PAGE_SIZE,
            "gsroffset": (page - 1) * PAGE_SIZE,
            "prop": "imageinfo",
            "iiprop": "url|size|mime|extmetadata",
            "iiurlwidth": THUMBNAIL,
            "iiextmetadatalanguage": "en",
            "iiextmetadatafilter": "License|LicenseShortName|Artist|ObjectName",
        }
        return ApiRequest(self._url, parameters=asked, headers=self._headers)

    def read(self, body: Any, page: int) -> Page:
        """The results in the order of the search."""
        answer = mapping(body)
        if "error" in answer:
            raise self._complained(mapping(answer["error"]))
        if "query" not in answer and "batchcomplete" not in answer:
            raise ValueError("the answer has neither query nor batchcomplete")
        found = rows(answer["query"], "pages") if "query" in answer else []
        found.sort(key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0)
        results = tuple(result for row in found if (result := self._result(row)) is not None)
        return Page(results, more="gsroffset" in mapping(answer.get("continue")) and page < MAX_PAGES)

    @staticmethod
    def _complained(error: Mapping[str, Any]) -> Complained:
        code = words(error.get("code"))
        if code in ("badtoken", "mwoauth-invalid-authorization"):
            return Complained(Complaint("KeyRefused", "correct the token in its Secret"), retry=False)
        passing = code.startswith(_PASSING)
        kind = "RateLimited" if code == "ratelimited" else "Unavailable" if passing else "Refused"
        return Complained(Complaint(kind, f"it says {code!r}"), retry=passing)

    @staticmethod
    def _result(row: Mapping[str, Any]) -> Result | None:
        infos = row.get("imageinfo")
        info = mapping(infos[0]) if isinstance(infos, list) and infos else {}
        original = web_address(info.get("url"))
        if not original:
            return None
        width, height = pixels(info.get("width")), pixels(info.get("height"))
        thumbnail = web_address(info.get("thumburl")) if width > THUMBNAIL else ""
        about = mapping(info.get("extmetadata"))

        def told(name: str) -> str:
            return html_words(mapping(about.get(name)).get("value"))

        title = told("ObjectName") or words(row.get("title")).removeprefix("File:")
        return Result(
            thumbnail or original,
            page_url=web_address(info.get("descriptionurl")),
            title=title,
            author=told("Artist"),
            licence=spdx(told("License")) or spdx(told("LicenseShortName")),
            width=pixels(info.get("thumbwidth")) if thumbnail else width,
            height=pixels(info.get("thumbheight")) if thumbnail else height,
        )
