"""The DPEIteration of a round. Pure."""

import hashlib

from dpe_api.names import API_VERSION, KIND, LABEL_RETRY, LABEL_ROUND, LABEL_RUN, RUN_KIND, round_name
from dpe_api.run_spec import RunSpec
from dpe_api.run_status import RunStatus
from dpe_api.spec import Model, Spec
from dpe_operator.manifests.common import MANAGER, QUEUE_LABELS
from dpe_operator.platform import KubernetesObject
from dpe_operator.runs.world import RunSeen
from dpe_operator.world import Run

ANNOTATION_SUSPENDED = "dpe.dev/suspended-by-run"  # tells the run's suspension of an iteration from a person's


def seed_of(seed: int, *parts: int) -> int:
    """Another seed in [0, 2^31), from the template's and whatever numbers name the draw."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFF_FFFF


def _science(spec: RunSpec, status: RunStatus, seen: RunSeen, number: int, retry: int) -> tuple[Spec, str]:
    """The spec of a round's iteration, and what it starts from in words.

    It continues from the round before: an iteration that was accepted stands for its candidate, a rejected one for the
    model that it had started from. Where that one was deleted, the model goes on by its address, with a seed of its
    own: without a reference the iteration does not know its round, and would draw the first one's probe rows again. A
    round keeps the seed of the one before: the rows of a draw follow each other, and those of another draw overlap.
    """
    seed = seed_of(spec.template.seed, number, retry) if retry else spec.template.seed
    if number == 1:
        return spec.first(seed), spec.model.uri
    # none: status and iterations are both gone, and with them what was accepted
    before = next((r for r in reversed(status.rounds) if r.round < number), None)
    stands = None if before is None else seen.named(before.iteration)
    if stands is not None and not stands.deleting:  # it may be gone before the next one has read from it
        kept = stands.seed if retry == 0 and stands.seed is not None else seed
        return spec.after(stands.name, kept), stands.name
    uri = status.model.uri if status.model is not None else spec.model.uri
    return spec.template.iteration(Model(uri=uri), seed_of(spec.template.seed, number, retry)), uri


def _labels(run: Run, number: int, retry: int) -> dict[str, str]:
    queue = {key: value for key, value in run.labels.items() if key.startswith(QUEUE_LABELS)}
    own = {LABEL_RUN: run.name, LABEL_ROUND: str(number), LABEL_RETRY: str(retry)}
    return {**queue, "app.kubernetes.io/name": "dpe", "app.kubernetes.io/managed-by": MANAGER, **own}


def next_iteration(
    spec: RunSpec, status: RunStatus, seen: RunSeen, number: int, retry: int
) -> tuple[KubernetesObject, str]:
    """The object to create, and what it starts from in words."""
    run = seen.run
    science, origin = _science(spec, status, seen, number, retry)
    owner = {
        "apiVersion": API_VERSION,
        "kind": RUN_KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    body: KubernetesObject = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": round_name(run.name, number, retry),
            "namespace": run.namespace,
            "labels": _labels(run, number, retry),
            "ownerReferences": [owner],
        },
        "spec": science.wire(),
    }
    return body, origin
