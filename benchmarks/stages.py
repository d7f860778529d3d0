"""Cost of the pipeline, stage by stage: python benchmarks/stages.py SEQUENCE. Processor ms per frame, one thread.

The nodes run the two halves, `see` and `fit`, in two threads; the new frame's matte, here part of `fit`, is made by the
one that has time for it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from blur_motion_ros.data import sequence
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.trajectory import sample
from blur_motion_ros.types import Exposure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", metavar="SEQUENCE")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the sequence; the first is not counted")
    args = parser.parse_args()
    print("| stage | CPU ms per frame (median) |\n|---|---|")
    for stage, values in costs(args.sequence, args.rounds).items():
        print(f"| {stage} | {np.median(values):.1f} |")


def costs(folder, rounds: int) -> dict[str, list[float]]:
    """Processor ms of every frame, by stage."""
    recording = sequence.read(folder)
    pipeline = Pipeline()
    pipeline.set_background(recording.plate)
    spent: dict[str, list[float]] = {}
    for owner, name, stage in ((pipeline.background, "plate", "see: plate of the frame"),
                               (pipeline.initialiser, "measure", "see: initialiser"),
                               (pipeline.background, "update", "see: background update"), (pipeline, "see", "see"),
                               (pipeline, "_with_matte", "fit: cut and matte"),
                               (pipeline._fit, "update", "fit: blur fit"), (pipeline, "fit", "fit")):
        setattr(owner, name, _timed(getattr(owner, name), spent.setdefault(stage, [])))
    sampled = _timed(sample, spent.setdefault("trajectory, 7 instants", []))
    images = list(recording)
    for turn in range(rounds):
        for frame in images:
            opened, closed = frame.exposure.open + 100.0 * turn, frame.exposure.close + 100.0 * turn
            estimate = pipeline.process(replace(frame, exposure=Exposure(opened, closed)))
            sampled(estimate, pipeline.skeleton, np.linspace(opened, closed + 0.1, 7))
        if turn == 0:
            for values in spent.values():
                values.clear()
    return spent


def _timed(function, into: list[float]):
    def run(*args):
        begin = time.process_time()
        result = function(*args)
        into.append(1e3 * (time.process_time() - begin))
        return result

    return run


if __name__ == "__main__":
    main()
