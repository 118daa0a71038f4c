"""Reading identity rules: the file of `--cluster-gateway-proxy-config` and the annotation of a cluster's Secret.

The format is oam-dev/cluster-gateway's (pkg/apis/cluster/v1alpha1, clustergateway_proxy_configuration.go), read
strictly: what cannot be meant so is a fault, because a rule that is passed over gives its callers to a weaker one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from cluster_gateway_core.model.identity import (
    External,
    IdentityRule,
    IdentitySource,
    InvalidPatternError,
    PassThrough,
    Pattern,
    Privileged,
    StaticMapping,
)
from cluster_gateway_core.routing.bounded_yaml import InvalidYAMLError, parse_bounded_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_gateway_core.model.identity import Exchange

PROXY_CONFIGURATION_ANNOTATION: Final = "cluster.core.oam.dev/cluster-gateway-proxy-configuration"
MAXIMUM_FILE_BYTES: Final = 256 * 1024
"""Largest file; a ConfigMap holds 1 MiB, and every rule is looked at with every request."""
MAXIMUM_ANNOTATION_BYTES: Final = 32 * 1024
"""Largest annotation, read on the event loop when its Secret changes; Kubernetes allows 256 KiB of all together."""
MAXIMUM_RULES: Final = 1000
"""Most rules of one list."""

_API_VERSION: Final = "cluster.core.oam.dev/v1alpha1"
_KIND: Final = "ClusterGatewayProxyConfiguration"
_SHOWN_CHARACTERS: Final = 64
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class InvalidIdentityRulesError(ValueError):
    """The rules cannot be used; the message says which and why, and quotes names of fields and rules alone."""


def parse_identity_rules(text: str, *, maximum_bytes: int, cluster_name: str | None = None) -> tuple[IdentityRule, ...]:
    """Read a ClusterGatewayProxyConfiguration.

    Args:
        text: YAML or JSON.
        maximum_bytes: Most bytes of it.
        cluster_name: The cluster whose annotation it is, and to which every rule must apply; None for the file.

    Raises:
        InvalidIdentityRulesError: Anything in it is not as it must be; no rule of it counts then.
    """
    try:
        document = parse_bounded_yaml(text, maximum_bytes=maximum_bytes)
    except InvalidYAMLError as error:
        raise InvalidIdentityRulesError(str(error)) from error
    root = _Fields(document, "the configuration", {"apiVersion", "kind", "metadata", "spec"})
    for field, expected in (("apiVersion", _API_VERSION), ("kind", _KIND)):
        if root.text(field) not in (None, expected):
            raise InvalidIdentityRulesError(f"{field} is not {expected}")
    spec = _Fields(root.required("spec"), "spec", {"clientIdentityExchanger"})
    exchanger = _Fields(spec.required("clientIdentityExchanger"), "clientIdentityExchanger", {"rules"})
    rules = exchanger.items("rules")
    if len(rules) > MAXIMUM_RULES:
        raise InvalidIdentityRulesError(f"there are more than {MAXIMUM_RULES} rules")
    return tuple(_parse_rule(rule, number, cluster_name) for number, rule in enumerate(rules))


class _Fields:
    """A mapping whose keys are known."""

    def __init__(self, value: object, where: str, known: set[str]) -> None:
        if not isinstance(value, dict):
            raise InvalidIdentityRulesError(f"{where} is not a mapping")
        self._fields = cast("dict[str, object]", value)
        self._where = where
        for key in self._fields:
            if key not in known:
                raise InvalidIdentityRulesError(f"{where} has an unknown field {key[:_SHOWN_CHARACTERS]!a}")

    def given(self) -> set[str]:
        """Names of the fields that are not null."""
        return {name for name, value in self._fields.items() if value is not None}

    def required(self, name: str) -> object:
        value = self._fields.get(name)
        if value is None:
            raise InvalidIdentityRulesError(f"{self._where} has no {name}")
        return value

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise InvalidIdentityRulesError(f"{self._where}: {name} is no text; put it in quotes")
        if not value:
            raise InvalidIdentityRulesError(f"{self._where}: {name} is empty")
        if _CONTROL.search(value):
            raise InvalidIdentityRulesError(f"{self._where}: {name} holds a control character")
        return value

    def required_text(self, name: str) -> str:
        self.required(name)
        return cast("str", self.text(name))

    def items(self, name: str) -> list[object]:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, list):
            raise InvalidIdentityRulesError(f"{self._where}: {name} is not a list")
        return cast("list[object]", value or [])

    def texts(self, name: str) -> tuple[str, ...]:
        items = {str(number): item for number, item in enumerate(self.items(name))}
        listed = _Fields(items, f"{self._where}: {name}", set(items))
        return tuple(listed.required_text(number) for number in items)

    def pattern(self, name: str) -> Pattern | None:
        text = self.text(name)
        try:
            return Pattern(text) if text is not None else None
        except InvalidPatternError as error:
            raise InvalidIdentityRulesError(f"{self._where}: {name}: {error}") from error


def _parse_rule(value: object, number: int, cluster_name: str | None) -> IdentityRule:
    where = f"rules[{number}]"
    fields = _Fields(value, where, {"name", "type", "source", "target", "url", "privilegedGroups"})
    name = fields.text("name") or where
    kind = fields.required_text("type")
    parse, own_field = _EXCHANGES.get(kind, (None, ""))
    if parse is None:
        raise InvalidIdentityRulesError(f"{where}: type is none of {', '.join(_EXCHANGES)}")
    foreign = fields.given() - {"name", "type", "source", own_field}
    if foreign:
        raise InvalidIdentityRulesError(f"{where}: a {kind} has no {', '.join(sorted(foreign))}")
    source = _parse_source(fields.required("source"), f"{where}.source")
    if cluster_name is not None:
        _check_own_cluster(source, cluster_name, where)
    return IdentityRule(name=name, source=source, exchange=parse(fields, where))


def _parse_source(value: object, where: str) -> IdentitySource:
    names = {"user", "group", "uid", "cluster", "userPattern", "groupPattern", "clusterPattern"}
    fields = _Fields(value, where, names)
    if not fields.given():
        raise InvalidIdentityRulesError(f"{where} says nothing; for everybody, write userPattern: '.*'")
    return IdentitySource(
        user=fields.text("user"),
        group=fields.text("group"),
        uid=fields.text("uid"),
        cluster=fields.text("cluster"),
        user_pattern=fields.pattern("userPattern"),
        group_pattern=fields.pattern("groupPattern"),
        cluster_pattern=fields.pattern("clusterPattern"),
    )


def _check_own_cluster(source: IdentitySource, cluster_name: str, where: str) -> None:
    """Refuse a rule of an annotation that could never apply: its callers would fall to the rules behind it."""
    pattern = source.cluster_pattern
    if source.cluster not in (None, cluster_name) or (pattern is not None and not pattern.matches(cluster_name)):
        raise InvalidIdentityRulesError(f"{where}.source is about another cluster than the one it is written at")


def _parse_privileged(fields: _Fields, where: str) -> Exchange:
    del fields, where
    return Privileged()


def _parse_static_mapping(fields: _Fields, where: str) -> Exchange:
    target = _Fields(fields.required("target"), f"{where}.target", {"user", "groups", "uid"})
    return StaticMapping(user=target.required_text("user"), groups=target.texts("groups"), uid=target.text("uid") or "")


def _parse_external(fields: _Fields, where: str) -> Exchange:
    url = fields.required_text("url")
    if not _is_https_url(url):
        raise InvalidIdentityRulesError(f"{where}: url is not an https URL without user name, password and fragment")
    return External(url=url)


def _parse_pass_through(fields: _Fields, where: str) -> Exchange:
    del where
    return PassThrough(privileged_groups=frozenset(fields.texts("privilegedGroups")))


_EXCHANGES: Final[dict[str, tuple[Callable[[_Fields, str], Exchange], str]]] = {
    "PrivilegedIdentityExchanger": (_parse_privileged, ""),
    "StaticMappingIdentityExchanger": (_parse_static_mapping, "target"),
    "ExternalIdentityExchanger": (_parse_external, "url"),
    "PassThroughIdentityExchanger": (_parse_pass_through, "privilegedGroups"),
}
"""How each type of rule is read, and which field is its own."""


def _is_https_url(text: str) -> bool:
    # urlsplit drops tabs and newlines without a word; what is asked must be what was checked.
    if not text.isascii() or any(character <= " " or character in "\x7f\\#" for character in text):
        return False
    try:
        url = urlsplit(text)
        return url.scheme == "https" and bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:
        return False
