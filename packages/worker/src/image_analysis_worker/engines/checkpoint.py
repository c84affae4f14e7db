"""Finds a model's files: in the package, in a folder, or on the hub. It reads the configuration and the card only.

`huggingface_hub` is imported late: it reads HF_ENDPOINT then, and fails if that is malformed.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from image_analysis_common.models import ZERO_SHOT, Task
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_common.startup import StartupError
from image_analysis_common.tasks import model_name
from image_analysis_worker.decoding.timm import is_timm

BUNDLED_FOLDER = Path(str(files("image_analysis_worker"))) / "models" / BUNDLED_MODEL


_CLASSIFIER = "ForImageClassification"
_ZERO_SHOT = ("CLIPModel", "SiglipModel")
_VARIABLE_SIZE = "Siglip2Model"
_WEIGHTS = ["*.safetensors"]
_TOKENIZER = ["merges.txt", "spiece.model", "tokenizer.model"]
"""What a tokenizer reads, if it is not in tokenizer.json."""
_ONNX = ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_quantized.onnx"]


@dataclass(frozen=True)
class Checkpoint:
    """One revision of a model, as files on this machine."""

    name: str
    folder: Path
    revision: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            StartupError: there is none, or it is neither of an image classifier nor of a zero-shot model.
        """
        try:
            config = json.loads((self.folder / "config.json").read_bytes())
            architectures = config.get("architectures")
        except (OSError, ValueError, AttributeError) as error:
            raise StartupError(
                f"{self.name} is not an image-classification checkpoint: its config.json cannot be read: {error}"
            ) from error
        if is_timm(config):
            if config.get("num_classes") == 0:
                raise StartupError(f"{self.name} is not an image-classification checkpoint: it has no classes.")
        elif _VARIABLE_SIZE in (architectures or []):
            raise StartupError(
                f"{self.name} is a SigLIP 2 for images of any size (NaFlex), which is not supported: "
                "take one for a fixed size, such as google/siglip2-base-patch16-224."
            )
        elif not any(_CLASSIFIER in str(name) or name in _ZERO_SHOT for name in architectures or []):
            raise StartupError(f"{self.name} is not an image-classification checkpoint: it is {architectures}.")
        return dict(config)

    @property
    def task(self) -> Task:
        """What the model does.

        Raises:
            StartupError: as `config`.
        """
        is_zero_shot = not is_timm(self.config) and any(name in _ZERO_SHOT for name in self.config["architectures"])
        return ZERO_SHOT if is_zero_shot else "image-classification"

    @property
    def accuracy(self) -> float | None:
        """Top-1 accuracy from 0 to 1, if the model card states one."""
        from huggingface_hub import ModelCard

        try:
            results = ModelCard.load(self.folder / "README.md").data.eval_results or []
            stated = next(result.metric_value for result in results if result.metric_type == "accuracy")
            value = float(stated.removesuffix("%")) / 100 if isinstance(stated, str) else float(stated)
        except Exception:  # noqa: BLE001
            # A card is text for people: it may be missing or hold anything, and reading it can raise anything.
            return None
        value = value / 100 if value > 1 else value
        return value if 0 <= value <= 1 else None

    @property
    def has_weights(self) -> bool:
        """Whether it has weights for torch."""
        return any(self.folder.glob("*.safetensors"))

    @property
    def has_source(self) -> bool:
        """Whether it has what OpenVINO's files are made from: weights, or a model in ONNX."""
        return self.has_weights or _is_onnx(self.folder)

    @property
    def has_tokenizer(self) -> bool:
        """Whether it has a tokenizer; without one, transformers makes an empty one for some models."""
        return any((self.folder / name).is_file() for name in ("tokenizer.json", "vocab.json", *_TOKENIZER))

    def find_network(self, precision: str, *, is_converted: bool) -> Path | None:
        """Find its OpenVINO file, if it `is_converted`, or its ONNX file, in float32 or int8."""
        onnx = {"float32": "model.onnx", "int8": "model_quantized.onnx"}
        paths = [self.folder / "onnx" / onnx[precision]]
        if is_converted:
            paths.insert(0, self.folder / "openvino" / f"{precision}.xml")
        return next((path for path in paths if path.is_file()), None)


