"""How the cost of a window grows: python benchmarks/cost.py SEQUENCE [--out docs/cost.png] [--set NAME=VALUE ...]

Processor ms of one window (median over a pass, one thread) against sub-frames N, exposures per window and side of the
finest level, each with a straight-line fit: cost = a + b x. The residual (root mean square over the mean)
says how well; `growth` is the slope of the upper half of the range over that of the whole: 1 when linear, 1.5 or so for
a square, less than 1 when cost flattens. At most linear: growth up to 1.2.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fit import cost
from measurements import measurements

from blur_motion_ros import config, threads

SWEEPS = (("sub-frames N", "fit.subframes", (1, 2, 4, 8, 12, 16)),
          ("exposures per window", "fit.frames", (2, 3, 4, 5)),
          ("side of the finest level (px)", "fit.size", (32, 48, 64, 96, 128)))
WITHOUT_CARRY = "fit.frames=1"  # a window of one exposure starts cold every time: it is listed, not in the fit
TOLERANCE = 1.2


@dataclass(frozen=True)
class Line:
    """Least squares a + b x.  residual: root mean square over the mean cost.
    growth: slope of the upper half of the range over b."""

    a: float
    b: float
    residual: float
    growth: float

    @property
    def at_most_linear(self) -> bool:
        """The upper half of the range is no steeper than the whole, but for noise."""
        return self.growth <= TOLERANCE


def straight_line(x: np.ndarray, y: np.ndarray) -> Line:
    """Fit of y [n] over x [n], increasing, n >= 4."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    b, a = np.polyfit(x, y, 1)
    residual = float(np.sqrt(np.mean((a + b * x - y) ** 2)) / y.mean())
    upper = max(3, -(-len(x) // 2))
    return Line(float(a), float(b), residual, float(np.polyfit(x[-upper:], y[-upper:], 1)[0] / b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", metavar="SEQUENCE", type=Path)
    parser.add_argument("--out", metavar="PNG")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the sequence; the first is not counted")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the initialiser's measurements here")
    config.add_arguments(parser)
    args = parser.parse_args()
    threads.limit()
    live = measurements(args.sequence, config.from_arguments(args), 0, args.cache)

    def measured(change: str) -> float:
        return cost(args.sequence, live, " ".join([*args.assignments, change]), args.rounds)[0][0]

    print("| against | value: CPU ms per window (median) | straight line | residual | growth | at most linear |\n"
          + "|---|---|---|---|---|---|")
    found = []
    for what, name, values in SWEEPS:
        ms = [measured(f"{name}={v}") for v in values]
        line = straight_line(values, ms)
        found.append((what, values, ms, line))
        print(row(what, values, ms, line), flush=True)
        if name == "fit.size":
            area = [(v / 64) ** 2 for v in values]
            print(row("area of the finest level (64 px = 1)", area, ms, straight_line(area, ms)), flush=True)
    print(f"\nA window of one exposure, cold every time: {measured(WITHOUT_CARRY):.1f} ms.")
    if args.out:
        figure(found).savefig(args.out, dpi=110, bbox_inches="tight")


def row(what: str, values, ms, line: Line) -> str:
    points = ", ".join(f"{v:g}: {m:.1f}" for v, m in zip(values, ms, strict=True))
    return (f"| {what} | {points} | {line.a:.1f} + {line.b:.2f} x | {100 * line.residual:.0f} % | {line.growth:.2f} | "
            f"{'yes' if line.at_most_linear else 'no'} |")


def figure(found: list):
    """One panel per sweep: measured points and the straight line."""
    from blur_motion_ros.evaluation.figures import make_axes

    drawn, axes = make_axes(1, len(found), (4.0 * len(found), 3.4))
    for ax, (what, values, ms, line) in zip(axes, found, strict=True):
        x = np.array([0, max(values)])
        ax.plot(values, ms, "o", color="C0")
        ax.plot(x, line.a + line.b * x, "-", color="C1", lw=1, label=f"{line.a:.0f} + {line.b:.2g} x")
        ax.set_xlim(0)
        ax.set_ylim(0)
        ax.set_xlabel(what)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("CPU ms per window")
    drawn.tight_layout()
    return drawn


if __name__ == "__main__":
    main()
