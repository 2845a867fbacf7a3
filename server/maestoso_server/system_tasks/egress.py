"""Where HTTP tasks may connect to (B33). The address is judged, not the name: whatever a name resolves to
at the moment of connecting is what is checked, and what is then used."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

BLOCKED: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this machine
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds tell their machines' credentials
        "100.100.100.200/32",  # the same at Alibaba
        "168.63.129.16/32",  # the same at Azure
        "192.0.0.192/32",  # the same at Oracle
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",  # broadcast
        "::/128",
        "::1/128",
        "fe80::/10",  # link-local
        "fd00:ec2::254/128",  # Amazon's credentials
        "ff00::/8",  # multicast
    )
)
"""What is refused unless it is allowed. Private networks are not: there are the services to be called."""

_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")


class Blocked(Exception):
    """An address that HTTP tasks may not connect to."""


class Egress:
    """The rule of one server. `allowed` is a list of hosts, addresses and networks, by commas."""

    def __init__(self, allowed: str = "") -> None:
        """Raises ValueError, which names the entry."""
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in filter(None, (part.strip() for part in allowed.split(","))):
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                if "/" in entry or ":" in entry:
                    raise ValueError(f"{entry!r} is no host, address or network such as 10.0.0.0/8") from None
                self._hosts.add(entry.lower().rstrip("."))

    def trusts(self, host: str) -> bool:
        """Whether this host may have any address."""
        return host.lower().rstrip(".") in self._hosts

    def check(self, text: str) -> None:
        """Return if this address may be connected to; raises Blocked."""
        address = _inner(ip_address(text.partition("%")[0]))
        if any(address in network for network in self._networks):
            return
        if any(address in network for network in BLOCKED):
            raise Blocked(
                f"{address} is an address that HTTP tasks may not reach; allow it with --http-task-allow"
            )


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return inner
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
