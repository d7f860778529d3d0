"""Cost of the blur fit: python benchmarks/fit.py SEQUENCE. Processor ms per window against N, size, frames, degree:
median, and the 95th percentile (a window also tries limbs begun anew now and then).

Each row changes some settings; ratios to the first row were measured in the same run, on one thread. Rows of the
first-order path on a GPU are left out, with the reason, where there is none. More on GPUs: benchmarks/gpu.sh.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from measurements import measurements

from blur_motion_ros import config
from blur_motion_ros.data import sequence
from blur_motion_ros.offline import Replay
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.types import Exposure

CHANGES = ("", "fit.subframes=1", "fit.subframes=2", "fit.subframes=8", "fit.subframes=16",
           "fit.size=32", "fit.size=96", "fit.size=128", "fit.frames=1", "fit.frames=3", "fit.frames=4", "fit.degree=1",
           "fit.degree=3", "fit.iterations=1", "fit.iterations=4", "fit.iterations=8",
           "fit.solver=adam fit.device=cpu", "fit.solver=adam fit.device=cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", metavar="SEQUENCE")
    parser.add_argument("--changes", nargs="+", default=list(CHANGES), metavar="'NAME=VALUE ...'")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the sequence; the first is not counted")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds: at least 2, as the first is not counted")
    live, base = measurements(args.sequence, config.Settings(), 0), None
    print("| change | CPU ms per window (median) | ratio | p95 | wall ms (median) | p95 |\n|---|---|---|---|---|---|")
    for change in args.changes:
        reason = nvdiffrast_missing() if "device=cuda" in change else ""
        if reason:
            print(f"| {change} | not measured: {reason} | | | | |", flush=True)
            continue
        cpu, wall = cost(args.sequence, live, change, args.rounds)
        base = base or cpu[0]
        print(f"| {change or 'defaults'} | {cpu[0]:.1f} | {cpu[0] / base:.2f} | {cpu[1]:.1f} | {wall[0]:.1f} | "
              f"{wall[1]:.1f} |", flush=True)


def nvdiffrast_missing() -> str:
    """Why no GPU can render here; empty where one can."""
    from blur_motion_ros.render.nvdiffrast import unavailable

    return unavailable()


def cost(folder, live, change: str, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Processor and wall ms of `BlurFit.update`: median and 95th percentile of each."""
    recording = sequence.read(folder)
    pipeline = Pipeline(config.load(None, config.parse_assignments(change.split())),
                        initialiser=Replay(live))
    pipeline.set_background(recording.plate)
    cpu, wall = [], []
    update = pipeline._fit.update

    def timed(observations, until):
        begin, tick = time.process_time(), time.perf_counter()
        result = update(observations, until)
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - tick)
        return result

    pipeline._fit.update = timed
    images = list(recording)
    for turn in range(rounds):
        later = 100.0 * turn
        for frame in images:
            e = frame.exposure
            pipeline.process(replace(frame, exposure=Exposure(e.open + later, e.close + later)))
        if turn == 0:
            cpu.clear()
            wall.clear()
    return 1e3 * np.percentile(cpu, (50, 95)), 1e3 * np.percentile(wall, (50, 95))


if __name__ == "__main__":
    main()
