"""The one etcd that all control planes of a directory share, each under a prefix of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.pki import CertificateAuthority
from cluster_gateway.control_planes.ports import LOOPBACK
from cluster_gateway.control_planes.processes import ChildProcess

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Etcd:
    """An etcd, with what its clients need to reach it.

    Without client certificates every user of this host would be administrator of every plane.

    Attributes:
        directory: Folder of its data and of the files ca.crt, etcd.crt and etcd.key.
        port: Port of its clients.
        process: Its process.
    """

    directory: Path
    port: int
    process: ChildProcess

    @classmethod
    def prepare(cls, directory: Path, program: Path, *, port: int, peer_port: int) -> Etcd:
        """Write certificates into an empty directory and describe the process, without starting it."""
        directory.mkdir(mode=0o700)
        authority = CertificateAuthority("etcd-ca")
        authority.issue_peer("etcd", [LOOPBACK]).write(directory, "etcd")
        (directory / "ca.crt").write_bytes(authority.certificate)
        client, peer = f"https://{LOOPBACK}:{port}", f"https://{LOOPBACK}:{peer_port}"
        arguments: list[str | Path] = [program, f"--data-dir={directory / 'data'}", "--logger=zap"]
        arguments += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        arguments += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        arguments += [f"--initial-cluster=default={peer}", "--log-level=warn"]
        for prefix in ("", "peer-"):
            arguments += [f"--{prefix}cert-file={directory / 'etcd.crt'}"]
            arguments += [f"--{prefix}key-file={directory / 'etcd.key'}"]
            arguments += [f"--{prefix}trusted-ca-file={directory / 'ca.crt'}", f"--{prefix}client-cert-auth"]
        # The data need not survive a power cut, and waiting for the disk is most of a write.
        arguments += ["--unsafe-no-fsync"]
        log = directory.with_name("etcd.log")
        return cls(directory=directory, port=port, process=ChildProcess("etcd", arguments, log))

    @property
    def client_flags(self) -> list[str]:
        """The flags that tell an apiserver how to reach this etcd."""
        return [
            f"--etcd-servers=https://{LOOPBACK}:{self.port}",
            f"--etcd-cafile={self.directory / 'ca.crt'}",
            f"--etcd-certfile={self.directory / 'etcd.crt'}",
            f"--etcd-keyfile={self.directory / 'etcd.key'}",
        ]
