"""Classifiers in Redis: the hash `keys.classifier`, and the bytes of each in `keys.classifiers_of`."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from image_analysis_common import keys
from image_analysis_common.classifiers import Classifier, ClassifierRef, TrainingPlan
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import TooManyClassifiers
from image_analysis_common.records import read_json
from image_analysis_worker.classifiers.head import Head

CACHED_HEADS_BYTES = 64 * 1024**2
"""The most memory for the heads that were used last: 80 of 1,000 examples with 192 numbers each."""

ABOUT, VERSION, HEAD, EXAMPLES = "about", "version", "head", "examples"
"""The fields: what clients see, as JSON; what differs between trainings; the arrays; the label of each SHA-256."""


@dataclass(frozen=True)
class StoredClassifier:
    """A classifier with all that is kept of it."""

    about: Classifier
    version: str
    head: Head
    examples: dict[str, str]
    """The label of each example by the SHA-256 of its image, in the order of `head.vectors`."""

    @property
    def ref(self) -> ClassifierRef:
        return ClassifierRef(name=self.about.name, version=self.version)

    @property
    def size_bytes(self) -> int:
        """How many bytes an embedding has that it can answer."""
        return 4 * self.head.dimension


class ClassifierStore:
    """Reads and writes classifiers; keeps the heads that were used last. For one thread, but for `read`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._recent = OrderedDict[tuple[str, str], StoredClassifier]()
        self._used_bytes = 0

    def find(self, owner: str | None, name: str) -> StoredClassifier | None:
        """Return an owner's classifier; its arrays are read from Redis only if they have changed.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        key = (owner or "", name)
        version = cast(bytes | None, self._redis.hget(keys.classifier(*key), VERSION))
        known = self._recent.pop(key, None)
        if known is not None:
            self._used_bytes -= known.head.vectors.nbytes
        found = known if known and version and known.version == version.decode() else self.read(owner, name)
        if found is None:
            return None
        self._recent[key] = found
        self._used_bytes += found.head.vectors.nbytes
        while self._used_bytes > CACHED_HEADS_BYTES and len(self._recent) > 1:
            self._used_bytes -= self._recent.popitem(last=False)[1].head.vectors.nbytes
        return found

    def read(self, owner: str | None, name: str) -> StoredClassifier | None:
        """Read an owner's classifier.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        found = cast(dict[bytes, bytes], self._redis.hgetall(keys.classifier(owner or "", name)))
        return _read(found) if found else None

    def write(self, pipeline: Pipeline, owner: str | None, written: StoredClassifier, plan: TrainingPlan) -> None:
        """Put a classifier into a transaction, after checking that its owner has room for it.

        The pipeline reads now and writes later: it must watch `keys.classifiers_of`.

        Raises:
            TooManyClassifiers: the owner has too many of them, or they have too many bytes.
        """
        name, index = written.about.name, keys.classifiers_of(owner or "")
        fields: dict[Any, Any] = {
            ABOUT: written.about.model_dump_json(),
            VERSION: written.version,
            HEAD: written.head.pack(),
            EXAMPLES: json.dumps(written.examples),
        }
        size_bytes = sum(map(len, fields.values()))
        known = cast(dict[bytes, bytes], pipeline.hgetall(index))
        sizes = {found.decode(): int(size) for found, size in known.items()} | {name: size_bytes}
        check_room(len(sizes), sum(sizes.values()), plan)
        pipeline.multi()
        pipeline.delete(keys.classifier(owner or "", name))
        pipeline.hset(keys.classifier(owner or "", name), mapping=fields)
        pipeline.hset(index, name, str(size_bytes))


def check_room(count: int, size_bytes: int, plan: TrainingPlan) -> None:
    """Check an owner's number of classifiers, and their bytes together.

    Raises:
        TooManyClassifiers
    """
    if count > plan.max_classifiers:
        raise TooManyClassifiers(count=count - 1, limit=plan.max_classifiers)
    if size_bytes > plan.max_bytes:
        raise TooManyClassifiers(
            f"Your classifiers would have {size_bytes} bytes together, and the limit is {plan.max_bytes}: "
            "delete one first, or send fewer examples."
        )


def _read(fields: dict[bytes, bytes]) -> StoredClassifier:
    try:
        return StoredClassifier(
            read_json(Classifier, fields[ABOUT.encode()]),
            fields[VERSION.encode()].decode(),
            Head.unpack(fields[HEAD.encode()]),
            dict(json.loads(fields[EXAMPLES.encode()])),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableRecord from error
