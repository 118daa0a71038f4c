"""Which addresses a cluster's endpoint may resolve to.

Who registers a cluster names an endpoint, and the gateway connects to it from inside the hub's network. Addresses that
no API server has, but a cloud's metadata service or a host's own services do, are refused, whatever spelling or name
led to them: what is checked is the address that is then connected to, and nothing is looked up a second time.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 inside IPv6 where a translator is on the way. Source: RFC 6052 section 2.1."""
_IPV4_MASK = 0xFFFFFFFF


class AddressPolicy:
    """Refuses the addresses in some networks.

    Raises:
        ValueError: A text is no network in CIDR notation.
    """

    def __init__(self, denied_cidrs: Iterable[str]) -> None:
        self._denied: tuple[Network, ...] = tuple(ipaddress.ip_network(cidr) for cidr in denied_cidrs)

    def rule_against(self, text: str) -> str:
        """Return the network that forbids an address, in CIDR notation; empty where none does."""
        address = ipaddress.ip_address(text)
        candidates = (address, *_embedded(address))
        for network in self._denied:
            if any(candidate in network for candidate in candidates):
                return str(network)
        return ""


def _embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that packets to an IPv6 address may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & _IPV4_MASK),)
    return tuple(found for found in (address.ipv4_mapped, address.sixtofour) if found is not None)
