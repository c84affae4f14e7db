"""A Redis primary with two replicas and three sentinels, as real processes on loopback."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from addresses import LOOPBACK, Addresses, find_redis_server
from support.reaper import Reaper
from support.redis_server import CONFIGURATION, RedisServer
from support.waiting import wait_until

SERVICE = "images"

DOWN_AFTER_MS = 1000
"""Sentinel's default is 30 s. On a busy machine, a server can be silent for half a second."""

SETTLED_S = 60
"""Sentinel makes a replica of an old primary that is back after some seconds."""


class ReplicatedRedis:
    """The servers keep their files and ports when they are started again; Sentinel decides which one is the primary."""

    def __init__(self, directory: Path, reaper: Reaper, **options: str) -> None:
        self._directory = directory
        self._reaper = reaper
        self._sentinels: dict[int, subprocess.Popen[bytes]] = {}
        self.servers: list[RedisServer] = []
        for name in "abc":
            configuration = self._write(
                name, {"include": str(CONFIGURATION), "repl-diskless-sync-delay": "0", **options}
            )
            if self.servers:
                address, port = self.servers[0].address
                with configuration.open("a") as file:
                    file.write(f"replicaof {address} {port}\n")
            self.servers.append(RedisServer(configuration.parent, reaper, configuration))

    @property
    def variables(self) -> dict[str, str]:
        """The settings of a service. Nothing listens at the address of REDIS_URL, which is not used."""
        return {
            "REDIS_URL": f"redis://{LOOPBACK}:1/0",
            "REDIS_SENTINELS": ",".join(f"{LOOPBACK}:{port}" for port in self._sentinels),
            "REDIS_SENTINEL_SERVICE": SERVICE,
        }

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for number in range(3):
            self._start_sentinel(f"sentinel-{number}")
        for port in self._sentinels:
            wait_until(partial(_hurry, port), "the sentinel answers")
        self.wait_until_settled()

    def stop(self) -> None:
        for process in self._sentinels.values():
            process.kill()
            process.wait()
            self._reaper.forget(process.pid)
        for server in self.servers:
            server.kill()

    def find_primary(self) -> RedisServer:
        """Return the primary that the first sentinel knows."""
        port = wait_until(self._ask_for_primary, "the first sentinel answers")
        return next(server for server in self.servers if server.address[1] == port)

    def find_replicas(self) -> list[RedisServer]:
        primary = self.find_primary()
        return [server for server in self.servers if server is not primary]

    def wait_until_settled(self) -> None:
        """Wait until all sentinels know the same primary, and two replicas that have its data."""
        wait_until(self._is_settled, "the primary has two replicas", SETTLED_S)

    @contextmanager
    def isolated(self, primary: RedisServer) -> Iterator[None]:
        """Cut a primary off from replicas and sentinels; it keeps its connections to services, and writes nothing."""
        with Redis.from_url(primary.url) as redis:
            redis.config_set("min-replicas-to-write", 1)
            redis.config_set("requirepass", "isolated")  # those that connect from now on need it
            redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
            for client in redis.client_list():
                if client["name"].startswith("sentinel-"):
                    redis.client_kill_filter(_id=client["id"])
            try:
                yield
            finally:
                redis.config_set("requirepass", "")
                redis.config_set("min-replicas-to-write", 0)

    def _is_settled(self) -> bool:
        try:
            states = [self._ask(port) for port in self._sentinels]
            [primary] = {state["port"] for state, _ in states}
            with _connect(primary) as redis:
                info: dict[str, Any] = redis.info("replication")
        except (RedisError, ValueError):
            time.sleep(0.1)
            return False
        links = [info[name]["state"] for name in ("slave0", "slave1") if name in info]
        return links == ["online"] * 2 and all(
            state["flags"] == "master"
            and state["num-other-sentinels"] == 2
            and [(replica["flags"], replica["master-link-status"]) for replica in replicas] == [("slave", "ok")] * 2
            for state, replicas in states
        )

    def _ask_for_primary(self) -> int | None:
        with suppress(RedisError), _connect(next(iter(self._sentinels))) as sentinel:
            return int(sentinel.sentinel_master(SERVICE)["port"])
        return None

    def _ask(self, port: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        with _connect(port) as sentinel:
            return sentinel.sentinel_master(SERVICE), sentinel.sentinel_slaves(SERVICE)

    def _start_sentinel(self, name: str) -> None:
        host, primary = self.servers[0].address
        port = Addresses.choose({}, free_ports=True).redis_port
        configuration = self._write(name, {"bind": LOOPBACK, "port": str(port)})
        with configuration.open("a") as file:
            file.write(f"sentinel monitor {SERVICE} {host} {primary} 2\n")
            file.write(f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n")
            file.write(f"sentinel failover-timeout {SERVICE} 5000\n")
        command = [find_redis_server(os.environ["PATH"]), configuration, "--sentinel", "--dir", configuration.parent]
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
        self._reaper.watch(process.pid)
        self._sentinels[port] = process

    def _write(self, name: str, options: Mapping[str, str]) -> Path:
        """Write the configuration of a process into its folder. Sentinel writes into it, too."""
        folder = self._directory / name
        folder.mkdir()
        configuration = folder / "redis.conf"
        configuration.write_text("".join(f"{option} {value}\n" for option, value in options.items()))
        return configuration


@contextmanager
def run_replicated_redis(directory: Path, reaper: Reaper, **options: str) -> Iterator[ReplicatedRedis]:
    """Run the servers and sentinels while the block runs. Names of `options` have `_` for `-`."""
    redis = ReplicatedRedis(directory, reaper, **{name.replace("_", "-"): value for name, value in options.items()})
    try:
        redis.start()
        yield redis
    finally:
        redis.stop()


def cut_off(primary: RedisServer) -> None:
    """End the replication to paused replicas: they cannot connect again before they continue."""
    with suppress(RedisError), Redis.from_url(primary.url) as redis:
        redis.execute_command("CLIENT", "KILL", "TYPE", "replica")


def _connect(port: int) -> Redis:
    return Redis(LOOPBACK, port, socket_timeout=1, retry=Retry(NoBackoff(), 0), decode_responses=True)


def _hurry(port: int) -> bool:
    """Let a sentinel look after old primaries within a second instead of ten; return whether it has answered."""
    with suppress(RedisError), _connect(port) as sentinel:
        return bool(sentinel.execute_command("SENTINEL", "DEBUG", "info-period", 1000, "publish-period", 500))
    return False
