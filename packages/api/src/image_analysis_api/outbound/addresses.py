"""Which IP addresses user-supplied URLs may lead to: public unicast, and the networks that the operator allows.

Knows neither names nor URLs: the caller checks the address that it connects to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network

# `ipaddress.is_global` of Python 3.11.7 calls 192.0.0.192, 2002::/16, 3fff::/20 and 5f00::/16 public, and never
# knows a cloud's internal addresses. So the table is ours: every row of the IANA IPv4 and IPv6 Special-Purpose Address
# Registries (RFC 6890 and its updates), those that the registries call globally reachable included (no image lives
# on an anycast relay), the multicast registries, and the deprecated site-local and 6to4 relay networks.
_SPECIAL_PURPOSE: tuple[IpNetwork, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network, unspecified (RFC 791); Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # shared address space of carrier-grade NAT (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link-local (RFC 3927)
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation, TEST-NET-1 (RFC 5737)
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT relays (RFC 7450)
        "192.88.99.0/24",  # 6to4 relay anycast, deprecated (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "192.175.48.0/24",  # AS112, direct delegation (RFC 7534)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation, TEST-NET-2 (RFC 5737)
        "203.0.113.0/24",  # documentation, TEST-NET-3 (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 1112)
        "240.0.0.0/4",  # reserved, and limited broadcast (RFC 1112, RFC 919)
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID, AMT, anycast (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056)
        "2620:4f:8000::/48",  # AS112, direct delegation (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
# Only this eighth of IPv6 is global unicast (IANA Internet Protocol Version 6 Address Space); outside it lie ::,
# ::1, IPv4-compatible, -mapped and -translated, 64:ff9b:1::/48, 100::/64, 5f00::/16, fc00::/7, fe80::/10, fec0::/10
# and ff00::/8. The well-known NAT64 prefix (RFC 6052) is let through because hosts behind DNS64 see nothing else.
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (0x00, 0x00, 0x5E, 0xFE)  # an interface identifier's first octets, less the u and g bits (RFC 5214)

# Where clouds answer with credentials, from the vendors' documentation. Most lie in a network above; the others do
# not, and these stay shut even inside an allowed network such as 100.64.0.0/10, unless that names the one address.
_METADATA: frozenset[IpAddress] = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google Cloud, Oracle Cloud, DigitalOcean, OpenStack
        "169.254.170.2",  # AWS container credentials
        "169.254.170.23",  # AWS EKS pod identity
        "169.254.42.42",  # Scaleway
        "168.63.129.16",  # Azure's platform, inside public space
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS pod identity
        "fd20:ce::254",  # Google Cloud
        "fd00:42::42",  # Scaleway
    )
)


@dataclass(frozen=True)
class AddressPolicy:
    """Decides whether the service may connect to an address.

    An address in `allowed_networks` is permitted even if it is not public. A cloud's metadata address, also one inside
    an IPv6 address, is refused even there; only a network of that single address permits it.
    """

    allowed_networks: tuple[IpNetwork, ...] = ()

    def permits(self, address: IpAddress) -> bool:
        """Whether the address is allowed, or is public unicast and contains only permitted IPv4 addresses."""
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        if self.is_allowed(address):
            return True
        return _is_public(_unmapped(address)) and all(self.permits(inner) for inner in _wrapped(address))

    def is_allowed(self, address: IpAddress) -> bool:
        """Whether the address is in an allowed network, itself or as the IPv4 address that is mapped into it."""
        forms = {address, _unmapped(address)}
        networks = [network for network in self.allowed_networks if any(form in network for form in forms)]
        if _METADATA.isdisjoint(forms.union(_wrapped(address))):
            return bool(networks)
        return any(network.num_addresses == 1 for network in networks)


def _is_public(address: IpAddress) -> bool:
    if address in _METADATA or any(address in network for network in _SPECIAL_PURPOSE):
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST or address in _NAT64


def _unmapped(address: IpAddress) -> IpAddress:
    """Turn an IPv4-mapped address into the IPv4 address that a socket would connect to; leave others as they are."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _wrapped(address: IpAddress) -> Iterator[IPv4Address]:
    """Find every IPv4 address that a socket, tunnel or gateway could make of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return
    octets = address.packed
    if address.ipv4_mapped is not None or address in _COMPATIBLE or address in _NAT64:
        yield IPv4Address(octets[12:])
    if address in _NAT64_LOCAL:  # prefixes of 48, 56, 64 and 96 bits fit in; octet 8 is always skipped (RFC 6052, 2.2)
        yield from (IPv4Address((octets[:8] + octets[9:])[start : start + 4]) for start in (6, 7, 8))
        yield IPv4Address(octets[12:])
    if address in _SIX_TO_FOUR:
        yield IPv4Address(octets[2:6])
    if address in _TEREDO:  # the server, and the client with its bits flipped
        yield IPv4Address(octets[4:8])
        yield IPv4Address(bytes(octet ^ 0xFF for octet in octets[12:]))
    if (octets[8] & 0xFC, *octets[9:12]) == _ISATAP:
        yield IPv4Address(octets[12:])
