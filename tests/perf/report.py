"""Makes the report from the rows: tables of the medians, and the ratios that the service aims at."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.table import Table

from perf.rows import BARE_LOOP, BUNDLED, EMPTY_HANDLER, FORWARD_PASS, REFUSED, VIT_BASE, Results

EARLIER_SPEED = 191.0
"""What a worker did with the bundled model on photos of 224 px, on 2 cores of an AMD EPYC, before it had engines."""


@dataclass(frozen=True)
class Aim:
    """A figure that the service aims at; None if a row for it is missing."""

    claim: str
    value: float | None
    is_reached: bool | None

    @classmethod
    def at_least(cls, claim: str, value: float | None, limit: float) -> "Aim":
        return cls(f"{claim} >= {limit:.4g}", value, None if value is None else value >= limit)

    @classmethod
    def at_most(cls, claim: str, value: float | None, limit: float) -> "Aim":
        return cls(f"{claim} <= {limit:.4g}", value, None if value is None else value <= limit)

    @property
    def verdict(self) -> str:
        return {True: "PASS", False: "FAIL", None: "SKIP"}[self.is_reached]


def find_aims(results: Results) -> list[Aim]:
    """Compare the rows with the service's aims. A ratio is computed in each round, in which both are near in time."""
    speeds = {(row.contender, row.photos): row.images_per_s for row in results.speeds if row.model == VIT_BASE}
    costs = {row.worker: row.job_ms for row in results.costs}
    peaks = {row.call: row.calls_per_s for row in results.calls}
    waits = {row.call: row.wait_ms for row in results.calls}
    aims = []
    for photos, share in (("224 px", 0.90), ("12 MP", 0.75)):
        for rival, factor in ((FORWARD_PASS, share), ("LitServe", 1.5), ("SimpleWorker", 2.0)):
            ratio = _ratio(speeds.get(("ours", photos)), speeds.get((rival, photos)))
            aims.append(Aim.at_least(f"{VIT_BASE}, {photos}: ours / {rival}", ratio, factor))
    aims += _find_engine_aims(results)
    noop = _ratio(costs.get("ours"), costs.get("SimpleWorker"))
    shares = [
        Aim.at_least(f"{call}'s peak / the empty handler's", _ratio(peaks.get(call), peaks.get(EMPTY_HANDLER)), share)
        for call, share in (("submit", 0.3), ("cache hit", 0.4), ("status", 0.5))
    ]
    return [
        *aims,
        Aim.at_most("no-op job: ours in ms", median(costs["ours"]) if "ours" in costs else None, 0.5),
        Aim.at_most("no-op job: ours / SimpleWorker", noop, 1 / 5),
        Aim.at_most("submit at half its peak: p99 in ms", waits.get("submit"), 50),
        *shares,
    ]


def _find_engine_aims(results: Results) -> list[Aim]:
    """Compare each engine with its bare loop, and the fastest that the gate lets through with others."""
    rows = {(row.model, row.photos, row.contender): row.images_per_s for row in results.speeds}
    aims = []
    for model, photos, contender in rows:
        if contender == BARE_LOOP:
            ratio = _ratio(rows.get((model, photos, "ours")), rows[model, photos, contender])
            share = 0.80 if photos == "12 MP" else 0.90
            aims.append(Aim.at_least(f"{model}, {photos}: ours / its {BARE_LOOP}", ratio, share))
    passing = [
        (rounds, model)
        for (model, photos, contender), rounds in rows.items()
        if (photos, contender) == ("224 px", "ours") and model.startswith(BUNDLED) and not model.endswith(REFUSED)
    ]
    fastest, name = max(passing, key=lambda found: median(found[0]), default=(None, BUNDLED))
    ratio = _ratio(fastest, rows.get((BUNDLED, "224 px", "LitServe")))
    earlier = median(fastest) / EARLIER_SPEED if fastest else None
    half = rows.get((f"{VIT_BASE}, torch bfloat16", "224 px", "ours"))
    int8 = rows.get((f"{VIT_BASE}, openvino int8", "224 px", "ours"))
    return [
        *aims,
        Aim.at_least(f"{name}, 224 px: ours / LitServe", ratio, 2.0),
        Aim.at_least(f"{name}, 224 px: ours / {EARLIER_SPEED:.0f} photos/s", earlier, 2.5),
        Aim.at_least(f"{VIT_BASE}, 224 px: openvino int8 / torch bfloat16", _ratio(int8, half), 1.35),
    ]


