"""`helm test`: what an iteration will need works. Runs with the operator's image, rights and credentials."""

import asyncio
import os
import secrets
import sys
import urllib.request
from datetime import timedelta
from urllib.parse import urlsplit

import urllib3
from minio import Minio

from dpe_operator.gateway import Gateway, connect
from dpe_operator.platform import read_platform


def operator(name: str) -> str:
    """The operator looks after its iterations, and NetworkPolicies let this pod ask."""
    with urllib.request.urlopen(f"http://{name}:8080/healthz", timeout=10) as answer:
        return f"{answer.read().decode()} ({name})"


def resource() -> str:
    """The CustomResourceDefinitions are there, and every watched namespace may be read."""
    gateway = Gateway(connect())
    namespaces = os.environ["DPE_NAMESPACES"].split(",")
    found = {name: len(asyncio.run(gateway.iterations(name)) + asyncio.run(gateway.runs(name))) for name in namespaces}
    return ", ".join(f"{number} in {name}" for name, number in found.items())


def store() -> str:
    """The bucket can be written to, and a file that exists is not replaced: publishing depends on it."""
    facts = read_platform().object_store
    address, http = urlsplit(facts.endpoint), urllib3.PoolManager(timeout=10, retries=2)
    keys = os.environ["DPE_S3_ACCESS_KEY"], os.environ["DPE_S3_SECRET_KEY"]
    client = Minio(address.netloc, *keys, secure=address.scheme == "https", region=facts.region, http_client=http)
    name = "/".join(part for part in (facts.prefix.strip("/"), f"helm-test-{secrets.token_hex(4)}") if part)
    url = client.presigned_put_object(facts.bucket, name, expires=timedelta(minutes=5))
    try:
        codes = [http.request("PUT", url, body=b"test", headers={"If-None-Match": "*"}).status for _ in range(2)]
    finally:
        client.remove_object(facts.bucket, name)
    if codes != [200, 412]:
        raise RuntimeError(f"two conditional writes to bucket {facts.bucket} were answered {codes}, not [200, 412]")
    return f"{facts.bucket} at {facts.endpoint}"


def main() -> int:
    """Exit code: 0 when all is well."""
    bad = 0
    checks = {"operator": lambda: operator(sys.argv[1]), "DPEIterations and DPERuns": resource, "object store": store}
    for name, check in checks.items():
        try:
            print(f"ok      {name}: {check()}")
        except Exception as error:
            bad += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
