"""Runs in a worker process of the suite: the real worker with the real model, which misbehaves on request."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import structlog
from PIL import Image

from image_analysis_common.logs import configure_logs
from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction
from image_analysis_common.tracing import start_tracing
from image_analysis_worker import __main__ as program
from image_analysis_worker.decoding.decoder import Decoder
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.engine import Decoder as AnyDecoder
from image_analysis_worker.engines.engine import Engine
from image_analysis_worker.engines.images import draw_blank
from image_analysis_worker.engines.load import load_engine
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.settings import WorkerSettings
from support.images import MARKED_PX, Marker


class MisbehavingModel:
    """The bundled classifier, except for images of a marker's color; reports on request when it is entered."""

    def __init__(self, classifier: Engine, orders: Connection) -> None:
        self._classifier = classifier
        self.ref: ModelRef = classifier.ref
        self._orders = orders
        self._announcement = classifier.warm_up()
        self._slow_s = float(os.environ.get("SLOW_S", "3"))
        self._report: str | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> ModelAnnouncement:
        return self._announcement

    def open_decoder(self) -> "MisbehavingDecoder":
        return MisbehavingDecoder(self._classifier.open_decoder(), partial(self._enter, "decode", 1))

    def prepare(self, job: Job, decoder: AnyDecoder) -> tuple[Marker | None, Any]:
        made: tuple[Marker | None, Any] = decoder.decode(job.image)
        return made

    def classify(self, inputs: Sequence[tuple[Marker | None, Any]], top_k: int = TOP_K) -> list[list[Prediction]]:
        structlog.get_logger("chaos").info("model_entered", images=len(inputs))
        self._enter("classify", len(inputs))
        markers = {marker for marker, _ in inputs}
        if Marker.DIES_IN_CLASSIFY in markers:
            os.kill(os.getpid(), signal.SIGKILL)
        if Marker.HANGS_IN_CLASSIFY in markers:
            hang()
        if Marker.IS_SLOW in markers:
            threading.Event().wait(self._slow_s)
        return self._classifier.classify([image for _, image in inputs], top_k)

    def check_network(self) -> None:
        self._classifier.check_network()

    def check_decoder(self, decoder: AnyDecoder) -> None:
        decoder.decode(draw_blank())

    def obey(self) -> None:
        """Read orders until the test has ended: each is the name of a method whose next call must be reported."""
        while True:
            try:
                order = self._orders.recv()
            except (EOFError, OSError):
                return
            with self._lock:
                self._report = order

    def _enter(self, method: str, images: int) -> None:
        with self._lock:
            if self._report != method:
                return
            self._report = None
            self._orders.send(images)


class MisbehavingDecoder:
    """The decoder of a misbehaving model."""

    def __init__(self, decoder: Decoder, enter: Callable[[], None]) -> None:
        self._decoder = decoder
        self._enter = enter

    def decode(self, body: bytes) -> tuple[Marker | None, Any]:
        pixels = self._decoder.decode(body)
        self._enter()
        with Image.open(BytesIO(body)) as image:
            marker = Marker.of(image.convert("RGB")) if image.size == MARKED_PX else None
        match marker:
            case Marker.DIES_IN_DECODE:
                os.kill(os.getpid(), signal.SIGKILL)
            case Marker.HANGS_IN_DECODE:
                hang()
        return marker, pixels


def hang() -> None:
    """Never return from C, like a broken kernel: no Python signal handler and no exception ends it."""
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def run(orders: Connection, log: str, environment: dict[str, str]) -> None:
    """Load the model, report it, wait for the order, then serve with the misbehaving model until the worker ends."""
    _redirect(log)
    os.environ.update(environment)
    settings = WorkerSettings.from_environment()
    configure_logs(settings, "worker")
    start_tracing("image-analysis-worker")
    checkpoint = find_checkpoint(settings.model_id, name=settings.model_name)
    model = MisbehavingModel(load_engine(checkpoint, settings), orders)
    orders.send("ready")
    orders.recv()
    threading.Thread(target=model.obey, daemon=True).start()
    sys.exit(program.serve(settings, model))


def run_program(orders: Connection, log: str, environment: dict[str, str]) -> None:
    """Wait for the order, then run as `python -m image_analysis_worker` does, with torch already imported."""
    _redirect(log)
    os.environ.update(environment)
    orders.send("ready")
    orders.recv()
    program.main()


def _redirect(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