def make_tables(results: Results) -> list[Table]:
    """Make tables of the medians, each with the range of the rounds."""
    tables = []
    if results.speeds:
        table = _table("Photos per second", "checkpoint", "photos", "contender", "photos/s", "rounds")
        for row in results.speeds:
            table.add_row(row.model, row.photos, row.contender, *_figures(row.images_per_s))
        tables.append(table)
    if results.costs:
        table = _table("Cost of a job without a model", "worker", "ms/job", "rounds")
        for cost in results.costs:
            table.add_row(cost.worker, *_figures(cost.job_ms))
        tables.append(table)
    if results.calls:
        columns = (part for name in ("peak/s", "CPU ms", "p50 ms", "p99 ms") for part in (name, "rounds"))
        table = _table("One API process, 200 connections", "call", *columns)
        for call in results.calls:
            figures = (call.calls_per_s, call.cpu_ms, call.p50_ms, call.p99_ms)
            table.add_row(call.call, *(text for rounds in figures for text in _figures(rounds)))
        table.caption = "CPU: the server's own, for a call. p50 and p99: at half the peak, from when a call was due."
        tables.append(table)
    return [*tables, _settings_table(results), _aims_table(results)]


def _settings_table(results: Results) -> Table:
    """Make a table of what each row ran."""
    models: dict[tuple[str, str], dict[str, None]] = {}
    for speed in results.speeds:
        models.setdefault((speed.contender, speed.setting), {})[speed.model] = None
    table = _table("What ran", "row", "on", "setting")
    for (contender, setting), names in models.items():
        table.add_row(contender, ", ".join(names), setting)
    for cost in results.costs:
        table.add_row(cost.worker, "no model", cost.setting)
    for call in results.calls:
        table.add_row(call.call, "", call.setting)
    return table


def _aims_table(results: Results) -> Table:
    table = _table("Aims", "", "figure", "aim")
    for aim in find_aims(results):
        color = {"PASS": "green", "FAIL": "red", "SKIP": "yellow"}[aim.verdict]
        table.add_row(f"[{color}]{aim.verdict}[/]", "-" if aim.value is None else f"{aim.value:.2f}", aim.claim)
    return table


def to_document(results: Results, machine: Mapping[str, object]) -> dict[str, object]:
    """Put everything into one JSON document: the machine, every figure of every round, the verdicts."""
    return {
        "machine": dict(machine),
        "speeds": [asdict(row) for row in results.speeds],
        "costs": [asdict(row) for row in results.costs],
        "calls": [asdict(row) for row in results.calls],
        "missing": sorted(results.missing),
        "foreign_cores": list(results.foreign_cores),
        "aims": [asdict(aim) | {"verdict": aim.verdict} for aim in find_aims(results)],
    }


def _ratio(parts: Sequence[float] | None, wholes: Sequence[float] | None) -> float | None:
    """Return the median of the rounds' ratios; None if a row is missing."""
    if not parts or not wholes:
        return None
    return median(part / whole for part, whole in zip(parts, wholes, strict=False))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in columns:
        is_number = column in {"photos/s", "ms/job", "peak/s", "CPU ms", "p50 ms", "p99 ms", "rounds", "figure"}
        table.add_column(column, justify="right" if is_number else "left", no_wrap=column not in {"on", "setting"})
    return table


def _figures(rounds: Sequence[float]) -> tuple[str, str]:
    """Write the median, and the lowest and the highest of the rounds."""
    middle = median(rounds)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f}", f"{min(rounds):.{digits}f}-{max(rounds):.{digits}f}"
