"""The parts of torch's engine that are meant for GPUs give the same answers on the CPU."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.load import open_inputs
from image_analysis_worker.engines.torch import TorchNetwork, load_model
from image_analysis_worker.settings import WorkerSettings
from support.engines import load


@pytest.fixture(autouse=True)
def forget_compiled_models() -> None:
    """Forget the graphs that other tests of this process made: a like model would use them."""
    torch.compiler.reset()
    counters.clear()


def make_network(compiler: str | None) -> TorchNetwork:
    checkpoint = find_checkpoint(str(BUNDLED_FOLDER))
    preparation = open_inputs(checkpoint, WorkerSettings()).decoders.preparation
    return TorchNetwork(load_model(checkpoint), preparation, "float32", compiler=compiler)


def make_batch(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(size).integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)


def test_compiled_model_gives_the_same_logits_and_is_not_compiled_again_for_other_batches() -> None:
    plain, compiled = make_network(None), make_network("eager")
    for size in (8, 1):  # as the warm-up does
        compiled.run(make_batch(size))
    graphs = counters["stats"]["unique_graphs"]

    for size in (1, 2, 5, 8):
        assert compiled.run(make_batch(size)) == pytest.approx(plain.run(make_batch(size)), abs=1e-4)

    assert graphs > 0
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.filterwarnings("ignore:`torch.jit")  # of torch's own code
def test_worker_compiles_if_it_is_asked_to() -> None:
    announced = load(BUNDLED_FOLDER, engine="torch", dtype="float32", torch_compile=True).warm_up()

    assert announced.backend == "torch"
    assert counters["stats"]["unique_graphs"] > 0


def test_float32_on_a_gpu_is_not_rounded() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    make_network(None)

    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
