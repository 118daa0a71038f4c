"""The flags of a core's bounds as its settings."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING

from cluster_gateway.errors import ConfigurationError
from cluster_gateway_core.settings import InFlightLimit, LimitSettings, ServingSettings, UpstreamSettings

if TYPE_CHECKING:
    from cluster_gateway.flags import ParsedFlags
    from cluster_gateway_facade.settings import ServingSettings as FacadeServingSettings


def build_limits(flags: ParsedFlags) -> LimitSettings:
    """How many requests may be in progress.

    Raises:
        ConfigurationError: A number is less than one.
    """
    return LimitSettings(
        short=_in_flight(flags, "max-requests"), long_running=_in_flight(flags, "max-long-running-requests")
    )


def _in_flight(flags: ParsedFlags, name: str) -> InFlightLimit:
    return InFlightLimit(
        total=count(flags, name),
        per_cluster=count(flags, f"{name}-per-cluster"),
        per_user=count(flags, f"{name}-per-user"),
    )


def build_upstream(flags: ParsedFlags) -> UpstreamSettings:
    """How clusters are connected to.

    Raises:
        ConfigurationError: A number or a time is none that can be used, or a network is not one.
    """
    denied = flags.strings("denied-endpoint-cidrs")
    for cidr in denied:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise ConfigurationError(f"--denied-endpoint-cidrs: {error}") from error
    return UpstreamSettings(
        connect_timeout_seconds=_positive_span(flags, "cluster-connect-timeout"),
        tls_timeout_seconds=_positive_span(flags, "cluster-tls-timeout"),
        response_timeout_seconds=_positive_span(flags, "cluster-response-timeout"),
        request_idle_seconds=_positive_span(flags, "request-idle-timeout"),
        response_idle_seconds=_positive_span(flags, "response-idle-timeout"),
        reader_idle_seconds=_positive_span(flags, "reader-idle-timeout"),
        long_running_reader_idle_seconds=_span(flags, "long-running-reader-idle-timeout"),
        dead_peer_seconds=_positive_span(flags, "cluster-dead-peer-timeout"),
        idle_connections=count(flags, "max-idle-connections"),
        idle_connections_per_cluster=count(flags, "max-idle-connections-per-cluster"),
        dials_per_cluster=count(flags, "max-dials-per-cluster"),
        lookups=count(flags, "max-name-lookups"),
        breaker_failures=count(flags, "breaker-failures"),
        breaker_seconds=_positive_span(flags, "breaker-delay"),
        denied_endpoint_cidrs=denied,
    )


def bound_serving(flags: ParsedFlags, serving: ServingSettings) -> ServingSettings:
    """Add the bounds of gRPC clients.

    Raises:
        ConfigurationError: A number or a time is none that can be used.
    """
    return dataclasses.replace(
        serving,
        maximum_connections=count(flags, "grpc-max-connections"),
        maximum_streams=count(flags, "grpc-max-streams"),
        pending_streams=count(flags, "grpc-max-pending-streams"),
        maximum_calls=count(flags, "grpc-max-calls"),
        watches_per_client=count(flags, "grpc-max-watches-per-client"),
        handshake_seconds=_positive_span(flags, "grpc-handshake-timeout"),
        head_seconds=_positive_span(flags, "grpc-head-timeout"),
        connection_age_seconds=_span(flags, "grpc-max-connection-age"),
    )


def bound_clients(flags: ParsedFlags, serving: FacadeServingSettings) -> FacadeServingSettings:
    """What a facade's clients may hold.

    Raises:
        ConfigurationError: A number or a time is none that can be used.
    """
    return dataclasses.replace(
        serving,
        header_timeout_seconds=_positive_span(flags, "request-header-timeout"),
        tls_handshake_seconds=_positive_span(flags, "tls-handshake-timeout"),
        keepalive_seconds=_positive_span(flags, "keep-alive-timeout"),
        maximum_connections=count(flags, "max-connections"),
        maximum_unauthenticated_connections=count(flags, "max-unauthenticated-connections"),
        maximum_unauthenticated_connections_per_address=count(flags, "max-unauthenticated-connections-per-address"),
        request_idle_seconds=_positive_span(flags, "request-idle-timeout"),
        reader_idle_seconds=_positive_span(flags, "reader-idle-timeout"),
        long_running_reader_idle_seconds=_span(flags, "long-running-reader-idle-timeout"),
        client_dead_peer_seconds=_positive_span(flags, "client-dead-peer-timeout"),
    )


def count(flags: ParsedFlags, name: str) -> int:
    """A flag's number; ConfigurationError when it is less than one."""
    number = flags.integer(name)
    if number < 1:
        raise ConfigurationError(f"--{name} must be at least 1")
    return number


def _span(flags: ParsedFlags, name: str) -> float:
    seconds = flags.seconds(name)
    if seconds < 0:
        raise ConfigurationError(f"--{name} must not be negative")
    return seconds


def _positive_span(flags: ParsedFlags, name: str) -> float:
    seconds = flags.seconds(name)
    if seconds <= 0:
        raise ConfigurationError(f"--{name} must be more than nothing")
    return seconds
