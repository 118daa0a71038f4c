"""Where no endpoint may lead, however it is spelled."""

from __future__ import annotations

import socket

import pytest
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.upstreams import fetch, make_settings, make_upstream

from cluster_gateway_core.errors import ClusterMisconfiguredError, ClusterUnreachableError
from cluster_gateway_core.settings import DENIED_ENDPOINT_CIDRS, UpstreamSettings
from cluster_gateway_core.upstream.address_policy import AddressPolicy

DEFAULT = AddressPolicy(DENIED_ENDPOINT_CIDRS)


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("169.254.169.254", "169.254.0.0/16"),
        ("169.254.0.1", "169.254.0.0/16"),
        ("::ffff:169.254.169.254", "169.254.0.0/16"),
        ("64:ff9b::a9fe:a9fe", "169.254.0.0/16"),
        ("2002:a9fe:a9fe::1", "169.254.0.0/16"),
        ("fe80::1", "fe80::/10"),
        ("fe80::1%eth0", "fe80::/10"),
        ("febf::1", "fe80::/10"),
        ("0.0.0.0", "0.0.0.0/8"),
        ("::", "::/128"),
        ("::ffff:0.0.0.0", "0.0.0.0/8"),
        ("224.0.0.1", "224.0.0.0/4"),
        ("ff02::1", "ff00::/8"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("100.100.100.200", "100.100.100.200/32"),
        ("168.63.129.16", "168.63.129.16/32"),
        ("192.0.0.192", "192.0.0.192/32"),
        ("fd00:ec2::254", "fd00:ec2::254/128"),
        ("fd20:ce::254", "fd20:ce::254/128"),
    ],
)
def test_addresses_of_no_api_server_are_denied_by_default(address: str, rule: str) -> None:
    assert DEFAULT.rule_against(address) == rule


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "203.0.113.7", "2001:db8::1", "fd12::1", "fec0::1"],
)
def test_loopback_and_private_addresses_are_allowed_by_default(address: str) -> None:
    assert DEFAULT.rule_against(address) == ""


def test_the_default_is_the_setting() -> None:
    assert UpstreamSettings().denied_endpoint_cidrs == DENIED_ENDPOINT_CIDRS


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f.1", "017700000001", "127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)
async def test_legacy_spellings_are_decided_by_what_they_resolve_to(host: str) -> None:
    async with ScriptedCluster() as cluster:
        settings = make_settings()
        upstream = make_upstream(f"http://{host}:{cluster.port}", denied_endpoint_cidrs=("127.0.0.0/8",))  # type: ignore[arg-type]
        with pytest.raises(ClusterMisconfiguredError) as caught:
            await fetch(upstream)
        assert cluster.connections == []
        assert settings.denied_endpoint_cidrs == DENIED_ENDPOINT_CIDRS
    assert caught.value.message == (
        "the endpoint of cluster managed1 is forbidden by 127.0.0.0/8 of --denied-endpoint-cidrs"
    )


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "0", "[::]", "0xa9fea9fe", "2852039166"])
async def test_metadata_and_unspecified_endpoints_are_refused_without_a_connection(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object, **__: object) -> None:
        pytest.fail("a socket was made")

    monkeypatch.setattr("cluster_gateway_core.upstream.tcp._connect", connect)
    with pytest.raises(ClusterMisconfiguredError, match="--denied-endpoint-cidrs"):
        await fetch(make_upstream(f"https://{host}:443"))


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """Let the name rebind.example resolve to one list of addresses after the other; returns the names looked up."""
    asked: list[str] = []
    real, left = socket.getaddrinfo, list(rounds)

    def getaddrinfo(host: str, port: int, *args: object, **options: object) -> object:
        if host != "rebind.example":
            return real(host, port, *args, **options)  # type: ignore[arg-type]
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_that_changes_its_answer_is_looked_up_once_and_that_answer_is_checked_and_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = answers(monkeypatch, ["169.254.169.254"], ["127.0.0.1"])
    async with ScriptedCluster() as cluster:
        upstream = make_upstream(f"http://rebind.example:{cluster.port}")
        with pytest.raises(ClusterMisconfiguredError) as caught:
            await fetch(upstream)
        assert cluster.connections == []
    assert asked == ["rebind.example"]
    assert "169.254.169.254" not in caught.value.message


async def test_a_forbidden_address_among_others_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["169.254.169.254", "127.0.0.1"])
    upstream = make_upstream("http://rebind.example:1")
    with pytest.raises(ClusterUnreachableError, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused"):
        await fetch(upstream)


def test_a_text_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        AddressPolicy(["nonsense"])
