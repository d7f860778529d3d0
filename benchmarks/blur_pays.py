"""Where the blur model pays: one solver with N = 1 and with more sub-frames, over exposures of growing length.

    PYTHONPATH=. python benchmarks/blur_pays.py SET [--repeats 4] [--out docs/blur_pays.png] [--cache DIR]
                                                [--set NAME=VALUE ...]

SET is made by benchmarks/make_exposures.sh (or any folders with gt.npz). Only the fit differs between columns: the
initialiser's measurements are made once and shared. Judged by velocity in the picture (`evaluation.image_motion`, 14
joints, px/s; in brackets as a share of the true image speed, so 100 % is no motion at all), live (the settings' own
window, no later exposures) and with two exposures of hindsight (the defaults of `blur-motion fit`). Change: N = 4
against N = 1, negative where the blur model pays; +- is the standard error over sequences, "in depth" the same for
root-relative velocity in 3-D (`metrics`).

Where a fit has several minima, which one it ends in is chance: measurements moved by a thousandth of a millimetre
change the result of a sequence by several per cent. So every fit is repeated from such measurements, and errors are
means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measurements import Measurements, fitted, measurements

from blur_motion_ros import config, threads
from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.benchmark import BLUR_EDGES
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
from blur_motion_ros.evaluation.image_motion import image_motion, ratio
from blur_motion_ros.fit_command import sample_exposure

SHARP, BLURRED = 1, 4  # sub-frames per exposure that are compared; more are only listed


@dataclass(frozen=True)
class Row:
    """One sequence, one variant; per exposure [F]: error and true speed px/s, error of root-relative velocity m/s."""

    sequence: str
    exposure_ms: float
    blur_rate: np.ndarray
    subframes: int
    size: int
    hindsight: int
    error: np.ndarray
    speed: np.ndarray
    error_3d: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="SET")
    parser.add_argument("--subframes", nargs="+", type=int, default=[SHARP, BLURRED, 8], metavar="N")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 96], metavar="PX", help="finest levels")
    parser.add_argument("--repeats", type=int, default=1, help="fits of a sequence, from measurements moved by 1e-6 m")
    parser.add_argument("--out", metavar="PNG", help="figure: change against exposure length and blur rate")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the initialiser's measurements here")
    config.add_arguments(parser)
    args = parser.parse_args()
    if not {SHARP, BLURRED} <= set(args.subframes):
        parser.error(f"--subframes must hold {SHARP} and {BLURRED}, which are compared")
    threads.limit()
    rows = []
    for folder in evaluated_folders(args.data):
        for hindsight in (0, config.HINDSIGHT):
            settings = config.from_arguments(args, offline=hindsight > 0)
            measured = measurements(folder, settings, hindsight, args.cache)
            for size in args.sizes:
                for count in args.subframes:
                    fit = replace(settings.fit, subframes=count, size=size)
                    changed = replace(settings, fit=fit)
                    rows.append(averaged([judged(folder, nudged(measured, k), changed, hindsight)
                                          for k in range(args.repeats)]))
    by_length = sorted({round(r.exposure_ms) for r in rows})
    print(table(rows, args.subframes, "exposure", [f"{ms} ms" for ms in by_length],
                [lambda r, ms=ms: np.full(len(r.error), round(r.exposure_ms) == ms) for ms in by_length]))
    bins = list(zip(BLUR_EDGES[:-1], BLUR_EDGES[1:], strict=True))
    print("\n" + table(rows, args.subframes, "blur rate", [f"{a:g}-{b:g}" for a, b in bins],
                       [lambda r, a=a, b=b: within(r.blur_rate, a, b) for a, b in bins]))
    if args.out:
        figure(rows, by_length, bins).savefig(args.out, dpi=110, bbox_inches="tight")


def judged(folder: Path, measured, settings: config.Settings, hindsight: int) -> Row:
    """Fit one sequence one way."""
    truth = read_ground_truth(folder)
    estimates, pipeline = fitted(folder, settings, measured, hindsight)
    tracks = [sample_exposure(pipeline, e, truth.times.shape[1]) for e in estimates]
    joints = metrics.resample(np.stack([t.times for t in tracks]), lsp14(np.stack([t.positions for t in tracks])),
                              truth.times)
    found = image_motion(joints, truth.joints, truth.times, truth.K)
    length = 1e3 * float(np.median(np.diff(truth.exposure, axis=1)))
    return Row(folder.name, length, truth.blur_rate, settings.fit.subframes, settings.fit.size, hindsight, found.error,
               found.speed, metrics.per_exposure(joints, truth.joints, truth.times)["vel"])


def nudged(measured: Measurements, repeat: int) -> Measurements:
    """The measurements, each moved by some 1e-6 m; as they are for the first repeat."""
    if repeat == 0:
        return measured
    rng = np.random.default_rng(repeat)
    return [None if m is None else
            replace(m, state=replace(m.state, transl=m.state.transl + 1e-6 * rng.normal(size=3))) for m in measured]


def averaged(rows: list[Row]) -> Row:
    """One row with the mean errors of several fits of one sequence."""
    return replace(rows[0], **{name: np.mean([getattr(r, name) for r in rows], 0) for name in ("error", "error_3d")})


def within(rate: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which exposures lie in a blur-rate bin (the last bin holds its upper edge)."""
    return (rate >= low) & ((rate < high) | (high == BLUR_EDGES[-1]))


