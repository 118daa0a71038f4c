from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.hub_certificates import make_identity
from tests.support.hub_secrets import ENDPOINT_LABEL, make_secret

from cluster_gateway_core.model.cluster import EndpointType, Health
from cluster_gateway_core.model.identity import Privileged
from cluster_gateway_core.registry.secret_decoder import decode_secret
from cluster_gateway_core.settings import HubSettings

SETTINGS = HubSettings()
AUTHORITY = make_identity("ca")
CLIENT = make_identity("client", issuer=AUTHORITY)
EXPIRED = make_identity("client", issuer=AUTHORITY, expired=True)
CA = AUTHORITY.certificate_pem
ADDRESS = b"https://10.0.0.1:6443"
INSECURE = {"cluster.core.oam.dev/insecure-skip-tls-verify": "true"}


def with_data(**data: bytes) -> dict[str, bytes]:
    plain = {"endpoint": ADDRESS, "token": b"canary-token"}
    return {**plain, **{key.replace("_", "."): value for key, value in data.items()}}


def test_decodes_a_token_secret() -> None:
    cluster = decode_secret(make_secret(data=with_data(ca_crt=CA), labels={"region": "eu"}), SETTINGS)
    assert cluster.fault == ""
    assert (cluster.name, cluster.uid, cluster.resource_version) == ("c1", "uid-c1", "7")
    assert cluster.creation_timestamp == datetime(2025, 1, 1, tzinfo=UTC)
    assert cluster.labels["region"] == "eu"
    assert cluster.endpoint is not None
    assert cluster.endpoint.type is EndpointType.CONST
    assert cluster.endpoint.address == "https://10.0.0.1:6443"
    assert cluster.endpoint.ca_bundle_pem == CA
    assert not cluster.endpoint.insecure
    assert cluster.credential is not None
    assert cluster.credential.token == "canary-token"
    assert "canary" not in repr(cluster)


@pytest.mark.parametrize(
    ("data", "settings", "annotations", "ca", "insecure"),
    [
        ({}, SETTINGS, {}, None, False),
        ({}, SETTINGS, INSECURE, None, True),
        ({}, HubSettings(allow_insecure_endpoints=True), {}, None, True),
        ({"ca.crt": b""}, HubSettings(allow_insecure_endpoints=True), INSECURE, None, False),
        ({"ca": CA}, HubSettings(allow_insecure_endpoints=True), INSECURE, CA, False),
        ({"ca.crt": CA, "ca": b"other"}, SETTINGS, {}, CA, False),
        ({"ca.crt": b"", "ca": CA}, SETTINGS, {}, None, False),
    ],
)
def test_verification_is_off_only_where_it_is_allowed(
    data: dict[str, bytes],
    settings: HubSettings,
    annotations: dict[str, str],
    ca: bytes | None,
    *,
    insecure: bool,
) -> None:
    secret = make_secret(data={**with_data(), **data}, annotations=annotations)
    cluster = decode_secret(secret, settings)
    assert cluster.endpoint is not None
    assert (cluster.endpoint.ca_bundle_pem, cluster.endpoint.insecure) == (ca, insecure)
    assert cluster.fault == ""


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (b"https://h\n", "https://h"),
        (b"http://h:80/base/", "http://h:80/base/"),
        (b"https://[::1]:6443", "https://[::1]:6443"),
    ],
)
def test_an_address_keeps_its_path_and_loses_one_newline(raw: bytes, address: str) -> None:
    cluster = decode_secret(make_secret(data=with_data(endpoint=raw)), SETTINGS)
    assert cluster.endpoint is not None
    assert cluster.endpoint.address == address


