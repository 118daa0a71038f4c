"""What a core does for its process before it serves."""

from __future__ import annotations

import resource

from cluster_gateway_core.app import _raise_descriptor_limit


def test_a_core_may_open_as_many_files_as_there_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        for _ in range(2):
            _raise_descriptor_limit()
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
