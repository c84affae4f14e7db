"""Cancelled jobs, on the unit tests' fake Redis and on a real one."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from fakeredis import FakeRedis as SyncFakeRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.jobs.listing import Listing
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.store.client import connect, run_script
from image_analysis_common import keys
from image_analysis_common.errors import JobNotFound
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs
from support.direct import DirectQueue
from support.replies import decoded
from support.steps import RESULT, Steps

pytestmark = pytest.mark.anyio

QUEUE = "rq:queue:analysis-m"
IMAGE = b"image"


class Stage:
    """One Redis, fake or real, with the API's and the worker's clients."""

    def __init__(self, client: Redis, worker: SyncRedis) -> None:
        self.client = client
        self.steps = Steps(worker, "m")
        self._queue = DirectQueue(client, "m")
        self._store = JobRecords(client, "m")
        self._cancellation = Cancellation(client)

    async def submit(self, image: str = "1", owner: str | None = None) -> UUID:
        job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=image * 64, owner=owner)
        await self._queue.enqueue(NewJob(job_id, IMAGE, record, request_id="r"))
        return job_id

    async def answer_from_cache(self, image: str = "1", owner: str | None = None) -> UUID:
        job_id, record = uuid4(), JobRecord(status=JobStatus.COMPLETED, image_hash=image * 64, cached=True, owner=owner)
        await run_script(self.client, jobs.add_ended(str(job_id), record))
        return job_id

    async def cancel(self, job_id: UUID, owner: str | None = None) -> Outcome:
        return await self._cancellation.cancel(job_id, owner)

    async def status(self, job_id: UUID) -> JobStatus | None:
        record = await self._store.find_record(job_id)
        return record.status if record else None

    async def queued(self) -> list[UUID]:
        return [UUID(decoded(job_id)) for job_id in await self.client.lrange(QUEUE, 0, -1)]

    async def pop(self) -> None:
        """Pop the next job as a worker does, without starting it."""
        await self.client.lmove(QUEUE, f"{QUEUE}:intermediate")

    def complete(self, job_id: UUID) -> None:
        self.steps.begin(str(job_id))
        self.steps.complete(str(job_id))

    async def is_cached(self, image: str = "1") -> bool:
        return bool(await self.client.exists(keys.result(image * 64)))


@pytest.fixture(params=["fake", "real"])
async def stage(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Stage]:
    server = FakeServer(version=(7,))
    worker = SyncFakeRedis(server=server) if request.param == "fake" else redis
    async with FakeRedis(server=server) if request.param == "fake" else connect(redis_url) as client:
        yield Stage(client, worker)


async def test_waiting_job_leaves_the_queue_and_nothing_of_it_stays(stage: Stage) -> None:
    other, job_id = await stage.submit("2"), await stage.submit()

    outcome = await stage.cancel(job_id)

    assert (outcome, await stage.status(job_id)) == (Outcome.CANCELLED, JobStatus.CANCELLED)
    assert await stage.queued() == [other]
    assert await stage.client.zrange("rq:canceled:analysis-m", 0, -1) == [str(job_id).encode()]
    assert await stage.client.hget(f"rq:job:{job_id}", "status") == b"canceled"
    assert not await stage.client.exists(keys.image(str(job_id)), keys.leader("m", "1" * 64))
    assert await stage.client.get(keys.image_bytes("m")) == str(len(IMAGE)).encode()
    assert await stage.client.ttl(f"rq:job:{job_id}") <= keys.ENDED_JOB_TTL_S
    assert await stage.client.ttl(keys.job(str(job_id))) <= keys.ENDED_JOB_TTL_S


async def test_cancelling_again_changes_nothing(stage: Stage) -> None:
    job_id = await stage.submit()

    assert [await stage.cancel(job_id) for _ in range(3)] == [Outcome.CANCELLED] * 3
    assert await stage.client.hget(keys.job(str(job_id)), "history") == b"PENDING CANCELLED"


async def test_same_image_can_be_submitted_after_a_cancellation(stage: Stage) -> None:
    await stage.cancel(await stage.submit())

    again = await stage.submit()

    assert await stage.queued() == [again]


async def test_running_job_is_cancelled_when_it_ends_and_its_result_dropped(stage: Stage) -> None:
    job_id = await stage.submit()
    await stage.pop()
    stage.steps.begin(str(job_id))

    outcomes = [await stage.cancel(job_id), await stage.cancel(job_id)]
    meanwhile = await stage.status(job_id)
    stage.steps.complete(str(job_id))

    assert (outcomes, meanwhile) == ([Outcome.ENDING] * 2, JobStatus.PROCESSING)
    assert await stage.status(job_id) is JobStatus.CANCELLED
    assert not await stage.client.hexists(keys.job(str(job_id)), "result")
    assert not await stage.is_cached()
    assert not await stage.client.exists(keys.image(str(job_id)), keys.leader("m", "1" * 64))


@pytest.mark.parametrize("is_running", [False, True])
async def test_cancelled_leader_leaves_its_followers_their_answer(stage: Stage, is_running: bool) -> None:
    leader, follower = await stage.submit(), await stage.submit()
    if is_running:
        await stage.pop()
        stage.steps.begin(str(leader))

    await stage.cancel(leader)
    stage.complete(leader)

    assert await stage.status(leader) is JobStatus.CANCELLED
    assert await stage.status(follower) is JobStatus.COMPLETED
    assert await stage.is_cached()


async def test_cancelled_leader_that_waits_is_cancelled_at_once_and_its_run_kept(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()

    assert await stage.cancel(leader) is Outcome.CANCELLED
    assert [await stage.status(job_id) for job_id in (leader, follower)] == [JobStatus.CANCELLED, JobStatus.PENDING]
    assert await stage.queued() == [leader]
    # The run must find its record even after a long time in the queue.
    assert await stage.client.ttl(keys.job(str(leader))) > keys.ENDED_JOB_TTL_S


@pytest.mark.parametrize("is_running", [False, True])
async def test_later_submissions_follow_the_run_of_a_cancelled_leader(stage: Stage, is_running: bool) -> None:
    leader, follower = await stage.submit(), await stage.submit()
    await stage.cancel(leader)
    if is_running:
        await stage.pop()
        stage.steps.begin(str(leader))

    late = await stage.submit()
    joined = await stage.status(late)
    stage.complete(leader)

    assert await stage.queued() == ([] if is_running else [leader])
    assert joined is (JobStatus.PROCESSING if is_running else JobStatus.PENDING)
    assert [await stage.status(job_id) for job_id in (follower, late)] == [JobStatus.COMPLETED] * 2


async def test_run_without_any_uncancelled_job_leaves_the_queue(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()

    await stage.cancel(leader)
    await stage.cancel(follower)

    assert await stage.queued() == []
    assert await stage.client.get(keys.image_bytes("m")) == b"0"


async def test_cancelled_follower_leaves_alone(stage: Stage) -> None:
    leader, follower, other = await stage.submit(), await stage.submit(), await stage.submit()

    await stage.cancel(follower)
    stage.complete(leader)

    statuses = [await stage.status(job_id) for job_id in (leader, follower, other)]
    assert statuses == [JobStatus.COMPLETED, JobStatus.CANCELLED, JobStatus.COMPLETED]


async def test_job_between_pop_and_start_is_cancelled_when_it_ends(stage: Stage) -> None:
    job_id = await stage.submit()
    await stage.pop()

    outcome = await stage.cancel(job_id)
    stage.complete(job_id)

    assert (outcome, await stage.status(job_id)) == (Outcome.ENDING, JobStatus.CANCELLED)


async def test_ended_job_is_forgotten_with_its_cached_result(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.complete(job_id)

    assert await stage.cancel(job_id) is Outcome.FORGOTTEN
    assert await stage.status(job_id) is None
    assert not await stage.client.exists(keys.result("1" * 64), keys.answered("1" * 64), f"rq:job:{job_id}")
    with pytest.raises(JobNotFound):
        await stage.cancel(job_id)


async def test_cached_result_stays_until_the_last_of_those_it_answered_is_forgotten(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()
    stage.complete(leader)
    cached = await stage.answer_from_cache()

    stays = []
    for job_id in (leader, cached, follower):
        await stage.cancel(job_id)
        stays.append(await stage.is_cached())

    assert stays == [True, True, False]


@pytest.mark.parametrize("cache_ttl_s", [60, 7200])
async def test_count_of_answers_expires_with_the_result(stage: Stage, cache_ttl_s: int) -> None:
    await stage.client.hset(keys.result("1" * 64), "another model", RESULT.model_dump_json())
    await stage.client.expire(keys.result("1" * 64), cache_ttl_s)

    await stage.answer_from_cache()

    left_ms = [await stage.client.pttl(key) for key in (keys.answered("1" * 64), keys.result("1" * 64))]
    assert left_ms[0] == pytest.approx(left_ms[1], abs=1000)


async def test_count_of_answers_restarts_after_the_result_has_expired(stage: Stage) -> None:
    stage.complete(await stage.submit())
    await stage.client.delete(keys.result("1" * 64))
    await stage.answer_from_cache()
    late = await stage.client.exists(keys.answered("1" * 64))

    job_id = await stage.submit()
    stage.complete(job_id)
    await stage.cancel(job_id)

    assert not late
    assert not await stage.is_cached()


async def test_failed_job_is_deleted_without_the_result_of_others(stage: Stage) -> None:
    await stage.client.hset(keys.result("1" * 64), "another model", RESULT.model_dump_json())
    await stage.client.expire(keys.result("1" * 64), 60)
    job_id = await stage.submit()
    stage.steps.fail(str(job_id))

    assert await stage.cancel(job_id) is Outcome.FORGOTTEN
    assert await stage.is_cached()


async def test_only_the_owner_can_cancel_a_job(stage: Stage) -> None:
    job_id = await stage.submit(owner="alice")

    for owner in ("bob", None):
        with pytest.raises(JobNotFound):
            await stage.cancel(job_id, owner)
    assert await stage.cancel(job_id, "alice") is Outcome.CANCELLED


async def test_list_has_each_owners_jobs_newest_first_page_by_page(stage: Stage) -> None:
    listing = Listing(stage.client)
    jobs = [await stage.submit(image, "alice") for image in "1231452"]
    await stage.submit("6", "bob")
    times_ms = {str(job_id): 1_700_000_000_000 + n // 3 for n, job_id in enumerate(jobs)}
    await stage.client.zadd(keys.jobs_of("alice"), times_ms)
    ordered = [str(job_id) for n in (2, 1, 0) for job_id in sorted(jobs[3 * n : 3 * n + 3], key=str, reverse=True)]

    pages, cursor = [], None
    while True:
        entries, cursor = await listing.page("alice", limit=2, cursor=cursor)
        pages.append([str(entry.job_id) for entry in entries])
        if cursor is None:
            break

    assert [job_id for page in pages for job_id in page] == ordered
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert (await listing.page("carol", limit=2)) == ([], None)


async def test_list_is_filtered_and_forgets_what_expired(stage: Stage) -> None:
    listing = Listing(stage.client)
    waiting, ended, expired = [await stage.submit(image, "alice") for image in "123"]
    stage.complete(ended)
    cached = await stage.answer_from_cache("2", "alice")
    await stage.client.delete(keys.job(str(expired)))

    found = {
        status: {entry.job_id for entry in (await listing.page("alice", limit=9, status=status))[0]}
        for status in (None, JobStatus.COMPLETED, JobStatus.FAILED)
    }

    assert found == {None: {ended, waiting, cached}, JobStatus.COMPLETED: {ended, cached}, JobStatus.FAILED: set()}
    assert await stage.client.zcard(keys.jobs_of("alice")) == 3
    assert await stage.client.ttl(keys.jobs_of("alice")) > keys.WAITING_JOB_TTL_S
