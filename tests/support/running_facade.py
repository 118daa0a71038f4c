"""A facade that serves on loopback before a fake core, with a hub's certificates made on the spot."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.fake_core import FakeCore
from tests.support.hub_certificates import Identity, make_identity
from tests.support.raw_client import raw_client

from cluster_gateway_client.channel import CoreEndpoint
from cluster_gateway_client.client import CoreClient
from cluster_gateway_facade.app import _Facade
from cluster_gateway_facade.settings import CoreSettings, FacadeSettings, ServingSettings
from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust, WatchTrustResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.raw_client import RawClient

ALICE = ("X-Remote-User: alice", "X-Remote-Group: dev", "X-Remote-Group: system:authenticated")
PROXY = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways/east/proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubIdentities:
    """The certificates of one hub."""

    front_proxy_ca: Identity
    client_ca: Identity
    serving_ca: Identity
    front_proxy: Identity
    user: Identity
    serving: Identity

    def trust(self, **changes: Any) -> WatchTrustResponse:
        usual: dict[str, Any] = {
            "ca_pem": self.front_proxy_ca.certificate_pem,
            "allowed_names": ["front-proxy-client"],
            "username_headers": ["X-Remote-User"],
            "uid_headers": ["X-Remote-Uid"],
            "group_headers": ["X-Remote-Group"],
            "extra_header_prefixes": ["X-Remote-Extra-"],
        }
        return WatchTrustResponse(
            front_proxy=FrontProxyTrust(**usual | changes), client_ca_pem=self.client_ca.certificate_pem
        )


def make_hub_identities() -> HubIdentities:
    front_proxy_ca, client_ca, serving_ca = (make_identity(name) for name in ("front-ca", "hub-ca", "serving-ca"))
    return HubIdentities(
        front_proxy_ca=front_proxy_ca,
        client_ca=client_ca,
        serving_ca=serving_ca,
        front_proxy=make_identity("front-proxy-client", issuer=front_proxy_ca),
        user=make_identity("bob", issuer=client_ca, organizations=("ops",)),
        serving=make_identity(
            "gateway", issuer=serving_ca, usages=(ExtendedKeyUsageOID.SERVER_AUTH,), hosts=("gateway",)
        ),
    )


def write_pair(identity: Identity, folder: Path, name: str, *, chain: tuple[Identity, ...] = ()) -> tuple[str, str]:
    """Write certificate, with those that come behind it, and key; returns their paths."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(b"".join(one.certificate_pem for one in (identity, *chain)))
    key.write_bytes(identity.key_pem)
    return str(certificate), str(key)


def client_tls(
    serving_ca: Identity, client: Identity | None, folder: Path, *, chain: tuple[Identity, ...] = ()
) -> ssl.SSLContext:
    """Build the context of a client that verifies the gateway and may show a certificate; it sends no SNI."""
    context = ssl.create_default_context(cadata=serving_ca.certificate_pem.decode())
    context.check_hostname = False
    if client is not None:
        name = f"client-{client.certificate.serial_number:x}"
        context.load_cert_chain(*write_pair(client, folder, name, chain=chain))
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFacade:
    """What tests need of a facade that serves."""

    port: int
    core: FakeCore
    identities: HubIdentities
    folder: Path
    facade: _Facade
    listener: asyncio.Server

    def connect(self, client: Identity | None = None) -> AbstractAsyncContextManager[RawClient]:
        """Connect with a certificate, or with none."""
        return raw_client(self.port, client_tls(self.identities.serving_ca, client, self.folder))

    def as_front_proxy(self) -> AbstractAsyncContextManager[RawClient]:
        return self.connect(self.identities.front_proxy)

    @property
    def connection(self) -> Any:
        """The one open connection, as the server knows it."""
        (one,) = self.facade._server._open
        return one

    async def until(self, happened: Any) -> None:
        """Wait until something that has no event of its own is so."""
        async with asyncio.timeout(20):
            while not happened():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running_facade(folder: Path, *, core: Any = None, **serving: Any) -> AsyncIterator[RunningFacade]:
    """Serve, with the trust anchors in force; stop in good order in the end.

    Args:
        folder: Where files are put.
        core: What stands behind it, to be entered here; by default a fake core that answers from scripts.
        **serving: What differs from the usual settings.
    """
    identities = make_hub_identities()
    certificate, key = write_pair(identities.serving, folder, "serving")
    async with core or FakeCore(folder / "core.sock") as core:  # noqa: PLR1704 - it is the same one
        core.trust(identities.trust())
        settings = FacadeSettings(
            serving=replace(
                ServingSettings(
                    bind_address="127.0.0.1",
                    port=0,
                    certificate_file=certificate,
                    private_key_file=key,
                    grace_seconds=1.0,
                ),
                **serving,
            ),
            core=CoreSettings(target=core.target),
        )
        async with CoreClient(CoreEndpoint(target=core.target)) as client, asyncio.TaskGroup() as group:
            facade = _Facade(settings, client)
            listener = await facade.listen()
            background = [
                group.create_task(facade.trust_watch.run()),
                group.create_task(facade.readiness.run()),
            ]
            running = RunningFacade(
                port=listener.sockets[0].getsockname()[1],
                core=core,
                identities=identities,
                folder=folder,
                facade=facade,
                listener=listener,
            )
            try:
                await running.until(lambda: not facade.trust_watch.fault and not facade.readiness.reachable())
                yield running
            finally:
                await facade.stop(listener, asyncio.Event())
                for task in background:
                    task.cancel()