def find_checkpoint(model_id: str, revision: str | None = None, *, name: str | None = None) -> Checkpoint:
    """Find a model by its ID; a model on the hub is downloaded once and kept in the hub's cache.

    `name` is what clients call it; by default, the name is made from its ID.

    Raises:
        StartupError: there is no such model, or a file of its folder cannot be read; or the hub cannot be reached and
            the model is not in the cache; or HF_ENDPOINT is malformed, with which not even a model in a folder could be
            loaded.
    """
    if (endpoint := os.environ.get("HF_ENDPOINT")) and not _is_web_address(endpoint):
        raise StartupError("HF_ENDPOINT: write the address of the hub like https://huggingface.co.")
    name = name or model_name(model_id)
    try:
        folder = BUNDLED_FOLDER if model_id == BUNDLED_MODEL else Path(model_id).expanduser()
        if folder.is_dir():
            return Checkpoint(name, folder, _digest(folder))
    except RuntimeError as error:
        raise StartupError(
            f"MODEL_ID={model_id}: this user's home folder is not known: write the whole path of the model's folder."
        ) from error
    except OSError as error:
        raise StartupError(
            f"MODEL_ID={model_id}: {error.filename or 'a file'} cannot be read: {error.strerror}. "
            "Repair it, or give the worker permission to read it."
        ) from error
    if model_id.startswith(("/", ".", "~")):
        raise StartupError(f"MODEL_ID={model_id}: there is no such folder.")
    snapshot = _download(model_id, revision)
    return Checkpoint(name, snapshot, snapshot.name)


def _download(model_id: str, revision: str | None) -> Path:
    """Download the configuration with weights or ONNX files: what the engines here run, or else what there is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        for patterns in (_WEIGHTS, _ONNX) if find_spec("torch") else (_ONNX, _WEIGHTS):
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    allow_patterns=["*.json", "README.md", *_TOKENIZER, *patterns],
                    ignore_patterns=["*/*.json", "*/*.safetensors", "*/README.md"],
                )
            )
            if any(list(folder.glob(pattern)) for pattern in patterns):
                break
        return folder
    except HFValidationError as error:
        raise StartupError(f"MODEL_ID={model_id}: this is neither a folder nor a hub ID.") from error
    except GatedRepoError as error:
        raise StartupError(f"MODEL_ID={model_id}: the hub requires a token for this model: set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise StartupError(f"MODEL_ID={model_id}: the hub has no such model; private ones need HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise StartupError(f"MODEL_REVISION={revision}: {model_id} has no such revision on the hub.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise StartupError(
            f"MODEL_ID={model_id}: the model hub cannot be reached, and the model is not in the local cache. "
            "Set MODEL_ID to a folder, or leave it unset for the bundled model."
        ) from error


def _is_web_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        host = (url.hostname or "").encode("idna").decode()
        is_port = url.port != 0
    except ValueError:
        return False
    is_host = re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", host) or ":" in host
    return bool(url.scheme in ("http", "https") and is_host and is_port and re.fullmatch(r"[^\s?#@]+", text))


def _is_onnx(folder: Path) -> bool:
    return (folder / _ONNX[0]).is_file()


def _digest(folder: Path) -> str:
    """Return a digest of the files that decide a model's answers, 16 hex digits; takes 0.4 s for 346 MB."""
    digest = hashlib.sha256()
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        weights = list(folder.glob("onnx/**/*"))
        if not _is_onnx(folder):  # then nothing else says what OpenVINO's files answer
            weights += [*folder.glob("openvino/*.xml"), *folder.glob("openvino/*.bin")]
    tokenizer = [path for name in _TOKENIZER if (path := folder / name).is_file()]
    for path in sorted([*folder.glob("*.json"), *tokenizer, *weights]):
        if path.is_dir():
            continue
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
