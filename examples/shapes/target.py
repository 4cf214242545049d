"""The cluster that the demo talks to: kubectl and helm for what it changes, the API client for what it looks at."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from examples.shapes.view import ObjectEvent
from kubernetes import client, config

from dpe_api.names import GROUP, KIND, PLURAL, VERSION
from dpe_api.status import Status

RELEASE = "dpe"
CHECKOUT = Path(__file__).resolve().parent.parent.parent
_TIMEOUT_S = (3, 10)  # connect, read
_LAST_WORDS_S = 30.0  # of a command that is interrupted


class CommandFailed(Exception):
    """A command that the demo ran ended badly; the message has the command and what it said."""


class Unusable(Exception):
    """Something that the demo needs is not there; the message says what to do."""


def run(command: list[str], *, stdin: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a command run in the checkout; CommandFailed with its words when it fails."""
    with subprocess.Popen(
        command,
        stdin=None if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, **(environment or {})},
    ) as child:
        try:
            out, err = child.communicate(stdin)
        except KeyboardInterrupt:
            # Helm writes down that it was cancelled; a release that it cannot write that of stays pending
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=_LAST_WORDS_S)
            raise
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode != 0:
        said = (err.strip() or out.strip() or "no output").splitlines()
        raise CommandFailed("\n".join([f"{' '.join(command)}: exit code {child.returncode}", *said[-15:]]))
    return out


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and the namespace in it."""

    context: str | None
    """Context of the kubeconfig; None: the embedded cluster's own kubeconfig."""
    namespace: str

    @classmethod
    def from_env(cls) -> "Target":
        """The embedded cluster, or the one that KUBE_CONTEXT names. Unusable: a tool or a variable is missing."""
        for tool in ("kubectl", "helm"):
            if shutil.which(tool) is None:
                raise Unusable(f'{tool} is not on PATH: start with `make demo`, or run `eval "$(make -s env)"` first')
        context = os.environ.get("KUBE_CONTEXT") or None
        if context is None and not os.environ.get("KUBECONFIG"):
            raise Unusable('KUBECONFIG is not set: start with `make demo`, or run `eval "$(make -s env)"` first')
        config.load_kube_config(os.environ.get("KUBECONFIG"), context=context)  # the client read the variable at import
        return cls(context, os.environ.get("DPE_NAMESPACE") or "dpe")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Kubectl in the namespace; CommandFailed."""
        context = ["--context", self.context] if self.context else []
        return run(["kubectl", *context, "-n", self.namespace, *arguments], stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Helm in the namespace; CommandFailed."""
        context = ["--kube-context", self.context] if self.context else []
        return run(["helm", *context, "-n", self.namespace, *arguments], stdin=stdin)

    def release(self) -> tuple[str, datetime] | None:
        """Helm's word for the state of the chart's release, and since when; None: there is none. CommandFailed."""
        try:
            info = json.loads(self.helm("status", RELEASE, "-o", "json"))["info"]
        except CommandFailed as error:
            if "release: not found" in str(error):
                return None
            raise
        return str(info["status"]), datetime.fromisoformat(info["last_deployed"])

    def status(self, name: str) -> Status | None:
        """Status of an iteration (an empty one before the operator wrote any), None when it does not exist.

        Raises ApiException and urllib3's errors while the API server is away.
        """
        try:
            found: dict[str, Any] = client.CustomObjectsApi().get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=_TIMEOUT_S
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return Status.model_validate(found.get("status") or {})

    def newest_event(self, name: str) -> ObjectEvent | None:
        """The newest Event of an iteration; None when it has none (they expire after an hour)."""
        events = (
            client.CoreV1Api()
            .list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.kind={KIND},involvedObject.name={name}",
                _request_timeout=_TIMEOUT_S,
            )
            .items
        )
        dated = [(e.last_timestamp or e.event_time or e.metadata.creation_timestamp, e) for e in events]
        if not dated:
            return None
        at, event = max(dated, key=lambda pair: pair[0])
        return ObjectEvent(
            key=f"{event.metadata.uid}/{at}/{event.count}",
            warning=event.type == "Warning",
            reason=event.reason or "",
            message=event.message or "",
        )

    def platform(self) -> str | None:
        """platform.yaml of the installed chart; None when it is not installed."""
        try:
            found = client.CoreV1Api().read_namespaced_config_map(
                "dpe-operator", self.namespace, _request_timeout=_TIMEOUT_S
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return str(found.data["platform.yaml"])
