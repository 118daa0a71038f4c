"""What the hub's aggregation layer really does between a caller and an aggregated API server such as the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.gateway import proxy_path
from tests.support.hub_certificates import Identity, make_identity
from tests.support.raw_client import raw_client
from tests.support.recording_server import Recorded, RecordingServer, create_api_service
from tests.support.running_facade import write_pair
from tests.support.scripted_cluster import Receive, ScriptedCluster, Send

from cluster_gateway.control_planes import pick_free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.gateway import Answer, Gateway, Stage

    from cluster_gateway.control_planes import KeyPair

_WAIT_SECONDS = 90.0
"""The hub looks at an APIService that failed again after up to thirty seconds."""
_HUB_HEADERS = {
    *("X-Remote-User", "X-Remote-Group", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
    *("X-Forwarded-Uri", "Host", "User-Agent", "Accept-Encoding", "Audit-Id"),
}
_CLIENTS_OWN = {"Accept"}
_LINK = b'<a href="/x">x</a>'
_AUTHORITY = make_identity("recorder-ca")


def make_serving(name: str, *, issuer: Identity = _AUTHORITY, hosts: tuple[str, ...] | None = None) -> Identity:
    hosts = (f"{name}.default.svc",) if hosts is None else hosts
    usages = (ExtendedKeyUsageOID.SERVER_AUTH,)
    return make_identity(f"{name}.default.svc", issuer=issuer, usages=usages, hosts=hosts)


def serving_tls(identity: Identity, folder: Path, client_ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_pair(identity, folder, "recorder"))
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextlib.asynccontextmanager
async def recording(stage: Stage, folder: Path, name: str, identity: Identity) -> AsyncIterator[RecordingServer]:
    """Serve the group `<name>.test` of the hub."""
    tls = serving_tls(identity, folder, stage.hub.front_proxy_ca_path)
    async with RecordingServer(group=f"{name}.test", tls=tls) as server:
        try:
            await server.register(stage, ca=_AUTHORITY.certificate_pem, service=name)
            yield server
        finally:
            for path in (server.api_service, f"/api/v1/namespaces/default/services/{name}"):
                await stage.ask_hub(path, method="DELETE")


@pytest.fixture(scope="module")
async def recorder(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RecordingServer]:
    """An API server beside the gateway that the hub finds available."""
    folder = tmp_path_factory.mktemp("recorder")
    async with recording(stage, folder, "recorder", make_serving("recorder")) as server:

        async def answers() -> bool:
            return (await stage.ask_hub(f"{server.root}/ready")).status == 200

        await wait_until(answers, what="the hub reaches the recorder", timeout_seconds=_WAIT_SECONDS)
        yield server


async def ask(stage: Stage, recorder: RecordingServer, path: str, **keywords: Any) -> tuple[Answer, Recorded]:
    """Send a request through the hub; returns its answer and what arrived."""
    before = len(recorder.of(path))
    answer = await stage.ask_hub(recorder.root + path, **keywords)
    assert answer.status == 200, answer
    (arrived,) = recorder.of(path)[before:]
    return answer, arrived


async def wait_unavailable(stage: Stage, api_service: str, reason: str) -> str:
    """Wait until the hub has found an APIService unavailable for a reason; returns its message."""
    message = ""

    async def is_so() -> bool:
        nonlocal message
        status = (await stage.ask_hub(api_service)).json().get("status", {})
        for condition in status.get("conditions", []):
            message = condition["message"]
            if (condition["type"], condition["status"], condition["reason"]) == ("Available", "False", reason):
                return True
        return False

    await wait_until(is_so, what=f"{api_service} is unavailable: {reason}", timeout_seconds=_WAIT_SECONDS)
    return message


async def test_a_group_that_nobody_serves_is_not_found(stage: Stage) -> None:
    """AG-1."""
    assert (await stage.ask_hub("/apis/nobody.test/v1/things")).status == 404


async def test_the_hub_adds_only_headers_that_the_gateway_reads_or_removes(
    stage: Stage, recorder: RecordingServer
) -> None:
    """AG-6: and it removes what a caller claims to be, in its own spelling."""
    user = stage.hub.issue_client_certificate("jane", ["dev", "system:masters"])
    claims = {"X-Remote-User": "root", "X-Remote-Extra-A": "b", "X-Remote-Uid": "0", "X-Remote-Group": "none"}
    _, arrived = await ask(stage, recorder, "/things", user=user, headers=claims)
    assert arrived.peer == "front-proxy-client"
    assert arrived.values("X-Remote-User") == ["jane"]
    assert arrived.values("X-Remote-Group") == ["dev", "system:masters", "system:authenticated"]
    assert arrived.values("X-Remote-Uid") == []
    assert arrived.values("X-Remote-Extra-A") == []
    assert arrived.values("X-Forwarded-For") == ["127.0.0.1"]
    assert arrived.values("X-Forwarded-Proto") == ["https"]
    assert arrived.values("X-Forwarded-Uri") == [f"{recorder.root}/things"]
    names = {name for name, _ in arrived.headers if not name.lower().startswith("x-remote-extra-")}
    assert names - _CLIENTS_OWN == _HUB_HEADERS


async def test_a_spelling_with_underscores_comes_through_the_hub(stage: Stage, recorder: RecordingServer) -> None:
    """The hub does not know it for an identity header, so the gateway must (docs/security.md)."""
    _, arrived = await ask(stage, recorder, "/things", headers={"X_Remote_User": "root"})
    assert arrived.values("X_Remote_User") == ["root"]


async def test_a_service_account_arrives_with_its_uid_and_extra(stage: Stage, recorder: RecordingServer) -> None:
    """AG-6: this release of Kubernetes sends X-Remote-Uid; older ones leave it out."""
    kubectl = stage.kubectl()
    await kubectl.ok("create", "serviceaccount", "-n", "default", "recorder-reader")
    account = await kubectl.get("serviceaccount", "-n", "default", "recorder-reader")
    rules = [{"apiGroups": [recorder.group], "resources": ["*"], "verbs": ["*"]}]
    name = "system:serviceaccount:default:recorder-reader"
    await stage.grant("recorder-reader", rules, name)
    token = (await kubectl.ok("create", "token", "-n", "default", "recorder-reader")).strip()
    async with raw_client(stage.hub.port, stage.ssl_context(stage.hub.ca_path)) as client:
        response = await client.get(f"{recorder.root}/account", f"Authorization: Bearer {token}")
    assert response.status == 200
    (arrived,) = recorder.of("/account")
    assert arrived.values("X-Remote-User") == [name]
    assert arrived.values("X-Remote-Uid") == [account["metadata"]["uid"]]
    assert arrived.values("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id")
    assert arrived.values("Authorization") == []
    assert token not in str(arrived.headers)


async def test_the_hub_s_audit_id_is_the_one_that_the_caller_gets(stage: Stage, recorder: RecordingServer) -> None:
    """AG-9: so a line of the hub's audit log, of the gateway and of the cluster can be joined."""
    answer, arrived = await ask(stage, recorder, "/audited", headers={"Audit-Id": "made-by-the-caller"})
    assert arrived.values("Audit-Id") == ["made-by-the-caller"] == [answer.headers["audit-id"]]
    answer, arrived = await ask(stage, recorder, "/audited")
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["audit-id"])
    assert arrived.values("Audit-Id") == [answer.headers["audit-id"]]


