"""Every way to fail says where and what to do, and stands in docs/errors.md."""

from __future__ import annotations

import ast
import re
from http import HTTPStatus
from pathlib import Path

import pytest

from cluster_gateway_core import errors
from cluster_gateway_facade import status

_ROOT = Path(__file__).parents[2]
_ERRORS = (_ROOT / "docs" / "errors.md").read_text()
_CORE = _ROOT / "core" / "cluster_gateway_core"
_OTHERS = (_ROOT / "core" / "cluster_gateway_client", _ROOT / "facade" / "cluster_gateway_facade")
CLASSES = {cls.__name__: cls for cls in errors.GatewayError.__subclasses__() if cls.__module__ == errors.__name__}


def calls_in(*folders: Path) -> list[tuple[str, ast.Call]]:
    """Every call with where it stands."""
    return [
        (f"{path.relative_to(_ROOT)}:{node.lineno}", node)
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def literal_start(node: ast.expr) -> str | None:
    """The first words of a message that is written down; None where it is put together elsewhere."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


RAISED = [(where, call) for where, call in calls_in(_CORE) if name_of(call) in CLASSES]
BY_CLIENT_AND_FACADE = [(where, call) for where, call in calls_in(*_OTHERS) if name_of(call) == "CoreError"]


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_every_error_of_the_core_has_a_hop_and_says_what_to_do(cls: type[errors.GatewayError]) -> None:
    assert isinstance(cls.default_hop, errors.Hop)
    assert re.fullmatch(r"[A-Z].{10,}\.", cls.default_hint)
    error = cls("c1")  # its message, or its cluster
    assert error.hint == cls.default_hint
    assert error.message


def test_messages_are_one_sentence_that_ends_without_a_full_stop() -> None:
    """The facade adds where it failed, and the hint as a second sentence."""
    assert len(RAISED) > 50
    for where, call in RAISED:
        message = literal_start(call.args[0]) if call.args else None
        if message is not None:
            assert message.strip(), where
            assert not message.rstrip().endswith("."), where
        for keyword in call.keywords:
            hint = literal_start(keyword.value) if keyword.arg == "hint" else None
            assert hint is None or re.fullmatch(r"[A-Z].*\.", hint, re.DOTALL), where


def test_every_error_that_client_and_facade_make_has_a_hop_and_says_what_to_do() -> None:
    assert len(BY_CLIENT_AND_FACADE) > 5
    for where, call in BY_CLIENT_AND_FACADE:
        given = {keyword.arg for keyword in call.keywords}
        assert {"hop", "hint"} <= given, where
        assert isinstance(call.args[0], ast.Constant), where
        assert call.args[0].value in status.STATUS_BY_REASON, where


def test_a_bad_request_and_what_the_parser_refuses_tell_hop_and_hint_too() -> None:
    for answer in (status.bad_request("x"), status.head_too_large(), status.facade_failed()):
        assert b'"causes":[{"reason":"I' in answer.body
        assert b'"field":"hop:' in answer.body


def test_every_code_that_the_facade_answers_is_documented() -> None:
    """By name, so that a code that is added without a row is found."""
    used = {
        node.attr
        for folder in _OTHERS
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "HTTPStatus"
    }
    refusals = {HTTPStatus[name] for name in used} - {code for code in HTTPStatus if code < HTTPStatus.BAD_REQUEST}
    documented = {int(code) for code in re.findall(r"\| (\d{3}) \|", _ERRORS)}
    assert refusals <= documented
    assert {int(code) for code, _ in status.STATUS_BY_REASON.values()} <= documented


def test_every_documented_status_reason_is_one_that_is_rendered() -> None:
    text = "".join(path.read_text() for folder in _OTHERS for path in folder.rglob("*.py"))
    for reason in re.findall(r"\| \d{3} \| (\w+) \|", _ERRORS):
        assert f'"{reason}"' in text
