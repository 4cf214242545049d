"""What the cluster and the store say against starting an iteration, each as a value with its mend."""

from collections.abc import Awaitable

from pydantic import ValidationError

from dpe_api.endpoints import SecretKeyRef
from dpe_api.generation_spec import SourceKind
from dpe_api.names import MANIFEST, SECRET_ACCESS_KEY, SECRET_SECRET_KEY
from dpe_api.spec import ResolvedSpec, Spec
from dpe_api.status import Status
from dpe_operator.gateway import Forbidden, Gateway
from dpe_operator.manifests.endpoints import endpoints
from dpe_operator.platform import Platform
from dpe_operator.resolve import resolve
from dpe_operator.storage import LISTED, Storage, StoreRefused
from dpe_operator.stored import read_spec, unreadable
from dpe_operator.world import CYCLE, Iteration, Previous, Problem

MOST_LISTED = 20_000  # objects of a folder in which a file is looked for
_LONGEST_CHAIN = 1000  # iterations that refer to each other


async def previous_iteration(gateway: Gateway, namespace: str, spec: Spec) -> Previous | None:
    """The iteration that the spec refers to; None without a reference, or when there is none of that name."""
    reference = spec.model.iteration_ref
    if reference is None:
        return None
    found = await gateway.iteration(namespace, reference.name)
    if found is None:
        return None
    try:
        return Previous(reference.name, Status.model_validate(found.get("status") or {}))
    except ValidationError as error:
        return Previous(reference.name, Status(), unreadable(error))


async def cycle(gateway: Gateway, iteration: Iteration, spec: Spec) -> Problem | None:
    """Whether following iterationRef leads back here; such iterations would wait for each other forever."""
    path, reference = [iteration.name], spec.model.iteration_ref
    for _ in range(_LONGEST_CHAIN):
        if reference is None:
            return None
        if reference.name in path:
            way = " -> ".join([*path, reference.name])
            return Problem(
                CYCLE,
                f"spec.model.iterationRef.name is {spec.model.iteration_ref.name if spec.model.iteration_ref else ''}, "
                f"which leads back: {way}: let one of them start from spec.model.uri",
            )
        path.append(reference.name)
        found = await gateway.iteration(iteration.namespace, reference.name)
        if found is None or (found.get("status") or {}).get("resolved") is not None:
            return None  # one that has started waits for nobody
        try:
            reference = read_spec(Spec, found["spec"]).model.iteration_ref
        except ValidationError:
            return None
    return None


async def _secret_problem(gateway: Gateway, platform: Platform, namespace: str) -> Problem | None:
    name = platform.object_store.credentials_secret
    try:
        keys = await gateway.secret_keys(namespace, name)
    except Forbidden:
        return Problem(
            "SecretForbidden",
            f"objectStore.credentialsSecret is {name}, which the operator may not read in namespace {namespace}: the "
            "chart's Role gives it the right, helm upgrade puts it back",
        )
    wanted = {SECRET_ACCESS_KEY, SECRET_SECRET_KEY}
    if keys is None:
        return Problem(
            "SecretNotFound",
            f"objectStore.credentialsSecret is {name}: no such Secret in namespace {namespace}: create it with keys "
            f"{SECRET_ACCESS_KEY} and {SECRET_SECRET_KEY}",
        )
    missing = sorted(wanted - keys)
    if missing:
        return Problem("SecretIncomplete", f"Secret {name} in namespace {namespace} has no key {', '.join(missing)}")
    return None


async def _key_problem(
    gateway: Gateway, platform: Platform, namespace: str, field: str, reference: SecretKeyRef
) -> Problem | None:
    """Why an endpoint cannot have this API key.

    A pod can be given any Secret of its namespace, and sends the key to an address that whoever wrote the iteration
    chose. So only those Secrets may be named that the operator may read: those that the platform lists for it.
    """
    ours = (platform.object_store.credentials_secret, {SECRET_ACCESS_KEY, SECRET_SECRET_KEY})
    if reference.name == ours[0] and reference.key in ours[1]:
        return Problem("SecretForbidden", f"{field} is the object store's {reference.key}: name an API key of its own")
    try:
        keys = await gateway.secret_keys(namespace, reference.name)
    except Forbidden:
        return Problem(
            "SecretForbidden",
            f"{field}.name is {reference.name}, which the operator may not read: list it in the Helm value "
            "endpointSecrets, or name a Secret that is listed there",
        )
    if keys is None:
        return Problem(
            "SecretNotFound",
            f"{field}.name is {reference.name}: no such Secret in namespace {namespace}: create it with key "
            f"{reference.key}",
        )
    if reference.key not in keys:
        return Problem(
            "SecretIncomplete",
            f"{field}.key is {reference.key}: Secret {reference.name} has {', '.join(sorted(keys)) or 'no key'}"
            ": add the key or correct the name",
        )
    return None


