"""Estimating the exposure from the blur: how far it gets, and what it does to the motion.

    PYTHONPATH=. python benchmarks/exposure.py DATA [--stated 0.9 ...] [--set NAME=VALUE ...]

Every sequence folder in DATA (with gt.npz) is fitted live with exposures stated as some share of the frame period,
right or wrong: once believed (`camera.exposure_mode=given`), once taken as where to begin (`estimate`). Printed: the
true share, the stated one, the estimate after the last frame with its sigma, and MPJPE (mm) and velocity error (m/s) of
all joints for both. Errors are measured at the true instants, root aligned at mid-exposure.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from blur_motion_ros import config
from blur_motion_ros.data import sequence
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import Exposure, MotionEstimate, Status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--stated", type=float, nargs="+", default=[0.5, 0.9])
    config.add_arguments(parser)
    args = parser.parse_args()
    settings = config.from_arguments(args)
    for folder in sorted(p.parent for p in args.data.rglob("gt.npz")):
        for share in args.stated:
            print(line(folder, share, settings), flush=True)


def line(folder: Path, share: float, settings: config.Settings) -> str:
    recording = sequence.read(folder)
    period = recording.exposures[1].open - recording.exposures[0].open
    true = np.mean([e.duration for e in recording.exposures]) / period
    errors = {}
    for mode in ("given", "estimate"):
        pipeline = Pipeline(replace(settings, camera=replace(settings.camera, exposure_mode=mode)))
        pipeline.set_background(recording.plate)
        stated = [replace(f, exposure=Exposure(f.exposure.open, f.exposure.open + share * period)) for f in recording]
        errors[mode] = error(folder, pipeline, [pipeline.process(frame) for frame in stated])
    found = pipeline.exposure
    sigma = found.sigma / found.period
    return (f"{folder.name:<18} true {true:.2f}  stated {share:.2f}  estimate {found.fraction:.2f} +- {sigma:.2f}   "
            f"MPJPE {errors['given'][0]:6.1f} -> {errors['estimate'][0]:6.1f} mm   "
            f"velocity {errors['given'][1]:5.2f} -> {errors['estimate'][1]:5.2f} m/s")


def error(folder: Path, pipeline: Pipeline, estimates: list[MotionEstimate]) -> tuple[float, float]:
    with np.load(folder / "gt.npz") as truth:
        times, joints = truth["times"], truth["joints_smpl24"]
    rows = []
    for t, w, e in zip(times, joints, estimates, strict=True):
        if e.status & Status.LOST:
            continue
        s = sample(replace(e, covariance=None), pipeline.skeleton, t)
        middle = len(t) // 2
        aligned = s.positions - s.positions[middle, :1] + w[middle, :1]
        speed = (w[-1] - w[0]) / (t[-1] - t[0])
        rows.append((1000 * np.linalg.norm(aligned - w, axis=-1).mean(),
                     np.linalg.norm((s.positions[-1] - s.positions[0]) / (t[-1] - t[0]) - speed, axis=-1).mean()))
    return tuple(np.mean(rows, 0))


if __name__ == "__main__":
    main()
