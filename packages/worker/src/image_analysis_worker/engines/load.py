"""Chooses the engine that a checkpoint runs on, and loads it. It imports an engine's library only to use it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import structlog

from image_analysis_common.models import EXACT, ZERO_SHOT, EngineReport
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decoder import Decoders
from image_analysis_worker.decoding.process import Recipe
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.cores import has_bfloat16, has_gpu
from image_analysis_worker.engines.engine import Engine, Network, in_one_line
from image_analysis_worker.engines.gate import Report, answer, compare, decode_all, judge, read_report
from image_analysis_worker.engines.images import cut_photos
from image_analysis_worker.engines.inputs import Inputs
from image_analysis_worker.engines.labels import Labels
from image_analysis_worker.settings import WorkerSettings

START_IMAGES = 40
"""On how many images an engine is compared when a worker starts without a report."""

BFLOAT16_IMAGES = 16
BFLOAT16_LIMIT_S = 60.0
"""On how many images bfloat16 on torch is compared, and for how long. With ViT-base on 2 cores they take 8 s. A larger
model that does not finish in time runs in float32."""

AUTO = "auto"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Choice:
    """An engine and a precision."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


class Networks:
    """The networks that a checkpoint can run on here."""

    def __init__(self, inputs: Inputs, *, is_converted: bool, compiler: str | None = None) -> None:
        """Look for files; `is_converted` says whether OpenVINO's were made from the model that is there."""
        self._inputs = inputs
        self._compiler = compiler
        checkpoint = inputs.checkpoint
        self._paths = {
            precision: checkpoint.find_network(precision, is_converted=is_converted) for precision in (EXACT, "int8")
        }
        self.choices: list[Choice] = []
        has_torch = checkpoint.has_weights and bool(find_spec("torch"))
        if has_torch:
            self.choices += [Choice("torch", EXACT), Choice("torch", "bfloat16")]
        if find_spec("openvino"):
            if self._paths[EXACT] or has_torch:
                self.choices.append(Choice("openvino", EXACT))
                if has_bfloat16():
                    self.choices.append(Choice("openvino", "bfloat16"))
            if self._paths["int8"]:
                self.choices.append(Choice("openvino", "int8"))

    @property
    def reference(self) -> Choice:
        """The exact engine that the others are compared with."""
        return self.choices[0]

    def make(self, choice: Choice) -> Network:
        """Load a network.

        Raises:
            StartupError: the checkpoint's files are not what they should be.
        """
        return in_one_line(self._inputs.checkpoint.name, lambda: self._make(choice))

    def _make(self, choice: Choice) -> Network:
        checkpoint, preparation = self._inputs.checkpoint, self._inputs.decoders.preparation
        if choice.engine == "torch":
            from image_analysis_worker.engines.torch import TorchNetwork, load_model

            return TorchNetwork(load_model(checkpoint), preparation, choice.precision, compiler=self._compiler)
        from image_analysis_worker.engines.openvino import OpenVinoNetwork

        if path := self._paths["int8" if choice.precision == "int8" else EXACT]:
            return OpenVinoNetwork(path, preparation, choice.precision)
        from image_analysis_worker.engines.convert import convert
        from image_analysis_worker.engines.torch import load_model

        return OpenVinoNetwork(
            convert(load_model(checkpoint), preparation, checkpoint.name), preparation, choice.precision
        )


def open_inputs(checkpoint: Checkpoint, settings: WorkerSettings) -> Inputs:
    """Read a checkpoint's labels and start its decoders.

    Raises:
        StartupError: it is no checkpoint of a kind that is served.
    """
    config = checkpoint.config
    is_zero_shot = checkpoint.task == ZERO_SHOT
    labels = Labels([], is_exclusive=True) if is_zero_shot else Labels.read(config, checkpoint.name)
    vision = config.get("vision_config")
    stated = (vision if isinstance(vision, dict) else config).get("image_size")
    recipe = Recipe(
        folder=str(checkpoint.folder.absolute()),
        model_sides_px=[side for side in (stated if isinstance(stated, list) else [stated]) if isinstance(side, int)],
        max_image_pixels=settings.max_image_pixels,
        timeout_s=settings.decode_timeout_seconds,
        allows_reduced=settings.reduced_decoding,
    )
    decoders = Decoders(recipe)
    decoders.start()
    return Inputs(checkpoint, labels, decoders)


def load_engine(checkpoint: Checkpoint, settings: WorkerSettings) -> Engine:
    """Load a checkpoint on the engine that `ENGINE` and `DTYPE` name, or else on the fastest that passes the gate.

    Raises:
        StartupError: it cannot be loaded, or no engine that may run here gives the reference's answers.
    """
    inputs = open_inputs(checkpoint, settings)
    report = read_report(checkpoint)
    networks = Networks(
        inputs,
        is_converted=report is not None or not checkpoint.has_source,
        compiler="inductor" if settings.torch_compile else None,
    )
    wanted = _find_wanted(networks, checkpoint, settings)
    if report is not None and (chosen := _choose(report, wanted, settings.min_agreement)):
        network, measured = networks.make(chosen), report.candidates
    else:
        network, measured = _load_unmeasured(networks, inputs, wanted, settings)
    return Engine(inputs, network, max_batch_size=settings.max_batch_size, measured=measured)


