"""Chaos tests: every process is real, and is killed, stopped or paused; each scenario has a separate Redis.

Smaller values of `CHAOS_KILLS` (60), `CHAOS_JOBS` (10,000) and `CHAOS_OUTAGE_SECONDS` (30) make it shorter.
`CHAOS_SEED` repeats a run's random choices; `CHAOS_REPORT` names a file for the recovery times.
"""

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest

from chaos.scenario import Scenario
from support.reaper import Reaper

OpenScenario = Callable[[str], Scenario]
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
    """A server that imports torch once and forks workers before torch has started a thread."""
    # For a dozen workers on two cores: threads that spin while they wait would use up the cores.
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
def open_scenario(context: ForkServerContext, reaper: Reaper, tmp_path_factory: pytest.TempPathFactory) -> OpenScenario:
    """Make a scenario's `Scenario`; nothing runs before it is entered."""
    tmp_path_factory.getbasetemp()  # pytest makes it with the first folder, and two threads would make two
    return lambda name: Scenario(context, reaper, tmp_path_factory.mktemp(name))


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
    """Store a line that is printed at the end of the run, whether the tests pass or not."""
    lines = pytestconfig.stash.setdefault(SUMMARY, [])
    if hasattr(pytestconfig, "workeroutput"):
        pytestconfig.workeroutput["chaos"] = lines
    return lines.append


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the lines of one of the processes that run the tests."""
    node.config.stash.setdefault(SUMMARY, []).extend(node.workeroutput.get("chaos", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(SUMMARY, []):
        terminalreporter.section("chaos")
        terminalreporter.write("\n".join(lines) + "\n")
