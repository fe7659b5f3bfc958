"""Where a tool may connect: a pure rule over names, ports and addresses.

A target must pass twice. Its **name** (and port) must be in the tool's list. Then each **address** that the name has is
judged, and only judged addresses are connected to, so that a name which changes its address between the check and the
connection (DNS rebinding) gains nothing:

- link-local addresses, those of cloud metadata services, the unspecified address, multicast, broadcast and reserved
  ones are never allowed, listed or not;
- addresses that are not on the public internet (loopback, private networks, shared address space) are allowed only
  where they are listed explicitly: as the address itself, or by an exact name that public DNS can't hold (`localhost`,
  one label such as `search`, or below `.localhost`, `.internal`, `.local`, `.home.arpa`, `.svc`). A public name
  that suddenly points into the private network is the attack that this is about;
- an IPv6 address that stands for an IPv4 one (mapped, compatible, 6to4, NAT64, Teredo) is judged as both.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from msgspec import Struct
from yarl import URL

from chimera_host.errors import ToolRefused

Address = IPv4Address | IPv6Address

NEVER: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("0.0.0.0/8"),  # unspecified, "this network"
    IPv4Network("169.254.0.0/16"),  # link-local; most clouds' metadata is 169.254.169.254
    IPv4Network("100.100.100.200/32"),  # metadata, Alibaba Cloud
    IPv4Network("192.0.0.192/32"),  # metadata, Oracle Cloud
    IPv4Network("168.63.129.16/32"),  # metadata, Azure's wire server
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, broadcast
    IPv6Network("::/128"),  # unspecified
    IPv6Network("fe80::/10"),  # link-local
    IPv6Network("fec0::/10"),  # site-local, withdrawn
    IPv6Network("fd00:ec2::/32"),  # metadata, Amazon (fd00:ec2::254)
    IPv6Network("fd20:ce::/32"),  # metadata, Google (fd20:ce::254)
    IPv6Network("ff00::/8"),  # multicast
)
PRIVATE_SUFFIXES = (".localhost", ".internal", ".local", ".home.arpa", ".svc")

_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_PORTS = {"http": 80, "https": 443}


class Target(Struct, frozen=True):
    """Where a request goes: the scheme, the name or address as the URL has it, in small letters, and the port."""

    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must stay the same for a request to be to the same server."""
        return self.scheme, self.host, self.port


class Pattern(Struct, frozen=True):
    """One entry of a list: an exact name or address, or (`wildcard`) all names below a domain; any port if None."""

    host: str
    wildcard: bool = False
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        """Whether a name and port are meant by it."""
        if self.port is not None and self.port != port:
            return False
        return host.endswith("." + self.host) if self.wildcard else host == self.host


class Egress(Struct, frozen=True):
    """A tool's list. `tool` is its name, for the words of a refusal."""

    tool: str
    patterns: tuple[Pattern, ...] = ()

    def target(self, url: URL) -> Target:
        """The target of `url`, if its name is in the list; an address in it is judged at once."""
        target = parse_target(url)
        if not any(pattern.covers(target.host, target.port) for pattern in self.patterns):
            known = ", ".join(map(show, self.patterns)) or "none"
            raise ToolRefused(
                f"tool {self.tool!r} may not connect to {target.host}:{target.port} (it may to: {known})",
                next_step="list the host under `limits.egress` of the tool",
            )
        if (literal := as_address(target.host)) is not None:
            self.judge(target, literal)
        return target

    def judge(self, target: Target, address: Address) -> None:
        """Refuse `address`, one of the target's, if it must not be connected to."""
        if is_never_allowed(address):
            raise ToolRefused(
                f"tool {self.tool!r} may not connect to {target.host}: {address} is a link-local, metadata or other "
                "address that no tool may reach",
                next_step="call the service by its public address",
            )
        if not all(one.is_global for one in meanings(address)) and not self._lists_privately(target, address):
            raise ToolRefused(
                f"tool {self.tool!r} may not connect to {target.host}: {address} is not on the public internet",
                next_step=f"list {address} itself under `limits.egress` of the tool if that is meant",
            )

    def _lists_privately(self, target: Target, address: Address) -> bool:
        for pattern in self.patterns:
            if pattern.wildcard:
                continue
            if pattern.covers(str(address), target.port):
                return True
            if pattern.covers(target.host, target.port) and is_private_name(target.host):
                return True
        return False


def parse_target(url: URL) -> Target:
    """Scheme, host and port of `url`; refuses what is no plain http(s) URL."""
    if url.scheme not in _PORTS or not url.host:
        raise ToolRefused(f"{_shown(url)} is no http or https address", next_step="give a whole URL, with its scheme")
    if url.user is not None or url.password is not None:
        raise ToolRefused("the URL holds a user name or password", next_step="pass it as a header, by reference")
    return Target(url.scheme, normal_host(url.raw_host or ""), url.port or _PORTS[url.scheme])


def parse_pattern(text: str) -> Pattern:
    """A `HostPattern` of a definition."""
    if (address := as_address(text)) is not None:
        return Pattern(str(address))
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, ""
    wildcard = host.startswith("*.")
    return Pattern(normal_host(host.removeprefix("*.")), wildcard, int(port) if port else None)


def parse_list(tool: str, patterns: Iterable[str], implied: URL | None = None) -> Egress:
    """The list of a tool; the host of `implied` (an MCP server's own URL) is in it without being named."""
    parsed = [parse_pattern(text) for text in patterns]
    if implied is not None:
        own = parse_target(implied)
        parsed.append(Pattern(own.host, port=own.port))
    return Egress(tool, tuple(parsed))


def normal_host(host: str) -> str:
    """A host in one spelling: small letters, no dot at the end, addresses as the standard library writes them."""
    plain = host.strip("[]").rstrip(".").lower()
    address = as_address(plain)
    return plain if address is None else str(address)


def as_address(host: str) -> Address | None:
    """The address that `host` is, or None where it is a name. A zone (`%eth0`) makes an address link-local."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_never_allowed(address: Address) -> bool:
    """Whether no list can allow it."""
    return any(one in network for one in meanings(address) for network in NEVER if network.version == one.version)


def is_private_name(host: str) -> bool:
    """Whether public DNS can't hold this name, so that nobody outside can choose its address."""
    return "." not in host or host.endswith(PRIVATE_SUFFIXES)


def meanings(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that it stands for."""
    if isinstance(address, IPv6Address):
        bare = IPv6Address(int(address))  # without a zone
        yield bare
        if bare.ipv4_mapped is not None:
            yield bare.ipv4_mapped
        elif bare.sixtofour is not None:
            yield bare.sixtofour
        elif bare.teredo is not None:
            yield from bare.teredo
        elif bare in _NAT64 or bare in _NAT64_LOCAL or (bare in _COMPATIBLE and int(bare) > 1):
            yield IPv4Address(int(bare) & 0xFFFFFFFF)
    else:
        yield address


def show(pattern: Pattern) -> str:
    """A pattern as it is written."""
    return f"{'*.' if pattern.wildcard else ''}{pattern.host}{f':{pattern.port}' if pattern.port else ''}"


def _shown(url: URL) -> str:
    """A URL for an error: without what may hold a secret."""
    return repr(str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else "the URL")[:200]