async def test_a_trace_goes_on(stage: Stage, recorder: RecordingServer) -> None:
    """AG-8."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    _, arrived = await ask(stage, recorder, "/traced", headers={"traceparent": trace})
    (found,) = arrived.values("Traceparent")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", found)
    _, arrived = await ask(stage, recorder, "/traced")
    assert arrived.values("Traceparent") == []


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("/a%20b", "/a%20b"),
        ("/a%7Eb%2Dc", "/a~b-c"),
        ("/a%2Fb", "/a/b"),
        ("/a~b", "/a~b"),
        ("/x?b=2&a=2&a=1", "/x?a=2&a=1&b=2"),
        ("/x?a=%2F&b=%7E", "/x?a=%2F&b=~"),
        ("/x?a+b=c%20d", "/x?a+b=c+d"),
        ("/x?a=1;b=2&c=3", "/x?c=3"),
        ("/x?a=%zz&c=3", "/x?c=3"),
        ("/x?watch", "/x?watch="),
    ],
)
async def test_targets_arrive_decoded_and_encoded_again_with_sorted_queries(
    stage: Stage, recorder: RecordingServer, sent: str, came: str
) -> None:
    """AG-10: so nothing in the gateway may depend on how a byte was escaped at the hub."""
    before = len(recorder.recorded)
    async with raw_client(stage.hub.port, stage.hub.ssl_context()) as client:
        assert (await client.get(recorder.root + sent)).status == 200
    # The hub asks for discovery documents of its own accord at any time.
    own = f"{recorder.root}/"
    targets = [recorded.target for recorded in recorder.recorded[before:] if recorded.path.startswith(own)]
    assert targets == [recorder.root + came]


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/./a", "//a"])
async def test_the_hub_hands_on_dot_segments_and_empty_ones(stage: Stage, recorder: RecordingServer, path: str) -> None:
    """AG-10: escaped ones even unescaped. So the gateway itself must refuse them, behind the hub too."""
    before = len(recorder.recorded)
    async with raw_client(stage.hub.port, stage.hub.ssl_context()) as client:
        assert (await client.get(recorder.root + path)).status == 200
    # The hub asks for discovery documents of its own accord at any time.
    own = f"{recorder.root}/"
    targets = [recorded.target for recorded in recorder.recorded[before:] if recorded.path.startswith(own)]
    assert targets == [recorder.root + path.replace("%2e", ".")]


@pytest.mark.parametrize("path", ["/api/../version", "/api/%2e%2e/version", "/api//v1", "/api/%252e%252e/version"])
async def test_targets_that_two_parsers_read_differently_are_refused_behind_the_hub(
    stage: Stage, gateway: Gateway, path: str
) -> None:
    async with raw_client(stage.hub.port, stage.hub.ssl_context()) as client:
        response = await client.get(proxy_path("managed1", path))
    assert response.status == 400
    assert response.json()["reason"] == "BadRequest"


@pytest.mark.parametrize(
    ("content_type", "rewritten"),
    [
        ("text/html", True),
        ("text/html; charset=utf-8", True),
        ("application/json", False),
        ("text/plain", False),
        ("application/octet-stream", False),
    ],
)
async def test_links_are_rewritten_in_html_alone(
    stage: Stage,
    recorder: RecordingServer,
    content_type: str,
    rewritten: bool,  # noqa: FBT001
) -> None:
    """AG-11."""
    recorder.answers["/page"] = (content_type, _LINK)
    answer, _ = await ask(stage, recorder, "/page")
    assert answer.headers["content-type"] == content_type
    assert (answer.body != _LINK) is rewritten


async def test_what_the_gateway_serves_is_never_taken_for_html(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    """AG-11: an answer without a type, errors of the gateway's own, and a cluster's JSON arrive byte for byte."""
    name = "scripted1"
    pair: KeyPair = stage.authority.issue_server("cluster", ["127.0.0.1"])
    pair.write(tmp_path, "cluster")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cluster.crt", tmp_path / "cluster.key")
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    async with ScriptedCluster(tls=tls) as cluster:
        for content_type in (b"application/json", b"text/plain"):
            cluster.script((Receive(), Send(answer % (content_type, len(_LINK), _LINK))))
        data = {"endpoint": cluster.address.encode(), "ca.crt": stage.authority.certificate, "token": b"t"}
        await stage.register(name, data, credential="ServiceAccountToken")
        try:
            await stage.wait_known(name)
            for content_type in ("application/json", "text/plain"):
                got = await stage.ask_hub(proxy_path(name, "/page"))
                assert (got.status, got.headers["content-type"], got.body) == (200, content_type, _LINK)
        finally:
            await stage.unregister(name)
    refused = await stage.ask_hub(proxy_path("nobody1", "/%3Ca%20href=%22/x%22%3E"))
    assert refused.headers["content-type"] == "application/json"
    refused.status_object(503, "ServiceUnavailable")


async def test_a_service_that_does_not_exist_is_unavailable(stage: Stage) -> None:
    """AG-4."""
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.unresolvable.test"
    reference = {"namespace": "default", "name": "no-such-service", "port": 443}
    await create_api_service(stage, "unresolvable.test", ca=_AUTHORITY.certificate_pem, reference=reference)
    try:
        await wait_unavailable(stage, path, "ServiceNotFound")
        assert (await stage.ask_hub("/apis/unresolvable.test/v1/things")).status == 503
    finally:
        await stage.ask_hub(path, method="DELETE")


async def test_discovery_that_takes_longer_than_five_seconds_makes_a_group_unavailable(
    stage: Stage, tmp_path: Path
) -> None:
    """AG-3, AG-7."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    gave_up: list[float] = []

    async def hold() -> None:
        asked.append(loop.time())
        try:
            await asyncio.Event().wait()
        finally:
            gave_up.append(loop.time())

    async with recording(stage, tmp_path, "slow", make_serving("slow")) as server:
        server.discovery = hold
        await wait_unavailable(stage, server.api_service, "FailedDiscoveryCheck")
        assert (await stage.ask_hub(f"{server.root}/things")).status == 503
        assert server.of("/things") == []
        assert asked
        assert gave_up
        assert min(gave_up) - min(asked) >= 4.5


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(make_serving("bad", issuer=make_identity("elsewhere")), id="of another authority"),
        pytest.param(make_serving("bad", hosts=("other.default.svc",)), id="of another name"),
        pytest.param(make_serving("bad", hosts=()), id="without SAN"),
    ],
)
async def test_a_bad_serving_certificate_makes_a_group_unavailable(
    stage: Stage, tmp_path: Path, identity: Identity
) -> None:
    """AG-5."""
    async with recording(stage, tmp_path, "bad", identity) as server:
        assert "x509" in await wait_unavailable(stage, server.api_service, "FailedDiscoveryCheck")
        assert (await stage.ask_hub(f"{server.root}/things")).status == 503
        assert server.recorded == []


