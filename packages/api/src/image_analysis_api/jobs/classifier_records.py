"""Classifiers as the API reads and deletes them; workers write them at the end of a training."""

import json
from dataclasses import dataclass
from typing import cast

import structlog
from redis.asyncio import Redis

from image_analysis_api.intake.schemas import Options
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.classifiers import Classifier, ClassifierRef, is_same_model
from image_analysis_common.errors import RequestError, UnreadableRecord
from image_analysis_common.job_errors import ClassifierNotFound, ClassifierOutdated
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.records import read_json

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class KnownClassifier:
    """A classifier without its arrays and its examples."""

    about: Classifier
    version: str

    def check_model(self, announced: ModelAnnouncement | None) -> None:
        """Check that the classifier was made with the model that workers serve now.

        Raises:
            ClassifierOutdated
        """
        if announced is not None and not is_same_model(announced.model, self.about.model):
            raise ClassifierOutdated(name=self.about.name, model=self.about.model.id)

    def choose_model(self, asked: str | None) -> str:
        """Return the ID of its model.

        Raises:
            RequestError: the request names another one.
        """
        model = self.about.model.id
        if asked is not None and asked != model:
            raise RequestError(f"The classifier {self.about.name} was made with {model}: leave out model, or name it.")
        return model


class ClassifierRecords:
    """Reads and deletes the classifiers of an owner; None is the owner where the service has no API keys."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find_all(self, owner: str | None) -> list[Classifier]:
        """Return an owner's classifiers by name; those of another release that cannot be read are left out."""
        async with reaching_redis():
            names = sorted(cast(list[bytes], await self._redis.hkeys(keys.classifiers_of(owner or ""))))
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hget(keys.classifier(owner or "", name.decode()), "about")
                found = await pipeline.execute()
        classifiers = list[Classifier]()
        for name, about in zip(names, found, strict=True):
            try:
                classifiers += [read_json(Classifier, about)] if about else []
            except UnreadableRecord as error:
                log.warning("classifier_unreadable", classifier=name.decode(), cause=repr(error.__cause__))
        return classifiers

    async def count(self, owner: str | None) -> int:
        """Return how many classifiers an owner has."""
        async with reaching_redis():
            return int(await self._redis.hlen(keys.classifiers_of(owner or "")))

    async def find(self, owner: str | None, name: str) -> KnownClassifier:
        """Return one classifier.

        Raises:
            ClassifierNotFound: its owner has none of this name.
            UnreadableRecord: another release wrote it.
        """
        async with reaching_redis():
            key = keys.classifier(owner or "", name)
            about, version = cast(list[bytes | None], await self._redis.hmget(key, "about", "version"))
        if about is None or version is None:
            raise ClassifierNotFound(name=name)
        return KnownClassifier(read_json(Classifier, about), version.decode())

    async def find_examples(self, owner: str | None, name: str) -> dict[str, str]:
        """Return the label of each example of a classifier by the SHA-256 of its image: up to 10,000, in 4 ms."""
        async with reaching_redis():
            examples = cast(bytes | None, await self._redis.hget(keys.classifier(owner or "", name), "examples"))
        return dict(json.loads(examples or b"{}"))

    async def delete(self, owner: str | None, name: str) -> None:
        """Delete a classifier with all that was learned.

        Raises:
            ClassifierNotFound: its owner has none of this name.
        """
        async with reaching_redis(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(keys.classifier(owner or "", name))
            pipeline.hdel(keys.classifiers_of(owner or ""), name)
            deleted, _ = await pipeline.execute()
        if not deleted:
            raise ClassifierNotFound(name=name)

    async def resolve(self, options: Options, owner: str | None) -> tuple[Options, ClassifierRef | None]:
        """Find the classifier that the options name; return them with its model, and its present version.

        Raises:
            ClassifierNotFound, ClassifierOutdated: it does not exist, or was made with another revision of its model.
            RequestError: the options name another model.
        """
        if options.classifier is None:
            return options, None
        known = await self.find(owner, options.classifier)
        model = known.choose_model(options.model)
        async with reaching_redis():
            announced = await self._redis.get(keys.announcement(model))
        known.check_model(read_json(ModelAnnouncement, announced) if announced else None)
        ref = ClassifierRef(name=options.classifier, version=known.version)
        return options.model_copy(update={"model": model}), ref
