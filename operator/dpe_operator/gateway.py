"""The one module that talks to Kubernetes.

Rights that it needs, in each namespace that it watches (kopf's own watches included):
- dpe.dev dpeiterations: get, list, watch, create (rounds of a run), patch (finalizer, suspend), delete
  (ttlSecondsAfterFinished)
- dpe.dev dperuns: get, list, watch, patch (finalizer), delete (ttlSecondsAfterFinished)
- dpe.dev dpeiterations/status, dperuns/status: patch
- dpe.dev dpeiterations/finalizers, dperuns/finalizers: update (only asked where OwnerReferencesPermissionEnforcement
  is on)
- batch jobs: get, list, watch, create, delete
- core configmaps, services: get, create, delete
- core pods: list, watch
- core secrets: get, of the object store's credentials and of the endpoints' keys, by name (resourceNames)
- core events: create
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from dpe_api.names import API_VERSION, GROUP, LABEL_ITERATION, LABEL_RUN, PLURAL, RUN_PLURAL, VERSION
from dpe_operator import metrics
from dpe_operator.manifests.common import MANAGER
from dpe_operator.plan import Child, ChildKind, ChildRef, Note
from dpe_operator.platform import KubernetesObject
from dpe_operator.world import Iteration, Resource, Run, about

log = logging.getLogger(__name__)

CONNECT_S, READ_S = 5.0, 30.0
IN_FLIGHT = 16  # requests at once
_MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 100  # objects of one answer: a status may have 32 KiB
_COLLECTIONS: dict[ChildKind, str] = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
}


class Created(StrEnum):
    """What became of a request to create."""

    YES = "yes"
    ALREADY = "already"
    """It exists and is this iteration's: an earlier try succeeded."""
    FOREIGN = "foreign"
    """It exists and belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects of a list or of a page of it, and the resourceVersion at which the list is all there was."""

    items: list[dict[str, Any]]
    version: int


class Forbidden(Exception):
    """The operator has no right to look at this."""


class NotAdmitted(Exception):
    """The API server does not take an object of this name: a quota, an admission webhook, or a definition of another
    version.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class Conflict(Exception):
    """The object has changed since it was read: read again, decide again."""


def connect() -> client.ApiClient:
    """A client from the pod's service account, or from the kubeconfig."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except ConfigException:
        config.load_kube_config(client_configuration=configuration)
    configuration.retries = False  # the reconcile loop is the retry
    configuration.connection_pool_maxsize = IN_FLIGHT  # one beyond it would be closed after each request
    return client.ApiClient(configuration)


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7396) from one document to another."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or old[key] != value:
            patch[key] = merge_patch(old.get(key), value)
    return patch


def merge_with_uid(patch: dict[str, Any], uid: str) -> dict[str, Any]:
    """The patch, for this very object only: the API server refuses to change a uid."""
    return {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}


def is_refused(error: Exception) -> bool:
    """Whether the API server answers, and does not let us look: a namespace, its Role or a definition is gone.

    That is the trouble of one namespace, and does not pass by itself as an outage does.
    """
    return isinstance(error, ApiException) and error.status in (403, 404)


def _path(namespace: str, plural: str, name: str | None = None) -> str:
    """Address of our resources, or of one of them."""
    collection = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"
    return collection if name is None else f"{collection}/{name}"


def _of(iteration: str | None) -> str:
    """Selects the children of one iteration, or of all."""
    return LABEL_ITERATION if iteration is None else f"{LABEL_ITERATION}={iteration}"


