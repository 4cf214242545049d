"""Models of others: which ones a stage is told of, and their API keys, which only ever are references to Secrets."""

from collections.abc import Sequence

from dpe_api.endpoints import Endpoint, SecretKeyRef, key_variable, source_key_variable
from dpe_api.generation_spec import Source
from dpe_api.spec import ResolvedSpec
from dpe_operator.platform import KubernetesObject

_GENERATION = "spec.generation."


def _named(spec: ResolvedSpec, *, generation: bool) -> list[Endpoint]:
    used = {name for field, name in spec.named_endpoints().items() if field.startswith(_GENERATION) == generation}
    return [endpoint for endpoint in spec.endpoints if endpoint.name in used]


def asking(spec: ResolvedSpec) -> list[Endpoint]:
    """The endpoints that asking and grading use, in the order of the spec."""
    return _named(spec, generation=False)


def generating(spec: ResolvedSpec) -> list[Endpoint]:
    """The endpoints that agents and edits use, in the order of the spec."""
    return _named(spec, generation=True)


def endpoints(spec: ResolvedSpec) -> list[Endpoint]:
    """The endpoints that any stage uses, in the order of the spec."""
    used = [*asking(spec), *generating(spec)]
    return [endpoint for endpoint in spec.endpoints if endpoint in used]


def _key(variable: str, reference: SecretKeyRef) -> KubernetesObject:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}


def api_keys(used: Sequence[Endpoint]) -> list[KubernetesObject]:
    """Environment variables with the keys of these endpoints."""
    return [
        _key(key_variable(endpoint.name), reference)
        for endpoint in used
        if (reference := endpoint.api_key_secret_ref) is not None
    ]


def source_keys(sources: Sequence[Source]) -> list[KubernetesObject]:
    """Environment variables with the keys of image searches."""
    return [
        _key(source_key_variable(number), reference)
        for number, source in enumerate(sources)
        if (reference := source.api_key_secret_ref) is not None
    ]
