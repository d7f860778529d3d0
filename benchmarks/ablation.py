"""What each term and solver choice of the blur fit is worth: python benchmarks/ablation.py DATA... [--hindsight 2].

The initialiser runs once per sequence and is shared (with hindsight: `initialiser.hindsight`); then the fit runs with
one thing changed at a time. Prints a Markdown table of means over the sequences (evaluation.metrics; `px_vel` is the
image velocity's error as a share of the true image speed, evaluation.image_motion) and processor ms per frame (median)
of everything but the initialiser. The three development sequences take about ten minutes of one core.

A change is words NAME=VALUE, and of
  no_carry     every window starts anew: what the last one found is neither a start nor a prior
  one_way      with hindsight: the recording is not fitted backwards as well
With `fit.frames` the hindsight is what such windows can give: at most one exposure less than they hold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from measurements import fitted, measurements

from blur_motion_ros import config, threads
from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
from blur_motion_ros.evaluation.image_motion import image_motion
from blur_motion_ros.fit_command import sample_exposure

TERMS = ("fit.data_weight=0", "fit.sigma_image=1", "fit.sigma_alpha=1", "fit.stillness=false", "fit.motion_widening=1",
         "fit.motion_widening=10", "fit.measurement_weight=0", "fit.measurement_weight=1", "fit.measurement_weight=4",
         "fit.pose_prior_weight=0.3", "fit.short_motion=false", "fit.cutoff=100", "fit.inflation=0",
         "fit.inflation=0.02", "fit.colour_every=1000")
STARTS = ("one_way", "no_carry", "no_carry one_way", "no_carry fit.short_motion=false", "fit.velocity_carry=0",
          "fit.restart_above=1e9", "fit.limb_above=1e9", "fit.direction_every=1")
WORDS = {"no_carry", "one_way"}
VARIED = (("fit.degree", (1, 2, 3)), ("fit.frames", (1, 2, 3, 4)), ("fit.subframes", (1, 2, 4, 8)),
          ("fit.size", (32, 64, 96)), ("fit.iterations", (1, 2, 4, 8)))
ADAM = "fit.solver=adam"
COLUMNS = ("mpjpe", "pa", "root", "vel", "dir_acc", "reproj", "px_vel")
DIGITS = {"mpjpe": 1, "pa": 1, "root": 1, "reproj": 1}


def changes(settings: config.Settings, hindsight: int) -> list[str]:
    """The default list: each term, start and solver choice, without what the settings already are."""
    fit = settings.fit
    used = {"fit.degree": fit.degree, "fit.frames": max(fit.frames, hindsight + 1), "fit.subframes": fit.subframes,
            "fit.size": fit.size, "fit.iterations": fit.iterations}
    varied = [f"{name}={v}" for name, values in VARIED for v in values if v != used[name]]
    return ["", *TERMS, *STARTS, f"fit.coarse_size={fit.size}", *varied, ADAM]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--hindsight", type=int, default=config.HINDSIGHT)
    parser.add_argument("--changes", nargs="+", metavar="'NAME=VALUE ...'", help="instead of the whole list; '': none")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the initialiser's measurements here")
    config.add_arguments(parser)
    args = parser.parse_args()
    threads.limit()
    settings, folders = config.from_arguments(args, offline=args.hindsight > 0), evaluated_folders(args.data)
    measured = {folder: measurements(folder, settings, args.hindsight, args.cache) for folder in folders}
    print("| change | " + " | ".join(COLUMNS) + " | CPU ms |\n|---|" + "---|" * (len(COLUMNS) + 1))
    for change in args.changes if args.changes is not None else changes(settings, args.hindsight):
        rows, spent = zip(*(score(f, measured[f], args, change) for f in folders), strict=True)
        means = [metrics.finite_mean([r[c] for r in rows]) for c in COLUMNS]
        cells = [f"{m:.{DIGITS.get(c, 3)}f}" for c, m in zip(COLUMNS, means, strict=True)]
        print(f"| {change or 'defaults'} | " + " | ".join(cells) + f" | {np.mean(spent):.0f} |", flush=True)


def score(folder: Path, measured, args: argparse.Namespace, change: str) -> tuple[dict, float]:
    """Metrics of one sequence with one change, and median processor ms per frame."""
    words = change.split()
    assignments = [w for w in words if "=" in w]
    unknown = set(words) - set(assignments) - WORDS
    if unknown:
        raise ValueError(f"{change!r}: {', '.join(sorted(unknown))} is no change; say NAME=VALUE or one of "
                         f"{sorted(WORDS)}")
    hindsight = args.hindsight
    settings = config.load(args.config, config.parse_assignments([*args.assignments, *assignments]), hindsight > 0)
    if any(w.startswith("fit.frames=") for w in assignments):
        hindsight = min(hindsight, settings.fit.frames - 1)
    spent: list[float] = []

    def adapt(pipeline) -> None:
        process = pipeline.process

        def timed(frame):
            begin = time.process_time()
            result = process(frame)
            spent.append(1e3 * (time.process_time() - begin))
            return result

        pipeline.process = timed
        if "no_carry" in words:
            pipeline._fit._hand_on = lambda *window: None  # nothing is handed on from window to window

    # without hindsight in the fit the measurements still have it, so that changes of the fit alone are compared
    estimates, pipeline = fitted(folder, settings, measured, hindsight, adapt=adapt, both_ways="one_way" not in words)
    truth = read_ground_truth(folder)
    tracks = [sample_exposure(pipeline, e, truth.times.shape[1]) for e in estimates]
    joints = metrics.resample(np.stack([t.times for t in tracks]), lsp14(np.stack([t.positions for t in tracks])),
                              truth.times)
    rows = metrics.summarise(metrics.per_exposure(joints, truth.joints, truth.times, truth.K))
    rows["px_vel"] = image_motion(joints, truth.joints, truth.times, truth.K).share
    return rows, float(np.median(spent))


if __name__ == "__main__":
    main()
