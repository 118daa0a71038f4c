"""Which targets are a cluster's, and that their bytes stay as they are."""

from __future__ import annotations

import pytest

from cluster_gateway_facade.handlers.proxied_path import ProxiedTarget, parse_proxied_target

BASE = b"/apis/cluster.core.oam.dev/v1alpha1/clustergateways"


@pytest.mark.parametrize(
    "rest",
    [
        b"/",
        b"//",
        b"/api/v1/pods?watch=true&x=%2f",
        b"/a/../b",
        b"/%2e%2e/%252e",
        b"/%zz%00\\;",
        b"/a/proxy/b",
        b"/\xff",
        b"/x\n",
        b"/x?a?b",
    ],
)
def test_what_is_the_cluster_s_is_not_touched_rt_20_rt_28(rest: bytes) -> None:
    parsed = parse_proxied_target(BASE + b"/east/proxy" + rest)
    assert parsed == ProxiedTarget(cluster_name="east", target=rest)


@pytest.mark.parametrize(("rest", "target"), [(b"", b"/"), (b"?a=b", b"/?a=b")])
def test_an_empty_rest_is_the_root(rest: bytes, target: bytes) -> None:
    assert parse_proxied_target(BASE + b"/east/proxy" + rest) == ProxiedTarget(cluster_name="east", target=target)


@pytest.mark.parametrize(
    "target", [BASE, BASE + b"/east", BASE + b"/east/proxyx", BASE + b"/east/health", b"/" + BASE + b"/e/proxy/", b"/x"]
)
def test_other_targets_are_not_proxied(target: bytes) -> None:
    assert parse_proxied_target(target) is None


@pytest.mark.parametrize("name", [b"", b"..", b"a%00", b"a%2f..", b"-a", b"a b", b"\xff", b"a" * 254])
def test_names_that_no_cluster_can_have_name_none(name: bytes) -> None:
    parsed = parse_proxied_target(BASE + b"/" + name + b"/proxy/x")
    assert parsed is not None
    assert parsed.cluster_name is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"__dryRun=All", b"dryRun=All"),
        (b"a=1&__dryRun=All&b=__dryRun", b"a=1&dryRun=All&b=__dryRun"),
        (b"__dryRun", b"dryRun"),
        (b"__dryRunX=1", b"__dryRunX=1"),
        (b"x__dryRun=1", b"x__dryRun=1"),
        (b"__dryRun=All&dryRun=All", b"dryRun=All&dryRun=All"),
        (b"%5F_dryRun=All", b"dryRun=All"),
        (b"a=b&%5f%5F%64%72%79%52%75%6E=All&c=d", b"a=b&dryRun=All&c=d"),
        (b"_%5fdryRunX=1", b"_%5fdryRunX=1"),
        (b"%255F_dryRun=1", b"%255F_dryRun=1"),
        (b"x=?__dryRun=1", b"x=?__dryRun=1"),
    ],
)
def test_an_escaped_dry_run_is_one_again_rt_19(query: bytes, expected: bytes) -> None:
    parsed = parse_proxied_target(BASE + b"/east/proxy/__dryRun?" + query)
    assert parsed is not None
    assert parsed.target == b"/__dryRun?" + expected
