"""What each term and solver choice of the blur fit is worth: python benchmarks/ablation.py DATA... [--hindsight 2].

The initialiser runs once per sequence; then the fit runs with one setting changed at a time. Prints a Markdown table of
means over the sequences (evaluation.metrics) and processor ms per frame of everything but the initialiser.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from blur_motion_ros import config
from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.data import sequence
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
from blur_motion_ros.fit_command import sample_exposure
from blur_motion_ros.offline import with_hindsight
from blur_motion_ros.pipeline import Pipeline

CHANGES = ("", "fit.data_weight=0", "fit.subframes=1", "fit.subframes=8", "fit.sigma_image=10", "fit.sigma_alpha=10",
           "fit.measurement_weight=0.3", "fit.measurement_weight=3", "fit.motion_widening=1", "fit.motion_widening=10",
           "fit.pose_prior_weight=0.3", "fit.stillness=false", "fit.restart_above=1e9", "fit.velocity_carry=0",
           "fit.cutoff=100", "fit.inflation=0", "fit.inflation=0.02", "fit.coarse_size=64", "fit.size=96",
           "fit.iterations=2", "fit.iterations=8", "fit.degree=1", "fit.frames=2", "fit.frames=4")
COLUMNS = ("mpjpe", "pa", "root", "vel", "dir_acc", "reproj")


class Recorded:
    """An initialiser that repeats what another one measured."""

    def __init__(self, measurements):
        self.measurements = measurements

    def measure(self, frame, plate=None):
        found = self.measurements[frame.index]
        return None if found is None else replace(found, time=frame.exposure.middle)

    def reset(self):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--hindsight", type=int, default=2)
    parser.add_argument("--changes", nargs="+", default=list(CHANGES), metavar="'NAME=VALUE ...'")
    args = parser.parse_args()
    folders = evaluated_folders(args.data)
    recorded = {folder: measured(folder) for folder in folders}
    print("| change | " + " | ".join(COLUMNS) + " | CPU ms |\n|---|" + "---|" * (len(COLUMNS) + 1))
    for change in args.changes:
        rows, spent = zip(*(score(f, recorded[f], change, args.hindsight) for f in folders), strict=True)
        means = [np.nanmean([r[c] for r in rows]) for c in COLUMNS]
        cells = [f"{m:.1f}" if c in ("mpjpe", "pa", "root", "reproj") else f"{m:.3f}"
                 for c, m in zip(COLUMNS, means, strict=True)]
        print(f"| {change or 'defaults'} | " + " | ".join(cells) + f" | {np.mean(spent):.0f} |", flush=True)


def measured(folder) -> list:
    """The initialiser's measurement of every frame."""
    recording = sequence.read(folder)
    pipeline = Pipeline()
    pipeline.set_background(recording.plate)
    out = []
    for frame in recording:
        found = pipeline.initialiser.measure(frame, pipeline.background.plate(frame))
        pipeline.background.update(frame, found.landmarks if found else None)
        out.append(found)
    return out


def score(folder, measurements, change: str, hindsight: int) -> tuple[dict, float]:
    recording = sequence.read(folder)
    settings = config.load(None, config.parse_assignments(change.split()))
    frames = settings.fit.frames if change.startswith("fit.frames") else max(settings.fit.frames, hindsight + 1)
    settings = replace(settings, fit=replace(settings.fit, frames=frames))
    pipeline = Pipeline(settings, initialiser=Recorded(measurements))
    pipeline.set_background(recording.plate)
    images = list(recording)
    begin = time.process_time()
    estimates = [pipeline.process(frame) for frame in images]
    spent = (time.process_time() - begin) / len(images) * 1e3
    tracks = [sample_exposure(pipeline, e, 9) for e in with_hindsight(estimates, hindsight)]
    truth = read_ground_truth(folder)
    rows = metrics.evaluate(np.stack([t.times for t in tracks]), lsp14(np.stack([t.positions for t in tracks])),
                            truth.times, truth.joints, truth.K)
    return rows, spent


if __name__ == "__main__":
    main()
