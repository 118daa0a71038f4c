from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import RunningFacade, running_facade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningFacade]:
    async with running_facade(tmp_path) as running:
        yield running