async def _key_problems(gateway: Gateway, platform: Platform, namespace: str, resolved: ResolvedSpec) -> list[Problem]:
    """API keys of endpoints and image searches that cannot be had; only those that a stage uses."""
    used = endpoints(resolved)
    wanted = [
        *((f"spec.endpoints[{i}]", e.api_key_secret_ref) for i, e in enumerate(resolved.endpoints) if e in used),
        *((f"spec.generation.sources[{i}]", s.api_key_secret_ref) for i, s in enumerate(resolved.generation.sources)),
    ]
    found = [
        await _key_problem(gateway, platform, namespace, f"{field}.apiKeySecretRef", reference)
        for field, reference in wanted
        if reference is not None
    ]
    return [problem for problem in found if problem is not None]


async def _folder_problem(storage: Storage, field: str, uri: str, suffix: str, reason: str) -> Problem | None:
    names = await storage.names(uri)
    found = any(name.endswith(suffix) for name in names)
    if not found and len(names) == LISTED:  # images before the rows, or checkpoints before the configuration
        names = await storage.names(uri, MOST_LISTED)
        found = any(name.endswith(suffix) for name in names)
    if found:
        return None
    what = f"no {suffix} file" if names else "nothing"
    what += f" among the first {MOST_LISTED} objects" if len(names) == MOST_LISTED else ""
    return Problem(reason, f"{field} is {uri}: there is {what} below it: upload it or correct the address")


async def _pool_problem(storage: Storage, field: str, uri: str) -> Problem | None:
    """Why a pool of images cannot be used. A version of its index is there when its manifest is."""
    for folder in reversed(await storage.folders(f"{uri.rstrip('/')}/_index")):
        if await storage.get(f"{folder}/{MANIFEST}") is not None:
            return None
    if not await storage.names(uri):
        return Problem("PoolNotFound", f"{field} is {uri}: there is nothing below it: upload it or correct the address")
    return Problem("PoolNotIndexed", f"{field} is {uri}, which has no index: run python -m dpe_jobs index {uri}")


async def _or_refused(look: Awaitable[Problem | None], field: str, uri: str) -> Problem | None:
    """What a look at an address of the spec found; that the store refuses it concerns this field alone."""
    try:
        return await look
    except StoreRefused as error:
        return Problem(
            "AddressRefused",
            f"{field} is {uri}: {error}: correct the address, or let the platform's credentials read it",
        )


async def _store_problems(storage: Storage, platform: Platform, spec: Spec, previous: Previous | None) -> list[Problem]:
    bucket = platform.object_store.bucket
    if not await storage.bucket_exists(bucket):
        return [
            Problem(
                "BucketNotFound",
                f"objectStore.bucket is {bucket}: no such bucket at {storage.endpoint}: create it or correct the Helm "
                "value",
            )
        ]
    resolved = resolve(spec, previous)
    reference = spec.model.iteration_ref
    model = "spec.model.uri" if reference is None else f"the model of iteration {reference.name}"
    wanted = [
        (model, resolved.model_uri, "config.json", "ModelNotFound"),
        ("spec.probe.uri", resolved.spec.probe.uri, ".parquet", "ProbeNotFound"),
        *(
            (f"spec.evaluation.benchmarks[{i}].uri", b.uri, ".parquet", "BenchmarkNotFound")
            for i, b in enumerate(resolved.spec.evaluation.benchmarks)
        ),
    ]
    found = [await _or_refused(_folder_problem(storage, *one), *one[:2]) for one in wanted]
    sources = enumerate(resolved.spec.generation.sources)
    pools = [(f"spec.generation.sources[{i}].uri", s.uri) for i, s in sources if s.kind is SourceKind.POOL and s.uri]
    found += [await _or_refused(_pool_problem(storage, *one), *one) for one in pools]
    return [p for p in found if p is not None]


async def outside_problems(
    gateway: Gateway,
    storage: Storage,
    platform: Platform,
    iteration: Iteration,
    spec: Spec,
    previous: Previous | None,
    *,
    startable: bool,
) -> list[Problem]:
    """What only a look outside can tell. `startable`: the spec, as far as known without it, can be resolved.

    Raises StoreUnavailable.
    """
    found = [await cycle(gateway, iteration, spec), await _secret_problem(gateway, platform, iteration.namespace)]
    problems = [p for p in found if p is not None]
    if startable:
        try:
            problems += await _key_problems(gateway, platform, iteration.namespace, resolve(spec, previous).spec)
            problems += await _store_problems(storage, platform, spec, previous)
        except StoreRefused as error:
            problems.append(
                Problem(
                    "StoreRefused", f"{error}: correct the credentials in {platform.object_store.credentials_secret}"
                )
            )
    return problems
