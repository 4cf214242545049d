"""Licences as providers write them -> SPDX identifiers (SPDX licence list 3.27).

What has no identifier of its own (a Creative Commons port to a country that SPDX does not list) is unknown, not its
nearest relative: an allow-list must not be talked round.
"""

import re

PUBLIC_DOMAIN = "LicenseRef-Public-Domain"
"""Out of copyright, or never in it: no licence, and no identifier; SPDX's form for names of one's own."""

_CC = re.compile(
    r"(?:cc[- ])?(?P<kind>by(?:-nc)?(?:-(?:sa|nd))?|by-(?:sa|nd)-nc)[- ](?P<version>\d\.\d)"
    r"(?:[- ](?P<port>[a-z]{2,3}))?"
)
_VERSIONS = ("1.0", "2.0", "2.5", "3.0", "4.0")
_PORTS = {
    "BY": "2.5-AU 3.0-AT 3.0-AU 3.0-DE 3.0-IGO 3.0-NL 3.0-US",
    "BY-NC": "3.0-DE",
    "BY-NC-ND": "3.0-DE 3.0-IGO",
    "BY-NC-SA": "2.0-DE 2.0-FR 2.0-UK 3.0-DE 3.0-IGO",
    "BY-ND": "3.0-DE",
    "BY-SA": "2.0-UK 2.1-JP 3.0-AT 3.0-DE 3.0-IGO",
}
CREATIVE_COMMONS = frozenset(
    f"CC-{kind}-{version}" for kind, ports in _PORTS.items() for version in (*_VERSIONS, *ports.split())
)

_OTHERS = {
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "cc-zero": "CC0-1.0",
    "pdm": "CC-PDM-1.0",
    "pdm-1.0": "CC-PDM-1.0",
    "cc-pdm-1.0": "CC-PDM-1.0",
    "cc-pd": "CC-PDDC",
    "fal": "LAL-1.3",
    "mit": "MIT",
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "ogl-uk-3.0": "OGL-UK-3.0",
    "ogl-3": "OGL-UK-3.0",
    "gfdl-1.2": "GFDL-1.2-or-later",
    "gfdl-1.3": "GFDL-1.3-or-later",
    "pd": PUBLIC_DOMAIN,
    "public-domain": PUBLIC_DOMAIN,
}


def spdx(name: str) -> str:
    """The identifier of a licence by its code or short name (`cc-by-sa-4.0`, `CC BY-SA 4.0`, `pd-old`); empty: unknown.

    Wikimedia's codes are those of its extension CommonsMetadata (TemplateParser, LicenseParser): lower case, `pd` and
    `pd-...` for the public domain.
    """
    code = " ".join(name.lower().split())
    found = _CC.fullmatch(code)
    if found is not None:
        kind = {"by-sa-nc": "by-nc-sa", "by-nd-nc": "by-nc-nd"}.get(found["kind"], found["kind"])
        port = f"-{found['port']}" if found["port"] else ""
        identifier = f"CC-{kind}-{found['version']}{port}".upper()
        return identifier if identifier in CREATIVE_COMMONS else ""
    code = code.replace(" ", "-")
    return PUBLIC_DOMAIN if code.startswith("pd-") else _OTHERS.get(code, "")


def openverse(licence: str, version: str) -> str:
    """The identifier of Openverse's `license` and `license_version` (its constants: by, by-nc-sa, cc0, pdm, ...)."""
    return spdx(f"{licence} {version}".strip()) or (spdx(licence) if licence in ("cc0", "pdm") else "")
