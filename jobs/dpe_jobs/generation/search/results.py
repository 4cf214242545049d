"""What a search brings. Words of results are other people's: data, never instructions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Protocol
from urllib.parse import urljoin

from dpe_jobs.generation.images import NoImage

LONGEST_WORDS = 300  # characters of a title or a name
MAX_RESULTS = 50  # of one page; what a provider sends beyond that is not read
_LONGEST_ADDRESS = 2048
_MAX_SIDE = 1_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """One image that a search found; nobody has looked at it yet."""

    image_url: str
    page_url: str = ""
    """The page on which a person finds it."""
    title: str = ""
    author: str = ""
    licence: str = ""
    """SPDX identifier; empty: unknown."""
    width: int = 0
    """Pixels, as the provider says; 0: unknown."""
    height: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results, the best first."""

    results: tuple[Result, ...]
    more: bool
    """Whether a next page may hold something."""


class SearchFailed(NoImage):
    """The provider did not answer a search, in spite of retries: an error of the service, not `nothing found`."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is RateLimited, Unavailable, Malformed or Refused."""
        super().__init__(f"{reason}: {message}", outage=reason != "Refused")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A question to a provider's API."""

    url: str
    method: str = "GET"
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a provider complains about in its own words' stead.

    `kind`: KeyRefused, QuotaSpent or WrongAddress end the stage, for they stay; RateLimited, Unavailable and Refused
    do not.
    """

    kind: str
    mend: str


class Provider(Protocol):
    """How one provider is asked and read. Pure: `api` does the asking."""

    name: str

    @property
    def complaints(self) -> Mapping[tuple[int, str], Complaint]:
        """What a status other than 200 means to this provider, by the status and a word of the message (`""`: any).

        A status that is not here means what it means to everybody.
        """

    def request(self, query: str, page: int) -> ApiRequest | None:
        """The question for a page, from 1; None when the provider has no page of that number."""

    def read(self, body: Any, page: int) -> Page:
        """The results in an answer of status 200. ValueError when it is none; `Complained` when it says so."""


class Complained(Exception):
    """An answer of status 200 that says no all the same."""

    def __init__(self, complaint: Complaint, retry: bool) -> None:
        super().__init__(complaint.mend)
        self.complaint, self.retry = complaint, retry


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def rows(body: Any, key: str) -> list[Mapping[str, Any]]:
    """The objects of a list in a JSON object; ValueError without such a list."""
    found = mapping(body).get(key)
    if not isinstance(found, list):
        raise ValueError(f"the answer has no list {key!r}")
    return [entry for entry in found[:MAX_RESULTS] if isinstance(entry, Mapping)]


def words(value: Any) -> str:
    """A text on one line, without control characters, not too long; empty for anything else."""
    if not isinstance(value, str):
        return ""
    shown = "".join(c if c.isprintable() else " " for c in value[: 4 * LONGEST_WORDS])
    return " ".join(shown.split())[:LONGEST_WORDS]


def web_address(value: Any, base: str = "") -> str:
    """An http(s) address; empty for anything else, data: addresses of thumbnails and what UTF-8 cannot hold."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_ADDRESS:
        return ""
    try:
        address = urljoin(base, value.strip())
        address.encode()  # JSON's escapes may name half a surrogate pair, which ends whoever writes Parquet
    except ValueError:
        return ""
    return address if re.match(r"https?://[^\s/]", address, re.IGNORECASE) else ""


def pixels(value: Any) -> int:
    """A side in pixels; 0 when it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 7:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_SIDE else 0


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def html_words(value: Any) -> str:
    """The words of a piece of HTML, as `words`."""
    if not isinstance(value, str):
        return ""
    reader = _Text()
    reader.feed(value[: 16 * LONGEST_WORDS])
    reader.close()
    return words("".join(reader.parts))
