"""What the threads of a worker share."""

import threading
from dataclasses import dataclass

from image_analysis_worker.jobs.batching import InFlight
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.threads.watchdog import Watchdog


@dataclass(frozen=True)
class Shared:
    """The parts that every thread uses; each of them is thread-safe."""

    batch_worker: BatchWorker
    in_flight: InFlight
    outage: Outage
    watchdog: Watchdog
    is_stopping: threading.Event
