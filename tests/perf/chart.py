"""Draws the chart of a run as SVG: a panel of horizontal bars for each group of comparable rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from perf.rows import BARE_LOOP, EMPTY_HANDLER, FORWARD_PASS, FULL_LOOP, Results

WIDTH_PX = 760
LABEL_PX = 130
VALUE_PX = 70
BAR_PX = 20
GAP_PX = 8
TITLE_PX = 34
MARGIN_PX = 24

OURS, OTHERS, LIMIT = "#1f6feb", "#b8bfc6", "#6e7781"
TEXT = "#1f2328"

LIMITS = (FORWARD_PASS, BARE_LOOP, FULL_LOOP, EMPTY_HANDLER)
RIVALS = ("SimpleWorker", "Worker", "FastAPI", "LitServe")


@dataclass(frozen=True)
class Panel:
    """Bars of one unit, each with its name."""

    title: str
    bars: Sequence[tuple[str, float]]

    @property
    def height_px(self) -> int:
        return TITLE_PX + len(self.bars) * (BAR_PX + GAP_PX) + MARGIN_PX


def draw_chart(results: Results) -> str:
    """Draw every panel that has rows, one below the other."""
    panels = find_panels(results)
    height_px = MARGIN_PX + sum(panel.height_px for panel in panels)
    box = f'width="{WIDTH_PX}" height="{height_px}"'
    font = f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}"'
    view = f'viewBox="0 0 {WIDTH_PX} {height_px}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} {view} {font}>', f'<rect {box} fill="#ffffff"/>']
    top_px = MARGIN_PX
    for panel in panels:
        lines += draw_panel(panel, top_px)
        top_px += panel.height_px
    return "\n".join([*lines, "</svg>", ""])


def find_panels(results: Results) -> list[Panel]:
    """Group the medians of the rows."""
    groups = list(dict.fromkeys((row.model, row.photos) for row in results.speeds))
    panels = [
        Panel(
            f"{model}, {photos} JPEGs: photos per second",
            [(row.contender, row.speed) for row in results.speeds if (row.model, row.photos) == (model, photos)],
        )
        for model, photos in groups
    ]
    costs = [(row.worker, row.cost_ms) for row in results.costs]
    rates = [(row.call, row.rate) for row in results.calls]
    waits = [(row.call, row.wait_ms) for row in results.calls]
    more = [
        Panel("Cost of a job without decoding and model: milliseconds, less is better", costs),
        Panel("One API process: peak calls per second", rates),
        Panel("One API process at half its peak: p99 in milliseconds, less is better", waits),
    ]
    return [*panels, *(panel for panel in more if panel.bars)]


def draw_panel(panel: Panel, top_px: int) -> list[str]:
    """Draw a title and its bars; the longest bar has the whole width."""
    longest = max(value for _, value in panel.bars)
    lines = [f'<text x="{MARGIN_PX}" y="{top_px + 14}" font-weight="600">{escape(panel.title)}</text>']
    for index, (name, value) in enumerate(panel.bars):
        y_px = top_px + TITLE_PX + index * (BAR_PX + GAP_PX)
        width_px = max(1.0, (WIDTH_PX - 2 * MARGIN_PX - LABEL_PX - VALUE_PX) * value / longest)
        left_px = MARGIN_PX + LABEL_PX
        color = LIMIT if name in LIMITS else OTHERS if name in RIVALS else OURS
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        lines += [
            f'<text x="{left_px - 8}" y="{y_px + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left_px}" y="{y_px}" width="{width_px:.1f}" height="{BAR_PX}" rx="2" fill="{color}"/>',
            f'<text x="{left_px + width_px + 6:.1f}" y="{y_px + 15}">{value:.{digits}f}</text>',
        ]
    return lines
