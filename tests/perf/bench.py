"""Compares the service with alternatives, in one run with the same photos and weights; run by `just bench`.

Prints tables, and writes `bench.json` and `bench.svg`. Exits with 0 even if the aims are missed, because figures depend
on the machine, and on 2 shared cores they vary by up to a half between runs; with 1 if a part of ours does not work.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from perf.calls import measure_calls
from perf.chart import draw_chart
from perf.engines import measure_engines
from perf.gpu import find_gpu, measure_gpu
from perf.load import LoadError
from perf.machine import describe_machine
from perf.overhead import measure_overhead
from perf.programs import ProgramError, start_redis
from perf.report import make_tables, to_document
from perf.rows import Results, Turns
from perf.throughput import measure_throughput

PARTS = ("throughput", "engines", "overhead", "calls")
ROUNDS = 2

SLOW_PART_S, QUICK_PARTS_S = 140.0, 250.0
"""No round starts later than this after the start, so that the whole run takes about seven minutes."""

LINE_WIDTH = 120


def main() -> int:
    """Run the requested parts, print and write the results."""
    arguments = read_arguments()
    # SIGTERM works like Ctrl-C: every started program is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LINE_WIDTH)
    started_s = time.monotonic()
    try:
        with TemporaryDirectory(prefix="image-analysis-bench-", ignore_cleanup_errors=True) as folder:
            if arguments.gpu:
                return measure_on_gpu(Path(folder), arguments.rounds, console)
            results = measure(Path(folder), arguments.only or PARTS, arguments.rounds, console)
    except (ProgramError, LoadError) as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    machine = describe_machine() | {"rounds": arguments.rounds, "took_s": round(time.monotonic() - started_s)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "bench.json").write_text(json.dumps(to_document(results, machine), indent=2) + "\n")
    (arguments.output / "bench.svg").write_text(draw_chart(results))
    for table in make_tables(results):
        console.print(table)
    for name, reason in results.missing.items():
        console.print(f"{name} was not measured: {reason}", markup=False, soft_wrap=True)
    if results.foreign_cores:
        mean, most = sum(results.foreign_cores) / len(results.foreign_cores), max(results.foreign_cores)
        console.print(f"Other programs took {mean:.1f} cores of {machine['cores']} meanwhile, at times {most:.1f}.")
    console.print(f"After {machine['took_s']} s, bench.json and bench.svg are written.")
    return 0


def measure(folder: Path, parts: Sequence[str], rounds: int, console: Console) -> Results:
    """Run the parts one after another, each with separate processes.

    Raises:
        ProgramError, LoadError: a part of ours does not work.
    """

    def say(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)

    started_s = time.monotonic()
    slow, quick = Turns(rounds, started_s + SLOW_PART_S), Turns(rounds, started_s + QUICK_PARTS_S)
    redis, redis_url = start_redis(folder)
    results = Results()
    with redis:
        if "throughput" in parts:
            results = measure_throughput(redis_url, folder, slow, say)
        if "engines" in parts:
            found = measure_engines(redis_url, folder, quick, say, has_litserve="throughput" not in parts)
            speeds, missing = [*results.speeds, *found.speeds], {**results.missing, **found.missing}
            results = replace(results, speeds=speeds, missing=missing)
        if "overhead" in parts:
            results = replace(results, costs=measure_overhead(redis_url, folder, quick, say))
        if "calls" in parts:
            results = replace(results, calls=measure_calls(redis_url, folder, quick, say))
    return results


def measure_on_gpu(folder: Path, rounds: int, console: Console) -> int:
    """Print what the worker reaches on this machine's GPU.

    Raises:
        ProgramError, LoadError: there is no GPU, or a part of ours does not work.
    """
    console.print(find_gpu(), markup=False)
    redis, redis_url = start_redis(folder)
    with redis:
        turns = Turns(rounds, time.monotonic() + QUICK_PARTS_S)
        measure_gpu(redis_url, folder, turns, lambda line: console.print(line, markup=False, soft_wrap=True))
    return 0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the service with alternatives.")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for bench.json and bench.svg")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of every row; the median counts")
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part alone; can be given again")
    parser.add_argument("--gpu", action="store_true", help="measure our worker on a GPU only; writes no files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
