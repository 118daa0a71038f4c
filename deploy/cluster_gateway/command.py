"""The subcommands `apiserver`, `core` and `facade`: from a command line to a running process."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.errors import CommandError, ConfigurationError, FlagError
from cluster_gateway.flag_tables import APISERVER_FLAGS, CORE_FLAGS, FACADE_FLAGS
from cluster_gateway.flags import parse_flags, render_help
from cluster_gateway.logging import configure_logging
from cluster_gateway.settings import (
    build_core_serving,
    build_core_settings,
    build_facade_settings,
    build_gateway_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cluster_gateway.flags import Flag, ParsedFlags
    from cluster_gateway_core.settings import CoreSettings, HubSettings
    from cluster_gateway_facade.settings import FacadeSettings

_log = logging.getLogger(__name__)

MISUSED = 2
"""Exit status for a command line that cannot be read."""
FAILED = 1
"""Exit status for everything else."""

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServingCommand:
    """One subcommand that serves.

    Attributes:
        name: As it is typed.
        summary: What it does, for `--help`.
        flags: Its flags.
        run: Runs it until it ends; returns the exit status.
    """

    name: str
    summary: str
    flags: tuple[Flag, ...]
    run: Callable[[ParsedFlags], int]

    def __call__(self, arguments: Sequence[str]) -> int:
        """Read the arguments and run; failures that are the operator's to mend become one sentence each.

        Positional arguments are ignored, as in the original: KubeVela's chart passes a first one.
        """
        program = f"cluster-gateway {self.name}"
        try:
            flags = parse_flags(self.flags, arguments)
            if flags.help_wanted:
                sys.stdout.write(render_help(usage=f"{program} [flags]", summary=self.summary, table=self.flags))
                return 0
            configure_logging(role=self.name, verbosity=flags.integer("v"))
            return self.run(flags)
        except FlagError as error:
            sys.stderr.write(f"{error}\nSee '{program} --help' for usage.\n")
            return MISUSED
        except CommandError as error:
            _log.error("%s", error)
            return FAILED


def check_hub_access(
    hub: HubSettings, *, environment: Mapping[str, str] = os.environ, service_account: Path = _SERVICE_ACCOUNT
) -> None:
    """See that there is a way to the hub before anything is started.

    Args:
        hub: The kubeconfigs.
        environment: Tells whether this is a pod.
        service_account: Where a pod's credentials are.

    Raises:
        ConfigurationError: A kubeconfig cannot be read, or there is none outside a pod.
    """
    named = {
        "--kubeconfig": hub.kubeconfig,
        "--authentication-kubeconfig": hub.authentication_kubeconfig,
        "--authorization-kubeconfig": hub.authorization_kubeconfig,
    }
    for flag, path in named.items():
        if path is not None:
            _check_readable(flag, path)
    if hub.kubeconfig is not None:
        return
    if not environment.get("KUBERNETES_SERVICE_HOST") or not environment.get("KUBERNETES_SERVICE_PORT"):
        raise ConfigurationError(
            "no way to the hub: pass --kubeconfig, or run in a pod with a service account "
            "(KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set)"
        )
    if not (service_account / "token").is_file():
        raise ConfigurationError(
            f"no way to the hub: this pod has no service-account token at {service_account / 'token'} "
            "(automountServiceAccountToken: false?), and no --kubeconfig was passed"
        )


def _run_apiserver(flags: ParsedFlags) -> int:
    from cluster_gateway.supervisor import run_gateway  # noqa: PLC0415 - `--help` does without

    settings = build_gateway_settings(flags)
    _warn(settings.warnings)
    check_hub_access(settings.core.hub)
    facade = _with_certificate(settings.facade, settings.certificate_directory)
    return run_gateway(_with_serving_certificate(settings.core, facade), facade, verbosity=flags.integer("v"))


def _run_core(flags: ParsedFlags) -> int:
    settings, warnings = build_core_settings(flags, build_core_serving(flags))
    _warn(warnings)
    check_hub_access(settings.hub)
    for name in ("tls-cert-file", "tls-private-key-file", "facade-ca-file"):
        if flags.text(name):
            _check_readable(f"--{name}", flags.text(name))
    from cluster_gateway_core.app import run_core  # noqa: PLC0415 - `--help` does without

    return run_core(settings)


def _run_facade(flags: ParsedFlags) -> int:
    settings = build_facade_settings(flags)
    for name in ("core-ca-file", "core-client-cert-file", "core-client-key-file"):
        if flags.text(name):
            _check_readable(f"--{name}", flags.text(name))
    settings = _with_certificate(settings, flags.text("cert-dir"))
    from cluster_gateway_facade.app import run_facade  # noqa: PLC0415 - `--help` does without

    return run_facade(settings)


def _with_certificate(facade: FacadeSettings, directory: str) -> FacadeSettings:
    serving = facade.serving
    if serving.certificate_file:
        _check_readable("--tls-cert-file", serving.certificate_file)
        _check_readable("--tls-private-key-file", serving.private_key_file)
        return facade
    from cluster_gateway.serving_certificate import ensure_certificate, find_names  # noqa: PLC0415 - likewise

    files = ensure_certificate(Path(directory).resolve(), find_names(serving.bind_address))
    _log.info("no --tls-cert-file was given: serving the self-signed certificate %s", files.certificate)
    serving = dataclasses.replace(
        serving, certificate_file=str(files.certificate), private_key_file=str(files.private_key)
    )
    return dataclasses.replace(facade, serving=serving)


def _with_serving_certificate(core: CoreSettings, facade: FacadeSettings) -> CoreSettings:
    """Let the core's own ports show the certificate of the HTTPS endpoint."""
    serving = dataclasses.replace(
        core.serving,
        certificate_file=facade.serving.certificate_file,
        private_key_file=facade.serving.private_key_file,
    )
    return dataclasses.replace(core, serving=serving)


def _check_readable(flag: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{flag}: cannot read {path}: {error.strerror}") from error


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        _log.warning("%s", warning)


APISERVER = ServingCommand(
    name="apiserver",
    summary="Serve the aggregated API: a facade and a core on this host, joined by a private socket. Takes "
    "every flag of the original cluster-gateway.",
    flags=APISERVER_FLAGS,
    run=_run_apiserver,
)
CORE = ServingCommand(
    name="core",
    summary="Serve the routing core alone, by gRPC, to facades and to services that speak gRPC.",
    flags=CORE_FLAGS,
    run=_run_core,
)
FACADE = ServingCommand(
    name="facade",
    summary="Serve the HTTPS face alone, with cores elsewhere. It needs no rights in the hub.",
    flags=FACADE_FLAGS,
    run=_run_facade,
)
