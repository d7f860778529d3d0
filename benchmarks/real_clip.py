"""A real person, blurred and sharp: python benchmarks/real_clip.py [--work DIR] [--frames 1 2 3] [--set NAME=VALUE ...]

The demo's video is blurred over 1, 2 and 3 of its frames (30, 60 and 90 ms at 30, 15 and 10 Hz; `demo.stream`) and
fitted. The truth is what the initialiser says of the *sharp* frames with all of them known, linear between them: no
ground truth, and it says nothing of depth, so errors are across the view, in cm at the person's distance. Where the man
turns over in the air it is wrong itself; that part (5.3 to 6.3 s) is left out.

Per exposure and stretch of the video: exposures with a body; mean error of the twelve limb joints, and of elbows and
wrists; share of arms and of legs with a joint more than 15 cm off; error of the image velocity (LSP14) as a share of
the true one. Seeds: none; the same on every machine but for rounding.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measurements import TRUE_LANDMARKS, fitted, measurements

from blur_motion_ros import config, threads
from blur_motion_ros.assets import asset
from blur_motion_ros.body import load_body
from blur_motion_ros.body.joints import LSP14, lsp14
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data import sequence
from blur_motion_ros.data.sequence import VideoFile, write_sequence
from blur_motion_ros.demo.stream import Shutter, clean_plate, demo_sequence, slow_camera, views
from blur_motion_ros.evaluation.image_motion import image_motion, ratio
from blur_motion_ros.fit_command import sample_exposure
from blur_motion_ros.learning.eval_command import joints_of
from blur_motion_ros.offline import measure_recording
from blur_motion_ros.types import Exposure

STRETCHES = {"jumping jacks": (0.0, 2.8), "turning, swinging arms": (2.8, 5.3), "landing, running off": (6.3, 7.4)}  # s
LOST_CM = 15.0
INSTANTS = 9
_SHUT = 0.004  # s: the sharp frames' exposure, as far as the initialiser is told
ARMS, LEGS = ([[LSP14.index(f"{side}_{joint}") for joint in pair] for side in ("left", "right")]
              for pair in (("elbow", "wrist"), ("knee", "ankle")))
LIMBS = [i for i, name in enumerate(LSP14) if name not in ("neck", "head")]


@dataclass(frozen=True)
class Errors:
    """Of every exposure [F]: middle s; known: whether there is a truth; across [F, 14] cm, mean over the exposure;
    speed and its error [F] px/s (`image_motion`)."""

    middle: np.ndarray
    known: np.ndarray
    across: np.ndarray
    speed_error: np.ndarray
    speed: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep sequences and measurements here")
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="video frames blurred")
    config.add_arguments(parser)
    args = parser.parse_args()
    threads.limit()
    live, offline = config.from_arguments(args), config.from_arguments(args, offline=True)
    sharp = replace(live, fit=replace(live.fit, subframes=1))
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        truth, rate = sharp_joints(work)
        columns = ("exposure", "stretch", "method", "with a body", "limbs cm", "elbows, wrists cm", "arms lost",
                   "legs lost", "image velocity error")
        print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
        for count in args.frames:
            folder = demo_sequence(work / f"blurred_{count}", 0.0, replace(Shutter(), frames=count))
            for name, settings, hindsight in (("live", live, 0), ("live, N = 1", sharp, 0),
                                              ("offline", offline, config.HINDSIGHT)):
                measured = measurements(folder, settings, hindsight, work / "cache")
                found = compared(folder, settings, measured, hindsight, truth, rate)
                for stretch, span in STRETCHES.items():
                    print(row(count / rate * Shutter().duty, stretch, name, found, span), flush=True)


def sharp_joints(work: Path) -> tuple[np.ndarray, float]:
    """[V, 14, 3] m of every frame of the sharp video (NaN: nobody found), and its frames per second."""
    video, shutter = VideoFile(asset("demo.mp4")), Shutter()
    folder, kept = work / "sharp", work / "sharp.npy"
    if not kept.is_file():
        camera = slow_camera(asset("Calib_demo.toml"), shutter)
        exposures = [Exposure(i / video.fps, i / video.fps + _SHUT) for i in range(len(video))]
        write_sequence(folder, views(video, shutter), camera, exposures, clean_plate(video, shutter))
        measured = measure_recording(sequence.read(folder), config.load(overrides=TRUE_LANDMARKS))
        body, nobody = load_body(None, lod="fit"), np.full((len(LSP14), 3), np.nan)
        np.save(kept, np.stack([nobody if m is None else joints_of(m.state, body) for m in measured]))
    return np.load(kept), video.fps


def compared(folder: Path, settings: config.Settings, measured, hindsight: int, truth: np.ndarray,
             rate: float) -> Errors:
    """Fit a blurred sequence one way and hold it against the sharp frames."""
    estimates, pipeline = fitted(folder, settings, measured, hindsight)
    camera = slow_camera(asset("Calib_demo.toml"), Shutter())
    tracks = [sample_exposure(pipeline, e, INSTANTS) for e in estimates]
    times = np.stack([t.times for t in tracks])
    return errors(lsp14(np.stack([t.positions for t in tracks])), between(truth, times * rate), times, camera)


def between(frames: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values [V, ...] of frames, linear between them at frame numbers `at` [...]; NaN beyond the last."""
    first = np.clip(np.floor(at).astype(int), 0, len(frames) - 2)
    share = (at - first)[..., None, None]
    out = (1 - share) * frames[first] + share * frames[first + 1]
    out[(at < 0) | (at > len(frames) - 1)] = np.nan
    return out


def errors(joints: np.ndarray, truth: np.ndarray, times: np.ndarray, camera: Camera) -> Errors:
    """Joints and truth [F, S, 14, 3] m at times [F, S]; the camera has no distortion."""
    apart = np.linalg.norm(camera.project(joints) - camera.project(truth), axis=-1)
    across = 100 * (apart * truth[..., 2] / camera.K[0, 0]).mean(1)
    moved = image_motion(joints, truth, times, camera.K)
    return Errors(times.mean(1), np.isfinite(truth).all((1, 2, 3)), across, moved.error, moved.speed)


def row(exposure: float, stretch: str, method: str, found: Errors, span: Sequence[float]) -> str:
    """Markdown, of the exposures whose middle is inside `span` s and whose truth is known."""
    here = (found.middle >= span[0]) & (found.middle < span[1]) & found.known
    seen = here & np.isfinite(found.across).all(1)
    across = found.across[seen]
    lost = [np.mean([(across[:, limb] > LOST_CM).any(1) for limb in limbs]) for limbs in (ARMS, LEGS)]
    share = ratio(found.speed_error[seen], found.speed[seen])
    return (f"| {1e3 * exposure:.0f} ms | {stretch} | {method} | {seen.sum()} of {here.sum()} | "
            f"{across[:, LIMBS].mean():.1f} | {across[:, sum(ARMS, [])].mean():.1f} | {100 * lost[0]:.0f} % | "
            f"{100 * lost[1]:.0f} % | {100 * share:.0f} % |")


if __name__ == "__main__":
    main()
