"""Makes a gateway on this host part of a hub, and clusters known to it."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

import aiohttp
from kubernetes_asyncio.client import (
    ApiClient,
    ApiException,
    ApiregistrationV1Api,
    ApiregistrationV1ServiceReference,
    AuthenticationV1TokenRequest,
    CoreV1Api,
    RbacAuthorizationV1Api,
    RbacV1Subject,
    V1APIService,
    V1APIServiceSpec,
    V1ClusterRoleBinding,
    V1Namespace,
    V1ObjectMeta,
    V1RoleRef,
    V1Secret,
    V1Service,
    V1ServiceAccount,
    V1ServicePort,
    V1ServiceSpec,
    V1TokenRequestSpec,
)

from cluster_gateway.control_planes.nodes import REQUEST_SECONDS
from cluster_gateway.control_planes.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster_gateway.control_planes.plane import ControlPlane

GROUP = "cluster.core.oam.dev"
VERSION = "v1alpha1"
API_SERVICE = f"{VERSION}.{GROUP}"

DEFAULT_NAMESPACE = "vela-system"
DEFAULT_SERVICE = "gateway-service"

CredentialType = Literal["X509Certificate", "ServiceAccountToken"]
"""Values of the label `cluster.core.oam.dev/cluster-credential-type` that `register_cluster` can provide."""

_ACCOUNT = "cluster-gateway"
_ACCOUNT_NAMESPACE = "kube-system"
_PROBE_SECONDS = 5.0
_TOKEN_SECONDS = 24 * 3600


async def register_gateway(
    hub: ControlPlane,
    port: int,
    ca_bundle: bytes,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    service_name: str = DEFAULT_SERVICE,
) -> None:
    """Have a hub send the group `cluster.core.oam.dev` to a gateway on this host.

    May be repeated, after a restart of the gateway on another port for example. The gateway's serving
    certificate must be for `<service_name>.<namespace>.svc`, which is the name the aggregator checks.

    Args:
        hub: The control plane to extend.
        port: The gateway's HTTPS port on localhost.
        ca_bundle: Who signs its serving certificate (PEM).
        namespace: Namespace of the Service; created if absent.
        service_name: Name of the Service.
    """
    service = _service(service_name, port)
    api_service = _api_service(
        ApiregistrationV1ServiceReference(namespace=namespace, name=service_name, port=port), ca_bundle
    )
    async with hub.connect() as client:
        await _ensure_namespace(client, namespace)
        core, registration = CoreV1Api(client), ApiregistrationV1Api(client)
        await _create_or(
            core.create_namespaced_service(namespace, service, _request_timeout=REQUEST_SECONDS),
            lambda: core.patch_namespaced_service(
                service_name, namespace, _replace_spec(service.spec), _request_timeout=REQUEST_SECONDS
            ),
        )
        await _create_or(
            registration.create_api_service(api_service, _request_timeout=REQUEST_SECONDS),
            lambda: registration.patch_api_service(
                API_SERVICE, _replace_spec(api_service.spec), _request_timeout=REQUEST_SECONDS
            ),
        )


def _service(name: str, port: int) -> V1Service:
    """Return a Service whose name leads to this host; endpoints may not hold loopback addresses."""
    ports = [V1ServicePort(name="https", port=port)]
    spec = V1ServiceSpec(type="ExternalName", external_name="localhost", ports=ports)
    return V1Service(metadata=V1ObjectMeta(name=name), spec=spec)


def _api_service(service: ApiregistrationV1ServiceReference, ca_bundle: bytes) -> V1APIService:
    spec = V1APIServiceSpec(
        group=GROUP,
        version=VERSION,
        group_priority_minimum=2000,
        version_priority=10,
        ca_bundle=base64.b64encode(ca_bundle).decode(),
        service=service,
    )
    return V1APIService(metadata=V1ObjectMeta(name=API_SERVICE), spec=spec)


async def wait_available(hub: ControlPlane, *, timeout_seconds: float = 60.0) -> None:
    """Wait until the hub finds the gateway available, which takes it up to 30 s after a failed check.

    The condition of the APIService may still tell of a gateway that was there before, so a request must
    get through as well.

    Raises:
        NotReadyError: It did not in time.
        ProcessDiedError: The hub died.
    """
    connector = aiohttp.TCPConnector(ssl=hub.ssl_context())
    timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
    async with (
        hub.connect() as client,
        aiohttp.ClientSession(hub.url, connector=connector, timeout=timeout) as session,
    ):
        registration = ApiregistrationV1Api(client)

        async def is_available() -> bool:
            found = await registration.read_api_service(API_SERVICE, _request_timeout=REQUEST_SECONDS)
            conditions = found.status.conditions or []
            if not any(item.type == "Available" and item.status == "True" for item in conditions):
                return False
            try:
                async with session.get(f"/apis/{GROUP}/{VERSION}") as response:
                    return response.status < HTTPStatus.INTERNAL_SERVER_ERROR
            except (aiohttp.ClientError, TimeoutError):
                return False

        await wait_until(
            is_available,
            what=f"APIService {API_SERVICE} of {hub.name} is available",
            processes=[hub.process],
            timeout_seconds=timeout_seconds,
        )


async def register_cluster(
    hub: ControlPlane,
    name: str,
    managed: ControlPlane,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    credential: CredentialType = "X509Certificate",
) -> None:
    """Make a cluster known to the gateway, with the rights of an administrator.

    May be repeated; each time the cluster gets a new credential.

    Args:
        hub: Where the gateway looks for Secrets.
        name: Name of the Secret, and so of the cluster.
        managed: The cluster.
        namespace: The gateway's `--secret-namespace`; created if absent.
        credential: What the gateway shows to the cluster: a certificate of user "cluster-gateway" in group
            system:masters, or a token, valid for a day, of a service account bound to cluster-admin.

    Source:
        oam-dev/cluster-gateway, pkg/common/constants.go.
    """
    data = {"endpoint": managed.url.encode(), "ca.crt": managed.ca.certificate}
    if credential == "X509Certificate":
        pair = managed.issue_client_certificate(_ACCOUNT, ["system:masters"])
        data |= {"tls.crt": pair.certificate, "tls.key": pair.key}
    else:
        data["token"] = (await issue_admin_token(managed)).encode()
    labels = {f"{GROUP}/cluster-credential-type": credential, f"{GROUP}/cluster-endpoint-type": "Const"}
    secret = V1Secret(
        metadata=V1ObjectMeta(name=name, labels=labels),
        type="Opaque",
        data={key: base64.b64encode(value).decode() for key, value in data.items()},
    )
    async with hub.connect() as client:
        await _ensure_namespace(client, namespace)
        core = CoreV1Api(client)
        await _create_or(
            core.create_namespaced_secret(namespace, secret, _request_timeout=REQUEST_SECONDS),
            # Replaced, not patched: the keys of another kind of credential must go.
            lambda: core.replace_namespaced_secret(name, namespace, secret, _request_timeout=REQUEST_SECONDS),
        )


async def issue_admin_token(plane: ControlPlane) -> str:
    """Issue a token, valid for a day, of a service account that is bound to cluster-admin."""
    account = V1ServiceAccount(metadata=V1ObjectMeta(name=_ACCOUNT))
    binding = V1ClusterRoleBinding(
        metadata=V1ObjectMeta(name=_ACCOUNT),
        role_ref=V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="cluster-admin"),
        subjects=[RbacV1Subject(kind="ServiceAccount", name=_ACCOUNT, namespace=_ACCOUNT_NAMESPACE)],
    )
    request = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[], expiration_seconds=_TOKEN_SECONDS))
    async with plane.connect() as client:
        core, rbac = CoreV1Api(client), RbacAuthorizationV1Api(client)
        await _ensure_namespace(client, _ACCOUNT_NAMESPACE)
        await _create_or(
            core.create_namespaced_service_account(_ACCOUNT_NAMESPACE, account, _request_timeout=REQUEST_SECONDS)
        )
        await _create_or(rbac.create_cluster_role_binding(binding, _request_timeout=REQUEST_SECONDS))
        issued = await core.create_namespaced_service_account_token(
            _ACCOUNT, _ACCOUNT_NAMESPACE, request, _request_timeout=REQUEST_SECONDS
        )
    return issued.status.token


def _replace_spec(spec: object) -> list[dict[str, object]]:
    """Return the JSON patch that replaces a spec; a merge would keep the old port beside the new."""
    return [{"op": "replace", "path": "/spec", "value": spec}]


async def _ensure_namespace(client: ApiClient, name: str) -> None:
    namespace = V1Namespace(metadata=V1ObjectMeta(name=name))
    await _create_or(CoreV1Api(client).create_namespace(namespace, _request_timeout=REQUEST_SECONDS))


async def _create_or(create: Awaitable[object], otherwise: Callable[[], Awaitable[object]] | None = None) -> None:
    """Create an object; if there is one of that name, do the other thing, or nothing."""
    try:
        await create
    except ApiException as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        if otherwise is not None:
            await otherwise()