async def test_a_certificate_without_san_is_counted_by_the_hub(stage: Stage, tmp_path: Path) -> None:
    """AG-5: the counter tells an operator why a group that was well is not any more."""
    async with recording(stage, tmp_path, "aged", make_serving("aged")) as server:

        async def answers() -> bool:
            return (await stage.ask_hub(f"{server.root}/things")).status == 200

        await wait_until(answers, what="the hub reaches the server", timeout_seconds=_WAIT_SECONDS)
        before = await missing_sans(stage)
        server.tls.load_cert_chain(*write_pair(make_serving("aged", hosts=()), tmp_path, "aged"))
        assert (await stage.ask_hub(f"{server.root}/things")).status == 503
        assert await missing_sans(stage) > before


async def missing_sans(stage: Stage) -> float:
    text = (await stage.ask_hub("/metrics")).body.decode()
    found = re.findall(r"^\S*kube_aggregator_x509_missing_san_total (\S+)$", text, re.MULTILINE)
    return float(found[0])


async def test_a_gateway_that_is_gone_is_unavailable(stage: Stage) -> None:
    """AG-3: nobody listens where the APIService points."""
    (port,) = pick_free_ports(1)
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.gone.test"
    service = "/api/v1/namespaces/default/services"
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"name": "https", "port": port}]}
    await stage.ask_hub(service, method="POST", body={"metadata": {"name": "gone"}, "spec": spec})
    reference = {"namespace": "default", "name": "gone", "port": port}
    await create_api_service(stage, "gone.test", ca=_AUTHORITY.certificate_pem, reference=reference)
    try:
        await wait_unavailable(stage, path, "FailedDiscoveryCheck")
        assert (await stage.ask_hub("/apis/gone.test/v1/things")).status == 503
    finally:
        for each in (path, f"{service}/gone"):
            await stage.ask_hub(each, method="DELETE")
