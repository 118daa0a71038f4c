"""Parsed flags to settings, without I/O: what each flag means, and which combinations are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.feature_gates import CLIENT_IDENTITY_PENETRATION, FeatureGates, parse_feature_gates
from cluster_gateway.flag_tables import INERT_FLAGS, REFUSED_FLAGS
from cluster_gateway.flags import is_requested
from cluster_gateway.limit_settings import bound_clients, bound_serving, build_limits, build_upstream, count
from cluster_gateway_core.settings import CoreSettings, HubSettings, IdentitySettings, ReviewSettings
from cluster_gateway_core.settings import ServingSettings as CoreServingSettings
from cluster_gateway_facade.settings import AuthorizationSettings, FacadeSettings
from cluster_gateway_facade.settings import CoreSettings as CoreConnectionSettings
from cluster_gateway_facade.settings import ServingSettings as FacadeServingSettings

if TYPE_CHECKING:
    from cluster_gateway.flags import ParsedFlags

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What `apiserver` is told.

    Attributes:
        core: Settings of its core, which serves no endpoint until `join_by_socket` names one.
        facade: Settings of its facade, which has a certificate only if the flags name one.
        certificate_directory: Where to make one otherwise.
        warnings: Sentences to log at start.
    """

    core: CoreSettings
    facade: FacadeSettings
    certificate_directory: str
    warnings: tuple[str, ...]


def build_gateway_settings(flags: ParsedFlags) -> GatewaySettings:
    """Turn the flags of `apiserver` into settings.

    Raises:
        ConfigurationError: A flag asks for what is not implemented, or flags contradict one another.
    """
    _check_konnectivity(flags)
    _check_refused(flags)
    core, warnings = build_core_settings(flags, _direct_serving(flags))
    inert = {flag.name for flag in INERT_FLAGS}
    named = [f"--{name}" for name in flags.given if name in inert]
    if named:
        warnings = (*warnings, f"flags without effect in this version: {', '.join(named)}")
    return GatewaySettings(
        core=core,
        facade=FacadeSettings(serving=_facade_serving(flags), authorization=_authorization(flags)),
        certificate_directory=flags.text("cert-dir"),
        warnings=warnings,
    )


def build_core_settings(flags: ParsedFlags, serving: CoreServingSettings) -> tuple[CoreSettings, tuple[str, ...]]:
    """Turn the flags about the hub and the clusters into a core's settings and the warnings to log."""
    gates = parse_feature_gates(flags.uses("feature-gates"))
    secret_namespace = flags.text("secret-namespace")
    if not secret_namespace:
        raise ConfigurationError("must specify --secret-namespace")
    hub = HubSettings(
        kubeconfig=flags.path("kubeconfig"),
        authentication_kubeconfig=flags.path("authentication-kubeconfig"),
        authorization_kubeconfig=flags.path("authorization-kubeconfig"),
        secret_namespace=secret_namespace,
        user_agent=flags.text("user-agent") or HubSettings().user_agent,
        allow_insecure_endpoints=flags.boolean("allow-insecure-endpoints"),
        copy_health=gates.healthiness_check,
        read_identity_rules=gates.client_identity_penetration,
    )
    reviews = ReviewSettings(
        allowed_ttl_seconds=_span(flags, "authorization-webhook-cache-authorized-ttl"),
        denied_ttl_seconds=_span(flags, "authorization-webhook-cache-unauthorized-ttl"),
        token_ttl_seconds=_span(flags, "authentication-token-webhook-cache-ttl"),
        reauthorization_seconds=_span(flags, "reauthorization-interval"),
        reauthorization_patience_seconds=_span(flags, "reauthorization-patience"),
        pending=count(flags, "max-pending-reviews"),
    )
    settings = CoreSettings(
        hub=hub,
        reviews=reviews,
        limits=build_limits(flags),
        identity=_identity(flags, gates),
        upstream=build_upstream(flags),
        serving=bound_serving(flags, serving),
    )
    return settings, _core_warnings(gates, settings)


def build_core_serving(flags: ParsedFlags) -> CoreServingSettings:
    """Turn the serving flags of `core` into settings.

    Raises:
        ConfigurationError: Nothing would be served, or a port would be served without what protects it.
    """
    grpc_port, token_port = _grpc_ports(flags)
    if not (grpc_port or token_port or flags.path("unix-socket")):
        raise ConfigurationError("nothing to serve: --grpc-port, --grpc-token-port or --unix-socket is needed")
    if grpc_port or token_port:
        _require(flags, "--grpc-port and --grpc-token-port", "tls-cert-file", "tls-private-key-file")
    if grpc_port:
        _require(flags, "--grpc-port", "facade-ca-file")
    # An empty list would leave it to the server whether nobody or everybody is meant.
    if grpc_port and not flags.strings("facade-allowed-names"):
        raise ConfigurationError("--facade-allowed-names must name the facades' certificates")
    host = flags.text("bind-address")
    return CoreServingSettings(
        unix_socket=flags.path("unix-socket"),
        address=join_host_port(host, grpc_port) if grpc_port else None,
        token_address=join_host_port(host, token_port) if token_port else None,
        certificate_file=flags.path("tls-cert-file"),
        private_key_file=flags.path("tls-private-key-file"),
        facade_ca_file=flags.path("facade-ca-file"),
        facade_names=flags.strings("facade-allowed-names"),
        shutdown_delay_seconds=_span(flags, "shutdown-delay-duration"),
        grace_seconds=_grace(flags),
    )


