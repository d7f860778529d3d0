"""Frames one at a time: what the short-motion prior does for pose, velocity and the direction of time.

    PYTHONPATH=. python benchmarks/single_frame.py DATA [--every N] [--matting network]

Every n-th frame of every sequence folder in DATA (with gt.npz) is fitted alone, without history:
  still       no motion at all
  fit         the blur fit, motion prior centred at rest
  prior       the blur fit beginning at, and its motion prior centred on, the motion expected of the pose
  direction   the same, then limbs reversed where the discriminator finds that likelier
  expected    the fit's pose with the expected motion, whatever the blur says
Reported over all frames: MPJPE over the exposure (mm, root aligned at mid-exposure), velocity error (m/s), and how
often a hand or foot that moves faster than 0.7 m/s in the picture goes the wrong way (of those fitted as moving).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from blur_motion_ros.config import Settings
from blur_motion_ros.data import sequence
from blur_motion_ros.fit.cold_start import ColdStartFit
from blur_motion_ros.fit.short_motion import ShortMotionPrior
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import Status

HANDS_AND_FEET = (7, 8, 20, 21)
FAST = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--prior", type=Path, help="short-motion network (default: the packaged one)")
    parser.add_argument("--matting", default="difference")
    args = parser.parse_args()
    prior = ShortMotionPrior(args.prior)
    for folder in sorted(p.parent for p in args.data.rglob("gt.npz")):
        rows = measure(folder, args.every, prior, args.matting)
        print(f"{folder.name} ({len(rows['fit'])} frames)")
        for name, errors in rows.items():
            wrong = np.concatenate([e[2] for e in errors])
            ways = f"{wrong.sum()} of {len(wrong)}" if len(wrong) else "none moves"
            print(f"  {name:<10} MPJPE {np.mean([e[0] for e in errors]):6.1f} mm   velocity "
                  f"{np.mean([e[1] for e in errors]):5.2f} m/s   wrong way {ways}", flush=True)


def measure(folder: Path, every: int, prior: ShortMotionPrior, matting: str) -> dict[str, list]:
    recording = sequence.read(folder)
    settings = Settings()
    settings = replace(settings, fit=replace(settings.fit, frames=1, short_motion=False),
                       matting=replace(settings.matting, method=matting))
    plain, pipeline = Pipeline(settings), Pipeline(settings)
    pipeline._fit = ColdStartFit.like(pipeline._fit, prior)
    for p in (plain, pipeline):
        p.set_background(recording.plate)
    with np.load(folder / "gt.npz") as gt:
        times, truth = gt["times"], gt["joints_smpl24"]
    out: dict[str, list] = {name: [] for name in ("still", "fit", "prior", "direction", "expected")}
    for i, frame in enumerate(recording):
        if i % every:
            continue
        for p in (plain, pipeline):
            p.reset()
        unaided, estimate = plain.process(frame), pipeline.process(frame)
        if (unaided.status | estimate.status) & Status.LOST:
            continue
        still = unaided.coefficients.copy()
        still[:, 1:] = 0
        moved = unaided.coefficients.copy()
        moved[:, 1:3] = prior.expect(unaided).motion
        variants = {"still": replace(unaided, coefficients=still), "fit": unaided, "prior": estimate,
                    "direction": prior.choose_direction(estimate), "expected": replace(unaided, coefficients=moved)}
        for name, e in variants.items():
            positions = sample(replace(e, covariance=None), pipeline.skeleton, times[i]).positions
            out[name].append(errors_of(positions, truth[i], times[i]))
    return out


def errors_of(found: np.ndarray, truth: np.ndarray, times: np.ndarray) -> tuple[float, float, np.ndarray]:
    middle = len(times) // 2
    found = found - found[middle, :1] + truth[middle, :1]
    v, w = ((a[-1] - a[0]) / (times[-1] - times[0]) for a in (found, truth))
    fast = [j for j in HANDS_AND_FEET if np.linalg.norm(w[j, :2]) > FAST and np.linalg.norm(v[j, :2]) > 1e-3]
    wrong = np.array([v[j, :2] @ w[j, :2] < 0 for j in fast])
    return (float(1000 * np.linalg.norm(found - truth, axis=-1).mean()),
            float(np.linalg.norm(v - w, axis=-1).mean()), wrong)


if __name__ == "__main__":
    main()
