"""The flag `--feature-gates`: its syntax, the gates that mean something, and those that are merely known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEALTHINESS_CHECK = "HealthinessCheck"
CLIENT_IDENTITY_PENETRATION = "ClientIdentityPenetration"
ALL_ALPHA = "AllAlpha"
ALL_BETA = "AllBeta"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ORIGINAL_GATES = frozenset({HEALTHINESS_CHECK, CLIENT_IDENTITY_PENETRATION, "SecretCache", "OCMClusterCache"})

# k8s.io/apiserver, pkg/features/kube_features.go, with k8s.io/component-base/zpages.
_GENERIC_GATES = _names(
    """
    APIResponseCompression APIServerIdentity APIServerTracing APIServingWithRoutine
    AggregatedDiscoveryRemoveBetaType AllowParsingUserUIDFromCertAuth AllowUnsafeMalformedObjectDeletion
    AnonymousAuthConfigurableEndpoints AuthorizeWithSelectors BtreeWatchCache CBORServingAndStorage
    ComponentFlagz ComponentStatusz ConcurrentWatchObjectDecode ConsistentListFromCache
    ConsistentListFromCacheSkipTimeoutFallback ConstrainedImpersonation CoordinatedLeaderElection
    DeclarativeValidation DeclarativeValidationBeta DeclarativeValidationTakeover DetectCacheInconsistency
    KMSv1 ListFromCacheSnapshot ManifestBasedAdmissionControlConfig MutatingAdmissionPolicy OpenAPIEnums
    RemoteRequestHeaderUID ResilientWatchCacheInitialization RetryGenerateName SeparateCacheWatchRPC
    ShardedListAndWatch SizeBasedListCostEstimate StorageVersionAPI StorageVersionHash
    StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf StrictCostEnforcementForVAP
    StrictCostEnforcementForWebhooks StructuredAuthenticationConfiguration
    StructuredAuthenticationConfigurationEgressSelector StructuredAuthenticationConfigurationJWKSMetrics
    StructuredAuthorizationConfiguration TokenRequestServiceAccountUIDValidation
    UnauthenticatedHTTP2DOSMitigation UnknownVersionInteroperabilityProxy
    WatchCacheInitializationPostStartHook WatchFromStorageWithoutResourceVersion WatchList
    """
)

# Gates that k8s.io/apiserver once had: command lines keep naming them after they are gone, and the original
# then refuses to start. KubeVela's chart and the original's own guide both set APIPriorityAndFairness.
_RETIRED_GATES = _names(
    """
    APIListChunking APIPriorityAndFairness APISelfSubjectReview AdmissionWebhookMatchConditions
    AdvancedAuditing AggregatedDiscoveryEndpoint CustomResourceValidationExpressions DryRun DynamicAuditing
    EfficientWatchResumption KMSv2 KMSv2KDF OpenAPIV3
    RemainingItemCount RemoveSelfLink SelectorIndex ServerSideApply ServerSideFieldValidation Initializers
    StreamingProxyRedirects ValidateProxyRedirects ValidatingAdmissionPolicy WarningHeaders WatchBookmark
    ZeroLimitedNominalConcurrencyShares
    """
)
_INERT_GATES = _ORIGINAL_GATES - {HEALTHINESS_CHECK, CLIENT_IDENTITY_PENETRATION} | _GENERIC_GATES | _RETIRED_GATES

_KUBE_COMPONENT = "kube"
# A leftover of the sample server that the original was made from; its only gate has no effect there either.
_WARDLE_COMPONENT = "wardle"
_WARDLE_GATES = frozenset({"BanFlunder", ALL_ALPHA, ALL_BETA})

# Go, strconv.ParseBool.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGates:
    """What the gates of one command line come to.

    Attributes:
        healthiness_check: Whether reported health is shown.
        client_identity_penetration: Whether callers' identities are to be passed on to clusters.
        without_effect: Names of known gates that change nothing here, in the order given.
    """

    healthiness_check: bool = False
    client_identity_penetration: bool = False
    without_effect: tuple[str, ...] = field(default=())


def parse_bool(text: str) -> bool | None:
    """Read a Go boolean such as "true", "t" or "0"; None when it is none."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def parse_feature_gates(values: Iterable[str]) -> FeatureGates:
    """Read every `--feature-gates` of a command line.

    Args:
        values: One text a flag: `name=bool` items separated by commas, each with an optional `kube:`.
            Empty items are skipped, as charts emit them. A later item overrides an earlier one.

    Returns:
        The gates' values.

    Raises:
        ConfigurationError: An item has no readable value, or names an unknown gate or component.

    Source:
        k8s.io/component-base, compatibility/registry.go and featuregate/feature_gate.go.
    """
    items = [item.strip() for value in values for item in value.split(",") if item.strip()]
    by_component: dict[str, dict[str, bool]] = {}
    for item in items:
        component, name, enabled = _parse_item(item)
        by_component.setdefault(component, {})[name] = enabled
    if "" in by_component and _KUBE_COMPONENT in by_component:
        raise ConfigurationError(
            "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
        )
    wardle = by_component.pop(_WARDLE_COMPONENT, {})
    for name in wardle:
        if name not in _WARDLE_GATES:
            raise ConfigurationError(f"unrecognized feature gate: {name}")
    kube = by_component.pop("", None) or by_component.pop(_KUBE_COMPONENT, {})
    for component in by_component:
        raise ConfigurationError(f"component not registered: {component}")
    return _resolve_gates(kube, inert=tuple(f"{_WARDLE_COMPONENT}:{name}" for name in wardle))


def _parse_item(item: str) -> tuple[str, str, bool]:
    pair, equals, text = item.partition("=")
    component, _, name = pair.rpartition(":")
    name = name.strip()
    if not equals:
        raise ConfigurationError(f"missing bool value for {name}")
    enabled = parse_bool(text.strip())
    if enabled is None:
        raise ConfigurationError(f"invalid value of {name}={text.strip()}: not a boolean")
    return component.strip(), name, enabled


def _resolve_gates(gates: Mapping[str, bool], *, inert: tuple[str, ...]) -> FeatureGates:
    known = {HEALTHINESS_CHECK, CLIENT_IDENTITY_PENETRATION, ALL_ALPHA, ALL_BETA}
    for name in gates:
        if name not in known and name not in _INERT_GATES:
            raise ConfigurationError(f"unrecognized feature gate: {name}")
    # AllAlpha sets every alpha gate that is not set itself; both of these are alpha in the original.
    all_alpha = gates.get(ALL_ALPHA, False)
    return FeatureGates(
        healthiness_check=gates.get(HEALTHINESS_CHECK, all_alpha),
        client_identity_penetration=gates.get(CLIENT_IDENTITY_PENETRATION, all_alpha),
        without_effect=(*(name for name in gates if name in _INERT_GATES or name == ALL_BETA), *inert),
    )
