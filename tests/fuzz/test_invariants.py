"""The parsers' invariants on inputs that hypothesis makes; `make fuzz` goes on with coverage in view."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.invariants import INVARIANTS


@pytest.mark.parametrize("name", INVARIANTS)
@given(data=st.binary(max_size=400) | st.lists(st.integers(1, 191), max_size=60).map(bytes))
def test_invariant_holds_on_any_input(name: str, data: bytes) -> None:
    INVARIANTS[name](data)
