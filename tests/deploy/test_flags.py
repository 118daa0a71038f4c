"""The flag tables and the parser."""

from __future__ import annotations

import pytest

from cluster_gateway.errors import FlagError
from cluster_gateway.flag_tables import APISERVER_FLAGS, CORE_FLAGS, FACADE_FLAGS, INERT_FLAGS, REFUSED_FLAGS
from cluster_gateway.flags import Effect, Flag, Kind, is_requested, parse_flags

_VALUES = {
    Kind.BOOL: "false",
    Kind.INT: "7",
    Kind.FLOAT: "1.5",
    Kind.DURATION: "1m",
    Kind.IP: "127.0.0.1",
    Kind.STRING: "x",
    Kind.STRINGS: "a,b",
}

# Every flag that the original is known to take (compatibility checklist 22).
_ORIGINAL = """
--secret-namespace=x --ocm-integration=true --proxy-host=h --proxy-port=8090 --proxy-ca-cert=c --proxy-cert=c
--proxy-key=k --authorize-proxy-subpath=true --cluster-gateway-proxy-config=f --user-agent=u
--virtual-clutser-with-control-plane=true --virtual-cluster-with-control-plane=true
--standalone-debug-mode=true
-v=2 --v=2 --vmodule=a=1 --logtostderr --alsologtostderr --stderrthreshold=2 --log_dir=d --log_file=f
--log_file_max_size=1800 --one_output --add_dir_header --skip_headers --skip_log_headers --log_backtrace_at=:0
--secure-port=9443 --bind-address=0.0.0.0 --cert-dir=d --tls-cert-file=c --tls-private-key-file=k
--tls-sni-cert-key=c,k --tls-cipher-suites=A,B --tls-min-version=VersionTLS13 --disable-http2-serving=true
--http2-max-streams-per-connection=1000 --permit-address-sharing --permit-port-sharing
--authentication-kubeconfig=k --authentication-skip-lookup --authentication-tolerate-lookup-failure
--authentication-token-webhook-cache-ttl=10s --client-ca-file=c --requestheader-allowed-names=a
--requestheader-client-ca-file=c --requestheader-extra-headers-prefix=x --requestheader-group-headers=x
--requestheader-username-headers=x --requestheader-uid-headers=x --authorization-kubeconfig=k
--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics
--authorization-webhook-cache-authorized-ttl=10s --authorization-webhook-cache-unauthorized-ttl=10s
--kubeconfig=k --audit-policy-file=f --audit-log-path=- --audit-log-maxage=1 --audit-log-maxbackup=1
--audit-log-maxsize=1 --audit-log-compress --audit-log-format=json --audit-log-mode=blocking
--audit-log-batch-buffer-size=1 --audit-log-batch-max-size=1 --audit-log-batch-max-wait=1s
--audit-log-batch-throttle-burst=1 --audit-log-batch-throttle-enable --audit-log-batch-throttle-qps=1.5
--audit-log-truncate-enabled --audit-log-truncate-max-batch-size=1 --audit-log-truncate-max-event-size=1
--audit-log-version=v1 --audit-webhook-config-file=f --audit-webhook-initial-backoff=10s
--audit-webhook-mode=batch --audit-webhook-batch-max-wait=30s --audit-webhook-truncate-enabled
--profiling=true --contention-profiling --debug-socket-path=s --enable-priority-and-fairness=false
--enable-admission-plugins=A --disable-admission-plugins=A --admission-control-config-file=f
--egress-selector-config-file=f --tracing-config-file=f --emulated-version=1.30 --etcd-servers=http://e
--etcd-cafile=c --etcd-certfile=c --etcd-keyfile=k --etcd-prefix=/r --etcd-compaction-interval=5m
--etcd-count-metric-poll-period=1m --etcd-db-metric-poll-interval=30s --etcd-healthcheck-timeout=2s
--etcd-readycheck-timeout=2s --etcd-servers-overrides=a --storage-backend=etcd3 --storage-media-type=m
--watch-cache=true --watch-cache-sizes=a#1 --encryption-provider-config=f
--encryption-provider-config-automatic-reload --lease-reuse-duration-seconds=60 --delete-collection-workers=1
--enable-garbage-collector=true --default-watch-cache-size=100 --feature-gates=SecretCache=true
""".split()  # noqa: SIM905 - as it is typed


@pytest.mark.parametrize("argument", _ORIGINAL)
def test_every_flag_of_the_original_parses(argument: str) -> None:
    assert len(parse_flags(APISERVER_FLAGS, [argument]).given) == 1


