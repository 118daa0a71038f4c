"""From flags to settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.flag_tables import APISERVER_FLAGS, CORE_FLAGS, FACADE_FLAGS, REFUSED_FLAGS
from cluster_gateway.flags import Flag, Kind, parse_flags
from cluster_gateway.limit_flags import FACADE_LIMIT_FLAGS, LIMIT_FLAGS
from cluster_gateway.settings import (
    GatewaySettings,
    build_core_serving,
    build_facade_settings,
    build_gateway_settings,
    join_host_port,
)
from cluster_gateway_core.settings import (
    DENIED_ENDPOINT_CIDRS,
    CoreSettings,
    InFlightLimit,
    LimitSettings,
    ServingSettings,
    UpstreamSettings,
)
from cluster_gateway_facade.settings import AuthorizationSettings, FacadeSettings
from cluster_gateway_facade.settings import ServingSettings as FacadeServingSettings

PUBLISHED = [
    "--secure-port=9443",
    "--secret-namespace=default",
    "--feature-gates=APIPriorityAndFairness=false",
]

_CORE_CERTIFICATES = ["--tls-cert-file=c", "--tls-private-key-file=k", "--facade-ca-file=ca"]
_FACADE_CERTIFICATES = ["--core-ca-file=ca", "--core-client-cert-file=c", "--core-client-key-file=k"]


def _build(*arguments: str) -> GatewaySettings:
    return build_gateway_settings(parse_flags(APISERVER_FLAGS, arguments))


def test_without_flags_settings_are_the_defaults() -> None:
    settings = _build()
    assert settings.core == CoreSettings()
    assert settings.facade == FacadeSettings()
    assert settings.warnings == ()


def test_published_command_line_is_taken_with_a_warning() -> None:
    settings = _build(*PUBLISHED)
    assert settings.facade.serving.port == 9443
    assert settings.core.hub.secret_namespace == "default"
    assert settings.warnings == ("feature gates without effect in this version: APIPriorityAndFairness",)


def test_kubevelas_command_line_is_taken() -> None:
    settings = _build(
        "apiserver",
        "--secure-port=9443",
        "--secret-namespace=vela-system",
        "--feature-gates=APIPriorityAndFairness=false,ClientIdentityPenetration=false,",
        "--cluster-gateway-proxy-config=",
        "--tls-cert-file=/c",
        "--tls-private-key-file=/k",
        "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
    )
    assert settings.facade.authorization.always_allow_paths[-1] == "/metrics"
    assert settings.facade.serving.certificate_file == "/c"
    assert settings.facade.serving.private_key_file == "/k"


def test_wired_flags_reach_their_settings() -> None:
    settings = _build(
        "--kubeconfig=a",
        "--authentication-kubeconfig=b",
        "--authorization-kubeconfig=c",
        "--user-agent=me",
        "--allow-insecure-endpoints",
        "--feature-gates=HealthinessCheck=true",
        "--authorization-webhook-cache-authorized-ttl=1s",
        "--authorization-webhook-cache-unauthorized-ttl=2s",
        "--authentication-token-webhook-cache-ttl=3s",
        "--reauthorization-interval=6s",
        "--reauthorization-patience=7s",
        "--shutdown-delay-duration=4s",
        "--shutdown-grace-duration=5s",
        "--bind-address=127.0.0.1",
        "--cert-dir=/certs",
    )
    hub = settings.core.hub
    assert (hub.kubeconfig, hub.authentication_kubeconfig, hub.authorization_kubeconfig) == ("a", "b", "c")
    assert (hub.user_agent, hub.copy_health, hub.allow_insecure_endpoints) == ("me", True, True)
    reviews = settings.core.reviews
    assert (reviews.allowed_ttl_seconds, reviews.denied_ttl_seconds, reviews.token_ttl_seconds) == (1, 2, 3)
    assert (reviews.reauthorization_seconds, reviews.reauthorization_patience_seconds) == (6, 7)
    assert settings.facade.authorization == AuthorizationSettings()
    serving = settings.facade.serving
    assert (serving.shutdown_delay_seconds, serving.grace_seconds, serving.bind_address) == (
        4,
        5,
        "127.0.0.1",
    )
    assert settings.core.serving.grace_seconds == 5
    assert settings.certificate_directory == "/certs"
    assert any("not verified" in warning for warning in settings.warnings)


def test_flags_without_effect_share_one_warning() -> None:
    settings = _build("--etcd-servers=http://e", "--virtual-clutser-with-control-plane", "--log_dir=d")
    assert settings.warnings == (
        "flags without effect in this version: --etcd-servers, --virtual-clutser-with-control-plane, --log-dir",
    )


@pytest.mark.parametrize("flag", REFUSED_FLAGS, ids=lambda flag: flag.name)
def test_what_silence_would_make_unsafe_is_refused(flag: Flag) -> None:
    value = "true" if flag.kind is Kind.BOOL else "x"
    complete = ["--proxy-ca-cert=c", "--proxy-cert=c", "--proxy-key=k", "--bind-address=127.0.0.1"]
    with pytest.raises(ConfigurationError, match=f"^--{flag.name} is not supported: "):
        _build(f"--{flag.name}={value}", *complete)


def test_lower_tls_versions_than_served_ask_for_nothing() -> None:
    _build("--tls-min-version=VersionTLS12")
    with pytest.raises(ConfigurationError, match="--tls-min-version is not supported"):
        _build("--tls-min-version=VersionTLS13")


@pytest.mark.parametrize("gates", ["ClientIdentityPenetration=true", "AllAlpha=true"])
def test_the_gate_passes_identities_and_reads_the_clusters_rules(gates: str) -> None:
    settings = _build(f"--feature-gates={gates}", "--cluster-gateway-proxy-config=rules.yaml")
    assert (settings.core.identity.always, settings.core.hub.read_identity_rules) == (True, True)
    assert settings.core.identity.rules_file == "rules.yaml"
    assert settings.warnings == ()


def test_rules_without_the_gate_are_taken_with_a_warning() -> None:
    settings = _build("--cluster-gateway-proxy-config=rules.yaml")
    assert (settings.core.identity.always, settings.core.identity.rules_file) == (False, "rules.yaml")
    (warning,) = settings.warnings
    assert warning.startswith("--cluster-gateway-proxy-config without feature gate ClientIdentityPenetration")


def test_flags_of_the_services_that_rules_name_reach_their_settings() -> None:
    identity = _build(
        "--identity-exchanger-ca-file=ca", "--identity-exchanger-timeout=1s", "--identity-exchanger-cache-ttl=0s"
    ).core.identity
    assert identity.exchanger_ca_file == "ca"
    assert (identity.exchanger_timeout_seconds, identity.exchanger_ttl_seconds) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--secret-namespace="], "^must specify --secret-namespace$"),
        (["--proxy-host=h", "--proxy-port=0"], "^--proxy-port must be greater than 0$"),
        (["--proxy-host=h"], "^--proxy-ca-cert must be specified$"),
        (["--proxy-host=h", "--proxy-ca-cert=c"], "^--proxy-cert must be specified$"),
        (["--proxy-host=h", "--proxy-ca-cert=c", "--proxy-cert=c"], "^--proxy-key must be specified$"),
        (["--tls-cert-file=c"], "must be given together"),
        (["--tls-private-key-file=k"], "must be given together"),
        (["--secure-port=65536"], "between 0 and 65535"),
        (["--shutdown-delay-duration=-1s"], "must not be negative"),
        (["--identity-exchanger-timeout=0s"], "must be longer than nothing"),
    ],
)
def test_contradictions_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _build(*arguments)


def test_core_serves_what_its_flags_name() -> None:
    arguments = [
        *_CORE_CERTIFICATES,
        "--bind-address=::",
        "--grpc-token-port=9445",
        "--facade-allowed-names=a,b",
    ]
    serving = build_core_serving(parse_flags(CORE_FLAGS, arguments))
    assert (serving.address, serving.token_address) == ("[::]:9444", "[::]:9445")
    assert (serving.certificate_file, serving.private_key_file, serving.facade_ca_file) == ("c", "k", "ca")
    assert serving.facade_names == ("a", "b")
    assert serving.unix_socket is None


def test_core_may_serve_a_socket_alone() -> None:
    serving = build_core_serving(parse_flags(CORE_FLAGS, ["--grpc-port=0", "--unix-socket=/s"]))
    assert (serving.unix_socket, serving.address, serving.token_address) == ("/s", None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grpc-port=0"], "nothing to serve"),
        ([], "--tls-cert-file must be specified"),
        (["--grpc-port=0", "--grpc-token-port=1"], "--tls-cert-file must be specified"),
        (_CORE_CERTIFICATES[:2], "--facade-ca-file must be specified"),
        ([*_CORE_CERTIFICATES, "--facade-allowed-names="], "must name the facades' certificates"),
        ([*_CORE_CERTIFICATES, "--grpc-token-port=9444"], "must differ"),
    ],
)
def test_core_never_serves_unprotected(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_core_serving(parse_flags(CORE_FLAGS, arguments))


def test_facade_reaches_cores_with_its_certificate() -> None:
    arguments = ["--core-target=dns:///c:9444", "--core-server-name=c", *_FACADE_CERTIFICATES]
    core = build_facade_settings(parse_flags(FACADE_FLAGS, arguments)).core
    assert (core.target, core.server_name) == ("dns:///c:9444", "c")
    assert (core.ca_file, core.certificate_file, core.private_key_file) == ("ca", "c", "k")


def test_facade_needs_no_certificate_on_a_socket() -> None:
    assert build_facade_settings(parse_flags(FACADE_FLAGS, ["--core-target=unix:/s"])).core.ca_file is None


@pytest.mark.parametrize("missing", range(3))
def test_facade_never_crosses_a_network_unprotected(missing: int) -> None:
    certificates = [flag for index, flag in enumerate(_FACADE_CERTIFICATES) if index != missing]
    with pytest.raises(ConfigurationError, match="must be specified"):
        build_facade_settings(parse_flags(FACADE_FLAGS, ["--core-target=dns:///c:1", *certificates]))


def test_facade_needs_a_target() -> None:
    with pytest.raises(ConfigurationError, match="--core-target is needed"):
        build_facade_settings(parse_flags(FACADE_FLAGS, []))


def test_addresses_are_joined() -> None:
    assert join_host_port("127.0.0.1", 1) == "127.0.0.1:1"
    assert join_host_port("::1", 1) == "[::1]:1"


def test_bounds_reach_their_settings() -> None:
    """Each flag gets a value of its own, so that none can stand for another."""
    core = _build(
        *("--max-requests=11", "--max-requests-per-cluster=12", "--max-requests-per-user=13"),
        *("--max-long-running-requests=14", "--max-long-running-requests-per-cluster=15"),
        *("--max-long-running-requests-per-user=16", "--cluster-connect-timeout=17s", "--cluster-tls-timeout=18s"),
        *("--cluster-response-timeout=19s", "--cluster-dead-peer-timeout=20s", "--max-dials-per-cluster=21"),
        *("--max-name-lookups=22", "--breaker-failures=23", "--breaker-delay=24s"),
        *(
            "--max-idle-connections-per-cluster=25",
            "--max-idle-connections=38",
            "--denied-endpoint-cidrs=10.0.0.0/8,fd00::/8",
        ),
        *("--request-idle-timeout=26s", "--response-idle-timeout=27s", "--reader-idle-timeout=28s"),
        *("--long-running-reader-idle-timeout=0", "--grpc-max-connections=31", "--grpc-max-streams=32"),
        *("--grpc-max-calls=33", "--grpc-max-watches-per-client=34", "--grpc-handshake-timeout=35s"),
        *("--grpc-head-timeout=36s", "--grpc-max-connection-age=37s"),
        *("--grpc-max-pending-streams=39", "--max-pending-reviews=40"),
    ).core
    assert core.reviews.pending == 40
    assert core.serving == ServingSettings(
        maximum_connections=31,
        maximum_streams=32,
        maximum_calls=33,
        watches_per_client=34,
        handshake_seconds=35,
        head_seconds=36,
        connection_age_seconds=37,
        pending_streams=39,
    )
    assert core.limits == LimitSettings(
        short=InFlightLimit(total=11, per_cluster=12, per_user=13),
        long_running=InFlightLimit(total=14, per_cluster=15, per_user=16),
    )
    assert core.upstream == UpstreamSettings(
        connect_timeout_seconds=17,
        tls_timeout_seconds=18,
        response_timeout_seconds=19,
        dead_peer_seconds=20,
        dials_per_cluster=21,
        lookups=22,
        breaker_failures=23,
        breaker_seconds=24,
        idle_connections_per_cluster=25,
        idle_connections=38,
        request_idle_seconds=26,
        response_idle_seconds=27,
        reader_idle_seconds=28,
        long_running_reader_idle_seconds=0,
        denied_endpoint_cidrs=("10.0.0.0/8", "fd00::/8"),
    )
    assert _build("--denied-endpoint-cidrs=").core.upstream.denied_endpoint_cidrs == ()


def test_bounds_of_clients_reach_the_facade() -> None:
    serving = _build(
        "--request-header-timeout=1s",
        "--tls-handshake-timeout=2s",
        "--keep-alive-timeout=3s",
        "--max-connections=4",
        "--max-unauthenticated-connections=5",
        "--max-unauthenticated-connections-per-address=6",
        "--request-idle-timeout=7s",
        "--reader-idle-timeout=8s",
        "--long-running-reader-idle-timeout=0",
        "--client-dead-peer-timeout=9s",
    ).facade.serving
    assert serving == FacadeServingSettings(
        header_timeout_seconds=1,
        tls_handshake_seconds=2,
        keepalive_seconds=3,
        maximum_connections=4,
        maximum_unauthenticated_connections=5,
        maximum_unauthenticated_connections_per_address=6,
        request_idle_seconds=7,
        reader_idle_seconds=8,
        long_running_reader_idle_seconds=0,
        client_dead_peer_seconds=9,
    )


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        ("--max-connections=0", "--max-connections must be at least 1"),
        ("--tls-handshake-timeout=0s", "--tls-handshake-timeout must be more than nothing"),
        ("--max-requests=0", "--max-requests must be at least 1"),
        ("--max-dials-per-cluster=-1", "--max-dials-per-cluster must be at least 1"),
        ("--cluster-connect-timeout=0s", "--cluster-connect-timeout must be more than nothing"),
        ("--denied-endpoint-cidrs=10.0.0.1/8", "--denied-endpoint-cidrs: 10.0.0.1/8 has host bits set"),
        ("--denied-endpoint-cidrs=metadata", "--denied-endpoint-cidrs: "),
    ],
)
def test_bounds_that_cannot_be_are_refused(argument: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(fault)):
        _build(argument)


def test_every_bound_is_documented_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs/limits.md").read_text()
    for flag in (*LIMIT_FLAGS, *FACADE_LIMIT_FLAGS):
        assert f"`--{flag.name}`" in text
        if flag.kind is not Kind.STRINGS:
            assert f"| `--{flag.name}` | {flag.default} |" in text, flag.name
    for cidr in DENIED_ENDPOINT_CIDRS:
        assert cidr.removesuffix("/32").removesuffix("/128") in text or cidr in {"224.0.0.0/4", "ff00::/8"}
