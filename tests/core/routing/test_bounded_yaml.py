from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_gateway_core.routing.bounded_yaml import (
    MAXIMUM_DEPTH,
    InvalidYAMLError,
    NotText,
    parse_bounded_yaml,
)


def parse(text: str) -> object:
    return parse_bounded_yaml(text, maximum_bytes=10_000)


def test_yaml_and_json_are_read_alike() -> None:
    assert parse("a: [b, {c: d}]\ne: 'true'\nf:\n") == {"a": ["b", {"c": "d"}], "e": "true", "f": None}
    assert parse('{"a": ["b", {"c": "d"}], "e": "true", "f": null}') == {"a": ["b", {"c": "d"}], "e": "true", "f": None}
    assert parse("") is None


@pytest.mark.parametrize("scalar", ["1", "1.5", "true", "yes", "2024-01-01", "0x10", "on"])
def test_what_yaml_does_not_read_as_text_is_not_made_text(scalar: str) -> None:
    found = parse(f"a: {scalar}")
    assert isinstance(found, dict)
    assert isinstance(found["a"], NotText)


_BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "not YAML"),
        ("a: b: c", "line 1"),
        ("a: \x00", "not YAML"),
        (_BOMB, "alias"),
        ("a: &a x\nb: {<<: {c: d}}\na: 1", "key"),
        ("a: 1\na: 2", "given twice"),
        ("? [a]\n: b", "no text"),
        ("1: b", "no text"),
        ("<<: {a: b}", "no text"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!str 1", "tag"),
        ("--- a\n--- b\n", "more than one"),
        ("[" * (MAXIMUM_DEPTH + 1), "deeper"),
        ("a: " + "x" * 10_000, "longer"),
        ("a: " + "\u00e9" * 5_000, "longer"),
    ],
)
def test_what_can_hurt_or_mislead_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InvalidYAMLError, match=fault):
        parse(text)


def test_nesting_cannot_exhaust_the_stack() -> None:
    for text in ("[" * 9_000, "{a: " * 2_000, "- " * 4_000):
        with pytest.raises(InvalidYAMLError):
            parse(text)


_VALUES = st.recursive(
    st.none() | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_VALUES)
def test_every_tree_of_text_comes_back(value: object) -> None:
    assert parse(json.dumps(value)) == value


@given(st.text(max_size=60) | st.text("{}[]&*!|>-:?,#'\" \nab", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidYAMLError):
        parse(text)
