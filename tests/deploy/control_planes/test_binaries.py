"""Where programs are looked for, and what is said when they cannot be had."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_gateway.control_planes import (
    CORE_PROGRAMS,
    GoUnavailableError,
    Program,
    ProgramsUnavailableError,
    cache_directory,
    find_programs,
)

Script = Callable[[Path, str], Path]
FakeGo = Callable[..., Path]


def install(folder: Path, script: Script, programs: frozenset[Program] = CORE_PROGRAMS) -> None:
    for program in programs:
        script(folder / program, "exit 0")


def builds(go_calls: Path) -> list[str]:
    return go_calls.read_text().split()


async def test_kubebuilder_assets_win_over_path(
    search_path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(search_path, script)
    install(tmp_path / "assets", script)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert await find_programs(CORE_PROGRAMS) == {p: tmp_path / "assets" / p for p in CORE_PROGRAMS}


async def test_incomplete_kubebuilder_assets_are_named_and_path_is_used(
    search_path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(search_path, script)
    install(tmp_path / "assets", script, CORE_PROGRAMS - {Program.ETCD})
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    lines: list[str] = []
    programs = await find_programs(CORE_PROGRAMS, report=lines.append)
    assert programs == {program: search_path / program for program in CORE_PROGRAMS}
    assert lines == [f"KUBEBUILDER_ASSETS={tmp_path / 'assets'} is not used: it lacks etcd"]


async def test_a_lone_kubectl_on_path_does_not_count(
    search_path: Path, cache: Path, script: Script, fake_go: FakeGo
) -> None:
    fake_go()
    install(search_path, script, frozenset({Program.KUBECTL}))
    programs = await find_programs([Program.KUBECTL], report=lambda _: None)
    assert programs[Program.KUBECTL].is_relative_to(cache)


async def test_kubelet_is_never_taken_from_path(
    search_path: Path, cache: Path, script: Script, fake_go: FakeGo
) -> None:
    fake_go()
    install(search_path, script, CORE_PROGRAMS | {Program.KUBELET})
    programs = await find_programs(report=lambda _: None)
    assert programs[Program.KUBE_APISERVER] == search_path / "kube-apiserver"
    assert programs[Program.KUBELET].is_relative_to(cache)


async def test_only_what_is_asked_for_is_built_and_only_once(cache: Path, fake_go: FakeGo, go_calls: Path) -> None:
    fake_go()
    for _ in range(2):
        programs = await find_programs([Program.ETCD, Program.KWOK], report=lambda _: None)
        assert set(programs) == {Program.ETCD, Program.KWOK}
    assert builds(go_calls) == ["go.etcd.io/etcd/server/v3", "sigs.k8s.io/kwok/cmd/kwok"]


async def test_cache_folders_are_named_after_the_pinned_versions(cache: Path, fake_go: FakeGo) -> None:
    fake_go()
    programs = await find_programs([Program.KUBECTL, Program.KWOK], report=lambda _: None)
    folders = {program: path.relative_to(cache).parts[0] for program, path in programs.items()}
    assert re.fullmatch(r"kubernetes-v1\.36\.3-[0-9a-f]{12}", folders[Program.KUBECTL])
    assert re.fullmatch(r"kwok-v0\.8\.0-[0-9a-f]{12}", folders[Program.KWOK])


async def test_without_go_the_error_says_what_to_do(search_path: Path, cache: Path) -> None:
    with pytest.raises(GoUnavailableError) as caught:
        await find_programs([Program.ETCD])
    assert str(caught.value) == (
        "Go 1.26.0 or newer is needed to build etcd, and there is no `go` on PATH: install it, or set "
        "KUBEBUILDER_ASSETS to a directory with ready-made kube-apiserver, etcd and kubectl"
    )


async def test_a_go_that_is_too_old_is_named_with_its_version(cache: Path, fake_go: FakeGo) -> None:
    go = fake_go(version="go1.21.3")
    with pytest.raises(GoUnavailableError, match=f"{go} is Go 1.21.3, which could not download"):
        await find_programs([Program.KUBELET])


async def test_an_old_go_that_fetches_a_newer_one_is_used(cache: Path, search_path: Path, script: Script) -> None:
    script(
        search_path / "go",
        'if [ "$1 $GOTOOLCHAIN" = "env local" ]; then echo go1.21.3; '
        'elif [ "$1" = env ]; then echo go1.26.0; '
        'else while [ "$1" != -o ]; do shift; done; echo built > "$2"; fi',
    )
    programs = await find_programs([Program.KUBELET], report=lambda _: None)
    assert programs[Program.KUBELET].is_relative_to(cache)


async def test_an_unwritable_cache_is_one_sentence(
    fake_go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go()
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLUSTER_GATEWAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ProgramsUnavailableError, match="set CLUSTER_GATEWAY_CACHE to a writable directory"):
        await find_programs([Program.ETCD])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CLUSTER_GATEWAY_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/control-planes"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/cluster-gateway/control-planes"),
        ({"HOME": "/c"}, "/c/.cache/cluster-gateway/control-planes"),
    ],
    ids=["own variable", "XDG", "home"],
)
def test_cache_directory(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLUSTER_GATEWAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)
