"""`blur-motion train pose-prior`: the free pose prior and the short-motion statistics; a minute on one core."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from blur_motion_ros.data import mocap
from blur_motion_ros.fit import prior_files
from blur_motion_ros.fit.priors import MixturePrior, MotionStatistics, PosePrior
from blur_motion_ros.learning import pose_prior, training
from blur_motion_ros.learning.record import write_card


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = pose_prior.MixtureOptions()
    training.add_arguments(parser, out=prior_files.ASSET, run="pose_prior", seed=defaults.seed)
    parser.add_argument("--components", type=int, default=defaults.components, help="mixture components")
    parser.add_argument("--iterations", type=int, default=defaults.iterations, help="EM iterations")
    parser.add_argument("--evaluate", type=int, default=150, metavar="N", help="held-out poses to complete (0: none)")


def run(args: argparse.Namespace) -> int:
    started = time.process_time()
    options = replace(pose_prior.MixtureOptions(), seed=args.seed, components=args.components,
                      iterations=args.iterations)
    rest = body_rest()
    clips = mocap.load_training_clips("train", args.mocap, args.deepmimic, rest)
    minutes = sum(c.duration for c in clips) / 60
    print(f"{len(clips)} clips, {minutes:.1f} minutes")
    fit = pose_prior.MixtureFit(pose_prior.gather(clips), options, training.device(args.device))
    loop = training.Loop(fit, args.run, log=1, save=1)
    earlier = loop.seconds
    loop.run()
    save(args.out, fit.prior(), pose_prior.motion_statistics(clips))
    metrics: dict = {"train_clips": len(clips), "train_minutes": minutes}
    if args.evaluate:
        tests = mocap.load_training_clips("test", args.mocap, args.deepmimic, rest)
        metrics |= evaluate(prior_files.load_pose_prior(args.out), clips, tests, args.evaluate, rest)
    card = write_card(args.out, seed=args.seed, seconds=earlier + time.process_time() - started, metrics=metrics,
                      settings=asdict(options))
    print(card.read_text())
    return 0


def body_rest() -> np.ndarray:
    """Rest joints [24, 3] of the free body, relative to its pelvis."""
    from blur_motion_ros.body import load_body
    joints = load_body().rest_joints()
    return joints - joints[0]


def save(path: Path, prior: MixturePrior, statistics: MotionStatistics) -> None:
    """Write both into one npz (covariances as packed float32 triangles)."""
    covariances = np.linalg.inv(np.swapaxes(prior.factors, 1, 2) @ prior.factors)
    arrays = {"means": prior.means.astype(np.float32), "covariances": prior_files.pack_symmetric(covariances),
              "weights": prior.weights, "freedom": np.float64(prior.freedom), "low": prior.low, "high": prior.high}
    arrays |= {"motion_" + name: np.asarray(value, np.float32) for name, value in vars(statistics).items()}
    arrays["motion_windows"] = statistics.windows
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def evaluate(prior: MixturePrior, train: list, tests: list, count: int, rest: np.ndarray) -> dict:
    """Held-out clips, which no constant was chosen on: likelihood, completion, real against perturbed poses."""
    from blur_motion_ros.initialiser.pose_prior import DiagonalPrior
    samples = pose_prior.gather(tests)
    rng = np.random.default_rng(123)
    chosen = rng.choice(len(samples.poses), count, replace=False, p=samples.weights / samples.weights.sum())
    poses = samples.poses[chosen].reshape(-1, 23, 3)
    one = pose_prior.fit_mixture(pose_prior.gather(train), pose_prior.MixtureOptions(
        components=1, shrinkage=0.0, broad=1e-6, freedom=np.inf))
    rivals = {"this": prior, "one_gaussian": one, "independent_joints": DiagonalPrior.default()}
    out: dict = {"test_minutes": sum(c.duration for c in tests) / 60,
                 "test_log_density": float(np.mean([prior.log_density(p) for p in poses])),
                 "test_log_density_one_gaussian": float(np.mean([one.log_density(p) for p in poses]))}
    for label, hide, sigma in (("limb_hidden_6px", True, 6.0), ("all_seen_3px", False, 3.0)):
        task = pose_prior.completion_task(poses, 5, hide, sigma, rest)
        out["completion_mm_" + label] = {name: float(1000 * pose_prior.complete(task, p, 20).mean())
                                         for name, p in rivals.items()}
    out["auc_against_perturbed"] = {str(s): auc_against_perturbed(prior, poses, s) for s in (0.1, 0.2, 0.4)}
    return out


def auc_against_perturbed(prior: PosePrior, poses: np.ndarray, sigma: float) -> float:
    """Chance that a real pose has less energy than a perturbed (other) one."""
    rng = np.random.default_rng(9)
    real = np.array([prior.energy(p) for p in poses])
    spoilt = np.array([prior.energy(p + rng.normal(0, sigma, p.shape)) for p in poses])
    return float((real[:, None] < spoilt).mean())