@pytest.mark.parametrize(
    "raw",
    [
        b"h:6443",
        b"ftp://h",
        b"https://",
        b"https://:6443",
        b"https://canary@h",
        b"https://u:canary@h",
        b"https://h?x=canary",
        b"https://h#canary",
        b"https://h?",
        b"https://h:99999",
        b"https://h\n\n",
        b" https://h",
        b"https://h\tx",
        b"https://[::1",
        b"\xff",
        "https://hä".encode(),
    ],
)
def test_an_unusable_address_is_a_fault_that_does_not_quote_it(raw: bytes) -> None:
    cluster = decode_secret(make_secret(data=with_data(endpoint=raw)), SETTINGS)
    assert cluster.endpoint is None
    assert "endpoint" in cluster.fault
    assert "canary" not in cluster.fault


@pytest.mark.parametrize("raw", [b"", b"\n"])
def test_a_missing_address_is_told_in_the_originals_words(raw: bytes) -> None:
    secret = make_secret(data=with_data(endpoint=raw), credential_type="Nonsense")
    assert decode_secret(secret, SETTINGS).fault == "missing label key: api-endpoint"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"", None), (b"http://u:p@proxy:3128", "http://u:p@proxy:3128"), (b"socks5://p:1", "socks5://p:1")],
)
def test_a_proxy_url_is_optional(raw: bytes, expected: str | None) -> None:
    cluster = decode_secret(make_secret(data={**with_data(), "proxy-url": raw}), SETTINGS)
    assert cluster.endpoint is not None
    assert cluster.endpoint.proxy_url == expected
    assert cluster.fault == ("proxy-url is not supported by this gateway" if expected else "")


def test_a_client_certificate_is_taken_even_when_expired() -> None:
    for identity in (CLIENT, EXPIRED):
        data = with_data(tls_crt=identity.certificate_pem, tls_key=identity.key_pem)
        cluster = decode_secret(make_secret(data=data, credential_type="X509Certificate"), SETTINGS)
        assert cluster.fault == ""
        assert cluster.credential is not None
        assert cluster.credential.certificate_pem == identity.certificate_pem


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        (make_secret(credential_type="Foo"), "unrecognized secret credential type Foo"),
        (make_secret(labels={ENDPOINT_LABEL: "Foo"}), "unsupported cluster gateway endpoint type Foo"),
        (make_secret(credential_type="Dynamic"), "credential type Dynamic is not supported by this gateway"),
        (
            make_secret(labels={ENDPOINT_LABEL: "ClusterProxy"}),
            "endpoint type ClusterProxy is not supported by this gateway",
        ),
        (make_secret(data={"endpoint": ADDRESS}), "missing secret data key: token"),
        (make_secret(data=with_data(token=b" \n")), "missing secret data key: token"),
        (make_secret(data=with_data(token=b"a\r\nb")), "the Secret's token holds characters"),
        (make_secret(data=with_data(token=b"a b")), "the Secret's token holds characters"),
        (make_secret(data=with_data(ca_crt=b"garbage")), "the Secret's ca.crt holds no certificate"),
        (
            make_secret(data=with_data(), credential_type="X509Certificate"),
            "missing secret data key: tls.crt",
        ),
        (
            make_secret(data=with_data(tls_crt=CA), credential_type="X509Certificate"),
            "missing secret data key: tls.key",
        ),
        (
            make_secret(data=with_data(tls_crt=b"x", tls_key=b"x"), credential_type="X509Certificate"),
            "the Secret's tls.crt holds no certificate",
        ),
        (
            make_secret(data=with_data(tls_crt=CA, tls_key=b"x"), credential_type="X509Certificate"),
            "the Secret's tls.key holds no unencrypted private key",
        ),
        (
            make_secret(data=with_data(tls_crt=CA, tls_key=CLIENT.key_pem), credential_type="X509Certificate"),
            "the Secret's tls.crt and tls.key do not belong together",
        ),
        (
            make_secret(data={**with_data(), "proxy-url": b"ftp://u:canary@h"}),
            "the Secret's proxy-url is not an http, https or socks5 URL",
        ),
    ],
)
def test_names_the_fault(secret: dict[str, Any], fault: str) -> None:
    cluster = decode_secret(secret, SETTINGS)
    assert cluster.fault.startswith(fault)
    assert "canary" not in cluster.fault


