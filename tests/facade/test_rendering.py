"""Documents as bytes."""

from __future__ import annotations

import pytest
import yaml

from cluster_gateway_facade.handlers.rendering import render

TEXTS = ["12e5", "1", ".5", "-3", "0o7", "1_000", "yes", "null", "~", "", "2025-01-01", "é", "a: b", "#"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_in_yaml(text: str) -> None:
    assert yaml.safe_load(render({"label": text}, "application/yaml")) == {"label": text}


@pytest.mark.parametrize("text", ["12e5", ".5e1", "-3", "0o7", "+1"])
def test_what_another_reader_takes_for_a_number_is_quoted(text: str) -> None:
    assert render({"label": text}, "application/yaml") == f'label: "{text}"\n'.encode()


def test_repeated_values_are_written_out() -> None:
    shared = {"a": "b"}
    assert render({"x": shared, "y": shared}, "application/yaml") == b"x:\n  a: b\ny:\n  a: b\n"
