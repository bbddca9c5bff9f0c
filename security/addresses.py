"""Whom an address stands for, where tries are counted by address."""

import ipaddress
from typing import Final

OTHERS: Final = "(others)"
"""All that have no address."""
_IPV4_PREFIX: Final = 24
_IPV6: Final = 6
_IPV6_PREFIX: Final = 64
"""Who has one address of IPv6 has all of these."""


def place(address: str) -> str:
    """Return the name under which an address is counted: one for all that its owner has without effort."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return OTHERS
    if ip.version != _IPV6:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip), _IPV6_PREFIX), strict=False))


def network(address: str) -> str:
    """Return the name of the network an address lies in: whoever has several there is still one."""
    name = place(address)
    if name == OTHERS or "/" in name:
        return name
    return str(ipaddress.IPv4Network((name, _IPV4_PREFIX), strict=False))