def test_a_token_loses_surrounding_white_space() -> None:
    cluster = decode_secret(make_secret(data=with_data(token=b" canary\n")), SETTINGS)
    assert cluster.credential is not None
    assert cluster.credential.token == "canary"


def test_an_unserved_type_is_decoded_as_far_as_it_goes() -> None:
    cluster = decode_secret(make_secret(data={}, labels={ENDPOINT_LABEL: "ClusterProxy"}), SETTINGS)
    assert cluster.endpoint is not None
    assert cluster.endpoint.type is EndpointType.CLUSTER_PROXY


@pytest.mark.parametrize(
    ("raw", "healthy"), [(text, True) for text in ("1", "t", "TRUE", "True")] + [("f", False), ("0", False)]
)
def test_health_is_copied_only_when_asked_for(raw: str, *, healthy: bool) -> None:
    annotations = {
        "status.cluster.core.oam.dev/healthy": raw,
        "status.cluster.core.oam.dev/healthy-reason": "because",
    }
    secret = make_secret(annotations=annotations)
    assert decode_secret(secret, SETTINGS).health == Health()
    copied = decode_secret(secret, HubSettings(copy_health=True)).health
    assert copied == Health(healthy=healthy, reason="because")


def test_a_health_that_is_no_boolean_is_a_fault_when_it_is_read() -> None:
    secret = make_secret(annotations={"status.cluster.core.oam.dev/healthy": "yes"})
    assert decode_secret(secret, SETTINGS).fault == ""
    fault = decode_secret(secret, HubSettings(copy_health=True)).fault
    assert fault == "unrecogized healthiness status: yes"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"metadata": None, "data": None},
        {"metadata": [], "data": "x"},
        {"metadata": {"name": 1, "labels": {"a": 1}, "annotations": []}, "data": {"endpoint": 1}},
        {"metadata": {"name": "x", "creationTimestamp": "never"}, "data": {"endpoint": "%%%"}},
        {**make_secret(), "data": {"endpoint": "ä"}},
    ],
)
def test_never_raises(broken: dict[str, Any]) -> None:
    assert decode_secret(broken, SETTINGS).fault


_RULES = "spec: {clientIdentityExchanger: {rules: [{type: PrivilegedIdentityExchanger, source: {user: root}}]}}"
_RULES_ANNOTATION = "cluster.core.oam.dev/cluster-gateway-proxy-configuration"


def test_a_cluster_s_own_identity_rules_are_read_where_identities_are_passed() -> None:
    secret = make_secret(annotations={_RULES_ANNOTATION: _RULES})
    (rule,) = decode_secret(secret, HubSettings(read_identity_rules=True)).identity_rules
    assert (rule.source.user, rule.exchange) == ("root", Privileged())
    assert decode_secret(secret, HubSettings()).identity_rules == ()


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ("", "not a mapping"),
        ("[", "not YAML"),
        (_RULES.replace("user: root", ""), "says nothing"),
        (_RULES.replace("user: root", "userPattern: '('"), "no regular expression"),
        (_RULES.replace("user: root", "cluster: other"), "another cluster"),
        (_RULES + " " * 40_000, "longer"),
    ],
)
def test_identity_rules_that_cannot_be_used_are_a_fault_of_the_cluster(rules: str, fault: str) -> None:
    """The original passes by what it cannot read, and gives its callers to the rules behind it."""
    secret = make_secret(annotations={_RULES_ANNOTATION: rules})
    cluster = decode_secret(secret, HubSettings(read_identity_rules=True))
    assert cluster.fault.startswith(f"annotation {_RULES_ANNOTATION}: ")
    assert fault in cluster.fault
    assert cluster.identity_rules == ()
    assert decode_secret(secret, HubSettings()).fault == ""