@dataclass(frozen=True)
class Change:
    """Relative change of the error from N = 1 to N = 4.  error: standard error over sequences (NaN for one);
    each: [n] of every sequence; exposures: how many were compared."""

    mean: float
    error: float
    each: np.ndarray
    exposures: int


def change(rows: list[Row], size: int, hindsight: int, chosen: Callable[[Row], np.ndarray], value: str = "error"
           ) -> Change:
    """Over the exposures that `chosen` picks of every sequence: summed errors are compared, so that fast exposures
    count more; the standard error is that of the mean over sequences."""
    pairs = []
    for name in dict.fromkeys(r.sequence for r in rows):
        two = [next(r for r in rows if (r.sequence, r.size, r.hindsight, r.subframes) == (name, size, hindsight, n))
               for n in (SHARP, BLURRED)]
        sharp, blurred = (getattr(r, value)[chosen(r)] for r in two)
        known = np.isfinite(sharp) & np.isfinite(blurred)
        if known.any():
            pairs.append((sharp[known].sum(), blurred[known].sum(), known.sum()))
    if not pairs:
        return Change(np.nan, np.nan, np.zeros(0), 0)
    sharp, blurred, count = np.array(pairs).T
    each = blurred / sharp - 1
    spread = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
    return Change(float(blurred.sum() / sharp.sum() - 1), float(spread), each, int(count.sum()))


def table(rows: list[Row], counts: list[int], about: str, names: list[str], picks: list) -> str:
    """Markdown: one row per group of exposures, level and kind of hindsight."""
    header = [about, "exposures", "level", "mode", *(f"N = {n}: px/s (share)" for n in counts), "change", "in depth"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, chosen in zip(names, picks, strict=True):
        for size in sorted({r.size for r in rows}):
            for hindsight in sorted({r.hindsight for r in rows}):
                plane = change(rows, size, hindsight, chosen)
                deep = change(rows, size, hindsight, chosen, "error_3d")
                if not plane.exposures:
                    continue
                cells = [cell(rows, n, size, hindsight, chosen) for n in counts]
                mode = f"{hindsight} exposures of hindsight" if hindsight else "live"
                lines.append(f"| {name} | {plane.exposures} | {size} | {mode} | " + " | ".join(cells)
                             + f" | {percent(plane)} | {percent(deep)} |")
    return "\n".join(lines)


def cell(rows: list[Row], count: int, size: int, hindsight: int, chosen: Callable[[Row], np.ndarray]) -> str:
    """Mean error over exposures, px/s, and its share of the true speed."""
    mine = [r for r in rows if (r.subframes, r.size, r.hindsight) == (count, size, hindsight)]
    error, speed = (np.concatenate([getattr(r, v)[chosen(r)] for r in mine]) for v in ("error", "speed"))
    return f"{metrics.finite_mean(error):.0f} ({100 * ratio(error, speed):.0f} %)"


def percent(c: Change) -> str:
    return f"{100 * c.mean:+.1f} %" + (f" +- {100 * c.error:.1f}" if np.isfinite(c.error) else "")


def figure(rows: list[Row], lengths: list[int], bins: list[tuple[float, float]]):
    """Change of the image velocity's error against exposure length and blur rate; green: the blur model pays."""
    from blur_motion_ros.evaluation.figures import make_axes

    drawn, (left, right) = make_axes(1, 2, (11, 4.2))
    styles = [(s, h) for s in sorted({r.size for r in rows}) for h in sorted({r.hindsight for r in rows})]
    for i, (size, hindsight) in enumerate(styles):
        label = f"{size} px, {'with hindsight' if hindsight else 'live'}"
        line = {"color": f"C{i // 2}", "ls": "-" if hindsight else "--", "marker": "os"[hindsight == 0]}
        of_lengths = [change(rows, size, hindsight, lambda r, ms=ms: np.full(len(r.error), round(r.exposure_ms) == ms))
                      for ms in lengths]
        of_bins = [change(rows, size, hindsight, lambda r, a=a, b=b: within(r.blur_rate, a, b)) for a, b in bins]
        for ax, x, found in ((left, lengths, of_lengths), (right, [0.5 * (a + b) for a, b in bins], of_bins)):
            ax.plot(x, [100 * c.mean for c in found], label=label, **line)
            for at, c in zip(x, found, strict=True):
                ax.plot(np.full(len(c.each), at), 100 * c.each, ".", color=line["color"], ms=3, alpha=0.4)
    for ax, what in ((left, "exposure (ms)"), (right, "blur rate of the exposure")):
        low, high = ax.get_ylim()
        ax.axhspan(min(low, -1), 0, color="green", alpha=0.07, lw=0)
        ax.axhline(0, color="k", lw=0.7)
        ax.set_ylim(min(low, -1), max(high, 1))
        ax.set_xlabel(what)
        ax.grid(alpha=0.3)
    left.set_ylabel("image velocity error, N = 4 against N = 1 (%)")
    left.set_title("points: single sequences; green: the blur model pays", fontsize=9)
    right.legend(fontsize=8)
    return drawn


if __name__ == "__main__":
    main()
