"""IO-8: a cluster without a usable endpoint or credential is refused with the cause, and never asked as nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.support.hub_secrets import ENDPOINT_LABEL, make_secret
from tests.support.routing_core import serve_core

from cluster_gateway_client import CoreError
from cluster_gateway_core.registry.secret_decoder import decode_secret
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from tests.support.scripted_cluster import ScriptedCluster

_RULES = "cluster.core.oam.dev/cluster-gateway-proxy-configuration"


@pytest.mark.parametrize(
    ("data", "secret", "cause"),
    [
        ({"token": b""}, {}, "missing secret data key: token"),
        ({"token": None}, {}, "missing secret data key: token"),
        ({"token": b" \n"}, {}, "missing secret data key: token"),
        ({}, {"credential_type": "X509Certificate"}, "missing secret data key: tls.crt"),
        ({}, {"credential_type": "Other"}, "unrecognized secret credential type Other"),
        ({}, {"credential_type": "Dynamic"}, "credential type Dynamic is not supported"),
        ({"endpoint": b""}, {}, "missing label key: api-endpoint"),
        ({"endpoint": None}, {}, "missing label key: api-endpoint"),
        ({"endpoint": b"https://"}, {}, "not a URL with a host"),
        ({"endpoint": b"gopher://x"}, {}, "not an https or http URL"),
        ({"proxy-url": b"nonsense"}, {}, "proxy-url is not"),
        ({"proxy-url": b"http://proxy:3128"}, {}, "proxy-url is not supported"),
        ({}, {"labels": {ENDPOINT_LABEL: "ClusterProxy"}}, "ClusterProxy is not supported"),
        ({}, {"annotations": {_RULES: "["}}, "not YAML"),
    ],
)
@pytest.mark.parametrize("always", [False, True])
async def test_a_registration_that_lacks_something_is_told_and_nothing_is_sent(
    cluster: ScriptedCluster,
    data: dict[str, bytes | None],
    secret: dict[str, Any],
    cause: str,
    always: bool,  # noqa: FBT001
) -> None:
    """IO-8."""
    whole = {"endpoint": cluster.address.encode(), "token": b"s3cret"} | data
    present = {key: value for key, value in whole.items() if value is not None}
    decoded = decode_secret(make_secret("managed1", data=present, **secret), HubSettings(read_identity_rules=True))
    async with serve_core(cluster.address) as (core, client):
        core.pass_identities(always=always)
        core.clusters.cluster = decoded
        with pytest.raises(CoreError) as failed:
            async with client.request("managed1", "GET", "/api"):
                pass
    assert (failed.value.reason, failed.value.cluster_name) == ("CLUSTER_MISCONFIGURED", "managed1")
    assert cause in failed.value.message
    assert cluster.connections == []


async def test_a_registration_that_is_not_there_is_told_and_nothing_is_sent(cluster: ScriptedCluster) -> None:
    async with serve_core(cluster.address) as (core, client):
        core.pass_identities()
        core.clusters.cluster = None
        with pytest.raises(CoreError, match="no such cluster managed1") as failed:
            async with client.request("managed1", "GET", "/api"):
                pass
    assert failed.value.reason == "CLUSTER_NOT_FOUND"
    assert cluster.connections == []
