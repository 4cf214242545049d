"""Which addresses downloads may go to: public ones, and what the platform lists.

An image's address comes from a search result or a redirect, so from strangers. It must not make a pod ask the cloud's
metadata service, the object store or a neighbour (server-side request forgery, CWE-918). Names are judged here by how
they are written; what they resolve to is judged by `transport`, when a connection is made.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

import httpx

from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST = 2048  # characters of an address
PORTS = (80, 443)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# IANA's registries of special-purpose addresses (RFC 6890 and its updates), as of 2025: what is not globally reachable,
# and what is for experts (relays, benchmarks). A table of our own, for the standard library's differs between releases.
_SPECIAL_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; clusters use it for pods
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")  # nothing else is handed out
_SPECIAL_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4: holds any IPv4 address
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: how public IPv4 hosts look in a cluster of IPv6 alone


def is_public(address: Address) -> bool:
    """Whether an address is one of the Internet's. Of one that wraps an IPv4 address, that one decides."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be reached beside the Internet, at any port: hosts by name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """From host names, addresses and CIDR networks; ValueError names the entry that is none."""
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError as error:
                name = entry.lower()
                if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
                    raise ValueError(f"{entry!r} is no host name, address or CIDR network: {error}") from error
                hosts.add(name)
        return cls(frozenset(hosts), tuple(networks))

    def lists_host(self, host: str) -> bool:
        """Whether the name itself is listed: then it may resolve to anything."""
        return host in self.hosts

    def trouble(self, host: str, address: Address, port: int) -> str | None:
        """Why a connection for `host` may not go to `address`; None when it may."""
        if self.lists_host(host) or any(address in network for network in self.networks):
            return None
        if not is_public(address):
            return f"{host} is not a public address" if host == str(address) else f"{host} is at {address}"
        return None if port in PORTS else f"port {port} of {host} is none of {', '.join(map(str, PORTS))}"


def literal(host: str) -> Address | None:
    """The address that a host is, as connections are made to it; None for a name.

    NotFetched for what programs read differently: 2130706433, 0x7f.1, 127.1 and 0177.0.0.1 are 127.0.0.1 to some. By
    the URL standard (WHATWG, "ends in a number") a host whose last label is a number is an IPv4 address; of those only
    the form with four decimal numbers is taken.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        if ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise NotFetched(Reason.BAD_ADDRESS, f"host {host!r} is a number and no address: {error}") from error
        return None


def check(address: str | httpx.URL, allowed: Allowed) -> httpx.URL:
    """An address that may be asked, as far as can be told without asking. NotFetched says why not."""
    if len(str(address)) > LONGEST:
        raise NotFetched(Reason.BAD_ADDRESS, f"it has more than {LONGEST} characters")
    try:
        url = httpx.URL(address).copy_with(fragment=None)
        port, _ = url.port, url.host  # which httpx decodes where it is asked for: IDNA 2008 knows not every xn-- name
    except (httpx.InvalidURL, ValueError) as error:
        raise NotFetched(Reason.BAD_ADDRESS, f"{str(address)[:200]!r} is no address: {error}") from error
    if url.scheme not in ("http", "https"):
        raise NotFetched(Reason.BAD_ADDRESS, f"scheme {url.scheme[:20]!r} is neither http nor https")
    if port is not None and not 0 < port < 1 << 16:
        raise NotFetched(Reason.BAD_ADDRESS, f"port {port} does not exist")
    host = url.raw_host.decode("ascii")
    if url.userinfo:
        raise NotFetched(Reason.BAD_ADDRESS, f"it has a user name or password before its host {host!r}")
    address_of_host = literal(host)
    if address_of_host is None:
        if not _NAME.fullmatch(host):
            raise NotFetched(Reason.BAD_ADDRESS, f"{host[:200]!r} is no host name")
    elif trouble := allowed.trouble(host, address_of_host, port or _DEFAULT_PORTS[url.scheme]):
        raise NotFetched(Reason.BLOCKED_ADDRESS, trouble)
    return url
