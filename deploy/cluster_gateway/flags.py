"""Flags as data, and the parser that reads a command line by such a table.

Not argparse: the original's command lines follow Go's pflag, where a boolean takes its value only after
"=", a value may begin with a dash, and "_" in a name equals "-"; and `--help`, which is committed in docs/,
must be the same text under every Python.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_gateway.durations import parse_duration
from cluster_gateway.errors import FlagError
from cluster_gateway.feature_gates import parse_bool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HELP_WIDTH = 110
_HELP_INDENT = 8


class Kind(enum.Enum):
    """What a flag's value is; the member's value is its name in `--help`."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DURATION = "duration"
    IP = "ip"
    STRING = "string"
    STRINGS = "strings"


class Effect(enum.Enum):
    """What giving a flag does here."""

    WIRED = enum.auto()
    """It sets something."""
    NONE = enum.auto()
    """Nothing; a warning names it."""
    REFUSED = enum.auto()
    """The gateway does not start, as silence would leave out a protection or a route that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag.

    Attributes:
        name: Long name, without dashes.
        kind: What its value is.
        help: One sentence.
        group: Heading it stands under in `--help`.
        default: The text it has when not given.
        shorthand: One letter that a single dash takes; empty for none.
        effect: What giving it does. A refused flag that is false, empty or names `harmless` is no request.
        harmless: Values of a refused flag that ask for no more than what is done anyway.
    """

    name: str
    kind: Kind
    help: str
    group: str
    default: str = ""
    shorthand: str = ""
    effect: Effect = Effect.WIRED
    harmless: tuple[str, ...] = ()


class ParsedFlags:
    """The values of one command line.

    Attributes:
        given: Names of the flags it gave, in order.
        help_wanted: Whether it asked for help.
        positional: What stood between the flags.
    """

    def __init__(self, table: Iterable[Flag]) -> None:
        self._flags = {flag.name: flag for flag in table}
        self._values: dict[str, list[str]] = {}
        self.positional: list[str] = []
        self.help_wanted = False

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the flags that were given, in order."""
        return tuple(self._values)

    def add(self, name: str, value: str) -> None:
        """Note one use of a flag."""
        self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The last value given, or the default."""
        values = self._values.get(name)
        return values[-1] if values else self._flags[name].default

    def path(self, name: str) -> str | None:
        """The text, or None when it is empty."""
        return self.text(name) or None

    def uses(self, name: str) -> tuple[str, ...]:
        """Every value given, in order; empty when none was."""
        return tuple(self._values.get(name, ()))

    def strings(self, name: str) -> tuple[str, ...]:
        """The comma-separated elements of every use, or of the default when there was none."""
        texts = self._values.get(name) or [self._flags[name].default]
        return tuple(element for text in texts for element in text.split(",") if element)

    def boolean(self, name: str) -> bool:
        """The last value as a boolean."""
        return parse_bool(self.text(name)) is True

    def integer(self, name: str) -> int:
        """The last value as a number."""
        return int(self.text(name), 0)

    def seconds(self, name: str) -> float:
        """The last value, a duration, in seconds."""
        return parse_duration(self.text(name))


def parse_flags(table: Sequence[Flag], arguments: Sequence[str]) -> ParsedFlags:
    """Read a command line as pflag does.

    Args:
        table: The flags there are.
        arguments: `--name=value`, `--name value`, `--bool`, `-x=value`, `-x value`, `-xvalue`; what
            stands between them is positional, and so is all after `--`.

    Returns:
        The values, each checked to be of its flag's kind.

    Raises:
        FlagError: A flag is unknown, or its value missing or malformed.

    Source:
        spf13/pflag, flag.go, parseArgs.
    """
    long_flags = {flag.name: flag for flag in table}
    short_flags = {flag.shorthand: flag for flag in table if flag.shorthand}
    parsed = ParsedFlags(table)
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            parsed.positional.extend(rest)
            break
        if argument in {"--help", "-h"}:
            parsed.help_wanted = True
        elif argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            flag = _find_flag(long_flags, name)
            _take_value(parsed, flag, value if equals else None, rest)
        elif argument.startswith("-") and argument != "-":
            flag = _find_shorthand(short_flags, argument)
            value = argument[2:].removeprefix("=")
            _take_value(parsed, flag, value if argument[2:] else None, rest)
        else:
            parsed.positional.append(argument)
    return parsed