def _find_wanted(networks: Networks, checkpoint: Checkpoint, settings: WorkerSettings) -> list[Choice]:
    """List the engines that the settings allow.

    Raises:
        StartupError: there is none; the message says what is missing.
    """
    name = checkpoint.name
    if not networks.choices:
        has_files = checkpoint.has_weights or checkpoint.find_network(EXACT, is_converted=True)
        raise StartupError(
            f"{name} needs torch or openvino: install image-analysis-worker[torch] or image-analysis-worker[openvino]; "
            f"without torch, a checkpoint in safetensors must first be converted: just optimize {name}."
            if has_files
            else f"{name} is not an image-classification checkpoint: it has neither safetensors nor onnx/model.onnx."
        )
    # A report may come from a machine that multiplies bfloat16.
    fast = {EXACT, "int8", "bfloat16"} if has_bfloat16() or has_gpu() else {EXACT, "int8"}
    precisions = fast if settings.dtype == AUTO else {settings.dtype}
    wanted = [
        choice
        for choice in networks.choices
        if settings.engine in (AUTO, choice.engine) and choice.precision in precisions
    ]
    if not wanted:
        raise StartupError(
            f"{name} cannot run with ENGINE={settings.engine} and DTYPE={settings.dtype} here, "
            f"only with {', '.join(map(str, networks.choices))}. `just optimize {name} --int8` makes an int8 model."
        )
    # On a GPU, torch is the fastest; a report may come from a machine without one.
    on_gpu = [choice for choice in wanted if choice.engine == "torch"] if settings.engine == AUTO and has_gpu() else []
    return on_gpu or wanted


def _choose(report: Report, wanted: Sequence[Choice], min_agreement: float) -> Choice | None:
    """Choose the fastest that passes the gate; None if the report knows none of them.

    Raises:
        StartupError: it knows some, and none of them passes.
    """
    known = [found for choice in wanted if (found := report.find(choice.engine, choice.precision))]
    faults = {found.name: judge(found, min_agreement) for found in known}
    for found in sorted(known, key=lambda found: -found.images_per_s):
        if faults[found.name] is None:
            return Choice(found.engine, found.precision)
    if faults:
        raise StartupError(f"No engine passes the gate: {'; '.join(map(str, faults.values()))}.")
    return None


def _load_unmeasured(
    networks: Networks, inputs: Inputs, wanted: Sequence[Choice], settings: WorkerSettings
) -> tuple[Network, list[EngineReport]]:
    """Load an engine without a report: float32 on torch, or the wanted engine if it agrees with the reference now.

    Raises:
        StartupError: it does not.
    """
    chosen = wanted[0]
    if chosen == Choice("torch", EXACT) and settings.dtype == AUTO:
        return load_torch(networks, inputs, settings.min_agreement)
    network = networks.make(chosen)
    if chosen.engine == "torch" or chosen == networks.reference or settings.min_agreement == 0:
        return network, []
    images = decode_all(inputs, cut_photos(START_IMAGES, is_square=inputs.decoders.preparation.size is not None))
    exact = networks.make(networks.reference)
    reference = answer(exact, inputs, images, is_timed=False)
    measured = [compare(found, answer(found, inputs, images, is_timed=False), reference) for found in (exact, network)]
    if fault := judge(measured[-1], settings.min_agreement):
        raise StartupError(f"{inputs.checkpoint.name} does not pass the gate: {fault}.")
    log.info("engine_compared", images=len(images), **measured[-1].model_dump())
    return network, measured


def load_torch(
    networks: Networks, inputs: Inputs, min_agreement: float, *, limit_s: float = BFLOAT16_LIMIT_S
) -> tuple[Network, list[EngineReport]]:
    """Load torch: in bfloat16 if that is faster here and agrees with float32 within the limit, or else in float32."""
    from image_analysis_worker.engines.torch import prefers_bfloat16

    network, half = networks.make(Choice("torch", EXACT)), Choice("torch", "bfloat16")
    if not prefers_bfloat16(network):
        return network, []
    if min_agreement == 0:
        return networks.make(half), []
    until_s = time.monotonic() + limit_s
    images = decode_all(inputs, cut_photos(BFLOAT16_IMAGES))
    measured: list[EngineReport] = []
    try:
        reference = answer(network, inputs, images, is_timed=False, until_s=until_s)
        measured.append(compare(network, reference, reference))
        del network  # two large models in memory could be too much
        network = networks.make(half)
        measured.append(compare(network, answer(network, inputs, images, is_timed=False, until_s=until_s), reference))
        fault = judge(measured[-1], min_agreement)
    except TimeoutError:
        fault = f"comparing {half} with float32 takes longer than {limit_s:g} s"
    if fault is None:
        log.info("engine_compared", images=len(images), **measured[-1].model_dump())
        return network, measured
    log.warning("engine_refused", reason=fault)
    if network.precision != EXACT:
        del network
        network = networks.make(Choice("torch", EXACT))
    return network, measured
