"""Callers that reach the gateway without the hub in front, and what they can and cannot make it believe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from tests.support.gateway import GROUP, NAMESPACE, RESOURCE_PATH, proxy_path

from cluster_gateway.control_planes import CertificateAuthority, KeyPair

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_PODS = "/api/v1/namespaces/default/pods"
_FRIEND = "direct-friend"
_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:caller"


@pytest.fixture(scope="module")
async def rights(stage: Stage, gateway: Gateway) -> None:
    """A user and a service account of the hub may read in managed1."""
    rule = {"apiGroups": [GROUP], "resources": ["clustergateways/proxy"], "resourceNames": ["managed1"]}
    await stage.grant("e2e-direct", [rule | {"verbs": ["get"]}], _FRIEND, _ACCOUNT)


@pytest.fixture(scope="module")
async def token(rights: None, admin: Kubectl) -> str:
    """Bearer token of a service account of the hub."""
    await admin.ok("create", "serviceaccount", "-n", NAMESPACE, "caller")
    return (await admin.ok("create", "token", "-n", NAMESPACE, "caller")).strip()


@pytest.fixture(scope="module")
def front_proxy(stage: Stage) -> KeyPair:
    """The hub's own certificate as front proxy."""
    hub = stage.hub
    return KeyPair(
        certificate=hub.front_proxy_client_certificate.read_bytes(),
        key=hub.front_proxy_client_key.read_bytes(),
    )


async def test_a_hub_certificate_is_its_user(stage: Stage, gateway: Gateway, rights: None) -> None:
    friend = stage.hub.issue_client_certificate(_FRIEND)
    answer = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), user=friend)
    assert (answer.status, answer.json()["kind"]) == (200, "PodList")
    refused = await stage.ask_gateway(gateway, proxy_path("managed2", _PODS), user=friend)
    assert f'"{_FRIEND}"' in refused.status_object(403, "Forbidden")["message"]


async def test_a_hub_token_is_its_service_account(stage: Stage, gateway: Gateway, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), headers=headers)
    assert (answer.status, answer.json()["kind"]) == (200, "PodList")
    refused = await stage.ask_gateway(gateway, proxy_path("managed2", _PODS), headers=headers)
    assert f'"{_ACCOUNT}"' in refused.status_object(403, "Forbidden")["message"]


async def test_kubectl_works_with_a_hub_token_at_the_gateway(stage: Stage, gateway: Gateway, token: str) -> None:
    kubectl = stage.kubectl_at(gateway.url + proxy_path("managed1"), gateway.ca_path, token)
    assert "pod1" in await kubectl.ok("get", "pods")
    refused = await kubectl("exec", "pod1", "-c", "main", "--", "true")
    assert refused.exit_code == 1
    assert f'User "{_ACCOUNT}" cannot create resource "clustergateways/proxy"' in refused.stderr


async def test_an_invalid_token_is_unauthorized(stage: Stage, gateway: Gateway) -> None:
    for credential in ("Bearer nonsense-canary", "Bearer a.b.c"):
        headers = {"Authorization": credential}
        answer = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), headers=headers)
        answer.status_object(401, "Unauthorized")
        assert b"canary" not in answer.body
    assert "nonsense-canary" not in gateway.process.log.read_text()


async def test_the_hub_may_read_the_schema(stage: Stage, gateway: Gateway, front_proxy: KeyPair) -> None:
    """Whoever the front proxy names is authenticated, though it names no group."""
    headers = {"X-Remote-User": "system:aggregator"}
    for path in ("/openapi/v2", "/openapi/v3"):
        answer = await stage.ask_gateway(gateway, path, user=front_proxy, headers=headers)
        assert answer.status == 200, answer


@pytest.mark.parametrize(
    ("path", "verb"),
    [(RESOURCE_PATH, "list"), (proxy_path("managed1", _PODS), "get"), (f"/apis/{GROUP}/v1alpha1", "get")],
)
async def test_no_credential_is_nobody(stage: Stage, gateway: Gateway, path: str, verb: str) -> None:
    answer = await stage.ask_gateway(gateway, path)
    status = answer.status_object(403, "Forbidden")
    assert f'User "system:anonymous" cannot {verb}' in status["message"]


async def test_probes_need_no_credential(stage: Stage, gateway: Gateway) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        answer = await stage.ask_gateway(gateway, path)
        assert (answer.status, answer.body) == (200, b"ok")


def assertions(user: str, group: str = "") -> dict[str, str]:
    return {"X-Remote-User": user} | ({"X-Remote-Group": group} if group else {})


async def test_identity_headers_are_ignored_without_a_certificate(stage: Stage, gateway: Gateway) -> None:
    headers = assertions("kubernetes-admin", "system:masters")
    answer = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), headers=headers)
    assert '"system:anonymous"' in answer.status_object(403, "Forbidden")["message"]


async def test_identity_headers_of_a_user_are_ignored(stage: Stage, gateway: Gateway, rights: None) -> None:
    """Even with the front proxy's name: it is the wrong authority that signed it."""
    headers = assertions("kubernetes-admin", "system:masters")
    for name in (_FRIEND, "front-proxy-client"):
        user = stage.hub.issue_client_certificate(name)
        answer = await stage.ask_gateway(gateway, proxy_path("managed2", _PODS), user=user, headers=headers)
        assert f'"{name}"' in answer.status_object(403, "Forbidden")["message"]


async def test_a_certificate_of_nobody_known_is_no_identity(stage: Stage, gateway: Gateway) -> None:
    stranger = CertificateAuthority("stranger").issue_client("kubernetes-admin", ["system:masters"])
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):  # TLS itself refuses it
        await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), user=stranger)


async def test_identity_headers_of_the_front_proxy_are_honoured(
    stage: Stage, gateway: Gateway, rights: None, front_proxy: KeyPair
) -> None:
    answer = await stage.ask_gateway(
        gateway, proxy_path("managed1", _PODS), user=front_proxy, headers=assertions(_FRIEND)
    )
    assert answer.status == 200
    refused = await stage.ask_gateway(
        gateway, proxy_path("managed2", _PODS), user=front_proxy, headers=assertions(_FRIEND)
    )
    assert f'"{_FRIEND}"' in refused.status_object(403, "Forbidden")["message"]
    admin = assertions("anybody", "system:masters")
    allowed = await stage.ask_gateway(gateway, proxy_path("managed2", _PODS), user=front_proxy, headers=admin)
    assert allowed.status == 200


async def test_a_front_proxy_that_names_nobody_is_not_somebody(
    stage: Stage, gateway: Gateway, front_proxy: KeyPair
) -> None:
    answer = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), user=front_proxy)
    assert answer.status in {401, 403}
    assert answer.json()["kind"] == "Status"


async def test_callers_cannot_choose_an_identity_at_the_cluster(stage: Stage, gateway: Gateway, rights: None) -> None:
    """Strip first, then set (a2): nothing of the caller's identity or credentials reaches the cluster."""
    friend = stage.hub.issue_client_certificate(_FRIEND)
    headers = {"X-Remote-User": "somebody", "X-Remote-Group": "system:masters", "Cookie": "a=b"}
    target = proxy_path("managed1", "/api/v1/namespaces/default?canary=identity")
    answer = await stage.ask_gateway(gateway, target, user=friend, headers=headers)
    assert answer.status == 200
    lines = stage.managed["managed1"].audit_log.read_text().splitlines()
    (event,) = (event for line in lines if "canary=identity" in (event := json.loads(line))["requestURI"])
    assert event["user"]["username"] == "cluster-gateway"
    assert "impersonatedUser" not in event
