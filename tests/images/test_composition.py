"""The composed service classifies images, and loses none when its containers die or stop."""

import time

import httpx

from images.composition import Composition
from images.conftest import Ask, Submit
from support.images import large_images, small_images, unique
from support.samples import CHELSEA
from support.waiting import wait_until

HEALTH_CHECK = ("python", "-m", "image_analysis_worker.healthcheck")
FREEZE = """
import os, signal, sys
from pathlib import Path
for folder in Path("/proc").glob("[0-9]*"):
    command = (folder / "cmdline").read_bytes().split(b"\\0")
    if command[1:3] == [b"-m", b"image_analysis_worker"]:
        os.kill(int(folder.name), getattr(signal, sys.argv[1]))
"""


def count_events(composition: Composition, container: str, name: str, job_ids: list[str]) -> int:
    return sum(event["event"] == name and event["job_id"] in job_ids for event in composition.events(container))


def test_photo_gets_its_label(client: httpx.Client, submit: Submit, ask: Ask) -> None:
    status = ask(submit(CHELSEA.read_bytes()))

    assert (status["status"], status["result"]["label"]) == ("COMPLETED", "cat")
    assert client.get("/health/ready").status_code == 200


def test_two_workers_share_fifty_jobs(composition: Composition, submit: Submit, ask: Ask) -> None:
    images = small_images()
    job_ids = [submit(unique(images[number % len(images)])) for number in range(50)]

    statuses = [ask(job_id)["status"] for job_id in job_ids]

    shares = [
        count_events(composition, worker, "job_completed", job_ids) for worker in composition.containers("worker")
    ]
    assert statuses == ["COMPLETED"] * 50
    assert (len(shares), sum(shares), min(shares) > 0) == (2, 50, True)


def test_jobs_of_a_killed_worker_finish_elsewhere(composition: Composition, submit: Submit, ask: Ask) -> None:
    killed, other = composition.containers("worker")

    job_ids = [submit(unique(large_images()[0])) for _ in range(16)]
    composition.docker("pause", killed)  # so that it has jobs when it dies
    job_ids += [submit(unique(large_images()[0])) for _ in range(16)]
    composition.docker("kill", killed)
    statuses = {ask(job_id)["status"] for job_id in job_ids}

    rescues = [count_events(composition, other, event, job_ids) for event in ("job_abandoned", "job_requeued")]
    assert composition.inspect(killed)[0]["State"]["ExitCode"] == 137
    assert (statuses, sum(rescues) > 0) == ({"COMPLETED"}, True)


def test_waiting_jobs_and_answers_survive_a_restart_of_redis(
    composition: Composition, client: httpx.Client, submit: Submit, ask: Ask
) -> None:
    ended = ask(submit(unique(small_images()[0])))
    composition.compose("stop", "worker")
    waiting = [submit(unique(image)) for image in small_images()]

    composition.compose("stop", "redis")
    meanwhile = client.post("/analyze-image", json={"image_data": "aGVsbG8="})
    composition.up()

    assert meanwhile.status_code == 503
    assert ask(ended["job_id"]) == ended
    assert [ask(job_id)["status"] for job_id in waiting] == ["COMPLETED"] * len(waiting)


def test_worker_without_progress_is_unhealthy_although_its_process_lives(composition: Composition) -> None:
    worker, _ = composition.containers("worker")

    def check() -> str:
        """Return the health check's error message."""
        code = f"import subprocess as s; print(s.run({HEALTH_CHECK}, capture_output=True, text=True).stderr)"
        return composition.docker("exec", worker, "python", "-c", code).strip()

    before = check()
    composition.docker("exec", worker, "python", "-c", FREEZE, "SIGSTOP")
    complaint = wait_until(check, "the frozen worker is found")
    composition.docker("exec", worker, "python", "-c", FREEZE, "SIGCONT")
    wait_until(lambda: not check(), "the thawed worker is well again")

    assert (before, complaint) == ("", "No worker of vit-tiny-cifar10 on this host has reported in the last 10 s.")


def test_containers_have_only_the_rights_that_they_need(composition: Composition) -> None:
    names = [
        name
        for service in ("redis", "api", "deliverer", "worker", "dashboard")
        for name in composition.containers(service)
    ]

    hosts = [container["HostConfig"] for container in composition.inspect(*names)]
    ports = {port for host in hosts for port in host["PortBindings"]}
    addresses = {binding["HostIp"] for host in hosts for [binding] in host["PortBindings"].values()}
    assert all(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["Memory"] for host in hosts)
    assert all("no-new-privileges:true" in host["SecurityOpt"] for host in hosts)
    assert (ports, addresses) == ({"8000/tcp", "9181/tcp"}, {"127.0.0.1"})


def test_down_under_load_ends_every_container_cleanly(composition: Composition, submit: Submit) -> None:
    begun_s = time.time()
    for _ in range(20):
        submit(unique(large_images()[1]))

    composition.compose("down")

    codes = composition.exit_codes(begun_s)
    assert (len(codes), set(codes.values())) == (6, {"0"}), codes
    assert composition.containers("worker") == []
