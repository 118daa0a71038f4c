"""The connections of one identity at the hub, renewed while the core runs.

Tokens, certificates and CAs of a kubeconfig or of the pod's service account are read again once a minute. A new token
serves the next request. New certificates make new connections: requests in progress end on the old ones, watches are
ended and resume. What cannot be read or used leaves the last good material in force.

Source of the minute:
    kubernetes/client-go, transport/token_source.go, NewCachedFileTokenSource.
"""

from __future__ import annotations

import logging
import ssl
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException

from cluster_gateway_core.errors import HubUnavailableError
from cluster_gateway_core.hub.condition import FaultReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_LOGGER = logging.getLogger(__name__)
_config: Any = config
_api_client: Any = ApiClient
# The loader fails with whatever a wrong file makes of it; ssl.SSLError is an OSError.
_CONFIGURATION_ERRORS: Final = (
    ConfigException,
    yaml.YAMLError,
    OSError,
    AttributeError,
    TypeError,
    KeyError,
    ValueError,
    AssertionError,
)
_REFRESH_SECONDS: Final = 60.0
_REFUSED_REFRESH_SECONDS: Final = 10.0
"""How soon a refused credential may be read again: it may just have been replaced, or be wrong for good."""


class Connections:
    """The connections made with one set of certificates.

    Attributes:
        api: The library's client.
        retired: Whether newer certificates are in force.
    """

    def __init__(self, configuration: Any) -> None:
        self.api: Any = _api_client(configuration)
        self.fingerprint = fingerprint(configuration)
        self.retired = False
        self._users = 0
        self._watches: set[Any] = set()

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Connections]:
        """Keep the connections open for as long as the context lasts."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self.retired and not self._users:
                await self.api.close()

    @asynccontextmanager
    async def watch(self, response: Any) -> AsyncGenerator[None]:
        """End a response without end when the connections are retired."""
        self._watches.add(response)
        try:
            yield
        finally:
            self._watches.discard(response)

    async def retire(self) -> None:
        """Close the connections once nothing uses them."""
        self.retired = True
        for response in self._watches:
            response.close()
        if not self._users:
            await self.api.close()


class HubTransport:
    """Connections with the newest material that is good; made by `open_transport`."""

    def __init__(self, kubeconfig: str | None, configuration: Any, *, clock: Callable[[], float]) -> None:
        self._kubeconfig = kubeconfig
        self._clock = clock
        self._read_at = clock()
        self._due = self._read_at + _REFRESH_SECONDS
        self._connections = Connections(configuration)
        self._faults = FaultReport(_LOGGER, _source(kubeconfig), clock=clock)

    @property
    def fault(self) -> str:
        """Why the newest material is not in force; empty when it is."""
        return self._faults.text

    @asynccontextmanager
    async def connections(self) -> AsyncGenerator[Connections]:
        """Lend the connections in force."""
        if self._clock() >= self._due:
            await self._renew()
        async with self._connections.use() as lent:
            yield lent

    def doubt(self) -> None:
        """Have the material read again soon, because the hub has refused it."""
        self._due = min(self._due, self._read_at + _REFUSED_REFRESH_SECONDS)

    async def close(self) -> None:
        """Close the connections once nothing uses them."""
        await self._connections.retire()

    async def _renew(self) -> None:
        # Whoever comes while this waits, for an exec plugin perhaps, goes on with the last material.
        self._read_at = self._clock()
        self._due = self._read_at + _REFRESH_SECONDS
        try:
            configuration = await load_configuration(self._kubeconfig)
            if fingerprint(configuration) == self._connections.fingerprint:
                keys = self._connections.api.configuration.api_key
                keys.clear()
                keys.update(configuration.api_key)
                self._faults.clear()
                return
            renewed = Connections(configuration)
        except _CONFIGURATION_ERRORS as error:
            self._faults.report(f"cannot be used ({type(error).__name__}); the last good credentials stay in force")
            return
        self._faults.clear()
        retired, self._connections = self._connections, renewed
        _LOGGER.info("%s: new certificates are in force", _source(self._kubeconfig))
        await retired.retire()


@asynccontextmanager
async def open_transport(
    kubeconfig: str | None, *, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[HubTransport]:
    """Read a kubeconfig, or with None the pod's service account; no request is sent yet.

    Raises:
        HubUnavailableError: It cannot be used. Only the first reading fails so.
    """
    try:
        transport = HubTransport(kubeconfig, await load_configuration(kubeconfig), clock=clock)
    except _CONFIGURATION_ERRORS as error:
        raise HubUnavailableError(
            f"{_source(kubeconfig)} cannot be used: {type(error).__name__}",
            hint="Give a readable kubeconfig with a current context, or run in a pod with a service account.",
        ) from error
    try:
        yield transport
    finally:
        await transport.close()


async def load_configuration(kubeconfig: str | None) -> Any:
    """Read the library's configuration; raises whatever a wrong file makes of it."""
    configuration: Any = Configuration()
    if kubeconfig is None:
        # The library would read the token again by itself, and fail the request when it cannot.
        _config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
    else:
        await _config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
    if configuration.ssl_ca_cert:
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    return configuration


def fingerprint(configuration: Any) -> tuple[object, ...]:
    """Everything that connections depend on, by content: a token is not part of it."""
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return (
        configuration.host,
        configuration.verify_ssl,
        configuration.tls_server_name,
        configuration.proxy,
        *(Path(path).read_bytes() if path else b"" for path in files),
    )


def _source(kubeconfig: str | None) -> str:
    return f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
