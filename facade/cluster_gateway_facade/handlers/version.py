"""The gateway's version, as `kubectl version` and client-go read a server's."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_gateway_facade.exchange import Answer
from cluster_gateway_facade.handlers.rendering import render, wants_pretty
from cluster_gateway_facade.negotiation import JSON

if TYPE_CHECKING:
    from cluster_gateway_facade.exchange import ApiRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Handler of /version.

    Attributes:
        release: The gateway's own version, for example "0.1.0".
    """

    release: str

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer with the fields of `version.Info`."""
        body = render(version_info(self.release), JSON, pretty=wants_pretty(request))
        return Answer(body=body, headers=(("Cache-Control", "no-cache, private"),))


def version_info(release: str) -> dict[str, str]:
    """Describe this build.

    It is the gateway's own version and not that of a Kubernetes: it answers for no Kubernetes API.
    "+cluster-gateway" is build metadata, so that `gitVersion` is a semantic version and yet cannot be
    taken for a kube-apiserver's.

    Source:
        kubernetes/apimachinery, pkg/version/types.go, Info: all of these fields are required.
    """
    major, minor, *_ = [*release.split("."), "0"]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{release}+cluster-gateway",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
