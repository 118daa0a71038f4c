"""How a kube-apiserver is set up: the files it reads and the flags it is started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_gateway.control_planes.pki import (
    CertificateAuthority,
    generate_key,
    render_key,
    render_public_key,
    write_private,
)
from cluster_gateway.control_planes.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

    from cluster_gateway.control_planes.etcd import Etcd

FRONT_PROXY_CLIENT = "front-proxy-client"
"""The only common name with which the aggregator, or a test in its place, may assert a user."""

KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""Common name of the certificate an apiserver shows to a kubelet, as kubeadm calls it."""

_SERVICE_RANGE = "10.96.0.0/16"
_SERVING_NAMES = (
    LOOPBACK,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "10.96.0.1",
)

_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


def write_apiserver_files(directory: Path, authority: CertificateAuthority) -> None:
    """Write everything a kube-apiserver reads into its directory.

    The front proxy has an authority of its own, as it must: else whoever has a client certificate of the
    cluster could assert any user
    (https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/#ca-reusage-and-conflicts).
    """
    authority.key_pair.write(directory, "ca")
    authority.issue_server("kube-apiserver", _SERVING_NAMES).write(directory, "apiserver")
    authority.issue_client(KUBELET_CLIENT, ["system:masters"]).write(directory, "kubelet-client")
    authority.issue_client("kubernetes-admin", ["system:masters"]).write(directory, "admin")
    front_proxy = CertificateAuthority(f"{directory.name}-front-proxy-ca")
    (directory / "front-proxy-ca.crt").write_bytes(front_proxy.certificate)
    front_proxy.issue_client(FRONT_PROXY_CLIENT).write(directory, "front-proxy-client")
    service_accounts = generate_key()
    write_private(directory / "sa.key", render_key(service_accounts))
    (directory / "sa.pub").write_bytes(render_public_key(service_accounts))
    (directory / "audit-policy.yaml").write_text(_AUDIT_POLICY)


def apiserver_flags(directory: Path, port: int, etcd: Etcd) -> list[str]:
    """Return the flags of the kube-apiserver whose files are in a directory."""
    return [
        *etcd.client_flags,
        f"--etcd-prefix=/{directory.name}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certs'}",
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        "--endpoint-reconciler-type=none",  # 127.0.0.1 is no address for the endpoints of a Service
        "--profiling=false",
        *_authentication_flags(directory),
        *_kubelet_flags(directory),
        f"--audit-policy-file={directory / 'audit-policy.yaml'}",
        f"--audit-log-path={directory / 'audit.log'}",
    ]


def _authentication_flags(directory: Path) -> list[str]:
    return [
        f"--tls-cert-file={directory / 'apiserver.crt'}",
        f"--tls-private-key-file={directory / 'apiserver.key'}",
        f"--client-ca-file={directory / 'ca.crt'}",
        f"--requestheader-client-ca-file={directory / 'front-proxy-ca.crt'}",
        f"--requestheader-allowed-names={FRONT_PROXY_CLIENT}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-uid-headers=X-Remote-Uid",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={directory / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={directory / 'front-proxy-client.key'}",
        # A Service of type ExternalName leads to its name, which is how a gateway on loopback is reached.
        "--enable-aggregator-routing=false",
        f"--service-account-key-file={directory / 'sa.pub'}",
        f"--service-account-signing-key-file={directory / 'sa.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # Without a controller-manager nobody makes the accounts that this plugin demands for pods.
        "--disable-admission-plugins=ServiceAccount",
    ]


def _kubelet_flags(directory: Path) -> list[str]:
    return [
        f"--kubelet-certificate-authority={directory / 'ca.crt'}",
        f"--kubelet-client-certificate={directory / 'kubelet-client.crt'}",
        f"--kubelet-client-key={directory / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]
