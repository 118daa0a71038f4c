"""No secret is told: every kind is planted, much is done with it at the highest verbosity, then it is looked for."""

from __future__ import annotations

import base64
import json
import re
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import pytest
from tests.support.gateway import RESOURCE_PATH, SECRET_NAMESPACE, proxy_path
from tests.support.processes import children_of
from tests.support.raw_client import raw_client
from tests.support.scripted_cluster import Receive, ScriptedCluster, Send

from cluster_gateway.control_planes import CertificateAuthority, KeyPair, pick_free_ports, wait_until
from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from clustergateway.access.v1.access_service_pb2 import AuthenticateRequest
from clustergateway.access.v1.user_info_pb2 import UserInfo
from clustergateway.registry.v1.registry_service_pb2 import GetClusterRequest, ListClustersRequest
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Answer, Gateway, Stage

_ROOT = UserInfo(username="root", groups=["system:masters"])
_SECONDS = 20.0
_SHOULD_NEVER_BE_LOGGED = re.compile(
    r"(?i:bearer)\s+(?!REDACTED|token\b)[\w.~+/-]{6,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|eyJ[\w-]{8,}\.[\w-]+|(?i:base64url\.bearer\.authorization)"
)


@dataclass
class Canaries:
    """What was planted, by what it stands for."""

    planted: dict[str, str] = field(default_factory=dict)

    def new(self, what: str) -> str:
        """Plant one more."""
        return self.plant(what, f"canary{secrets.token_hex(16)}")

    def plant(self, what: str, text: str) -> str:
        """Look for a text that exists already."""
        self.planted[what] = text
        return text

    def found_in(self, where: str, told: str) -> list[str]:
        """What of it was told, in whatever form."""
        return [
            f"{what} in {where}" for what, text in self.planted.items() if any(form in told for form in forms(text))
        ]


def forms(text: str) -> set[str]:
    """A text, and how it looks encoded; of base64 the part that does not depend on what stands around it."""
    raw = text.encode()
    encoded = {base64.b64encode(b"x" * shift + raw).decode()[4:-4] for shift in range(3)}
    urlsafe = {form.replace("+", "-").replace("/", "_") for form in encoded}
    return {text, quote(text, safe=""), raw.hex(), repr(text)[1:-1], json.dumps(text)[1:-1], *encoded, *urlsafe}


def middle_of(pem: bytes) -> str:
    """A line of a PEM that is in no other."""
    return pem.decode().splitlines()[2]


def data_of(address: str, ca: bytes, **more: bytes) -> dict[str, bytes]:
    return {"endpoint": address.encode(), "ca.crt": ca} | {key.replace("_", "."): value for key, value in more.items()}


@dataclass
class Told:
    """Everything that was said to somebody outside."""

    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, text: object) -> None:
        self.texts.append((where, str(text)))

    def answer(self, where: str, answer: Answer) -> Answer:
        self.add(where, f"{answer.status} {answer.headers} {answer.body.decode('latin-1')}")
        return answer


