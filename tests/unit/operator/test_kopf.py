"""What the operator asks of kopf, and what it lets it keep."""

from typing import Any

import kopf

from dpe_operator.main import _lighten, configure

BODY: dict[str, Any] = {
    "metadata": {
        "name": "i0",
        "uid": "u",
        "resourceVersion": "5",
        "labels": {"a": "b"},
        "finalizers": ["dpe.dev/operator"],
        "deletionTimestamp": "2026-01-01T12:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {"model": {"uri": "s3://dpe/models/base"}},
    "status": {"phase": "Training"},
}


def test_kopf_keeps_of_an_object_what_it_decides_on_itself():
    body = {**BODY, "metadata": dict(BODY["metadata"])}
    _lighten(body)
    metadata = {key: value for key, value in BODY["metadata"].items() if key != "managedFields"}
    assert body == {"metadata": metadata}


def test_kopf_copies_no_object_to_compare_it_and_lists_a_part_at_a_time():
    settings = kopf.OperatorSettings()
    configure(settings)
    compared = settings.persistence.diffbase_storage
    assert compared.build(body=kopf.Body(BODY)) == {}  # type: ignore[arg-type]
    assert compared.fetch(body=kopf.Body(BODY)) is None  # type: ignore[arg-type]
    assert settings.watching.chunk_size is not None