def _direct_serving(flags: ParsedFlags) -> CoreServingSettings:
    """Serving of the core of `apiserver`: its own facade comes by the socket, services by these ports."""
    grpc_port, token_port = _grpc_ports(flags)
    host = flags.text("bind-address")
    return CoreServingSettings(
        address=join_host_port(host, grpc_port) if grpc_port else None,
        token_address=join_host_port(host, token_port) if token_port else None,
        grace_seconds=_grace(flags),
    )


def _grpc_ports(flags: ParsedFlags) -> tuple[int, int]:
    grpc_port, token_port = _port(flags, "grpc-port"), _port(flags, "grpc-token-port")
    if grpc_port and grpc_port == token_port:
        raise ConfigurationError("--grpc-port and --grpc-token-port must differ")
    return grpc_port, token_port


def build_facade_settings(flags: ParsedFlags) -> FacadeSettings:
    """Turn the flags of `facade` into settings.

    Raises:
        ConfigurationError: There is no way to a core, or not a protected one.
    """
    target = flags.text("core-target")
    if not target:
        raise ConfigurationError("--core-target is needed: the gRPC target of the cores")
    if not target.startswith("unix:"):
        _require(
            flags,
            "--core-target over a network",
            "core-ca-file",
            "core-client-cert-file",
            "core-client-key-file",
        )
    return FacadeSettings(
        serving=_facade_serving(flags),
        core=CoreConnectionSettings(
            target=target,
            ca_file=flags.path("core-ca-file"),
            certificate_file=flags.path("core-client-cert-file"),
            private_key_file=flags.path("core-client-key-file"),
            server_name=flags.path("core-server-name"),
        ),
        authorization=_authorization(flags),
    )


def join_host_port(host: str, port: int) -> str:
    """Write an address, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_konnectivity(flags: ParsedFlags) -> None:
    """Answer incomplete sets in the original's words before saying that complete ones are not implemented."""
    if not flags.text("proxy-host"):
        return
    if "proxy-port" in flags.given and flags.integer("proxy-port") <= 0:
        raise ConfigurationError("--proxy-port must be greater than 0")
    for name in ("proxy-ca-cert", "proxy-cert", "proxy-key"):
        if not flags.text(name):
            raise ConfigurationError(f"--{name} must be specified")


def _check_refused(flags: ParsedFlags) -> None:
    for flag in REFUSED_FLAGS:
        if is_requested(flags, flag):
            raise ConfigurationError(f"--{flag.name} is not supported: {flag.help}")


def _identity(flags: ParsedFlags, gates: FeatureGates) -> IdentitySettings:
    timeout = _span(flags, "identity-exchanger-timeout")
    if not timeout:
        raise ConfigurationError("--identity-exchanger-timeout must be longer than nothing")
    return IdentitySettings(
        always=gates.client_identity_penetration,
        rules_file=flags.path("cluster-gateway-proxy-config"),
        exchanger_ca_file=flags.path("identity-exchanger-ca-file"),
        exchanger_timeout_seconds=timeout,
        exchanger_ttl_seconds=_span(flags, "identity-exchanger-cache-ttl"),
    )


def _core_warnings(gates: FeatureGates, settings: CoreSettings) -> tuple[str, ...]:
    warnings: list[str] = []
    if gates.without_effect:
        warnings.append(f"feature gates without effect in this version: {', '.join(gates.without_effect)}")
    if settings.hub.allow_insecure_endpoints:
        warnings.append("--allow-insecure-endpoints: clusters whose Secret names no CA are not verified")
    if settings.identity.rules_file and not settings.identity.always:
        warnings.append(
            f"--cluster-gateway-proxy-config without feature gate {CLIENT_IDENTITY_PENETRATION}: its rules apply to "
            "requests with impersonate=true alone"
        )
    return tuple(warnings)


def _facade_serving(flags: ParsedFlags) -> FacadeServingSettings:
    if bool(flags.text("tls-cert-file")) != bool(flags.text("tls-private-key-file")):
        raise ConfigurationError("--tls-cert-file and --tls-private-key-file must be given together")
    serving = FacadeServingSettings(
        bind_address=flags.text("bind-address"),
        port=_port(flags, "secure-port"),
        certificate_file=flags.text("tls-cert-file"),
        private_key_file=flags.text("tls-private-key-file"),
        grace_seconds=_grace(flags),
        shutdown_delay_seconds=_span(flags, "shutdown-delay-duration"),
    )
    return bound_clients(flags, serving)


def _authorization(flags: ParsedFlags) -> AuthorizationSettings:
    return AuthorizationSettings(always_allow_paths=flags.strings("authorization-always-allow-paths"))


def _require(flags: ParsedFlags, what: str, *names: str) -> None:
    for name in names:
        if not flags.text(name):
            raise ConfigurationError(f"{what}: --{name} must be specified")


def _port(flags: ParsedFlags, name: str) -> int:
    port = flags.integer(name)
    if not 0 <= port <= _HIGHEST_PORT:
        raise ConfigurationError(f"--{name} {port} must be between 0 and {_HIGHEST_PORT}, inclusive")
    return port


def _grace(flags: ParsedFlags) -> float:
    return _span(flags, "shutdown-grace-duration")


def _span(flags: ParsedFlags, name: str) -> float:
    seconds = flags.seconds(name)
    if seconds < 0:
        raise ConfigurationError(f"--{name} must not be negative")
    return seconds
