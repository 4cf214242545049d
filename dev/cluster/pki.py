"""Certificates, keys and kubeconfigs of one instance."""

import base64
import datetime as dt
import ipaddress
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dev.cluster.config import Cluster

_PEM = serialization.Encoding.PEM
_CA_DAYS, _LEAF_DAYS = 3650, 365
_USERS = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
}
_API_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(data)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Authority:
    """A certificate authority that writes what it issues to one folder."""

    def __init__(self, folder: Path, stem: str, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), _CA_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._save(stem, builder.add_extension(_usage(signs_certificates=True), critical=True), self._key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(authority, critical=False)
        )

    def _save(self, stem: str, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> None:
        _write(self._folder / f"{stem}.crt", builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        _write(self._folder / f"{stem}.key", _key_pem(key))

    def issue(
        self,
        stem: str,
        name: str,
        organisation: str | None = None,
        names: Iterable[str] = (),
        *,
        server: bool = False,
        client: bool = True,
    ) -> None:
        """Write STEM.crt and STEM.key; `names` are the DNS names and addresses that a server answers at."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), _LEAF_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        alternatives = [_subject_name(n) for n in names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        self._save(stem, builder, key)


def _kubeconfig(folder: Path, stem: str, user: str, server: str) -> None:
    def data(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    credentials = {"client-certificate-data": data(f"{stem}.crt"), "client-key-data": data(f"{stem}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": user}}],
    }
    _write(folder / f"{stem}.kubeconfig", json.dumps(document, indent=1).encode())


def _fill(folder: Path, cluster: Cluster) -> None:
    authority = Authority(folder, "ca", "dev-cluster-ca")
    front = Authority(folder, "front-proxy-ca", "dev-front-proxy-ca")
    etcd = Authority(folder, "etcd-ca", "dev-etcd-ca")
    etcd.issue("etcd", "etcd", names=["127.0.0.1", "localhost"], server=True)
    etcd.issue("etcd-client", "kube-apiserver")
    service = str(ipaddress.ip_network(cluster.service_cidr)[1])  # where pods find the API server
    names = [*_API_SERVER_NAMES, cluster.gateway, service]
    authority.issue("apiserver", "kube-apiserver", names=names, server=True, client=False)
    authority.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters")
    front.issue("front-proxy", "front-proxy-client")
    tokens = ec.generate_private_key(ec.SECP256R1())  # signs service account tokens
    _write(folder / "sa.key", _key_pem(tokens))
    public = tokens.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(folder / "sa.pub", public)
    for stem, (name, organisation) in _USERS.items():
        authority.issue(stem, name, organisation)
        _kubeconfig(folder, stem, name, cluster.server)
    for node in cluster.nodes.values():
        stem, user = f"node-{node.name}", f"system:node:{node.name}"
        authority.issue(stem, user, "system:nodes", names=[node.name, node.ip], server=True)
        _kubeconfig(folder, stem, user, cluster.server)


def ensure(cluster: Cluster) -> bool:
    """Make the instance's certificates unless they exist, all of them or none; whether they were made."""
    if cluster.pki.exists():
        return False
    part = cluster.pki.with_name("pki.new")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    _fill(part, cluster)
    part.rename(cluster.pki)
    return True
