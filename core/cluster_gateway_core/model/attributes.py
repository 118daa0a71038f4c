"""What is being asked, in the words of Kubernetes' authorization API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

API_GROUP: Final = "cluster.core.oam.dev"
API_VERSION: Final = "v1alpha1"
CLUSTER_GATEWAYS: Final = "clustergateways"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceAttributes:
    """A request for a resource, as authorization.k8s.io/v1 ResourceAttributes."""

    verb: str
    group: str = API_GROUP
    version: str = API_VERSION
    resource: str = CLUSTER_GATEWAYS
    subresource: str = ""
    name: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonResourceAttributes:
    """A request for a path that is no resource, as authorization.k8s.io/v1 NonResourceAttributes."""

    verb: str
    path: str


Attributes: TypeAlias = ResourceAttributes | NonResourceAttributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An authorizer's answer; everything but an explicit yes is a no.

    Attributes:
        allowed: True only when the hub said so.
        reason: Why, in the hub's words; may be empty.
    """

    allowed: bool
    reason: str = ""
