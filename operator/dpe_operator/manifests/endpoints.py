"""Models of others: which ones a stage is told of, and their API keys, which only ever are references to Secrets."""

from collections.abc import Sequence

from dpe_api.endpoints import Endpoint, key_variable
from dpe_api.spec import ResolvedSpec
from dpe_operator.platform import KubernetesObject


def endpoints(spec: ResolvedSpec) -> list[Endpoint]:
    """The endpoints that asking and grading use, in the order of the spec."""
    users = (spec.probe.categorise, spec.diagnosis.judge, spec.diagnosis.attribution)
    used = {user.endpoint for user in users if user is not None}
    return [endpoint for endpoint in spec.endpoints if endpoint.name in used]


def api_keys(used: Sequence[Endpoint]) -> list[KubernetesObject]:
    """Environment variables with the keys of these endpoints."""
    return [
        {
            "name": key_variable(endpoint.name),
            "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}},
        }
        for endpoint in used
        if (reference := endpoint.api_key_secret_ref) is not None
    ]
