"""The first windows of a track, with and without the short-motion prior: error of a fit that starts cold everywhere.

    PYTHONPATH=. python benchmarks/cold_start.py DATA... [--every N] [--set NAME=VALUE ...]

At every n-th frame of every sequence (with gt.npz) the tracker forgets everything and sees two exposures. Printed for
the window of the first exposure alone and for the first full window (its newest exposure), once with
`fit.short_motion=false` and once as set: MPJPE over the exposure (mm, root aligned at mid-exposure), velocity error
(m/s), share of the hands and feet faster than 0.7 m/s in the picture that go the right way.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from single_frame import errors_of

from blur_motion_ros import config
from blur_motion_ros.data import sequence
from blur_motion_ros.evaluation.ground_truth import evaluated_folders
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import Status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--set", nargs="+", default=[], dest="changes", metavar="NAME=VALUE")
    args = parser.parse_args()
    print("| sequence | window | prior | MPJPE mm | velocity m/s | right way |\n|---|---|---|---|---|---|")
    everything: dict = {}
    for folder in evaluated_folders(args.data):
        found = {prior: measure(folder, args.every, [*args.changes, f"fit.short_motion={prior}"])
                 for prior in ("false", "true")}
        show(folder.name, found)
        for prior, windows in found.items():
            for name, rows in windows.items():
                everything.setdefault(prior, {}).setdefault(name, []).extend(rows)
    show("all", everything)


def measure(folder: Path, every: int, changes: list[str]) -> dict[str, list]:
    """Errors of the first and second exposure of a track begun at every n-th frame."""
    recording = sequence.read(folder)
    pipeline = Pipeline(config.load(None, config.parse_assignments(changes)))
    pipeline.set_background(recording.plate)
    frames = list(recording)
    with np.load(folder / "gt.npz") as gt:
        times, truth = gt["times"], gt["joints_smpl24"]
    out: dict[str, list] = {"one exposure": [], "two": []}
    for first in range(0, len(frames) - 1, every):
        pipeline.reset()
        for i, rows in zip((first, first + 1), out.values(), strict=True):
            estimate = pipeline.process(frames[i])
            if not estimate.status & Status.LOST:
                positions = sample(replace(estimate, covariance=None), pipeline.skeleton, times[i]).positions
                rows.append(errors_of(positions, truth[i], times[i]))
    return out


def show(name: str, found: dict[str, dict[str, list]]) -> None:
    for window in found["false"]:
        for prior in ("false", "true"):
            rows = found[prior][window]
            wrong = np.concatenate([r[2] for r in rows]) if rows else np.zeros(0, bool)
            ways = f"{(~wrong.astype(bool)).sum()} of {len(wrong)}" if len(wrong) else "none moves"
            position, velocity = (np.mean([r[k] for r in rows]) for k in (0, 1))
            label = "with" if prior == "true" else "without"
            print(f"| {name} | {window} | {label} | {position:.1f} | {velocity:.2f} | "
                  f"{ways} |", flush=True)


if __name__ == "__main__":
    main()
