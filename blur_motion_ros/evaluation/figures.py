"""Figures of a benchmark (PNG): error against blur rate and along the exposure, speeds, calibration, sheets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from blur_motion_ros.body.joints import LSP14_BONES
from blur_motion_ros.data.sequence import frame_paths, read_image, write_image
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.benchmark import BLUR_EDGES, Benchmark
from blur_motion_ros.evaluation.ground_truth import read_ground_truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_figures(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Write every figure; returns their paths. Needs matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"error_by_blur_rate": error_by_blur_rate(benchmark), "error_along_exposure": along_exposure(benchmark),
             "speeds": speeds(benchmark), "calibration": reliability(benchmark)}
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=110, bbox_inches="tight")
    for sequence in benchmark.sequences:
        paths.append(folder / f"sheet_{sequence}.png")
        write_image(paths[-1], sheet(benchmark, sequence))
    return paths


def error_by_blur_rate(benchmark: Benchmark) -> Figure:
    """Position and velocity error over blur rate, one line per method; the dashed line predicts no motion."""
    figure, axes = make_axes(1, 2, (12, 4.2))
    middles = 0.5 * (np.array(BLUR_EDGES[1:]) + np.array(BLUR_EDGES[:-1]))
    for ax, metric in zip(axes, ("mpjpe", "vel"), strict=True):
        for i, method in enumerate(benchmark.methods):
            value, count = benchmark.binned(method, metric)
            ax.plot(middles[count > 0], value[count > 0], _marker(i), color=_colour(i), label=method)
        ax.set_xlabel("blur rate")
        ax.set_ylabel(f"{metric} ({metrics.UNITS[metric]})")
        ax.grid(alpha=0.3)
    still, count = benchmark.binned(benchmark.methods[0], "vel_gt")
    axes[1].plot(middles[count > 0], still[count > 0], "k--", label="no motion")
    axes[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def along_exposure(benchmark: Benchmark) -> Figure:
    """Mean root-relative error of each sub-frame: flat is good, a valley means held at the middle."""
    figure, (ax,) = make_axes(1, 1, (6.5, 4.2))
    for i, method in enumerate(benchmark.methods):
        value = np.nanmean([r.along for r in benchmark.of(method)], axis=0)
        ax.plot(np.linspace(0, 1, len(value)), value, _marker(i), color=_colour(i), label=method)
    ax.set_xlabel("time in the exposure (0 = shutter opens)")
    ax.set_ylabel("root-relative error (mm)")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
    return figure


def speeds(benchmark: Benchmark) -> Figure:
    """Predicted against true speed of wrists and ankles, one panel per method."""
    columns = min(4, len(benchmark.methods))
    rows = -(-len(benchmark.methods) // columns)
    figure, axes = make_axes(rows, columns, (3.1 * columns, 3.1 * rows))
    top = max((r.speeds[:, 1].max() for r in benchmark.results if len(r.speeds)), default=1.0) * 1.2
    for i, ax in enumerate(axes):
        ax.set_visible(i < len(benchmark.methods))
        if i >= len(benchmark.methods):
            continue
        method = benchmark.methods[i]
        pairs = np.concatenate([r.speeds for r in benchmark.of(method)])
        ax.plot(pairs[:, 1], pairs[:, 0], ".", ms=3, alpha=0.4, color=_colour(i))
        ax.plot([0, top], [0, top], "k-", lw=0.7)
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        ax.set_title(f"{method}: r = {_correlation(pairs):.2f}", fontsize=9)
        ax.set_xlabel("true speed (m/s)", fontsize=8)
        ax.set_ylabel("predicted (m/s)", fontsize=8)
    figure.tight_layout()
    return figure


def reliability(benchmark: Benchmark) -> Figure | None:
    """Share of errors inside the ellipsoid that should hold that share; None if no method states a covariance."""
    found = {m: [r.calibration for r in benchmark.of(m) if r.calibration is not None] for m in benchmark.methods}
    found = {m: c for m, c in found.items() if c}
    if not found:
        return None
    figure, (ax,) = make_axes(1, 1, (4.6, 4.2))
    draw_reliability(ax, {m: (c[0].levels, np.nanmean([x.observed for x in c], axis=0)) for m, c in found.items()})
    return figure


def draw_reliability(ax: Axes, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Reliability diagram: curves name -> (stated probability [L], observed share [L]); below the line: overconfident.
    """
    for i, (name, (levels, observed)) in enumerate(curves.items()):
        ax.plot(levels, observed, _marker(i), color=_colour(i), ms=3, label=name)
    ax.plot([0, 1], [0, 1], "k-", lw=0.7)
    ax.set_xlabel("stated probability")
    ax.set_ylabel("observed share")
    ax.legend(fontsize=7)


def sheet(benchmark: Benchmark, sequence: str, columns: int = 4, size: int = 240) -> np.ndarray:
    """Qualitative sheet [H, W, 3] uint8 RGB: truth, then methods; skeletons run blue to red over the exposure."""
    folder = benchmark.folders[sequence]
    truth = read_ground_truth(folder)
    frames = frame_paths(folder)
    picked = np.linspace(1, len(frames) - 1, columns).astype(int)
    rows = {"truth": truth.joints} | {r.method: r.joints for r in benchmark.results if r.sequence == sequence}
    lines = []
    for name, joints in rows.items():
        tiles = [_tile(read_image(frames[f]), joints[f], truth.joints[f], truth.K, size) for f in picked]
        strip = np.hstack(tiles)
        cv2.putText(strip, name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1, cv2.LINE_AA)
        lines.append(strip)
    return np.vstack(lines)


def draw_sweep(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Skeletons of pixels [S, 14, 2] over a copy of `image`, blue when the shutter opens, red when it closes."""
    out = image.copy()
    levels = np.linspace(0, 255, len(pixels)).astype(np.uint8)
    ramp = cv2.applyColorMap(levels, cv2.COLORMAP_JET).reshape(-1, 3)[:, ::-1]
    for points, colour in zip(pixels, ramp, strict=True):
        for a, b in LSP14_BONES:
            if np.isfinite(points[[a, b]]).all() and np.abs(points[[a, b]]).max() < 1e5:
                p, q = (tuple(int(v) for v in np.round(points[i])) for i in (a, b))
                cv2.line(out, p, q, colour.tolist(), 1, cv2.LINE_AA)
    return out


def _tile(image: np.ndarray, joints: np.ndarray, truth: np.ndarray, K: np.ndarray, size: int) -> np.ndarray:
    """A square window around the true body, enlarged, with a sweep of skeletons."""
    seen = metrics.project(truth, K).reshape(-1, 2)
    centre, side = 0.5 * (seen.min(0) + seen.max(0)), 1.35 * max(np.ptp(seen, axis=0))
    scale = size / side
    move = np.array([[scale, 0, size / 2 - scale * centre[0]], [0, scale, size / 2 - scale * centre[1]]])
    window = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return draw_sweep(window, metrics.project(joints, K) @ move[:, :2].T + move[:, 2])


def make_axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list]:
    """A figure of `size` inches that needs no display, and its axes row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def _colour(i: int) -> str:
    return (*(f"C{k}" for k in range(10)), "#111111", "#8c6d31", "#843c39", "#3d0075", "#00441b")[i % 15]


def _marker(i: int) -> str:
    return ("o-", "s-", "^-", "v--", "d--", "x--", "+--", "*:", "p:", "h:")[i % 10]


def _correlation(pairs: np.ndarray) -> float:
    if len(pairs) < 3 or pairs.std(0).min() < 1e-9:
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])
