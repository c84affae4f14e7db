"""The trainings that a worker holds."""

import threading
from typing import Any, cast

from image_analysis_common.classifiers import Training
from image_analysis_worker.jobs.batching import InFlight
from image_analysis_worker.outage import Outage
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL
from support.jobs import make_job


def test_each_copy_of_a_training_that_is_given_out_twice_is_held() -> None:
    stopping = threading.Event()
    copies = [make_job("a", training=Training(name="pets")) for _ in range(2)]
    shared = Shared(cast(Any, None), InFlight(4), Outage(stopping), Watchdog(60), stopping)
    trainer = Trainer(shared, MODEL, limit_s=60)

    for copy in copies:
        trainer.add([copy])

    assert trainer.close() == copies
