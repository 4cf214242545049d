"""Licences as SPDX expressions, and whether a list allows them."""

from collections.abc import Collection, Iterator

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from dpe_jobs.generation.images import Origin
from dpe_jobs.generation.roles import Rejection
from dpe_jobs.runtime import BadConfig

UNKNOWN = "LicenseRef-unknown"
"""What a list calls pictures of which no licence is known."""


def canonical(licence: str) -> str:
    """An expression with SPDX's own spelling; ValueError when it is none."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression as error:
        raise ValueError(f"{licence!r} is no SPDX licence expression: {error}") from error


def allow_list(licences: Collection[str]) -> frozenset[str]:
    """The list in SPDX's spelling; BadConfig when an entry is no identifier."""
    try:
        return frozenset(canonical(licence) for licence in licences)
    except ValueError as error:
        raise BadConfig(
            "UnknownLicence",
            f"spec.generation.quality.licences: {error}: write identifiers of spdx.org/licenses, or LicenseRef-NAME",
        ) from error


def allows(allowed: Collection[str], expression: str) -> bool:
    """Whether an SPDX expression can be met by licences of the list (AND needs both sides, OR one)."""
    tokens = iter([*expression.replace("(", " ( ").replace(")", " ) ").split(), ""])
    verdict, _ = _either(allowed, tokens, next(tokens))
    return verdict


def _either(allowed: Collection[str], tokens: Iterator[str], token: str) -> tuple[bool, str]:
    verdict, token = _both(allowed, tokens, token)
    while token == "OR":
        other, token = _both(allowed, tokens, next(tokens))
        verdict = verdict or other
    return verdict, token


def _both(allowed: Collection[str], tokens: Iterator[str], token: str) -> tuple[bool, str]:
    verdict, token = _one(allowed, tokens, token)
    while token == "AND":
        other, token = _one(allowed, tokens, next(tokens))
        verdict = verdict and other
    return verdict, token


def _one(allowed: Collection[str], tokens: Iterator[str], token: str) -> tuple[bool, str]:
    if token == "(":
        verdict, _ = _either(allowed, tokens, next(tokens))
        return verdict, next(tokens)
    following = next(tokens)
    if following == "WITH":  # an exception is part of the licence
        token, following = f"{token} WITH {next(tokens)}", next(tokens)
    return token in allowed, following


def licence(origin: Origin, allowed: Collection[str]) -> Rejection | None:
    """`Licence` when a picture, or one that it was made of, has none of the allowed licences."""
    found = origin.licence or UNKNOWN
    try:
        found = canonical(found)
    except ValueError as error:
        return Rejection("Licence", f"{origin.source} {origin.id}: {error}")
    if not allows(allowed, found):
        return Rejection("Licence", f"{origin.source} {origin.id} is under {found}, which is not in the list")
    return next((r for parent in origin.parents if (r := licence(parent, allowed)) is not None), None)
