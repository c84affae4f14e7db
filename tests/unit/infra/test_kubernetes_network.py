"""Which pods can connect to each other under the network policies, computed as Kubernetes documents it."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from image_analysis_api.outbound.addresses import AddressPolicy
from image_analysis_api.settings import ApiSettings
from support.manifests import Manifest

NAMESPACE = "kubernetes.io/metadata.name"
NAME = "app.kubernetes.io/name"
Peer = dict[str, str]
"""A pod's labels, including its namespace's name."""

DNS = {NAMESPACE: "kube-system", "k8s-app": "kube-dns"}
KEDA = {NAMESPACE: "keda", "app": "keda-operator"}
PROMETHEUS = {NAMESPACE: "monitoring", NAME: "prometheus"}
STRANGER = {NAMESPACE: "default"}
OURS = {
    name: {NAMESPACE: "image-analysis", NAME: name} for name in ("api", "deliverer", "worker", "dashboard", "redis")
}
PEERS = {**OURS, "dns": DNS, "keda": KEDA, "prometheus": PROMETHEUS, "stranger": STRANGER}
PORTS = (53, 80, 443, 6379, 8000, 9181, 9464, 9465, 9466)

METRICS = {"api": 9464, "worker": 9465, "deliverer": 9466}

PUBLIC = ("93.184.216.34", "2606:2800:220:1::1")
PRIVATE = (
    *("10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "168.63.129.16", "169.254.169.254", "172.16.0.1"),
    *("192.0.0.192", "192.168.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"),
    *("::1", "fd00:ec2::254", "fe80::1", "ff02::1", "::ffff:10.0.0.1"),
)


def matches(selector: dict[str, Any], labels: Peer) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def allows(policies: list[Manifest], direction: str, pod: Peer, other: Peer | str, port: int) -> bool:
    """Return whether a pod may connect to another pod or address, or accept a connection from it."""
    if pod[NAMESPACE] != "image-analysis":
        return True  # a policy for other pods
    mine = [policy["spec"] for policy in policies if matches(policy["spec"]["podSelector"], pod)]
    mine = [spec for spec in mine if direction in spec["policyTypes"]]
    side = "from" if direction == "Ingress" else "to"
    return not mine or any(
        ("ports" not in rule or port in [entry["port"] for entry in rule["ports"]])
        and (side not in rule or any(is_peer(peer, other) for peer in rule[side]))
        for spec in mine
        for rule in spec.get(direction.lower(), [])
    )


def is_peer(peer: dict[str, Any], other: Peer | str) -> bool:
    if isinstance(other, str):
        if (block := peer.get("ipBlock")) is None:
            return False
        return is_in(other, block["cidr"]) and not any(is_in(other, network) for network in block.get("except", []))
    if "ipBlock" in peer:
        return False
    is_namespace = matches(peer.get("namespaceSelector", {"matchLabels": {NAMESPACE: "image-analysis"}}), other)
    return is_namespace and matches(peer.get("podSelector", {}), other)


def is_in(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)


@pytest.fixture(scope="session")
def policies(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]


def test_every_pod_is_denied_everything_that_no_policy_allows(policies: list[Manifest]) -> None:
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [policy["spec"] for policy in policies]


def test_pods_reach_only_redis_and_dns(manifests: list[Manifest], policies: list[Manifest]) -> None:
    reached = {
        (source, target, port)
        for source, one in PEERS.items()
        for target, other in PEERS.items()
        for port in PORTS
        if source != target
        and {source, target} & OURS.keys()
        and allows(policies, "Egress", one, other, port)
        and allows(policies, "Ingress", other, one, port)
    }
    has_keda = any(manifest["kind"] == "ScaledObject" for manifest in manifests)
    has_metrics = any(manifest["metadata"]["name"] == "api-metrics" for manifest in manifests)

    assert reached == {
        *((name, "redis", 6379) for name in ("api", "deliverer", "worker", "dashboard")),
        *((name, "dns", 53) for name in ("api", "deliverer", "worker", "dashboard")),
        *((name, "api", 8000) for name in ("dns", "keda", "prometheus", "stranger")),
        *([("keda", "redis", 6379)] if has_keda else []),
        *((("prometheus", name, port) for name, port in METRICS.items()) if has_metrics else []),
    }


def test_only_api_and_deliverer_reach_the_internet_and_the_worker_only_its_hub(
    manifests: list[Manifest], policies: list[Manifest]
) -> None:
    has_hub = any(manifest["metadata"]["name"] == "model-hub" for manifest in manifests)

    for address in PUBLIC:
        ports = {n: {p for p in PORTS if allows(policies, "Egress", pod, address, p)} for n, pod in OURS.items()}

        assert ports == {
            "api": set(ApiSettings().fetch_allowed_ports),
            "deliverer": set(ApiSettings().fetch_allowed_ports),
            "worker": {443} if has_hub else set(),
            "dashboard": set(),
            "redis": set(),
        }


@pytest.mark.parametrize("address", PRIVATE)
def test_no_pod_reaches_an_address_that_is_not_public(policies: list[Manifest], address: str) -> None:
    assert not AddressPolicy().permits(ip_address(address))
    for pod in OURS.values():
        assert not any(allows(policies, "Egress", pod, address, port) for port in PORTS)


def test_the_policies_block_no_address_that_the_api_would_fetch_from(policies: list[Manifest]) -> None:
    for policy in policies:
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                for network in map(ip_network, peer.get("ipBlock", {}).get("except", [])):
                    assert not AddressPolicy().permits(network[0])
                    assert not AddressPolicy().permits(network[-1])
