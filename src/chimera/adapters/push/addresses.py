"""Which addresses may be called when a user of the platform says where: a pure rule.

A user who may name a receiver could otherwise reach what only this machine reaches: a cloud's metadata service, a
database's console, the platform's own sockets (server-side request forgery, OWASP A10:2021). So only public addresses
are called, and those of networks that the operator has named. An IPv6 address that carries an IPv4 one (mapped, 6to4,
Teredo, NAT64) is judged by that one too, since a gateway on the way would unwrap it.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks that the operator names. Raises ValueError for a text that is none."""
    return tuple(ip_network(text) for text in texts)


def is_address(text: str) -> bool:
    """Whether `text` is an address and not a name."""
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def may_call(text: str, allowed: Iterable[Network], *, encrypted: bool) -> bool:
    """Whether the address `text` may be called; without encryption only those of `allowed` may.

    An address that can't be read may not.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return encrypted and all(is_public(one) for one in (address, *_carried(address)))


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could call it: global, and one receiver's."""
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    found = [address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in (*_NAT64, _COMPATIBLE)):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)
