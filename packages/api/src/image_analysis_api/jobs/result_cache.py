"""Looks up cached results. Workers write them; the key is the image's digest, the field the model's revision."""

import json
from dataclasses import dataclass
from functools import lru_cache

from redis.asyncio import Redis

from image_analysis_api.store.client import run_script
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import EmbeddingsNotSupported, JobError, LabelsNotSupported, LabelsRequired
from image_analysis_common.models import ZERO_SHOT, CachedResult, ModelAnnouncement
from image_analysis_common.records import JobRecord, read_json
from image_analysis_common.scripts import jobs
from image_analysis_common.scripts.jobs import KnownResult
from image_analysis_common.scripts.runs import KnownModel

MAX_POPULAR = 4096
"""The most images whose results one process remembers because they were found in the cache."""

MAX_RESULT_BYTES = 2048
"""The longest result that is remembered; the usual one has half a kB."""

MAX_PARSED = 256
"""The most results that are kept in parsed form, too: that saves 8 microseconds, and takes 4 kB for each."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What Redis holds about an image and the model that it is for.

    `field` is the field of the image's cached results for this model; empty if no worker has announced the model.
    """

    field: str
    cached: CachedResult | None
    is_known: bool
    has_worker: bool


class ResultCache:
    """Reads cached results; `model` is the default model."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self._model = model
        self._known: dict[str, KnownModel] = {}
        self._popular: dict[str, tuple[str, bytes]] = {}

    def known(self, record: JobRecord) -> KnownModel | None:
        """Return what the latest lookup found of a job's model, for a script that checks it.

        None before the first one, and for a job that the model cannot answer: another one may have its name now.
        """
        known = self._known.get(record.model or self._model)
        return known if known and _find_misfit(known, record) is None else None

    def is_popular(self, image_hash: str) -> bool:
        """Return whether a result of the image is remembered: then this process has checked the image's header."""
        return image_hash in self._popular

    def recall(self, record: JobRecord) -> KnownResult | None:
        """Return a job's result that was found lately and is probably still there, for a script that compares it."""
        known, (field, text) = self.known(record), self._popular.get(record.image_hash, ("", b""))
        if known is None or field != record.cache_fields(known.cache_field)[0]:
            return None
        return KnownResult(record.model or self._model, known, text)

    def remember(self, record: JobRecord, known: KnownModel, text: bytes) -> None:
        """Remember a result that was found in the cache: of each image the latest one."""
        if len(text) > MAX_RESULT_BYTES:
            return
        if len(self._popular) >= MAX_POPULAR and record.image_hash not in self._popular:
            del self._popular[next(iter(self._popular))]
        self._popular[record.image_hash] = (record.cache_fields(known.cache_field)[0], text)

    def forget(self, image_hash: str) -> None:
        """Forget the results of an image, because one of them is no longer in the cache."""
        self._popular.pop(image_hash, None)

    async def find(self, record: JobRecord) -> Lookup:
        """Look up a job's result by the current revision of its model; results of other revisions do not count.

        Raises:
            LabelsNotSupported, LabelsRequired: the model cannot answer the job's question, or needs one.
            EmbeddingsNotSupported: the job asks for an embedding, and the model has none.
        """
        model = record.model or self._model
        announced, pairs, live = await run_script(
            self._redis, jobs.find_result(model, record.image_hash, record.variant)
        )
        if announced is None:
            return Lookup("", None, is_known=False, has_worker=bool(live))
        try:
            announcement = read_json(ModelAnnouncement, announced)
            beginning = _model_of(announced.decode())
            known = KnownModel(beginning or "", announcement.model.cache_field, announcement.task, announcement.embeds)
            if beginning is not None:
                self._known[model] = known
            if misfit := _find_misfit(known, record):
                raise misfit(model=model)
            results = dict(zip(pairs[::2], pairs[1::2], strict=True))
            field, other = record.cache_fields(known.cache_field)
            found = results.get(field.encode()) or results.get(other.encode())
            cached = read_json(CachedResult, found) if found else None
        except UnreadableRecord:
            field, cached = "", None  # The image is analyzed again.
        return Lookup(field, cached, is_known=True, has_worker=bool(live))


@lru_cache(maxsize=MAX_PARSED)
def read_popular(text: bytes) -> CachedResult:
    """Parse a result that was remembered."""
    return read_json(CachedResult, text)


def _find_misfit(model: KnownModel, record: JobRecord) -> type[JobError] | None:
    """Return why the model cannot answer a job; None if it can."""
    knows_labels = record.classifier is not None or record.training is not None
    if not knows_labels and (model.task == ZERO_SHOT) != (record.question is not None):
        return LabelsNotSupported if record.question else LabelsRequired
    return EmbeddingsNotSupported if record.needs_embedding and not model.embeds else None


def _model_of(announced: str) -> str | None:
    """Return the beginning of an announcement up to the end of its model; None if it begins with something else."""
    start = '{"model":'
    if not announced.startswith(start):
        return None
    return announced[: json.JSONDecoder().raw_decode(announced, len(start))[1]]
