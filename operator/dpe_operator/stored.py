"""What the API server holds, read by the models of this version."""

import logging
from typing import Any, TypeVar

from pydantic import ValidationError

from dpe_api.base import ApiModel
from dpe_operator.conditions import shorten

log = logging.getLogger(__name__)

M = TypeVar("M", bound=ApiModel)
_told: set[tuple[str, ...]] = set()


def read_spec(kind: type[M], document: Any) -> M:
    """A spec, without the fields that this version does not know; ValidationError when it cannot be one.

    Where people write it, the definition refuses such fields. One that is newer than the operator, as in an upgrade,
    sets the defaults of its new fields in every object that is read.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        unknown = [tuple(map(str, e["loc"])) for e in errors if e["type"] == "extra_forbidden"]
        if not unknown:
            raise
    found = kind.model_validate(document, extra="ignore")
    for field in unknown:
        if field not in _told:
            log.warning("spec.%s is of a newer version than this operator, which leaves it out", ".".join(field))
            _told.add(field)
    return found


def unreadable(error: ValidationError) -> str:
    """What of a status is not understood, and the mend. Unlike a spec, nobody may leave a part of it out."""
    first = error.errors(include_url=False)[0]
    return shorten(
        f"{field_of(error)} is {first['input']!r}: {first['msg']}: run the version of the operator that wrote it, or "
        "correct it"
    )


def field_of(error: ValidationError) -> str:
    """The first field of a status that is not understood."""
    return ".".join(["status", *map(str, error.errors(include_url=False)[0]["loc"])])
