"""The command: help, exit statuses, the way to the hub, and what its logs look like."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster_gateway.__main__ import main
from cluster_gateway.command import check_hub_access
from cluster_gateway.errors import ConfigurationError
from cluster_gateway.logging import JsonFormatter, configure_logging, redact
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _last_message(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().err.splitlines()[-1])["msg"])


@pytest.mark.parametrize("name", ["apiserver", "core", "facade"])
def test_help_is_the_committed_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Made again by `cluster-gateway NAME --help >docs/flags-NAME.txt`."""
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out == (_DOCS / f"flags-{name}.txt").read_text()


def test_help_loads_no_framework() -> None:
    code = (
        "import sys; from cluster_gateway.__main__ import main; main(['apiserver', '--help']);"
        "sys.exit(bool({'grpc', 'aiohttp', 'kubernetes_asyncio', 'cryptography'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment, stdout=subprocess.DEVNULL)


def test_command_line_without_a_known_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["nonsense"]) == 2
    assert "unknown command: nonsense" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "apiserver" in capsys.readouterr().out


def test_unknown_flag_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apiserver", "--secure-prt=1"]) == 2
    assert "unknown flag: --secure-prt (did you mean --secure-port?)" in capsys.readouterr().err


def test_refusal_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apiserver", "--ocm-integration"]) == 1
    assert _last_message(capsys).startswith("--ocm-integration is not supported: ")
    assert main(["apiserver", "--secret-namespace="]) == 1
    assert _last_message(capsys) == "must specify --secret-namespace"
    assert main(["apiserver", "--feature-gates=Nonsense=true"]) == 1
    assert _last_message(capsys) == "unrecognized feature gate: Nonsense"


def test_published_command_line_warns_and_then_asks_for_a_hub(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    published = [
        "--secure-port=9443",
        "--secret-namespace=default",
        "--feature-gates=APIPriorityAndFairness=false",
    ]
    assert main(["apiserver", *published]) == 1
    warning, failure = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert warning["level"] == "warning"
    assert warning["msg"] == "feature gates without effect in this version: APIPriorityAndFairness"
    assert failure["msg"].startswith("no way to the hub: pass --kubeconfig")


def test_missing_files_are_named_by_their_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch()
    missing = tmp_path / "missing"
    assert main(["apiserver", f"--kubeconfig={missing}"]) == 1
    assert _last_message(capsys) == f"--kubeconfig: cannot read {missing}: No such file or directory"
    arguments = [
        f"--kubeconfig={kubeconfig}",
        f"--tls-cert-file={missing}",
        f"--tls-private-key-file={missing}",
    ]
    assert main(["apiserver", *arguments]) == 1
    assert _last_message(capsys).startswith("--tls-cert-file: cannot read ")


def test_pod_without_a_service_account_is_explained(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigurationError, match="no service-account token"):
        check_hub_access(HubSettings(), environment=environment, service_account=tmp_path)
    (tmp_path / "token").touch()
    check_hub_access(HubSettings(), environment=environment, service_account=tmp_path)


def test_log_lines_are_whole_json_objects_without_credentials() -> None:
    record = logging.LogRecord("a.b", logging.ERROR, "", 0, "one\ntwo %s", ("Bearer abc.def-ghi",), None)
    try:
        raise ValueError("Authorization: Bearer xyz")  # noqa: TRY301
    except ValueError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter("core").format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["process"], entry["logger"]) == ("error", "core", "a.b")
    assert entry["msg"] == "one\ntwo Bearer REDACTED"
    assert "xyz" not in entry["exception"]
    assert entry["ts"].endswith("Z")


def test_private_keys_are_taken_out_of_logs() -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----"
    assert redact(f"a {key} b") == "a REDACTED b"
    assert redact("-----BEGIN PRIVATE KEY-----\nMHc") == "REDACTED"


_TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLWNhbmFyeQ"
_FORMS = (
    f"Authorization: Bearer {_TOKEN}",
    f"b'authorization: bearer {_TOKEN}\\r\\n'",
    f"TokenReview of {_TOKEN} failed",
    f"{{'token': '{_TOKEN}'}}",
    f"Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{_TOKEN.replace('.', '')}",
    "Basic dXNlcjpzaWduYXR1cmUtY2FuYXJ5",
    "-----BEGIN PRIVATE KEY-----\nc2lnbmF0dXJlLWNhbmFyeQ\n-----END PRIVATE KEY-----",
)


@pytest.mark.parametrize("told", _FORMS)
def test_no_exception_of_a_chain_prints_a_credential(told: str) -> None:
    """Neither what was raised, nor its cause, nor what was being handled, nor one of a group."""
    record = logging.LogRecord("a.b", logging.ERROR, "", 0, "failed: %r", (ValueError(told),), None)
    try:
        try:
            try:
                raise LookupError(told)  # noqa: TRY301
            except LookupError as first:
                raise OSError(told) from first
        except OSError:
            raise ExceptionGroup(told, [RuntimeError(told)])  # noqa: B904 - the context is what is meant
    except ExceptionGroup:
        record.exc_info = sys.exc_info()
    line = JsonFormatter("core").format(record)
    assert "LookupError" in line
    assert "RuntimeError" in line
    for secret in ("c2lnbmF0dXJlLWNhbmFyeQ", "eyJpc3MiOiJrdWJlcm5ldGVzIn0", "dXNlcjpzaWduYXR1cmUtY2FuYXJ5"):
        assert secret not in line


@pytest.mark.parametrize(("verbosity", "level"), [(0, logging.INFO), (3, logging.INFO), (4, logging.DEBUG)])
def test_verbosity_sets_the_level_but_never_that_of_body_loggers(verbosity: int, level: int) -> None:
    configure_logging(role="core", verbosity=verbosity)
    assert logging.getLogger("cluster_gateway_core").getEffectiveLevel() == level
    assert logging.getLogger("kubernetes_asyncio.client.rest").getEffectiveLevel() == logging.INFO
