"""Debian's Redis behind TLS: an authority of its own, client certificates, and a password with special characters.

Debian 12 has Redis 7.0, Debian 13 has 8.0. The Valkey of the set-up, on which other suites run, has no TLS; they also
run on Redis 6.2 (`just oldest-redis`) and on the composition's Redis 8 (`images`).
"""

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
import pytest

from addresses import LOOPBACK, Addresses
from image_analysis_api.store.client import connect, connect_blocking
from image_analysis_common.settings import Sentinels
from image_analysis_worker.jobs.records import connect as connect_worker
from support.api_processes import DELIVERER, WORKER, one_api, run_service
from support.images import small_images, unique
from support.reaper import Reaper
from support.receivers import SECRET
from support.waiting import wait_until

PASSWORD = "p@ss:w/rd?#%&+ 100%ä"
SENTINEL_PASSWORD = "s3nt/nel@"
SERVICE = "images"
READY_S = 120


@dataclass(frozen=True)
class Authority:
    """Certificates in a folder: those of an authority, of a server on 127.0.0.1 and of a client."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        folder.mkdir()
        made = cls(folder)
        made._run("req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", *made._options)
        (folder / "names").write_text(f"subjectAltName=IP:{LOOPBACK}\n")
        for name in ("server", "client"):
            made._run("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *made._options)
            made._run(
                *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names", "-days", "2"),
                *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            )
        return made

    _options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    @property
    def server_options(self) -> list[str]:
        files = {"ca-cert-file": "ca.pem", "cert-file": "server.pem", "key-file": "server.key"}
        paths = [word for name, file in files.items() for word in (f"--tls-{name}", str(self.folder / file))]
        return ["--port", "0", "--bind", LOOPBACK, "--tls-auth-clients", "yes", "--tls-replication", "yes", *paths]

    def url(self, port: int, *, has_certificate: bool = True) -> str:
        options = {"ssl_ca_certs": str(self.folder / "ca.pem")}
        if has_certificate:
            options |= {"ssl_certfile": str(self.folder / "client.pem"), "ssl_keyfile": str(self.folder / "client.key")}
        return f"rediss://:{quote(PASSWORD, safe='')}@{LOOPBACK}:{port}/0?{urlencode(options)}"


@dataclass(frozen=True)
class TlsRedis:
    authority: Authority
    port: int
    sentinel_port: int
    folder: Path

    @property
    def url(self) -> str:
        return self.authority.url(self.port)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    """A Redis and a sentinel, both from Debian."""
    server = shutil.which("redis-server")
    assert server is not None, "Debian's package redis-server is missing"
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.make(folder / "authority")
    port, sentinel_port = (Addresses.choose({}, free_ports=True).redis_port for _ in range(2))
    sentinel = folder / "sentinel.conf"
    sentinel.write_text(
        f"sentinel monitor {SERVICE} {LOOPBACK} {port} 1\n"
        f'sentinel auth-pass {SERVICE} "{PASSWORD}"\n'
        f'requirepass "{SENTINEL_PASSWORD}"\n'
    )
    reaper = Reaper(multiprocessing.get_context("forkserver"))
    commands = (
        [server, "--tls-port", str(port), "--requirepass", PASSWORD, "--dir", str(folder), "--save", ""],
        [server, str(sentinel), "--sentinel", "--tls-port", str(sentinel_port), "--dir", str(folder)],
    )
    processes = [subprocess.Popen([*command, *authority.server_options]) for command in commands]
    for process in processes:
        reaper.watch(process.pid)
    yield TlsRedis(authority, port, sentinel_port, folder)
    for process in processes:
        process.kill()
        process.wait()
    reaper.close()


def test_every_service_works_over_tls(redis: TlsRedis) -> None:
    port = Addresses.choose({}, free_ports=True).dashboard_port
    dashboard = {"RQ_DASHBOARD_REDIS_URL": redis.url, "RQ_DASHBOARD_PORT": str(port)}
    check = [sys.executable, "-m", "image_analysis_api.deliverer.healthcheck"]
    with (
        run_service(WORKER, redis.url, redis.folder / "worker.log"),
        run_service(DELIVERER, redis.url, redis.folder / "deliverer.log", WEBHOOK_SECRET=str(SECRET)),
        run_service([sys.executable, "infra/dashboard/serve.py", "--json"], redis.url, **dashboard),
        one_api(redis.url) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=READY_S) as api,
    ):
        wait_until(lambda: api.get("/health/ready").is_success, "the worker is ready", READY_S)
        image, headers = unique(small_images()[0]), {"Content-Type": "image/jpeg", "Prefer": "wait=30"}
        answer = api.post("/analyze-image", content=image, headers=headers)
        variables = os.environ | {"REDIS_URL": redis.url}
        wait_until(
            lambda: subprocess.run(check, env=variables, check=False).returncode == 0, "the deliverer is healthy"
        )
        queues = wait_until(lambda: fetch(f"http://{LOOPBACK}:{port}/0/data/queues.json"), "the dashboard answers")

    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    assert "analysis-vit-tiny-cifar10" in queues


def fetch(url: str) -> str:
    try:
        return httpx.get(url, trust_env=False).raise_for_status().text
    except httpx.HTTPError:
        return ""


@pytest.mark.parametrize("fault", ["another authority", "no certificate"])
def test_neither_side_trusts_a_stranger(redis: TlsRedis, tmp_path: Path, fault: str) -> None:
    authority = Authority.make(tmp_path / "other") if fault == "another authority" else redis.authority
    url = authority.url(redis.port, has_certificate=fault != "no certificate")

    with one_api(url) as api, httpx.Client(base_url=api, trust_env=False) as client:
        answer = client.get("/health/ready")

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("client", ["api", "api without asyncio", "worker"])
def test_sentinel_is_asked_over_tls_with_its_password(redis: TlsRedis, client: str) -> None:
    sentinels = Sentinels(((LOOPBACK, redis.sentinel_port),), SERVICE, SENTINEL_PASSWORD)

    async def ping() -> bool:
        async with connect(redis.authority.url(1), sentinels) as primary:
            return bool(await primary.ping())

    match client:
        case "api":
            with ThreadPoolExecutor(1) as thread:  # Playwright's event loop runs in this one
                assert thread.submit(asyncio.run, ping()).result()
        case "worker":
            assert connect_worker(redis.authority.url(1), sentinels).ping()
        case _:
            assert connect_blocking(redis.authority.url(1), sentinels, timeout_s=3).ping()
