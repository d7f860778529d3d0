"""Is the stated covariance true: python benchmarks/reliability.py DATA... [--out docs/reliability.png].

For joints and their velocities, absolute and relative to the pelvis, live and with two exposures of hindsight: the mean
squared error in squared sigmas (1 when honest, more when overconfident; median: 1 when the middle of the distribution
is honest, whatever its tails), and the share of errors inside the 50, 68, 90 and 95 % intervals. In the image plane
(two axes together, ellipses) and in depth. DATA are sequence folders with gt.npz that has joints_smpl24. Joints of
rendered bodies are bone heads of another skeleton: 1-3 cm of difference count as error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measurements import fitted, measurements

from blur_motion_ros import config, threads
from blur_motion_ros.evaluation.calibration import LEVELS, Normalised, coverage, normalised
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
from blur_motion_ros.evaluation.reliability import GROUPS, QUANTITIES, stated, true_values
from blur_motion_ros.types import Status

SHOWN = np.array([0.5, 0.68, 0.9, 0.95])
MODES = {"live": 0, "hindsight": config.HINDSIGHT}
AXES = {"plane": 2, "depth": 1}  # dimensions
_MEDIAN = {1: 0.4549, 2: 1.3863}  # of chi-squared with so many degrees of freedom

Errors = dict[str, tuple[np.ndarray, np.ndarray]]  # quantity -> errors [n, 24, 3], covariances [n, 24, 3, 3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--out", metavar="PNG")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the initialiser's measurements here")
    config.add_arguments(parser)
    args = parser.parse_args()
    threads.limit()
    parts: dict[str, list[Errors]] = {mode: [] for mode in MODES}
    for folder in evaluated_folders(args.data):
        for mode, hindsight in MODES.items():
            settings = config.from_arguments(args, offline=hindsight > 0)
            measured = measurements(folder, settings, hindsight, args.cache)
            parts[mode].append(errors_of(folder, settings, measured, hindsight))
    found = {mode: joined(errors) for mode, errors in parts.items()}
    print(table(found))
    if args.out:
        figure(found).savefig(args.out, dpi=110, bbox_inches="tight")


def errors_of(folder: Path, settings: config.Settings, measured, hindsight: int) -> Errors:
    """Errors and stated covariances at the interior instants of every exposure in which a person was found."""
    truth = read_ground_truth(folder)
    if truth.smpl24 is None:
        raise ValueError(f"{folder.name}/gt.npz has no array 'joints_smpl24', so covariances cannot be judged")
    estimates, pipeline = fitted(folder, settings, measured, hindsight)
    rows: dict[str, list] = {q: [] for q in QUANTITIES}
    for estimate, times, joints in zip(estimates, truth.times, truth.smpl24, strict=True):
        if estimate.status & Status.LOST:
            continue
        said = stated(estimate, pipeline.skeleton, times[1:-1], settings.trajectory)
        for quantity, true in true_values(joints, times).items():
            rows[quantity].append((said[quantity].value - true, said[quantity].covariance))
    return joined([{q: tuple(np.concatenate(p) for p in zip(*pairs, strict=True)) for q, pairs in rows.items()}])


def joined(errors: list[Errors]) -> Errors:
    return {q: tuple(np.concatenate([e[q][k] for e in errors]) for k in (0, 1)) for q in QUANTITIES}


def judged(errors: Errors, quantity: str, joints: list[int]) -> Normalised:
    """Normalised errors of some joints; the pelvis is left out where it is zero by definition."""
    if "relative" in quantity:
        joints = [j for j in joints if j != 0]
    e, c = errors[quantity]
    return normalised(e[:, joints], c[:, joints])


def table(found: dict[str, Errors]) -> str:
    """Markdown: all joints first, then each group."""
    header = ["mode", "of", "joints", *(f"{axis}: {what}" for axis in AXES for what in
                                        ("mean", "median", *(f"{100 * p:.0f} %" for p in SHOWN)))]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, joints in {"all": tuple(range(24)), **GROUPS}.items():
        for mode, errors in found.items():
            for quantity in QUANTITIES:
                n = judged(errors, quantity, list(joints))
                cells = [c for axis, size in AXES.items() for c in numbers(getattr(n, axis), size)]
                lines.append(f"| {mode} | {quantity} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def numbers(squared: np.ndarray, size: int) -> list[str]:
    """Mean and median of squared sigmas in units of what is expected; share inside the intervals."""
    inside = coverage(squared, size, SHOWN)
    return [f"{squared.mean() / size:.2f}", f"{np.median(squared) / _MEDIAN[size]:.2f}",
            *(f"{100 * share:.0f} %" for share in inside)]


def figure(found: dict[str, Errors]):
    """Reliability diagrams, one per quantity; both modes, image plane and depth."""
    from blur_motion_ros.evaluation.figures import draw_reliability, make_axes

    drawn, axes = make_axes(1, len(QUANTITIES), (3.6 * len(QUANTITIES), 3.5))
    for ax, quantity in zip(axes, QUANTITIES, strict=True):
        curves = {}
        for mode, errors in found.items():
            n = judged(errors, quantity, list(range(24)))
            curves |= {f"{mode}, {axis}": (LEVELS, coverage(getattr(n, axis), size, LEVELS))
                       for axis, size in AXES.items()}
        draw_reliability(ax, curves)
        ax.set_title(quantity, fontsize=10)
    drawn.tight_layout()
    return drawn


if __name__ == "__main__":
    main()
