"""Choice of a representation by the Accept header."""

from __future__ import annotations

import pytest

from cluster_gateway_facade.negotiation import Choice, Target, negotiate, parse_accept

TABLE = Target(group="meta.k8s.io", version="v1", kind="Table")
OLD_TABLE = Target(group="meta.k8s.io", version="v1beta1", kind="Table")
JSON = Choice(media_type="application/json")
YAML = Choice(media_type="application/yaml")
KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        ("application/yaml", YAML),
        ("text/html, application/yaml;q=0.4, application/json;q=0.5", JSON),
        ("application/yaml;q=0.5, */*;q=0.1", YAML),
        ("*/*, application/yaml", YAML),
        ("application/json;q=0, application/yaml", YAML),
        ("application/json;q=0", None),
        ("application/vnd.kubernetes.protobuf", None),
        ("application/vnd.kubernetes.protobuf, */*", JSON),
        ("application/vnd.kubernetes.protobuf, application/yaml", YAML),
        ("text/plain", None),
        ("nonsense", None),
        (";q=1,,application/yaml", YAML),
        ("application/json;q=high", JSON),
        ("application/json;charset=utf-8;pretty=1", JSON),
        ("application/json;stream=watch", JSON),
        ("application/json;stream=other, application/yaml", YAML),
        ("application/json;sv=v2, application/yaml", YAML),
        (KUBECTL, Choice(media_type="application/json", target=TABLE)),
        (
            'application/json; as="Table"; v=v1beta1; g=meta.k8s.io',
            Choice(media_type="application/json", target=OLD_TABLE),
        ),
        (
            "application/yaml;as=Table;v=v1;g=meta.k8s.io",
            Choice(media_type="application/yaml", target=TABLE),
        ),
        ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
        ("application/json;as=Table", None),
        ("application/json;as=Graph;v=v1;g=meta.k8s.io, application/json", JSON),
    ],
)
def test_choice(accept: str | None, expected: Choice | None) -> None:
    served = ("application/json", "application/yaml")
    assert negotiate(accept, served, (None, TABLE, OLD_TABLE)) == expected


def test_exact_types_come_before_wildcards_of_the_same_quality() -> None:
    found = parse_accept("*/*, application/*, text/plain, a/b;q=0.9")
    assert [f"{range_.type}/{range_.subtype}" for range_ in found] == [
        "text/plain",
        "application/*",
        "*/*",
        "a/b",
    ]
