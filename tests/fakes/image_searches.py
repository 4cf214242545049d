"""Image searches that speak their providers' protocols, as the public documentation and clients have them.

Each is a page for `tests.fakes.web.Site`. `Catalogue` is what all of them search: `found` images at `/img/N.jpg`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dpe_api.endpoints import SecretKeyRef
from dpe_api.generation_spec import Provider, Source, SourceKind
from tests.fakes.web import Answer, Script, Site, Visit

KEY = "sk-search-0123456789abcdef"
PATHS = {
    Provider.SEARXNG: "/search",
    Provider.SERPER: "/images",
    Provider.OPENVERSE: "/v1/images/",
    Provider.WIKIMEDIA: "/w/api.php",
}


@dataclass(frozen=True)
class Catalogue:
    """So many images on a website."""

    web: str
    found: int

    def numbers(self, page: int, size: int) -> range:
        """Those of a page."""
        return range(min((page - 1) * size, self.found), min(page * size, self.found))

    def image(self, number: int) -> str:
        return f"{self.web}/img/{number}.jpg"


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """JSON."""
    return Answer(json.dumps(body).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def searxng(catalogue: Catalogue) -> Script:
    """20 results a page; `json` is switched on."""

    def page(visit: Visit) -> Answer:
        assert (visit.query["format"], visit.query["categories"]) == ("json", "images")
        rows = [
            {
                "template": "images.html",
                "url": f"https://pages.example/{n}",
                "title": f"  Picture\n{n} ",
                "content": "",
                "img_src": catalogue.image(n),
                "thumbnail_src": "data:image/png;base64,AAAA",
                "resolution": "640 x 480",
                "engine": "bing images",
                "score": 1.0 / (n + 1),
                "category": "images",
            }
            for n in catalogue.numbers(int(visit.query["pageno"]), 20)
        ]
        rows.append({"template": "images.html", "url": "https://pages.example/x", "img_src": "data:image/png;base64,A"})
        found = {"query": visit.query["q"], "number_of_results": 0, "results": rows, "unresponsive_engines": []}
        return answer(found)

    return page


def serper(catalogue: Catalogue) -> Script:
    """Wants its key; `num` results a page."""

    def page(visit: Visit) -> Answer:
        if visit.headers.get("X-API-KEY") != KEY:
            return answer({"message": "Unauthorized.", "statusCode": 403}, 403)
        asked = json.loads(visit.body)
        rows = [
            {
                "title": f"Picture {n}",
                "imageUrl": catalogue.image(n),
                "imageWidth": 640,
                "imageHeight": 480,
                "thumbnailUrl": "https://encrypted-tbn0.gstatic.com/images?q=1",
                "source": "Pages",
                "domain": "pages.example",
                "link": f"https://pages.example/{n}",
                "position": n + 1,
            }
            for n in catalogue.numbers(asked["page"], asked["num"])
        ]
        return answer({"searchParameters": {"type": "images", **asked}, "images": rows, "credits": 1})

    return page


def openverse(catalogue: Catalogue) -> Script:
    """Without a token at most 20 results a page; 240 in all."""

    def page(visit: Visit) -> Answer:
        number, size = int(visit.query["page"]), int(visit.query["page_size"])
        if size > 20 and "Authorization" not in visit.headers:
            return answer({"detail": "page_size may not exceed 20 for anonymous requests"}, 401)
        if visit.headers.get("Authorization", f"Bearer {KEY}") != f"Bearer {KEY}":
            return answer({"detail": "Invalid token."}, 401)
        rows = [
            {
                "id": f"0000-{n}",
                "title": f"Picture {n}",
                "foreign_landing_url": f"https://pages.example/{n}",
                "url": catalogue.image(n),
                "creator": "A. Uthor",
                "license": ("by-sa", "cc0", "by", "pdm")[n % 4],
                "license_version": ("2.0", "1.0", "9.9", "1.0")[n % 4],
                "width": 640,
                "height": None,
                "mature": False,
            }
            for n in catalogue.numbers(number, size)
        ]
        pages = -(-min(catalogue.found, 240) // size)
        return answer(
            {"result_count": catalogue.found, "page_count": pages, "page_size": size, "page": number, "results": rows}
        )

    return page


def wikimedia(catalogue: Catalogue) -> Script:
    """formatversion 2; pages come in no order, with their place in `index`."""

    def page(visit: Visit) -> Answer:
        asked = visit.query
        assert (asked["action"], asked["generator"], asked["gsrnamespace"]) == ("query", "search", "6")
        assert asked["formatversion"] == "2"
        assert asked["gsrsearch"].startswith("filetype:bitmap ")
        offset, size = int(asked["gsroffset"]), int(asked["gsrlimit"])
        numbers = catalogue.numbers(offset // size + 1, size)
        rows = [
            {
                "pageid": 100 + n,
                "ns": 6,
                "title": f"File:Picture {n}.jpg",
                "index": n + 1,
                "imagerepository": "local",
                "imageinfo": [
                    {
                        "size": 10**7,
                        "width": 4000 if n % 2 else 640,
                        "height": 3000 if n % 2 else 480,
                        "mime": "image/jpeg",
                        "url": f"{catalogue.web}/original/{n}.jpg" if n % 2 else catalogue.image(n),
                        "thumburl": catalogue.image(n),
                        "thumbwidth": 1280,
                        "thumbheight": 960,
                        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:Picture_{n}.jpg",
                        "extmetadata": {
                            "ObjectName": {"value": f"Picture {n}", "source": "mediawiki-metadata"},
                            "Artist": {"value": '<a href="//x" title="User:A">A.&nbsp;<b>Uthor</b></a>'},
                            "License": {"value": ("cc-by-sa-4.0", "pd", "cc0", "cc-by-sa-2.5-es")[n % 4]},
                            "LicenseShortName": {"value": "as above"},
                        },
                    }
                ],
            }
            for n in reversed(numbers)
        ]
        body: dict[str, Any] = {"batchcomplete": True}
        if rows:
            body["query"] = {"pages": rows}
        if offset + size < catalogue.found:
            body["continue"] = {"gsroffset": offset + size, "continue": "gsroffset||"}
        return answer(body)

    return page


PROVIDERS: Mapping[Provider, Callable[[Catalogue], Script]] = {
    Provider.SEARXNG: searxng,
    Provider.SERPER: serper,
    Provider.OPENVERSE: openverse,
    Provider.WIKIMEDIA: wikimedia,
}


def source(provider: Provider, web: Site | str, *, keyed: bool | None = None, **changes: Any) -> Source:
    """As the spec has it. Serper always has a key."""
    path = {Provider.OPENVERSE: "/v1", Provider.WIKIMEDIA: "/w/api.php"}.get(provider, "")
    with_key = provider is Provider.SERPER if keyed is None else keyed
    reference = SecretKeyRef(name="keys", key="search") if with_key else None
    url = web if isinstance(web, str) else web.url
    return Source(
        kind=SourceKind.SEARCH, provider=provider, url=f"{url}{path}", api_key_secret_ref=reference, **changes
    )
