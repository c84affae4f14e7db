"""Every Redis key of the service and how long it lives; those of RQ stand in `rq_keys`."""

WAITING_JOB_TTL_S = 24 * 3600
"""How long an accepted job may wait for a worker; then it fails."""

UNENDED_JOB_TTL_S = 2 * WAITING_JOB_TTL_S
"""How long Redis keeps what belongs to a job that has not ended, so that an API that was down can still fail it."""

ENDED_JOB_TTL_S = 3600
"""How long an ended job's answer can be asked for, and RQ's books show a failed one."""

FINISHED_JOB_TTL_S = 600
"""How long RQ's books show a job that went well: to operators alone, and in 4 kB where the answer itself takes 2."""

HEARTBEAT_INTERVAL_S = 3
"""How often a worker says that it is there, and looks after the jobs of others that no longer do."""

WORKER_TTL_S = 10
"""A worker that has said nothing for this long is taken for dead, and its jobs go to others."""

ANNOUNCEMENT_TTL_S = 24 * 3600
"""How long a model is known after its last worker has gone, so that its cached results are still found."""

DELIVERY_PERIOD_S = 24 * 3600
"""How long it is tried to tell a webhook of a job's end."""

DELIVERY_TTL_S = DELIVERY_PERIOD_S + 3600
"""How long what a webhook shall be told is kept, if nobody delivers it."""

DELIVERIES = "analysis_deliveries"
"""The sorted set of the jobs whose end a webhook has still to be told, by when it is due, on the server's clock."""

PROMISES = "analysis_promises"
"""The sorted set of the jobs that have not ended and have a webhook, by the time of their submission."""

RUNS = "analysis_runs"
"""The sorted set of the jobs that were queued, by the time when the API last checked them, until their run is over."""

RUNS_PAUSE = "analysis_runs_pause"
"""Exists for a moment after each step of checking runs, so that many API processes do not check without a pause."""

MODELS = "analysis_models"
"""The sorted set of all models that are known, by their last heartbeat, in seconds of the server's clock."""

PROBE = "analysis_probe"
"""Written to see whether anything can be."""

CHANGES = "analysis_changes"
"""The channel on which the ID of each job that takes a step is published."""


def result(image_hash: str) -> str:
    """Name the hash of an image's results, one field for each model reference."""
    return f"analysis_result:{image_hash}"


def rate_limit(caller: str) -> str:
    """Name the list of a caller's recent requests, in microseconds of the server's clock.

    A caller is an address, or `key:` and the owner of an API key, who has a quota of its own at every address.
    """
    return f"rate_limit:{caller}"


def job(job_id: str) -> str:
    """Name a job's record, the hash that its status is read from."""
    return f"analysis_job:{job_id}"


def image(job_id: str) -> str:
    """Name the bytes of a job's image; gone when the job ends."""
    return f"analysis_image:{job_id}"


def image_bytes(model_id: str) -> str:
    """Name the count of the bytes of all images of a model that wait or are in work."""
    return f"analysis_image_bytes:{model_id}"


def leader(model_id: str, image_hash: str, *, is_deep: bool = False) -> str:
    """Name the ID of the job that runs an image now; jobs that bring the same image meanwhile follow it.

    A run that keeps more predictions has followers of its own.
    """
    return f"analysis_leader:{model_id}:{image_hash}{':deep' if is_deep else ''}"


def followers(job_id: str) -> str:
    """Name the set of the records that take every step together with a job's own."""
    return f"analysis_followers:{job_id}"


def followers_end(job_id: str) -> str:
    """Name the list of the fields that end a job's followers, as long as some of them have not ended."""
    return f"analysis_followers_end:{job_id}"


def following(model_id: str) -> str:
    """Name the sorted set of a model's followers that have not ended, by the time of their submission."""
    return f"analysis_following:{model_id}"


def batch(batch_id: str) -> str:
    """Name the IDs of the jobs that came in one request, and whose they are; as long as one can be there."""
    return f"analysis_batch:{batch_id}"


def delivery(job_id: str) -> str:
    """Name the copy of an ended job's record that a webhook has still to be told."""
    return f"analysis_delivery:{job_id}"


def deliverer(host: str) -> str:
    """Name the sign of life of a host's deliverer of webhooks."""
    return f"analysis_deliverer:{host}"


def announcement(model_id: str) -> str:
    """Name what the latest worker of a model said of it."""
    return f"analysis_model:{model_id}"


def idempotency(caller: str, key_digest: str) -> str:
    """Name what a caller's Idempotency-Key has led to; kept for a day, and in force while that is there."""
    return f"analysis_idempotency:{caller}:{key_digest}"


def sweep(queue_name: str) -> str:
    """Name the lock of the worker that looks after a queue's lost jobs."""
    return f"analysis_sweep:{queue_name}"


def workers(model_id: str) -> str:
    """Name the sorted set of a model's workers by their last heartbeat, in seconds of the server's clock."""
    return f"analysis_workers:{model_id}"


def answered(image_hash: str) -> str:
    """Name the count of the jobs that were answered with an image's cached results, and are not forgotten."""
    return f"analysis_answered:{image_hash}"


def jobs_of(owner: str) -> str:
    """Name the sorted set of an owner's jobs, by the time of their submission in milliseconds."""
    return f"analysis_jobs:{owner}"
