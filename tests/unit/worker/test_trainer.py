"""The trainings that a worker holds."""

import threading
from typing import Any, cast

from image_analysis_common.classifiers import Training
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.batching import InFlight, Job
from image_analysis_worker.outage import Outage
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL


def make_training(job_id: str) -> Job:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64, training=Training(name="pets"))
    return Job(job_id, "", record, b"", 3, is_suspect=False)


def test_each_copy_of_a_training_that_is_given_out_twice_is_held() -> None:
    stopping, copies = threading.Event(), [make_training("a"), make_training("a")]
    shared = Shared(cast(Any, None), InFlight(4), Outage(stopping), Watchdog(60), stopping)
    trainer = Trainer(shared, MODEL, limit_s=60)

    for copy in copies:
        trainer.add([copy])

    assert trainer.close() == copies
