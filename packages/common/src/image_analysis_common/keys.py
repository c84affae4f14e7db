"""Every Redis key of the service, and how long it lives; RQ's keys are in `rq_keys`."""

WAITING_JOB_TTL_S = 24 * 3600
"""How long an accepted job may wait for a worker before it fails."""

UNENDED_JOB_TTL_S = 2 * WAITING_JOB_TTL_S
"""How long Redis keeps the keys of a job that has not ended, so that an API that was down can still fail it."""

ENDED_JOB_TTL_S = 3600
"""How long an ended job can be asked for, and RQ keeps its hash of a failed job."""

FINISHED_JOB_TTL_S = 600
"""How long RQ keeps its hash of a finished job. Only operators see it, and it takes 4 kB; our record takes 2 kB."""

HEARTBEAT_INTERVAL_S = 3
"""How often a worker sends heartbeats and requeues the jobs of dead workers."""

WORKER_TTL_S = 10
"""A worker silent for this long is considered dead; its jobs are requeued."""

ANNOUNCEMENT_TTL_S = 24 * 3600
"""How long a model is known after its last worker has stopped, so that its cached results are still found."""

DELIVERY_PERIOD_S = 24 * 3600
"""How long a webhook delivery is retried."""

DELIVERY_TTL_S = DELIVERY_PERIOD_S + 3600
"""How long the content of an undelivered webhook is kept."""

DELIVERIES = "analysis_deliveries"
"""The sorted set of the jobs whose webhook is pending, by its due time on the server's clock."""

PROMISES = "analysis_promises"
"""The sorted set of the jobs that have not ended and have a webhook, by the time of their submission."""

RUNS = "analysis_runs"
"""The sorted set of the jobs that were queued and whose run is not over, by the time of the API's last check."""

RUNS_PAUSE = "analysis_runs_pause"
"""Exists for a moment after each step of the API's sweep, so that many API processes do not sweep without a pause."""

MODELS = "analysis_models"
"""The sorted set of the known models, by their last heartbeat, in seconds of the server's clock."""

PROBE = "analysis_probe"
"""Written to check that Redis accepts writes, and that replicas have the writes before this one."""

NOTHING = "analysis_nothing"
"""Never exists: scripts delete it to be allowed to write while Redis is full."""

CHANGES = "analysis_changes"
"""The channel on which a job's ID is published when its status changes."""

PERMANENT_PREFIXES = ("analysis_classifier:", "analysis_classifiers:")
"""The keys that have no TTL: their owners delete them."""


def result(image_hash: str) -> str:
    """Name the hash of an image's results, one field for each model reference."""
    return f"analysis_result:{image_hash}"


def embedding(image_hash: str) -> str:
    """Name the hash of an image's embeddings, one field for each model reference; it expires like the results."""
    return f"analysis_embedding:{image_hash}"


def rate_limit(caller: str) -> str:
    """Name the list of a caller's recent requests, in microseconds of the server's clock.

    A caller is an address, or `key:` and the owner of an API key. An owner has one quota for all addresses.
    """
    return f"rate_limit:{caller}"


def job(job_id: str) -> str:
    """Name a job's record, the hash that holds its status."""
    return f"analysis_job:{job_id}"


def image(job_id: str) -> str:
    """Name the bytes of a job's image; deleted when the job ends."""
    return f"analysis_image:{job_id}"


def image_bytes(model_id: str) -> str:
    """Name the total bytes of a model's images that wait or are being analyzed."""
    return f"analysis_image_bytes:{model_id}"


def leader(model_id: str, image_hash: str, *, variant: str = "", is_deep: bool = False) -> str:
    """Name the ID of the job that runs an image now; later submissions of the same image follow it.

    A run with its own question (`variant`), or that keeps more predictions (`is_deep`), has its own leader and
    followers.
    """
    return f"analysis_leader:{model_id}:{image_hash}{variant}{':deep' if is_deep else ''}"


def followers(job_id: str) -> str:
    """Name the set of the keys of a run's followers: their records change together with the run's."""
    return f"analysis_followers:{job_id}"


def followers_end(job_id: str) -> str:
    """Name the list of the fields that end a run's followers; it exists until all of them have ended."""
    return f"analysis_followers_end:{job_id}"


def following(model_id: str) -> str:
    """Name the sorted set of a model's followers that have not ended, by the time of their submission."""
    return f"analysis_following:{model_id}"


def batch(batch_id: str) -> str:
    """Name the record of a batch: the IDs of its jobs, and their owner. It lives as long as any of them can."""
    return f"analysis_batch:{batch_id}"


def delivery(job_id: str) -> str:
    """Name the copy of an ended job's record that its pending webhook is sent from."""
    return f"analysis_delivery:{job_id}"


def deliverer(host: str) -> str:
    """Name the heartbeat of a host's webhook deliverer."""
    return f"analysis_deliverer:{host}"


def announcement(model_id: str) -> str:
    """Name the announcement of a model by its latest worker."""
    return f"analysis_model:{model_id}"


def idempotency(caller: str, key_digest: str) -> str:
    """Name the claim of a caller's Idempotency-Key, valid while its job or batch exists.

    It is kept for a day; that of a single image from its job's end on as long as the job's record.
    """
    return f"analysis_idempotency:{caller}:{key_digest}"


def sweep(queue_name: str) -> str:
    """Name the lock of the worker that requeues the lost jobs of a queue."""
    return f"analysis_sweep:{queue_name}"


def workers(model_id: str) -> str:
    """Name the sorted set of a model's workers by their last heartbeat, in seconds of the server's clock."""
    return f"analysis_workers:{model_id}"


def answered(image_hash: str) -> str:
    """Name the number of jobs that an image's cached results have answered and that were not deleted."""
    return f"analysis_answered:{image_hash}"


def jobs_of(owner: str) -> str:
    """Name the sorted set of an owner's jobs, by the time of their submission in milliseconds."""
    return f"analysis_jobs:{owner}"


def classifier(owner: str, name: str) -> str:
    """Name the hash of an owner's classifier, which is kept until its owner deletes it; '' without an owner."""
    return f"analysis_classifier:{owner}:{name}"


def classifiers_of(owner: str) -> str:
    """Name the hash of an owner's classifiers: the bytes of each, by its name."""
    return f"analysis_classifiers:{owner}"
