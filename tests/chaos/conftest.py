"""Chaos tests: every process real, and killed, stopped, paused or misled; each scenario on a Redis of its own.

`CHAOS_KILLS` (60), `CHAOS_JOBS` (10,000) and `CHAOS_OUTAGE_SECONDS` (30) make a shorter form; `CHAOS_SEED` repeats a
run's dice; `CHAOS_REPORT` names a file for the recovery times.
"""

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext

import pytest

from chaos.stage import Stage
from support.reaper import Reaper

OpenStage = Callable[[str], Stage]
PRELOADED = [
    "image_analysis_worker.__main__",
    "transformers.models.vit.modeling_vit",
    "transformers.models.vit.image_processing_pil_vit",
    "huggingface_hub.repocard",
    "chaos.misbehaving",
]
SUMMARY = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def context() -> ForkServerContext:
    """A server that imports torch once and forks workers from there, where no thread of torch's has begun."""
    # A dozen workers on two cores: threads that spin while they wait for one another would leave nothing for the rest.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(scope="session")
def reaper(context: ForkServerContext) -> Iterator[Reaper]:
    reaper = Reaper(context)
    yield reaper
    reaper.close()


@pytest.fixture(scope="session")
def open_stage(context: ForkServerContext, reaper: Reaper, tmp_path_factory: pytest.TempPathFactory) -> OpenStage:
    """Make a scenario's own world; nothing runs until it is entered."""
    tmp_path_factory.getbasetemp()  # pytest makes it with the first folder, and two threads would make two
    return lambda name: Stage(context, reaper, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def kills() -> int:
    return int(os.environ.get("CHAOS_KILLS") or 60)


@pytest.fixture(scope="session")
def outage_s() -> float:
    return float(os.environ.get("CHAOS_OUTAGE_SECONDS") or 30)


@pytest.fixture(scope="session")
def seed(say: Callable[[str], None]) -> int:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
    say(f"CHAOS_SEED={seed} repeats the dice of this run")
    return seed


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Keep a line for the end of the run, where it is seen whether the tests pass or not."""
    return pytestconfig.stash.setdefault(SUMMARY, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(SUMMARY, []):
        terminalreporter.section("chaos")
        terminalreporter.write("\n".join(lines) + "\n")
