"""Writes the folder that `optimize` makes: the models for OpenVINO, the files that a worker reads, and the report.

A worker trusts the models next to a report. So the old report and models are removed before the new files come, and
the new report comes last. Without a report, a worker serves the exact model, or compares the other one first.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from image_analysis_common.models import EXACT
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.timm import is_timm
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.engine import find_reason
from image_analysis_worker.engines.gate import REPORT, Report
from image_analysis_worker.engines.inputs import Inputs

_OTHERS = ("*.safetensors", "onnx/*.onnx")
_COPIED = ("config.json", "preprocessor_config.json", "README.md")


@dataclass(frozen=True)
class Converted:
    """A model of OpenVINO."""

    model: Any
    is_half: bool
    """Whether its weights are stored in float16."""


def check_output(checkpoint: Checkpoint, folder: Path) -> None:
    """Check that a worker would serve in `folder` what is written there, and not the weights of another model.

    Raises:
        StartupError: it holds such weights.
    """
    if not folder.is_dir() or folder.samefile(checkpoint.folder):
        return
    if other := next((path for kind in _OTHERS for path in sorted(folder.glob(kind))), None):
        raise StartupError(
            f"{folder} holds a model of its own, {other.relative_to(folder)}: choose another folder with --output."
        )


def write_folder(inputs: Inputs, models: Mapping[str, Converted], folder: Path) -> None:
    """Replace what a folder serves by a checkpoint's models, by their precision; remove its report.

    Raises:
        StartupError: the folder cannot be written. If its disk is full, it still serves what it did.
    """
    with _staged(folder) as staged:
        _write_models(models, staged / REPORT.parent)
        is_in_place = inputs.checkpoint.folder.samefile(folder)
        copied = [] if is_in_place else [inputs.checkpoint.folder / name for name in _COPIED]
        for source in copied:
            if source.is_file():
                shutil.copy(source, staged)
        if is_timm(inputs.checkpoint.config):
            # Labels that only timm knows: the folder is served without timm.
            config = inputs.checkpoint.config | {"label_names": inputs.labels.names}
            (staged / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        networks = [f"{precision}.{kind}" for precision in (EXACT, "int8") for kind in ("xml", "bin")]
        earlier = [REPORT, *map(REPORT.with_name, networks), *(Path(source.name) for source in copied)]
        for path in earlier:
            (folder / path).unlink(missing_ok=True)


def write_report(report: Report, folder: Path) -> None:
    """Write the report next to the models that it is about.

    Raises:
        StartupError: it cannot be written.
    """
    with _staged(folder) as staged:
        (staged / REPORT.parent).mkdir()
        (staged / REPORT).write_text(report.model_dump_json(indent=2) + "\n")


def _write_models(models: Mapping[str, Converted], folder: Path) -> None:
    from image_analysis_worker.engines.openvino import openvino

    folder.mkdir()
    for precision, converted in models.items():
        openvino.save_model(converted.model, folder / f"{precision}.xml", compress_to_fp16=converted.is_half)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a temporary folder; move the files in it to their places in `folder` at the end, unless there is an error.

    Raises:
        StartupError: the folder cannot be written.
    """
    try:
        (folder / REPORT.parent).mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".new-", dir=folder) as name:
            staged = Path(name)
            yield staged
            # In order, a .bin comes before the .xml that needs it.
            for path in sorted(path for path in staged.rglob("*") if path.is_file()):
                path.replace(folder / path.relative_to(staged))
    except (OSError, RuntimeError) as error:
        # OpenVINO raises RuntimeError, also if the disk is full.
        raise StartupError(
            f"{folder} cannot be written: {find_reason(error)}. "
            "Check its disk and its permissions, or choose another folder with --output."
        ) from error
