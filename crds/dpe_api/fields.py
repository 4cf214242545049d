"""What the sections of a spec share: names, addresses, shares, and rules for the API server."""

from typing import Annotated

from pydantic import ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
S3Uri = Annotated[str, Field(min_length=6, max_length=512, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+[^/]$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(ge=0.5, le=0.999)]


def rules(*checked: tuple[str, str, str]) -> ConfigDict:
    """CEL rules for the API server: (rule, message, path of the field at fault)."""
    checks = [{"rule": r, "message": m, **({"fieldPath": p} if p else {})} for r, m, p in checked]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": checks})  # type: ignore[dict-item]
