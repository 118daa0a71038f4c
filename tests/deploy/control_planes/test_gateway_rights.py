from __future__ import annotations

from typing import Any

import yaml
from tests.support.manifests import MANIFESTS

from cluster_gateway.control_planes.gateway import render_rights


def rights_of(documents: list[Any]) -> set[tuple[str, str]]:
    """What is granted, whoever gets it and whatever the objects are called."""
    granted = {(document["kind"], repr(document["roleRef"])) for document in documents if "roleRef" in document}
    return granted | {(document["kind"], repr(document["rules"])) for document in documents if "rules" in document}


def test_a_local_gateway_has_the_rights_of_the_manifests_and_no_other() -> None:
    local: Any = render_rights({"kind": "User", "name": "gateway"}, "clusters")
    documented = list(yaml.safe_load_all((MANIFESTS / "base" / "rbac.yaml").read_text()))
    assert rights_of(local["items"]) == rights_of(documented)