def _find_flag(flags: Mapping[str, Flag], name: str) -> Flag:
    # k8s.io/component-base, cli/flag/flags.go, WordSepNormalizeFunc.
    flag = flags.get(name.replace("_", "-"))
    if flag is not None:
        return flag
    close = difflib.get_close_matches(name, flags, n=3, cutoff=0.75)
    suggestion = f" (did you mean {' or '.join(f'--{match}' for match in close)}?)" if close else ""
    raise FlagError(f"unknown flag: --{name}{suggestion}")


def _find_shorthand(flags: Mapping[str, Flag], argument: str) -> Flag:
    flag = flags.get(argument[1])
    if flag is None:
        raise FlagError(f"unknown shorthand flag: '{argument[1]}' in {argument.partition('=')[0]}")
    return flag


def _take_value(parsed: ParsedFlags, flag: Flag, value: str | None, rest: list[str]) -> None:
    if value is None and flag.kind is Kind.BOOL:
        value = "true"
    if value is None:
        if not rest:
            raise FlagError(f"flag needs an argument: --{flag.name}")
        value = rest.pop(0)
    fault = _find_fault(flag.kind, value)
    if fault:
        raise FlagError(f'invalid argument "{value}" for "--{flag.name}" flag: {fault}')
    parsed.add(flag.name, value)


def _find_fault(kind: Kind, value: str) -> str:
    try:
        match kind:
            case Kind.BOOL:
                return "" if parse_bool(value) is not None else "not a boolean"
            case Kind.INT:
                int(value, 0)
            case Kind.FLOAT:
                float(value)
            case Kind.DURATION:
                parse_duration(value)
            case Kind.IP:
                ipaddress.ip_address(value)
            case Kind.STRING | Kind.STRINGS:
                pass
    except ValueError as error:
        return str(error)
    return ""


def is_requested(parsed: ParsedFlags, flag: Flag) -> bool:
    """Whether a refused flag really asks for what there is not: `--x=false` and `--x=` do not."""
    if flag.name not in parsed.given:
        return False
    if flag.kind is Kind.BOOL:
        return parsed.boolean(flag.name)
    return any(value and value not in flag.harmless for value in parsed.uses(flag.name))


def render_help(*, usage: str, summary: str, table: Sequence[Flag]) -> str:
    """Write the help of one command: usage, summary, and the flags by group in table order.

    Flags without effect are only named, as there is nothing to say of them.
    """
    groups: dict[str, list[Flag]] = {}
    for flag in table:
        groups.setdefault(flag.group, []).append(flag)
    blocks = [f"usage: {usage}", textwrap.fill(summary, _HELP_WIDTH)]
    for group, flags in groups.items():
        if flags[0].effect is Effect.NONE:
            names = " ".join(f"--{flag.name}" for flag in flags)
            body = textwrap.fill(
                names, _HELP_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
        else:
            body = "\n".join(_render_flag(flag) for flag in flags)
        blocks.append(f"{group}:\n{body}")
    return "\n\n".join(blocks) + "\n"


def _render_flag(flag: Flag) -> str:
    shorthand = f"-{flag.shorthand}, " if flag.shorthand else ""
    default = f" (default {flag.default})" if flag.default and flag.kind is not Kind.BOOL else ""
    heading = f"  {shorthand}--{flag.name} {flag.kind.value}{default}"
    indent = " " * _HELP_INDENT
    return f"{heading}\n" + textwrap.fill(
        flag.help, _HELP_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
