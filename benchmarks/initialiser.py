#!/usr/bin/env python3
"""The initialiser alone on sequence folders: its pose held over each exposure, written for the sequences' evaluator.

    python benchmarks/initialiser.py ../shared/devset/b0* --out /tmp/pred
    python ../shared/devset/evaluate.py --data ../shared/devset --pred /tmp/pred --per-seq

Prints the CPU time per frame (median, and the longest after the first frame).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from blur_motion_ros.background import BackgroundModel
from blur_motion_ros.body import Skeleton, load_body
from blur_motion_ros.body.joints import LSP14_FROM_SMPL24
from blur_motion_ros.config import Settings
from blur_motion_ros.data import sequence
from blur_motion_ros.initialiser.base import make_initialiser
from blur_motion_ros.motion.pose import local_rotations


def measure(folder: Path, plate: bool) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """times [F, 1], joints [F, 1, 14, 3] (NaN where nobody was found), CPU seconds per frame."""
    settings, body = Settings(), load_body()
    initialiser = make_initialiser(settings.initialiser, body)
    background = BackgroundModel(settings.background, settings.camera.response)
    clip = sequence.read(folder)
    if plate and clip.plate is not None:
        background.set_plate(clip.plate)
    times, joints, cpu = [], [], []
    for frame in clip:
        known = background.plate(frame) if plate else None
        start = time.process_time()
        found = initialiser.measure(frame, known)
        cpu.append(time.process_time() - start)
        times.append([frame.exposure.middle])
        points = np.full((24, 3), np.nan)
        if found is not None:
            skeleton = Skeleton.of(body, found.state.betas)
            points, _ = skeleton.forward_kinematics(local_rotations(found.state), found.state.transl)
        joints.append([LSP14_FROM_SMPL24 @ points])
    return np.array(times), np.array(joints), cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-plate", action="store_true", help="show the network the frames as they are")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in args.folders:
        times, joints, cpu = measure(folder, not args.no_plate)
        np.savez(args.out / f"{folder.name}.npz", times=times, joints=joints)
        print(f"{folder.name}: {len(cpu)} frames, {1e3 * np.median(cpu):.1f} ms CPU per frame (median), "
              f"{1e3 * max(cpu[1:]):.1f} ms longest, {int(np.isnan(joints[:, 0, 0, 0]).sum())} without a person")


if __name__ == "__main__":
    main()
