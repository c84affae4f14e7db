"""What a worker does every few seconds goes by the clock of Redis."""

import time

import pytest
from redis import Redis
from rq import registry

from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.maintenance import Maintenance
from support.announcements import MODEL, make_announcement
from support.direct import QUEUE, registries

ANNOUNCEMENT = make_announcement(MODEL.model_copy(update={"id": "m"}))


@pytest.mark.parametrize("shift_s", [600, -600], ids=["ahead", "behind"])
def test_worker_whose_clock_is_wrong_removes_only_what_has_expired(
    redis: Redis, batch_worker: BatchWorker, monkeypatch: pytest.MonkeyPatch, shift_s: int
) -> None:
    monkeypatch.setattr(registry, "current_timestamp", lambda: int(time.time()) + shift_s)
    now_s, _ = redis.time()
    for name in ("finished", "failed"):
        redis.zadd(f"rq:{name}:{QUEUE}", {"expired": now_s - 60, "kept": now_s + 60})

    Maintenance(batch_worker, ANNOUNCEMENT).sweep()

    assert registries(redis) == {"finished": ["kept"], "failed": ["kept"]}
