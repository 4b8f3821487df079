"""Draws what ``simulate.py sweep``, ``sessions`` and ``week`` saved, with the formulas beside it, as an SVG.

python benchmarks/simulation_figure.py docs/simulation.jsonl docs/simulation.svg
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

from p2plearn.planning import durability
from p2plearn.planning.durability import DAY

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 380, 300, 62, 44, 12, 46
BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#c25a00", "#2b7a3d", "#777777"
WINDOW = 12 * 3600.0 + 30.0 + 192.0
"""Grace, settling and the transfer of 64 MiB, in the runs that are drawn."""

MIB = 1024 * 1024

Point = tuple[float, float]


class Panel:
    """One diagram with logarithmic axes, or a linear one upwards."""

    def __init__(
        self, number: int, title: str, across: tuple[str, float, float], up: tuple[str, float, float], *, log: bool
    ):
        self.x, self.log = number * (WIDTH + 20), log
        self.low_x, self.high_x, self.low_y, self.high_y = across[1], across[2], up[1], up[2]
        self.parts: list[str] = []
        self._text(LEFT, 20, title, anchor="start", weight="bold")
        self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across[0])
        self._text(LEFT, 36, up[0], anchor="start", colour=GREY)

    def _text(
        self, x: float, y: float, words: str, *, anchor: str = "middle", colour: str = "#222222", weight: str = "normal"
    ) -> None:
        self.parts.append(
            f'<text x="{self.x + x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}">{escape(words)}</text>'
        )

    def place(self, point: Point) -> Point:
        """Where a point lies on the paper."""
        share_x = math.log(point[0] / self.low_x) / math.log(self.high_x / self.low_x)
        if self.log:
            share_y = math.log(max(point[1], self.low_y) / self.low_y) / math.log(self.high_y / self.low_y)
        else:
            share_y = (point[1] - self.low_y) / (self.high_y - self.low_y)
        return self.x + LEFT + share_x * (WIDTH - LEFT - RIGHT), TOP + (1 - share_y) * (HEIGHT - TOP - BOTTOM)

    def ticks(self, across: dict[float, str], up: dict[float, str]) -> None:
        """Lines and words of both axes."""
        for value, words in across.items():
            x, _ = self.place((value, self.high_y))
            self._line((x, TOP), (x, HEIGHT - BOTTOM), "#e4e4e4")
            self._text(x - self.x, HEIGHT - BOTTOM + 15, words)
        for value, words in up.items():
            _, y = self.place((self.low_x, value))
            self._line((self.x + LEFT, y), (self.x + WIDTH - RIGHT, y), "#e4e4e4")
            self._text(LEFT - 5, y + 4, words, anchor="end")

    def _line(self, one: Point, other: Point, colour: str) -> None:
        self.parts.append(
            f'<line x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}" stroke="{colour}"/>'
        )

    def curve(self, formula: Callable[[float], float], colour: str, dashes: str = "") -> None:
        """A formula over the whole width."""
        span = self.high_x / self.low_x
        points = [(x, formula(x)) for x in (self.low_x * span ** (step / 80) for step in range(81))]
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
        self.parts.append(
            f'<polyline points="{placed}" fill="none" stroke="{colour}" stroke-dasharray="{dashes}" '
            'stroke-width="1.5"/>'
        )

    def dots(self, points: Iterable[Point], colour: str, *, hollow: bool = False) -> None:
        """What was played."""
        for x, y in map(self.place, points):
            fill = "white" if hollow else colour
            self.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
            )

    def diamonds(self, points: Iterable[Point], colour: str) -> None:
        """The same, of a network of another size."""
        for x, y in map(self.place, points):
            corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
            self.parts.append(f'<polygon points="{corners}" fill="{colour}"/>')

    def legend(self, at: Point, lines: Iterable[tuple[str, str]]) -> None:
        """Words in the colours of what they name."""
        for number, (words, colour) in enumerate(lines):
            self._text(at[0], at[1] + 14 * number, words, anchor="start", colour=colour)


def lost_share(facts: dict[str, Any]) -> Point:
    """Share of courses lost; where none was, the point lies on the floor of the diagram."""
    return facts["crash_rate"], facts["lost"] / facts["courses"]


def draw(runs: list[dict[str, Any]]) -> str:
    """The three diagrams."""
    sweep = [run for run in runs if "session_hours" not in run]
    steady = [run for run in sweep if not run["laptops"]]
    large = [run for run in sweep if run.get("large")]
    laptops = [run for run in sweep if run["laptops"] and run not in large]
    rates = {0.01: "1 %", 0.02: "2 %", 0.05: "5 %", 0.1: "10 %", 0.2: "20 %", 0.4: "40 %", 0.8: "80 %"}

    loss = Panel(
        0,
        "Lost within a week, 3 copies",
        ("nodes that go for good a day, without a word", 0.008, 1.0),
        ("share of courses", 1e-6, 1.0),
        log=True,
    )
    loss.ticks(rates, {10.0**-power: f"1e-{power}" if power else "1" for power in range(7)})
    loss.curve(lambda rate: durability.loss(3, rate / DAY, WINDOW, 7 * DAY), BLUE)
    loss.curve(lambda rate: durability.loss(5, rate / DAY, WINDOW, 7 * DAY), GREY, "4 3")
    loss.dots((lost_share(run) for run in steady if run["lost"]), BLUE)
    loss.dots((lost_share(run) for run in laptops if run["lost"]), ORANGE, hollow=True)
    loss.diamonds((lost_share(run) for run in large if run["lost"]), ORANGE)
    loss.legend(
        (LEFT + 8, TOP + 14),
        (
            ("line: formula (p2plearn plan)", BLUE),
            ("dots: played, always on", BLUE),
            ("rings: half of them laptops", ORANGE),
            *((f"diamond: {run['nodes']:,} nodes, half laptops", ORANGE) for run in large),
            ("dashed: 5 copies, formula", GREY),
        ),
    )

    moved = Panel(
        1,
        "Bytes a node and day",
        ("nodes that go for good a day, without a word", 0.008, 1.0),
        ("MiB sent", 1.0, 1000.0),
        log=True,
    )
    moved.ticks(rates, {1: "1", 10: "10", 100: "100", 1000: "1000"})
    kept = steady[0]["kept_bytes_node"] / MIB
    moved.curve(lambda rate: rate * kept, BLUE)
    moved.curve(lambda rate: 1.44 * rate * kept, GREY, "4 3")
    moved.dots(((run["crash_rate"], run["repair_bytes_node_day"] / MIB) for run in steady), BLUE)
    moved.dots(((run["crash_rate"], run["repair_bytes_node_day"] / MIB) for run in laptops), ORANGE, hollow=True)
    moved.diamonds(((run["crash_rate"], run["repair_bytes_node_day"] / MIB) for run in large), ORANGE)
    moved.dots(((run["crash_rate"], run["beat_bytes_node_day"] / MIB) for run in steady), GREEN)
    moved.legend(
        (LEFT + 8, TOP + 14),
        (
            ("line: what goes is copied once", BLUE),
            ("dots: repair, always on", BLUE),
            ("rings: repair, half laptops" + "; diamond: as left" * bool(large), ORANGE),
            ("green: heartbeats", GREEN),
            ("dashed: 44 % more (Carbonite, a year)", GREY),
        ),
    )

    online = [run for run in runs if "session_hours" in run]
    hops = Panel(
        2,
        "Lookups among nodes that come and go",
        ("mean hours on, and off", 0.2, 10.0),
        ("hops (dots) and median seconds (rings) of a lookup", 0.0, 12.0),
        log=False,
    )
    hops.ticks(
        {0.25: "15 min", 0.5: "30 min", 1: "1 h", 2.9: "2.9 h", 8: "8 h"},
        {float(value): str(value) for value in range(0, 13, 2)},
    )
    hops.dots(((run["session_hours"], run["hops"]) for run in online), BLUE)
    hops.dots(((run["session_hours"], run["lookup_p50"]) for run in online), ORANGE, hollow=True)
    if online:
        bits = math.log2(online[0]["nodes"])
        hops.curve(lambda _: bits, GREY, "4 3")
        hops.legend(
            (LEFT + 60, TOP + 14),
            (
                (f"dashed: log2 of {online[0]['nodes']} nodes (Kademlia's bound)", GREY),
                ("2.9 h: half gone after 2 h, as in IPFS", GREY),
            ),
        )

    parts = [part for panel in (loss, moved, hops) for part in panel.parts]
    total = 3 * WIDTH + 40
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{HEIGHT}" '
        f'viewBox="0 0 {total} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{total}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>\n",
    ])  # fmt: skip


def main() -> None:
    """See the head of this file."""
    *sources, target = map(Path, sys.argv[1:])
    runs = [json.loads(line) for source in sources for line in source.read_text().splitlines() if line.strip()]
    target.write_text(draw(runs))


if __name__ == "__main__":
    main()
