"""Back-up and restore as infra/README.md describes them: its commands run here, on a Redis process and its folder."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from support.api_processes import WORKER, one_api, run_service
from support.documents import INFRA, blocks
from support.redis_server import RedisServer, run_redis
from support.samples import make_png
from support.waiting import wait_until

COMPOSE = ["docker", "compose", "--file", "infra/compose.yaml"]
WAITING = 12


class Machine:
    """Runs the commands of the document on the service `redis` of a composition, with folders in place of volumes."""

    def __init__(self, server: RedisServer, volume: Path, folder: Path) -> None:
        self._server, self._volume, self._folder = server, volume, folder

    def run(self, commands: str) -> None:
        for command in commands.replace("\\\n", " ").splitlines():
            words = shlex.split(command.partition(" | ")[0], comments=True)
            assert words[: len(COMPOSE)] == COMPOSE
            self._call(words[len(COMPOSE) :])

    def _call(self, words: list[str]) -> None:
        match words:
            case ["exec", "redis", "redis-cli", *command]:
                with Redis.from_url(self._server.url) as redis:
                    redis.execute_command(*command)
            case ["exec", "-T", "redis", "tar", "-C", "/data", *options, target]:
                with (self._folder / target.removeprefix(">")).open("wb") as archive:
                    subprocess.run(["tar", "-C", self._volume, *options], stdout=archive, check=True)
            case ["down"]:
                self._server.stop()
            case ["run", "--rm", "--no-deps", "-T", "redis", "sh", "-c", script, source]:
                script = script.replace("/data", str(self._volume))
                with (self._folder / source.removeprefix("<")).open("rb") as archive:
                    subprocess.run(["sh", "-c", script], stdin=archive, check=True)
            case ["up", *_]:
                self._server.start()
            case _:
                raise AssertionError(f"the document has a new command: {words}")


def submit(api: httpx.Client, seed: int) -> str:
    answer = api.post("/analyze-image", content=make_png(seed), headers={"Content-Type": "image/png"})
    assert answer.status_code == 202
    return str(answer.json()["job_id"])


def ask(api: httpx.Client, job_id: str) -> dict[str, Any]:
    status: dict[str, Any] = api.get(f"/analysis-status/{job_id}").json()
    return status


def test_waiting_jobs_and_answers_survive_the_loss_of_the_volume(tmp_path: Path) -> None:
    section = re.split(r"^## ", INFRA.read_text(), flags=re.MULTILINE)
    [chapter] = [part for part in section if part.startswith("Back up and restore")]
    back_up, restore = [block.text for block in blocks(INFRA) if block.text in chapter]
    volume = tmp_path / "volume"
    volume.mkdir()

    with run_redis(volume) as server:
        machine = Machine(server, volume, tmp_path)
        with one_api(server.url, RATE_LIMIT_MAX_REQUESTS="1000") as url, httpx.Client(base_url=url) as api:
            with run_service(WORKER, server.url):
                ended = submit(api, 0)
                wait_until(lambda: ask(api, ended)["status"] == "COMPLETED", "a job ends", 120)
            answer = ask(api, ended)
            waiting = [submit(api, seed) for seed in range(1, 1 + WAITING)]
            with Redis.from_url(server.url) as redis:  # while it syncs its file, it writes to it later
                wait_until(lambda: not redis.info("persistence")["aof_buffer_length"], "the jobs are in the file")
            machine.run(back_up)
            late = submit(api, 100)
        server.kill()
        shutil.rmtree(volume)
        volume.mkdir()
        server.start()
        machine.run(restore)
        with (
            one_api(server.url) as url,
            httpx.Client(base_url=url) as api,
            run_service(WORKER, server.url),
        ):
            wait_until(
                lambda: all(ask(api, job_id)["status"] == "COMPLETED" for job_id in waiting), "the jobs end", 120
            )
            assert ask(api, ended) == answer
            assert api.get(f"/analysis-status/{late}").status_code == 404
