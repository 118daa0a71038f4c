"""ClusterGateway objects: get and list, in every form in which kubectl and controllers ask for objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import status
from cluster_gateway_facade.exchange import Answer
from cluster_gateway_facade.handlers import cluster_view
from cluster_gateway_facade.handlers.field_selector import FieldSelector, InvalidFieldSelectorError
from cluster_gateway_facade.handlers.rendering import render, wants_pretty
from cluster_gateway_facade.negotiation import JSON, YAML, Target, negotiate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_facade.exchange import ApiRequest
    from cluster_gateway_facade.negotiation import Choice
    from clustergateway.access.v1.user_info_pb2 import UserInfo
    from clustergateway.registry.v1.cluster_pb2 import Cluster
    from clustergateway.registry.v1.registry_service_pb2 import ListClustersResponse

_MEDIA_TYPES: Final = (JSON, YAML)
_META_GROUP: Final = "meta.k8s.io"
_META_VERSIONS: Final = ("v1", "v1beta1")
_HEADERS: Final = (("Cache-Control", "no-cache, private"), ("Vary", "Accept"))
_LARGEST_PAGE: Final = 2**31 - 1
_INCLUDE_OBJECT: Final = ("", "None", "Metadata", "Object")


class ClusterReader(Protocol):
    """The registered clusters, as the core lets a user see them.

    Both methods raise `CoreError`; the core authorizes, so ACCESS_DENIED is among its reasons. Both set
    their own deadline, and a cancelled call ends the request to the core.
    """

    async def get(self, name: str, user: UserInfo) -> Cluster:
        """Read one cluster; CLUSTER_NOT_FOUND when there is none."""
        ...

    async def list(
        self, *, label_selector: str, page_size: int, page_token: str, user: UserInfo
    ) -> ListClustersResponse:
        """Read one page of clusters; a page size of 0 means all."""
        ...


class _RefusedError(Exception):
    """The request is answered with a Status of the facade's own."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How to answer: what the Accept header and `includeObject` ask for."""

    choice: Choice
    include_object: str
    pretty: bool

    def answer(self, value: dict[str, Any]) -> Answer:
        media_type = self.choice.media_type
        body = render(value, media_type, pretty=self.pretty)
        return Answer(content_type=media_type, body=body, headers=_HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterObjects:
    """Handlers of `clustergateways`.

    A cluster whose registration cannot be used is served all the same, by get and by list, with what is
    known of it: `status.healthy` is false and `status.healthyReason` holds the fault. So an operator sees
    with kubectl which Secret is wrong and why, and one broken Secret hides nothing else. (The original
    answers get with 500 and leaves the cluster out of lists.)
    """

    reader: ClusterReader

    async def get(self, request: ApiRequest, name: str) -> Answer:
        """Answer with one cluster. Cancellation ends the read at the core."""
        try:
            form = _form(request, ("Table", "PartialObjectMetadata"))
            cluster = await self.reader.get(name, request.user)
        except _RefusedError as refused:
            return refused.answer
        except CoreError as error:
            return status.answer_for_object(error)
        return form.answer(_get_value(form, cluster))

    async def list(self, request: ApiRequest) -> Answer:
        """Answer with the clusters that the selectors match. Cancellation ends the read at the core.

        With a field selector the answer is whole, whatever `limit` says: the core pages over clusters
        that the selector has not been applied to, and Kubernetes lets a server ignore `limit`.
        """
        try:
            form = _form(request, ("Table", "PartialObjectMetadataList"))
            selector = _field_selector(request)
            listed = await self.reader.list(
                label_selector=request.parameter("labelSelector") or "",
                page_size=0 if selector.requirements else _limit(request),
                page_token="" if selector.requirements else request.parameter("continue") or "",
                user=request.user,
            )
        except _RefusedError as refused:
            return refused.answer
        except CoreError as error:
            return status.answer_for_object(error)
        clusters = [cluster for cluster in listed.clusters if selector.matches(cluster.name)]
        return form.answer(_list_value(form, clusters, cluster_view.list_metadata(listed)))


def is_watch(request: ApiRequest) -> bool:
    """Say whether a list request is really a watch.

    Anything but "0" and "false" is true, also an empty value: apimachinery,
    pkg/runtime/conversion.go, Convert_Slice_string_To_bool.
    """
    value = request.parameter("watch")
    return value is not None and value.lower() not in ("0", "false")


def _form(request: ApiRequest, kinds: Sequence[str]) -> _Form:
    targets = [Target(group=_META_GROUP, version=version, kind=kind) for kind in kinds for version in _META_VERSIONS]
    choice = negotiate(request.headers.get("Accept"), _MEDIA_TYPES, (None, *targets))
    if choice is None:
        raise _RefusedError(status.not_acceptable(_MEDIA_TYPES))
    include_object = request.parameter("includeObject") or ""
    if include_object not in _INCLUDE_OBJECT:
        raise _RefusedError(status.bad_request(f'unrecognized includeObject value: "{include_object}"'))
    return _Form(choice=choice, include_object=include_object, pretty=wants_pretty(request))


def _field_selector(request: ApiRequest) -> FieldSelector:
    try:
        return FieldSelector.parse(request.parameter("fieldSelector") or "")
    except InvalidFieldSelectorError as error:
        raise _RefusedError(status.bad_request(str(error))) from error


def _limit(request: ApiRequest) -> int:
    """Read `limit`; like kube-apiserver, take none and any that is not positive for "no limit"."""
    text = request.parameter("limit") or "0"
    try:
        limit = int(text)
    except ValueError as error:
        raise _RefusedError(status.bad_request(f'invalid limit "{text}": not a whole number')) from error
    return min(max(limit, 0), _LARGEST_PAGE)


def _get_value(form: _Form, cluster: Cluster) -> dict[str, Any]:
    target = form.choice.target
    if target is None:
        return cluster_view.cluster_object(cluster)
    if target.kind == "Table":
        metadata = {"resourceVersion": cluster.resource_version}
        return cluster_view.table([cluster], metadata, target.version, form.include_object)
    return cluster_view.partial_object(cluster, target.version)


def _list_value(form: _Form, clusters: Sequence[Cluster], metadata: dict[str, Any]) -> dict[str, Any]:
    target = form.choice.target
    if target is None:
        return cluster_view.cluster_list(clusters, metadata)
    if target.kind == "Table":
        return cluster_view.table(clusters, metadata, target.version, form.include_object)
    return cluster_view.partial_object_list(clusters, metadata, target.version)