@pytest.mark.parametrize("table", [APISERVER_FLAGS, CORE_FLAGS, FACADE_FLAGS], ids=["apiserver", "core", "facade"])
def test_tables_name_each_flag_once_and_take_its_own_default(table: tuple[Flag, ...]) -> None:
    assert len({flag.name for flag in table}) == len(table)
    for flag in table:
        if flag.default:
            parse_flags(table, [f"--{flag.name}={flag.default}"])
        assert parse_flags(table, [f"--{flag.name}={_VALUES[flag.kind]}"]).given == (flag.name,)
        assert flag.help or flag.effect is Effect.NONE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ocm-integration"], True),
        (["--ocm-integration=t"], True),
        (["--ocm-integration=1"], True),
        (["--ocm-integration=false"], False),
        (["--ocm-integration", "--ocm-integration=F"], False),
        ([], False),
    ],
)
def test_booleans_are_read_as_pflag_does(arguments: list[str], expected: bool) -> None:  # noqa: FBT001
    assert parse_flags(APISERVER_FLAGS, arguments).boolean("ocm-integration") is expected


def test_boolean_takes_no_value_after_a_space() -> None:
    flags = parse_flags(APISERVER_FLAGS, ["--ocm-integration", "false"])
    assert flags.boolean("ocm-integration")
    assert flags.positional == ["false"]


@pytest.mark.parametrize("arguments", [["-v=4"], ["-v", "4"], ["-v4"], ["--v=4"], ["--v", "4"]])
def test_verbosity_has_klogs_forms(arguments: list[str]) -> None:
    assert parse_flags(APISERVER_FLAGS, arguments).integer("v") == 4


def test_value_may_follow_a_space_or_begin_with_a_dash() -> None:
    flags = parse_flags(APISERVER_FLAGS, ["--secret-namespace", "a", "--audit-log-path", "-", "--user-agent", "-x"])
    assert (flags.text("secret-namespace"), flags.text("audit-log-path"), flags.text("user-agent")) == (
        "a",
        "-",
        "-x",
    )


def test_positional_arguments_stand_anywhere() -> None:
    flags = parse_flags(APISERVER_FLAGS, ["apiserver", "--secure-port=1", "more", "--", "--no-flag"])
    assert flags.positional == ["apiserver", "more", "--no-flag"]
    assert flags.integer("secure-port") == 1


def test_lists_add_up_and_replace_the_default() -> None:
    name = "authorization-always-allow-paths"
    assert parse_flags(APISERVER_FLAGS, []).strings(name) == ("/healthz", "/readyz", "/livez")
    assert parse_flags(APISERVER_FLAGS, [f"--{name}=/a,/b", f"--{name}=/c"]).strings(name) == (
        "/a",
        "/b",
        "/c",
    )
    assert parse_flags(APISERVER_FLAGS, [f"--{name}="]).strings(name) == ()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--secure-prt=1", r"unknown flag: --secure-prt \(did you mean --secure-port\?\)"),
        ("--zzz", "^unknown flag: --zzz$"),
        ("-x=1", "unknown shorthand flag: 'x' in -x"),
        ("--secure-port", "flag needs an argument: --secure-port"),
        ("--secure-port=many", 'invalid argument "many" for "--secure-port" flag'),
        ("--profiling=maybe", 'invalid argument "maybe" for "--profiling" flag'),
        ("--bind-address=localhost", 'invalid argument "localhost" for "--bind-address" flag'),
        ("--shutdown-delay-duration=5", "invalid duration"),
        ("--audit-log-batch-throttle-qps=x", "invalid argument"),
    ],
)
def test_faults_are_named(argument: str, message: str) -> None:
    with pytest.raises(FlagError, match=message):
        parse_flags(APISERVER_FLAGS, [argument])


@pytest.mark.parametrize("flag", REFUSED_FLAGS, ids=lambda flag: flag.name)
def test_refused_flags_are_requests_only_when_they_ask_for_something(flag: Flag) -> None:
    asking = "true" if flag.kind is Kind.BOOL else "x"
    silent = "false" if flag.kind is Kind.BOOL else ""
    assert is_requested(parse_flags(APISERVER_FLAGS, [f"--{flag.name}={asking}"]), flag)
    assert not is_requested(parse_flags(APISERVER_FLAGS, [f"--{flag.name}={silent}"]), flag)
    assert not is_requested(parse_flags(APISERVER_FLAGS, []), flag)


def test_no_flag_is_both_refused_and_without_effect() -> None:
    assert {flag.name for flag in REFUSED_FLAGS}.isdisjoint(flag.name for flag in INERT_FLAGS)