def _said(error: ApiException) -> str:
    """The API server's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return f"{error.status} {error.reason}"


def _is_not_admitted(error: ApiException) -> bool:
    """Whether it is about this very object. So is a webhook that does not answer: it may not be asked of others."""
    return error.status in (400, 403, 422) or (error.status == 500 and "failed calling webhook" in _said(error))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Gateway:
    """Kubernetes, without blocking the event loop. ApiException passes through but for what a method says."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def _blocking(
        self, method: str, path: str, query: list[tuple[str, str]], body: Any, content_type: str, accept: str
    ) -> dict[str, Any]:
        headers = {"Accept": accept, **({"Content-Type": content_type} if body is not None else {})}
        request = self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self._api.call_api(*request, _request_timeout=(CONNECT_S, READ_S))
        data = response.read()
        if not 200 <= response.status <= 299:
            raise ApiException.from_response(http_resp=response, body=data.decode(errors="replace"), data=None)
        found: dict[str, Any] = json.loads(data)
        return found

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> dict[str, Any]:
        metrics.API_REQUESTS.labels(method).inc()
        async with self._slots:
            return await asyncio.to_thread(self._blocking, method, path, query or [], body, content_type, accept)

    async def _find(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._request("GET", path)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    # reading

    async def iteration(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A DPEIteration, or None when there is none of this name."""
        return await self._find(_path(namespace, PLURAL, name))

    async def iterations(self, namespace: str, *, metadata_only: bool = False) -> list[dict[str, Any]]:
        """All DPEIterations of a namespace, or `metadata` of each."""
        pages = self._pages(_path(namespace, PLURAL), accept=_METADATA if metadata_only else _JSON)
        return [body async for page in pages for body in page.items]

    def iteration_pages(self, namespace: str) -> AsyncIterator[Listed]:
        """All DPEIterations of a namespace, a page at a time."""
        return self._pages(_path(namespace, PLURAL))

    async def _pages(self, path: str, selector: str = "", accept: str = _JSON) -> AsyncIterator[Listed]:
        """All pages show one and the same resourceVersion."""
        more = ""
        while True:
            query = [("limit", str(_PAGE)), *([("labelSelector", selector)] if selector else [])]
            page = await self._request(
                "GET", path, query=[*query, *([("continue", more)] if more else [])], accept=accept
            )
            # null, not an empty list, when only metadata is asked for
            yield Listed(page["items"] or [], int(page["metadata"]["resourceVersion"]))
            more = page["metadata"].get("continue") or ""
            if not more:
                return

    async def iterations_of(self, run: Run) -> list[dict[str, Any]]:
        """DPEIterations that carry the run's label, a namesake's included."""
        query = [("labelSelector", f"{LABEL_RUN}={run.name}")]
        found = await self._request("GET", _path(run.namespace, PLURAL), query=query)
        return list(found["items"])

    async def run(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A DPERun, or None when there is none of this name."""
        return await self._find(_path(namespace, RUN_PLURAL, name))

    async def runs(self, namespace: str, *, metadata_only: bool = False) -> list[dict[str, Any]]:
        """All DPERuns of a namespace, or `metadata` of each; none where the definition is not installed."""
        try:
            pages = self._pages(_path(namespace, RUN_PLURAL), accept=_METADATA if metadata_only else _JSON)
            return [body async for page in pages for body in page.items]
        except ApiException as error:
            if error.status == 404:
                return []
            raise

    def jobs(self, namespace: str, iteration: str | None = None) -> AsyncIterator[Listed]:
        """Jobs that carry the label of this iteration, or of any, those of namesakes included."""
        return self._pages(_COLLECTIONS["Job"].format(namespace), _of(iteration))

    def pods(self, namespace: str, iteration: str | None = None) -> AsyncIterator[Listed]:
        """Pods that carry the label of this iteration, or of any, those of namesakes included."""
        return self._pages(f"/api/v1/namespaces/{namespace}/pods", _of(iteration))

    async def secret_keys(self, namespace: str, name: str) -> set[str] | None:
        """The keys of a Secret, or None when it does not exist. The values are not kept.

        Forbidden: it is none of those that the operator may read, whether it exists or not.
        """
        try:
            found = await self._find(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except ApiException as error:
            if error.status == 403:
                raise Forbidden(f"Secret {name} in namespace {namespace}") from error
            raise
        return None if found is None else set(found.get("data") or {})

    # writing

    async def create(self, iteration: Iteration, child: Child) -> tuple[Created, dict[str, Any]]:
        """Create a child; that it exists already is success only when this iteration owns it. And what is there.

        NotAdmitted: the API server does not take it. Conflict: it was of an attempt that did not come about.
        """
        collection = _COLLECTIONS[child.kind].format(iteration.namespace)
        try:
            return Created.YES, await self._request("POST", collection, body=child.body)
        except ApiException as error:
            if _is_not_admitted(error):
                raise NotAdmitted(child.name, f"{child.kind} {child.name}: {_said(error)}") from error
            if error.status != 409:
                raise
        found = await self._find(f"{collection}/{child.name}")
        if found is None:
            raise Conflict(f"{child.kind} {child.name} vanished while it was created")
        if not owned(found, iteration):
            return Created.FOREIGN, found
        if child.kind == "ConfigMap" and found.get("data") != child.body["data"]:
            await self._remove_outdated(iteration, f"{collection}/{child.name}", found)
        return Created.ALREADY, found

    async def _remove_outdated(self, iteration: Iteration, path: str, found: dict[str, Any]) -> None:
        """Delete the ConfigMap of an attempt whose Job was not created, and which would run otherwise now.

        Conflict; NotAdmitted when it does not go.
        """
        name = found["metadata"]["name"]
        if "deletionTimestamp" in found["metadata"]:
            kept_by = ", ".join(found["metadata"].get("finalizers") or ())
            raise NotAdmitted(
                name, f"ConfigMap {name} is outdated and is being deleted, which {kept_by or 'something'} delays"
            )
        if await self._find(f"{_COLLECTIONS['Job'].format(iteration.namespace)}/{name}") is None:
            await self._delete(path, found["metadata"]["uid"])
            raise Conflict(f"ConfigMap {name} is outdated")

    async def delete(self, iteration: Iteration, ref: ChildRef) -> None:
        """Delete one Job and what belongs to it; the Job last, so that what is left over shows in the list of Jobs."""

        async def remove(kind: ChildKind) -> None:
            path = f"{_COLLECTIONS[kind].format(iteration.namespace)}/{ref.name}"
            found = await self._find(path)
            if found is not None and owned(found, iteration):
                await self._delete(path, found["metadata"]["uid"])

        await asyncio.gather(remove("Service"), remove("ConfigMap"))
        # background: the pods of a lost node must not keep the Job
        await self._delete(f"{_COLLECTIONS['Job'].format(iteration.namespace)}/{ref.name}", ref.uid)

    async def begin_round(self, run: Run, body: KubernetesObject) -> Created:
        """Create a DPEIteration of a run; that it exists already is success only when this very run owns it.

        NotAdmitted: the API server does not take it.
        """
        collection, name = _path(run.namespace, PLURAL), body["metadata"]["name"]
        try:
            await self._request("POST", collection, body=body)
        except ApiException as error:
            if _is_not_admitted(error):
                raise NotAdmitted(name, _said(error)) from error
            if error.status != 409:
                raise
        else:
            return Created.YES
        found = await self._find(f"{collection}/{name}")
        if found is None:
            raise Conflict(f"DPEIteration {name} vanished while it was created")
        return Created.ALREADY if owned(found, run) else Created.FOREIGN

    async def change(self, resource: Resource, patch: dict[str, Any]) -> None:
        """Merge-patch a resource; Conflict when it is gone or another one of the same name."""
        body = merge_with_uid(patch, resource.uid)
        try:
            path = _path(resource.namespace, resource.plural, resource.name)
            await self._request("PATCH", path, body=body, content_type=_MERGE_PATCH)
        except ApiException as error:
            if error.status in (404, 409, 422):
                raise Conflict(f"{resource.name} has changed") from error
            raise

    async def release(self, resource: Resource, metadata: dict[str, Any], finalizer: str) -> None:
        """Take a finalizer off a resource with these metadata; Conflict when they are outdated."""
        left = [name for name in metadata.get("finalizers") or () if name != finalizer]
        version = metadata["resourceVersion"]
        await self.change(resource, {"metadata": {"resourceVersion": version, "finalizers": left}})

    async def remove(self, resource: Resource) -> None:
        """Delete a DPEIteration or a DPERun itself; its children go with it."""
        await self._delete(_path(resource.namespace, resource.plural, resource.name), resource.uid)

    async def _delete(self, path: str, uid: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._request("DELETE", path, body=body)
        except ApiException as error:
            if error.status not in (404, 409):  # gone, or another one of the same name: neither is ours to delete
                raise

    async def write_status(
        self, resource: Resource, resource_version: str, old: dict[str, Any], new: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the status over the very version that was read; Conflict when there is a newer one, or none.

        Returns the resource as it is then.
        """
        path = _path(resource.namespace, resource.plural, resource.name) + "/status"
        patch = {"metadata": {"resourceVersion": resource_version}, "status": merge_patch(old, new)}
        try:
            return await self._request("PATCH", path, body=patch, content_type=_MERGE_PATCH)
        except ApiException as error:
            if error.status in (404, 409):
                raise Conflict(f"{resource.name} has changed") from error
            raise

    async def note(self, resource: Resource, note: Note) -> None:
        """Write an Event. Its name derives from its key, so that saying it twice is saying it once.

        One that is refused is logged: what it tells is in the status as well, which must not wait for it.
        """
        digest = hashlib.sha256(f"{resource.uid}/{note.key}".encode()).hexdigest()[:16]
        now = _now()
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{resource.name}.{digest}", "namespace": resource.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": resource.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": resource.uid,
            },
            "reason": note.reason,
            "message": note.message,
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._request("POST", f"/api/v1/namespaces/{resource.namespace}/events", body=body)
        except ApiException as error:
            if _is_not_admitted(error):  # a quota of Events, a webhook
                why = (resource.namespace, resource.name, note.reason, _said(error))
                log.warning("%s/%s: Event %s: %s", *why, extra=about(resource))
            elif error.status != 409:
                raise


def owned(found: dict[str, Any], resource: Resource) -> bool:
    """Whether a resource is among the owners of an object."""
    owners = found["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == resource.uid for owner in owners)
