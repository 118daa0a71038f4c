"""Real control planes on loopback, for development and for tests.

A hub and managed clusters, each a real kube-apiserver, with kubelets and controllers where they are wanted;
no container engine. `python -m cluster_gateway.control_planes DIR` runs them until Ctrl-C.
"""

from cluster_gateway.control_planes.aggregation import (
    API_SERVICE,
    DEFAULT_NAMESPACE,
    DEFAULT_SERVICE,
    CredentialType,
    issue_admin_token,
    register_cluster,
    register_gateway,
    wait_available,
)
from cluster_gateway.control_planes.binaries import find_programs
from cluster_gateway.control_planes.controllers import start_controller_manager, start_kwok
from cluster_gateway.control_planes.errors import (
    BuildFailedError,
    CommandTimeoutError,
    ControlPlaneError,
    GoUnavailableError,
    NotReadyError,
    PortInUseError,
    ProcessDiedError,
    ProgramsUnavailableError,
)
from cluster_gateway.control_planes.nodes import DEFAULT_NODE, Kubelet, run_pod, start_kubelet
from cluster_gateway.control_planes.pki import CertificateAuthority, KeyPair, write_private
from cluster_gateway.control_planes.plane import DEFAULT_NAMES, ControlPlane, start_control_planes
from cluster_gateway.control_planes.ports import pick_free_ports, require_free_port
from cluster_gateway.control_planes.processes import (
    ChildProcess,
    CommandResult,
    run_command,
    running,
    wait_until,
)
from cluster_gateway.control_planes.programs import (
    CORE_PROGRAMS,
    REQUIRED_PROGRAMS,
    Program,
    Programs,
    cache_directory,
    report_to_stderr,
)

__all__ = [
    "API_SERVICE",
    "CORE_PROGRAMS",
    "DEFAULT_NAMES",
    "DEFAULT_NAMESPACE",
    "DEFAULT_NODE",
    "DEFAULT_SERVICE",
    "REQUIRED_PROGRAMS",
    "BuildFailedError",
    "CertificateAuthority",
    "ChildProcess",
    "CommandResult",
    "CommandTimeoutError",
    "ControlPlane",
    "ControlPlaneError",
    "CredentialType",
    "GoUnavailableError",
    "KeyPair",
    "Kubelet",
    "NotReadyError",
    "PortInUseError",
    "ProcessDiedError",
    "Program",
    "Programs",
    "ProgramsUnavailableError",
    "cache_directory",
    "find_programs",
    "issue_admin_token",
    "pick_free_ports",
    "register_cluster",
    "register_gateway",
    "report_to_stderr",
    "require_free_port",
    "run_command",
    "run_pod",
    "running",
    "start_control_planes",
    "start_controller_manager",
    "start_kubelet",
    "start_kwok",
    "wait_available",
    "wait_until",
    "write_private",
]
