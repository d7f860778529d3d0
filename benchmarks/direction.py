"""Direction of time in a stream of exposures that are fitted one by one (`fit.frames=1`).

    PYTHONPATH=. python benchmarks/direction.py DATA [--set NAME=VALUE ...]

For every sequence folder in DATA (with gt.npz), of the hands, feet and pelvis that move faster than 0.7 m/s in the
picture: how many are fitted as going the right way
  alone       as each exposure was fitted, without its neighbours
  sequence    decided from the exposures before it (what the live node gives)
  hindsight   decided from the whole sequence
and the same for the mean velocity error of all joints (m/s); then how sure the decisions claimed to be: exposures that
were called undecided, and the share of right ways among the others.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from blur_motion_ros import config
from blur_motion_ros.data import sequence
from blur_motion_ros.fit.direction_search import in_hindsight
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import MotionEstimate, Status

WATCHED = (0, 7, 8, 20, 21)
FAST = 0.7  # m/s
STEADY = 0.1  # m/s: fitted slower than this, a joint goes no way at all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    config.add_arguments(parser)
    args = parser.parse_args()
    settings = config.from_arguments(args)
    settings = replace(settings, fit=replace(settings.fit, frames=1))
    totals: dict[str, list[np.ndarray]] = {}
    for folder in sorted(p.parent for p in args.data.rglob("gt.npz")):
        print(folder.name)
        for name, rows in measure(folder, settings).items():
            print("  " + line(name, rows), flush=True)
            totals.setdefault(name, []).append(rows)
    print("all")
    for name, rows in totals.items():
        print("  " + line(name, np.concatenate(rows)))


def measure(folder: Path, settings: config.Settings) -> dict[str, np.ndarray]:
    """name -> [n, 4] of every exposure: fast joints going right, going wrong, velocity error, undecided."""
    recording = sequence.read(folder)
    pipeline = Pipeline(settings)
    pipeline.set_background(recording.plate)
    record = pipeline.record_directions()
    online = [pipeline.process(frame) for frame in recording]
    alone = {e.exposures[-1].open: e for e, _ in record}
    variants = {"alone": [alone.get(e.exposures[-1].open, e) for e in online], "sequence": online,
                "hindsight": in_hindsight(online, record, settings.fit)}
    with np.load(folder / "gt.npz") as truth:
        times, joints = truth["times"], truth["joints_smpl24"]
    return {name: np.array([compare(e, pipeline, times[i], joints[i]) for i, e in enumerate(estimates)
                            if not e.status & Status.LOST]) for name, estimates in variants.items()}


def compare(estimate: MotionEstimate, pipeline: Pipeline, times: np.ndarray, joints: np.ndarray) -> list[float]:
    found = sample(replace(estimate, covariance=None), pipeline.skeleton, times).positions
    v, w = ((a[-1] - a[0]) / (times[-1] - times[0]) for a in (found, joints))
    fast = [j for j in WATCHED if np.linalg.norm(w[j, :2]) > FAST and np.linalg.norm(v[j, :2]) > STEADY]
    right = sum(v[j, :2] @ w[j, :2] > 0 for j in fast)
    return [right, len(fast) - right, float(np.linalg.norm(v - w, axis=-1).mean()),
            float(bool(estimate.status & Status.DIRECTION_UNDECIDED))]


def line(name: str, rows: np.ndarray) -> str:
    right, wrong = rows[:, 0].sum(), rows[:, 1].sum()
    sure = rows[rows[:, 3] == 0]
    claimed = sure[:, :2].sum()
    text = f"{name:<10} right {right:3.0f} of {right + wrong:3.0f}   velocity error {rows[:, 2].mean():5.2f} m/s"
    if name != "alone":
        text += f"   undecided {rows[:, 3].sum():3.0f} of {len(rows)}"
        text += f", right where decided {sure[:, 0].sum():3.0f} of {claimed:3.0f}"
    return text


if __name__ == "__main__":
    main()
