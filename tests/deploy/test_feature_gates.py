"""The flag `--feature-gates`."""

from __future__ import annotations

import pytest

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.feature_gates import FeatureGates, parse_feature_gates


def test_without_gates_all_is_off() -> None:
    assert parse_feature_gates([]) == FeatureGates()


def test_later_items_and_later_flags_override() -> None:
    assert parse_feature_gates(["HealthinessCheck=false,HealthinessCheck=true"]).healthiness_check
    assert not parse_feature_gates(["HealthinessCheck=true", "HealthinessCheck=f"]).healthiness_check


@pytest.mark.parametrize(
    "text", ["", ",", "HealthinessCheck=true,", ",HealthinessCheck=true", " HealthinessCheck = true , "]
)
def test_empty_items_and_spaces_are_skipped(text: str) -> None:
    assert parse_feature_gates([text]).healthiness_check == ("Health" in text)


def test_prefix_of_kube_is_taken_off() -> None:
    gates = parse_feature_gates(["kube:HealthinessCheck=true,kube:SecretCache=false"])
    assert gates == FeatureGates(healthiness_check=True, without_effect=("SecretCache",))


def test_prefixed_and_bare_gates_do_not_mix() -> None:
    with pytest.raises(ConfigurationError, match="consistently, do not mix use"):
        parse_feature_gates(["kube:HealthinessCheck=true,SecretCache=true"])


@pytest.mark.parametrize(
    "name", ["APIPriorityAndFairness", "SecretCache", "OCMClusterCache", "WatchList", "OpenAPIV3", "AllBeta"]
)
def test_known_gates_without_effect_are_named(name: str) -> None:
    assert parse_feature_gates([f"{name}=false"]) == FeatureGates(without_effect=(name,))


def test_component_of_the_sample_server_is_known() -> None:
    assert parse_feature_gates(["wardle:BanFlunder=true"]).without_effect == ("wardle:BanFlunder",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Nonsense=true", "unrecognized feature gate: Nonsense"),
        ("kube:Nonsense=true", "unrecognized feature gate: Nonsense"),
        ("wardle:SecretCache=true", "unrecognized feature gate: SecretCache"),
        ("zoo:SecretCache=true", "component not registered: zoo"),
        ("SecretCache", "missing bool value for SecretCache"),
        ("SecretCache=yes", "invalid value of SecretCache=yes"),
    ],
)
def test_faults_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_feature_gates([text])


def test_all_alpha_turns_on_the_alpha_gates_that_are_not_set() -> None:
    assert parse_feature_gates(["AllAlpha=true,ClientIdentityPenetration=false"]) == FeatureGates(
        healthiness_check=True, client_identity_penetration=False
    )
    assert parse_feature_gates(["AllAlpha=true"]).client_identity_penetration