@pytest.fixture
async def gateway(stage: Stage, gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway of its own that logs all it can, beside the one that the hub knows."""
    async with stage.run_gateway("-v=10") as verbose:
        yield verbose
        await verbose.process.stop()


async def test_no_planted_secret_is_told_to_anybody(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    canaries, told = Canaries(), Told()
    (user,) = json.loads(stage.gateway_kubeconfig.read_text())["users"]
    canaries.plant("the gateway's own token", user["user"]["token"].rpartition(".")[2])
    names = await register_clusters(stage, canaries, tmp_path)
    try:
        async with ScriptedCluster(tls=cluster_tls(stage, tmp_path)) as cluster:
            await register_scripted(stage, cluster, canaries)
            names.append("scripted1")
            await wait_listed(stage, gateway, names)
            await read_objects(stage, gateway, names, told)
            await ask_as_callers(stage, gateway, canaries, told)
            await fail_in_every_way(stage, gateway, cluster, names, canaries, told)
            await send_what_is_no_request(stage, gateway, canaries, told)
            await ask_the_core(gateway, names, canaries, told)
            processes = {"apiserver": gateway.process.process.pid, **children_of(gateway.process.process.pid)}
            assert processes.keys() == {"apiserver", "core", "facade"}
            for name, pid in processes.items():
                look_at_process(name, pid, told)
    finally:
        await stage.unregister(*names)
    assert await gateway.process.stop() == 0
    log = gateway.process.log.read_text()
    assert '"level": "debug"' in log
    told.add("the log", log)
    hits = [hit for where, text in told.texts for hit in canaries.found_in(where, text)]
    assert hits == []
    assert len(canaries.planted) > 20
    assert len(told.texts) > 60
    assert _SHOULD_NEVER_BE_LOGGED.findall(log) == []


def look_at_process(name: str, pid: int, told: Told) -> None:
    for file in ("cmdline", "environ"):
        told.add(f"{file} of {name}", Path(f"/proc/{pid}/{file}").read_text())


def cluster_tls(stage: Stage, folder: Path) -> ssl.SSLContext:
    stage.authority.issue_server("cluster", ["127.0.0.1"]).write(folder, "scripted")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "scripted.crt", folder / "scripted.key")
    return context


async def register_clusters(stage: Stage, canaries: Canaries, folder: Path) -> list[str]:
    """Clusters that work and clusters that are wrong in every way; returns their names."""
    plane = stage.managed["managed1"]
    (port,) = pick_free_ports(1)
    ca = plane.ca.certificate
    good = plane.issue_client_certificate("cluster-gateway", ["system:masters"])
    other = plane.issue_client_certificate("stranger")
    canaries.plant("a private key", middle_of(good.key))
    canaries.plant("a private key that does not fit", middle_of(other.key))
    nowhere = f"https://127.0.0.1:{port}"
    new = canaries.new
    certificate = {"tls_crt": good.certificate, "tls_key": good.key}
    wrong_ca = CertificateAuthority("elsewhere").certificate
    registrations: dict[str, tuple[str, dict[str, bytes]]] = {
        "c-good": ("X509Certificate", data_of(plane.url, ca, **certificate)),
        "c-rejected": ("ServiceAccountToken", data_of(plane.url, ca, token=new("a rejected token").encode())),
        "c-nowhere": ("ServiceAccountToken", data_of(nowhere, ca, token=new("an unused token").encode())),
        "c-wrong-ca": ("ServiceAccountToken", data_of(plane.url, wrong_ca, token=new("a distrusting token").encode())),
        "c-bad-token": ("ServiceAccountToken", data_of(plane.url, ca, token=f"{new('a bad token')} x".encode())),
        "c-bad-key": (
            "X509Certificate",
            data_of(plane.url, ca, tls_crt=good.certificate, tls_key=new("a key that is none").encode()),
        ),
        "c-mixed": ("X509Certificate", data_of(plane.url, ca, tls_crt=good.certificate, tls_key=other.key)),
        "c-bad-ca": (
            "ServiceAccountToken",
            data_of(plane.url, new("a CA that is none").encode(), token=new("beside a bad CA").encode()),
        ),
        "c-bad-url": ("ServiceAccountToken", data_of(f"https://u:{new('a password in the URL')}@h", ca, token=b"t")),
        "c-proxy": (
            "ServiceAccountToken",
            data_of(plane.url, ca, token=b"t", **{"proxy-url": f"http://u:{new('a proxy password')}@proxy".encode()}),
        ),
        "c-dynamic": ("Dynamic", data_of(plane.url, ca, exec=new("an exec configuration").encode())),
        "c-unknown": (new("type").capitalize()[:60], data_of(plane.url, ca, token=new("of unknown type").encode())),
    }
    canaries.planted.pop("type")  # a label is no secret, and a fault must quote it
    for name, (kind, data) in registrations.items():
        await stage.register(name, data, credential=kind)
    return list(registrations)


async def register_scripted(stage: Stage, cluster: ScriptedCluster, canaries: Canaries) -> None:
    token = canaries.new("a token of a hostile cluster").encode()
    data = data_of(cluster.address, stage.authority.certificate, token=token)
    await stage.register("scripted1", data, credential="ServiceAccountToken")


async def wait_listed(stage: Stage, gateway: Gateway, names: list[str]) -> None:
    """Wait until this gateway has read them all."""
    front = front_proxy(stage)

    async def are_listed() -> bool:
        listed = (await stage.ask_gateway(gateway, RESOURCE_PATH, user=front, headers=as_root())).json()["items"]
        return set(names) <= {item["metadata"]["name"] for item in listed}

    await wait_until(are_listed, what="the gateway has read the clusters", timeout_seconds=_SECONDS)


def front_proxy(stage: Stage) -> KeyPair:
    hub = stage.hub
    return KeyPair(
        certificate=hub.front_proxy_client_certificate.read_bytes(), key=hub.front_proxy_client_key.read_bytes()
    )


def as_root(**more: str) -> dict[str, str]:
    return {"X-Remote-User": "root", "X-Remote-Group": "system:masters"} | more


async def read_objects(stage: Stage, gateway: Gateway, names: list[str], told: Told) -> None:
    """Clusters in every form in which they are served."""
    front = front_proxy(stage)
    accepted = (
        *("application/json", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        *("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "text/html"),
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )
    for accept in accepted:
        headers = as_root(Accept=accept)
        for path in (RESOURCE_PATH, f"{RESOURCE_PATH}?includeObject=Object", *(f"{RESOURCE_PATH}/{n}" for n in names)):
            answer = await stage.ask_gateway(gateway, path, user=front, headers=headers)
            told.answer(f"{path} as {accept}", answer)
            assert answer.status in {200, 406}
    for path in ("/readyz?verbose", "/livez?verbose", "/version", "/openapi/v2", "/apis"):
        told.answer(path, await stage.ask_gateway(gateway, path, user=front, headers=as_root()))


async def ask_as_callers(stage: Stage, gateway: Gateway, canaries: Canaries, told: Told) -> None:
    """Callers with every kind of credential, good and bad, and with private content."""
    target = proxy_path("c-good", "/api/v1/namespaces/default/configmaps")
    token = (await stage.kubectl().ok("create", "token", "-n", SECRET_NAMESPACE, "default")).strip()
    canaries.plant("a caller's good token", token.rpartition(".")[2])
    bearers = {"a caller's token": canaries.new("a caller's bad token"), "good": token}
    for what, bearer in bearers.items():
        answer = await stage.ask_gateway(gateway, target, headers={"Authorization": f"Bearer {bearer}"})
        told.answer(what, answer)
        assert answer.status == (403 if what == "good" else 401)
    for scheme in ("Basic", "Negotiate"):
        secret = canaries.new(f"a {scheme} credential")
        answer = await stage.ask_gateway(gateway, target, headers={"Authorization": f"{scheme} {secret}"})
        told.answer(scheme, answer)
    front = front_proxy(stage)
    private = {
        "X-Remote-Extra-Scopes": canaries.new("an extra value"),
        "Cookie": f"session={canaries.new('a cookie')}",
        "X-Remote-Uid": canaries.new("a uid"),
    }
    for name in ("c-good", "c-nowhere", "c-bad-key"):
        path = proxy_path(name, f"/api/v1/pods?token={canaries.new(f'a query to {name}')}")
        told.answer(
            path.partition("?")[0], await stage.ask_gateway(gateway, path, user=front, headers=as_root(**private))
        )
    body = {"metadata": {"name": "x"}, "data": {"password": canaries.new("a request's body")}}
    for name in ("c-nowhere", "c-rejected", "c-wrong-ca", "nobody1"):
        path = proxy_path(name, "/api/v1/namespaces/default/configmaps")
        told.answer(
            f"POST to {name}",
            await stage.ask_gateway(gateway, path, user=front, method="POST", body=body, headers=as_root(**private)),
        )
    bearer = base64.urlsafe_b64encode(canaries.new("a token as sub-protocol").encode()).decode().rstrip("=")
    canaries.plant("a token as sub-protocol, encoded", bearer)
    for name in ("c-good", "c-nowhere", "nobody1"):
        await upgrade(stage, gateway, proxy_path(name, "/api/v1/namespaces/default/pods/pod1/exec"), bearer, told)
    refused = as_root(
        **{"Impersonate-User": "somebody", "Impersonate-Extra-Scopes": canaries.new("an extra to take on")}
    )
    told.answer("impersonation", await stage.ask_gateway(gateway, target, user=front, headers=refused))


async def upgrade(stage: Stage, gateway: Gateway, path: str, bearer: str, told: Told) -> None:
    tls = stage.ssl_context(gateway.ca_path, front_proxy(stage))
    async with raw_client(gateway.port, tls) as client:
        await client.send(
            f"GET {path}?command=true&stdout=true HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"X-Remote-User: root\r\nX-Remote-Group: system:masters\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: v5.channel.k8s.io, "
            f"base64url.bearer.authorization.k8s.io.{bearer}\r\n\r\n".encode()
        )
        status, headers = await client.head()
        told.add(f"upgrade of {path}", (status, headers))


async def fail_in_every_way(
    stage: Stage, gateway: Gateway, cluster: ScriptedCluster, names: list[str], canaries: Canaries, told: Told
) -> None:
    """Each cluster is asked, and one answers with what it was told, as a hostile one might."""
    front = front_proxy(stage)
    for name in names:
        if name != "scripted1":
            path = proxy_path(name, "/version")
            told.answer(path, await stage.ask_gateway(gateway, path, user=front, headers=as_root()))
    token = canaries.planted["a token of a hostile cluster"].encode()
    hostile = (
        b"HTTP/1.1 banana %b\r\n\r\n" % token,
        b"%b\r\n\r\n" % token,
        b"HTTP/1.1 302 Found\r\nLocation: https://h/?t=%b\r\nContent-Length: 0\r\n\r\n" % token,
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer %b\r\nContent-Length: 0\r\n\r\n" % token,
        b"HTTP/1.1 101 %b\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % (token, token),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n" % token,
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % token,
        b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % token,
    )
    for answer in hostile:
        cluster.script((Receive(), Send(answer)))
        got = await stage.ask_gateway(gateway, proxy_path("scripted1", "/x"), user=front, headers=as_root())
        told.answer(f"after {answer[:20]!r}", got)
        assert got.status in {502, 503}, got


async def send_what_is_no_request(stage: Stage, gateway: Gateway, canaries: Canaries, told: Told) -> None:
    """Heads that are refused before anybody reads them."""
    secret = canaries.new("part of what is no request")
    heads = (
        f"GET /{secret} HTTP/9.9\r\n\r\n",
        f"GET {secret} HTTP/1.1\r\nHost: g\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\n{secret}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\nAuthorization : Bearer {secret}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {secret}\x00\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {secret * 40_000}\r\n\r\n",
        f"POST {proxy_path('c-good', '/api')} HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: {secret}\r\n\r\n",
    )
    for head in heads:
        async with raw_client(gateway.port, stage.ssl_context(gateway.ca_path)) as client:
            client.writer.write(head.encode("latin-1"))
            told.add(f"after {head[:12]!r}", await client.rest())


async def ask_the_core(gateway: Gateway, names: list[str], canaries: Canaries, told: Told) -> None:
    """The core's own API, as a facade asks."""
    (socket,) = gateway.temporary.rglob("core.sock")
    async with CoreClient(CoreEndpoint(target=f"unix:{socket}")) as core:
        told.add(
            "ListClusters", await core.registry.ListClusters(ListClustersRequest(asserted_user=_ROOT), timeout=_SECONDS)
        )
        for name in names:
            request = GetClusterRequest(name=name, asserted_user=_ROOT)
            told.add(f"GetCluster {name}", await core.registry.GetCluster(request, timeout=_SECONDS))
        token = canaries.new("a token to be reviewed")
        told.add("Authenticate", await core.access.Authenticate(AuthenticateRequest(token=token), timeout=_SECONDS))
        header = Header(name=b"Authorization", value=f"Bearer {canaries.new('a header of a gRPC caller')}".encode())
        for name in ("c-nowhere", "c-bad-key", "nobody1"):
            head = RequestHead(cluster_name=name, method="GET", target=b"/x", headers=[header], asserted_user=_ROOT)
            async with core.exchange() as exchange:
                await exchange.start(head, end=True)
                with pytest.raises(CoreError) as failed:
                    await exchange.receive()
                told.add(f"exchange with {name}", (failed.value.message, failed.value.hint, repr(failed.value)))
        secret = canaries.new("metadata of a gRPC caller")
        call = core.registry.GetCluster(
            GetClusterRequest(name="c-good"), metadata=(("authorization", f"Bearer {secret}"),), timeout=_SECONDS
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        told.add("gRPC refusal", (refused.value.details(), refused.value.trailing_metadata()))
