"""A real hub, started once for the tests that ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster_gateway.control_planes import CORE_PROGRAMS, find_programs, start_control_planes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster_gateway.control_planes import ControlPlane


@pytest.fixture(scope="session")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    programs = await find_programs(CORE_PROGRAMS)
    directory = tmp_path_factory.mktemp("planes")
    async with start_control_planes(directory, ["hub"], programs=programs) as planes:
        yield planes["hub"]
