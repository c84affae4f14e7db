"""Only public unicast addresses are permitted, in any notation and encapsulation, and those of allowed networks."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_analysis_api.outbound.addresses import AddressPolicy

POLICY = AddressPolicy()

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "64:ff9b:1::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:db8::1",
    "2002:5db8:d822::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.42.42",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
]
PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700::1111",
    "3ffe:ffff::1",
]


def wrappings(inner: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address that a socket, tunnel or gateway could turn into `inner`."""
    bits = int(inner)
    high, low = bits >> 16, bits & 0xFFFF
    return [
        IPv6Address(0xFFFF << 32 | bits),  # mapped
        IPv6Address(bits),  # compatible
        IPv6Address(0xFFFF << 48 | bits),  # translated
        IPv6Address(0x2002 << 112 | bits << 80),  # 6to4
        IPv6Address(int(IPv6Address("64:ff9b::")) | bits),  # NAT64
        IPv6Address(int(IPv6Address("64:ff9b:1::")) | bits),  # local NAT64, prefix of 96 bits
        IPv6Address(int(IPv6Address("64:ff9b:1::")) | high << 64 | low << 40),  # local NAT64, prefix of 48 bits
        IPv6Address(int(IPv6Address("2001:0:5db8:d822::")) | (bits ^ 0xFFFFFFFF)),  # Teredo client
        IPv6Address(int(IPv6Address("2001::")) | bits << 64),  # Teredo server
        IPv6Address(int(IPv6Address("2606:4700::")) | 0x00005EFE << 32 | bits),  # ISATAP
        IPv6Address(int(IPv6Address("2606:4700::")) | 0x02005EFE << 32 | bits),  # ISATAP, unique
    ]


@pytest.mark.parametrize("address", REFUSED + METADATA)
def test_address_that_is_not_plainly_public_is_refused(address: str) -> None:
    assert not POLICY.permits(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_unicast_address_is_permitted(address: str) -> None:
    assert POLICY.permits(ip_address(address))


@pytest.mark.parametrize("address", [address for address in REFUSED + METADATA if ":" not in address])
def test_refused_ipv4_is_refused_in_every_wrapping_of_the_table(address: str) -> None:
    assert not any(POLICY.permits(wrapping) for wrapping in wrappings(IPv4Address(address)))


@given(st.ip_addresses(v=4))
def test_any_refused_ipv4_is_refused_in_every_wrapping(inner: IPv4Address) -> None:
    if not POLICY.permits(inner):
        assert not any(POLICY.permits(wrapping) for wrapping in wrappings(inner))


@given(st.ip_addresses())
def test_the_standard_library_never_calls_a_permitted_address_private(address: IPv4Address | IPv6Address) -> None:
    if POLICY.permits(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast


def test_nat64_address_of_a_public_host_is_permitted() -> None:
    assert POLICY.permits(ip_address("64:ff9b::5db8:d822"))


def test_ipv4_mapped_address_of_a_public_host_is_permitted() -> None:
    assert POLICY.permits(ip_address("::ffff:93.184.216.34"))


def test_allowed_network_permits_only_its_addresses() -> None:
    policy = AddressPolicy((ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")))

    verdicts = {
        address: policy.permits(ip_address(address)) for address in ("10.1.2.3", "10.2.0.1", "fd00:1::1", "fd00:2::1")
    }

    assert verdicts == {"10.1.2.3": True, "10.2.0.1": False, "fd00:1::1": True, "fd00:2::1": False}


def test_ipv4_mapped_address_counts_as_in_the_allowed_network_of_its_ipv4() -> None:
    policy = AddressPolicy((ip_network("127.0.0.0/8"),))

    assert policy.permits(ip_address("::ffff:127.0.0.1"))
    assert policy.is_allowed(ip_address("::ffff:127.0.0.1"))
    assert not policy.permits(ip_address("::ffff:10.0.0.1"))
    assert not policy.permits(ip_address("::1"))


def test_public_address_is_not_in_an_allowed_network() -> None:
    assert not AddressPolicy((ip_network("127.0.0.0/8"),)).is_allowed(ip_address("93.184.216.34"))


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_allowing_one_address_allows_no_other(opened: IPv4Address, asked: IPv4Address) -> None:
    policy = AddressPolicy((ip_network(opened),))

    assert policy.permits(asked) == (asked == opened or POLICY.permits(asked))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_address_stays_refused_inside_an_allowed_network(address: str) -> None:
    policy = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))

    assert not policy.permits(ip_address(address))


def test_metadata_address_stays_refused_in_every_wrapping_inside_an_allowed_network() -> None:
    policy = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/1")))
    translated = IPv6Address("::ffff:0:169.254.169.254")  # no translator of such addresses is known to exist

    permitted = [str(form) for form in wrappings(IPv4Address("169.254.169.254")) if policy.permits(form)]

    assert permitted == [str(translated)]


def test_metadata_address_is_permitted_only_by_a_network_of_that_address() -> None:
    policy = AddressPolicy((ip_network("169.254.169.254/32"),))

    assert policy.permits(ip_address("169.254.169.254"))
