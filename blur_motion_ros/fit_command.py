"""`blur-motion fit INPUT --out motion.npz`: the whole method on a recording, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blur_motion_ros import config
from blur_motion_ros.types import BodyState, Exposure, JointTrajectory, MotionEstimate, Status

if TYPE_CHECKING:
    from blur_motion_ros.data.sequence import Sequence as Recording
    from blur_motion_ros.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("input", metavar="INPUT", help="sequence folder, or a video file (then --camera is needed)")
    parser.add_argument("--out", required=True, metavar="NPZ", help="where the motion is written")
    parser.add_argument("--overlay", metavar="MP4", help="also write a video of the fitted motion over the input")
    parser.add_argument("--texture", metavar="FOLDER", help="also solve the surface texture: texture.png, visible.png "
                        "and the textured body at mid-exposure, body.obj")
    parser.add_argument("--camera", metavar="FILE", help="calibration of a video: ROS YAML, Sports2D TOML or meta.json")
    parser.add_argument("--fov", type=float, metavar="DEGREES", help="instead of a calibration: what a video's camera "
                        "sees across the longer side, as a guess (phones 65); distances and depths scale with it")
    parser.add_argument("--background", metavar="IMAGE", help="clean plate of a video (default: of its own frames)")
    parser.add_argument("--exposure", metavar="S", help="open-shutter time of a video, s (or a JSON list of intervals)")
    parser.add_argument("--no-gt", action="store_true", help="do not open gt.npz even for the exposure times")
    parser.add_argument("--samples", type=int, default=9, help="instants per exposure in the output (default 9)")
    parser.add_argument("--hindsight", type=int, default=config.HINDSIGHT, metavar="N",
                        help="later exposures that may correct an exposure's motion (default %(default)s); 0: what the "
                        "live node would have published")
    parser.add_argument("--online", action="store_true",
                        help="the same as --hindsight 0")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    config.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fit every frame in order and write the NPZ."""
    from tqdm import tqdm

    from blur_motion_ros.data import sequence
    from blur_motion_ros.offline import fit_recording

    camera = args.camera
    if camera is None and args.fov is not None and not Path(args.input).is_dir():
        camera = sequence.guessed_camera(args.input, args.fov)
    recording = sequence.read(args.input, camera, args.background, args.exposure, use_gt=not args.no_gt)
    hindsight = 0 if args.online else max(args.hindsight, 0)
    settings = config.from_arguments(args, offline=hindsight > 0)
    estimates, pipeline = fit_recording(
        recording, settings, hindsight, lambda frames, what: tqdm(frames, what, disable=args.quiet, unit="frame"),
        directions=not args.online)
    trajectories = [sample_exposure(pipeline, e, args.samples) for e in estimates]
    save(args.out, estimates, trajectories)
    print(summary(estimates, args.out))
    if recording.plate is None:
        print(background_note(estimates))
    if settings.camera.exposure_mode == "estimate":
        print(f"exposure: {1e3 * estimates[-1].exposures[-1].duration:.1f} ms, estimated from the blur")
    if args.overlay:
        from blur_motion_ros.evaluation.overlay import write_overlay

        write_overlay(args.overlay, recording, estimates, pipeline)
        print(f"overlay: {args.overlay}")
    if args.texture:
        print(write_texture(args.texture, recording, estimates, pipeline))
    return 0


def sample_exposure(pipeline, estimate: MotionEstimate, count: int) -> JointTrajectory:
    """The trajectory at `count` instants from shutter open to close of the newest exposure."""
    from blur_motion_ros.trajectory import sample

    exposure = estimate.exposures[-1]
    return sample(estimate, pipeline.skeleton, np.linspace(exposure.open, exposure.close, count),
                  pipeline.settings.trajectory)


def save(path: str | Path, estimates: list[MotionEstimate], trajectories: list[JointTrajectory]) -> None:
    """NPZ with times [F, S] s, joints [F, S, 14, 3] m (LSP14), joints_smpl24 and velocities [F, S, 24, 3],
    joint_sigma [F, S, 24, 3] m, velocity_sigma m/s, status [F], betas [F, 10] and the polynomials of every window."""
    from blur_motion_ros.body.joints import lsp14

    def stack(values):
        return np.stack(list(values))

    def sigma(covariances):
        return np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))

    joints = stack(t.positions for t in trajectories)
    degree = max(e.coefficients.shape[1] for e in estimates)
    coefficients = np.full((len(estimates), 25, degree, 3), np.nan)
    for row, e in zip(coefficients, estimates, strict=True):
        row[:, : e.coefficients.shape[1]] = e.coefficients
    np.savez_compressed(
        path, times=stack(t.times for t in trajectories), joints=lsp14(joints), joints_smpl24=joints,
        velocities=stack(t.linear_velocity for t in trajectories),
        joint_sigma=stack(sigma(t.position_covariance) for t in trajectories),
        velocity_sigma=stack(sigma(t.velocity_covariance) for t in trajectories),
        status=np.array([int(e.status) for e in estimates]), betas=stack(e.reference.betas for e in estimates),
        coefficients=coefficients, window=np.array([[e.start, e.end] for e in estimates]),
        global_orient=stack(e.reference.global_orient for e in estimates),
        body_pose=stack(e.reference.body_pose for e in estimates), transl=stack(e.reference.transl for e in estimates),
        blur_rate=np.array([e.blur_rate for e in estimates]), rms=np.array([e.rms for e in estimates]))


def load(path: str | Path) -> list[MotionEstimate]:
    """The estimates that `save` wrote, one per exposure, without covariances."""
    with np.load(path) as d:
        return [MotionEstimate(
            float(d["window"][i, 0]), float(d["window"][i, 1]),
            (Exposure(float(d["times"][i, 0]), float(d["times"][i, -1])),),
            BodyState(d["global_orient"][i], d["body_pose"][i], d["betas"][i], d["transl"][i]),
            np.nan_to_num(d["coefficients"][i]), np.zeros(0, np.int64), None, Status(int(d["status"][i])),
            float(d["blur_rate"][i]), float(d["rms"][i])) for i in range(len(d["times"]))]


def write_texture(folder: str | Path, recording: Recording, estimates: list[MotionEstimate], pipeline: Pipeline) -> str:
    """Solve the texture of a fitted recording, write it into `folder`, and say in one line what was written."""
    from blur_motion_ros.body import load_body
    from blur_motion_ros.body.texture_layout import textured
    from blur_motion_ros.fit import texture_files
    from blur_motion_ros.fit.texture import OUTSIDE, SEEN
    from blur_motion_ros.light import to_codes

    settings = pipeline.settings
    body = texture_files.TexturedBody.of(
        textured(load_body(settings.body.path or None, "display", settings.body.uv or None)), settings.fit.inflation)
    plate = recording.plate
    if plate is None:
        learned = pipeline.background.plate(recording[len(recording) - 1])
        if learned is None:
            return "texture: not solved, because the background is not known; give --background"
        plate = to_codes(learned.image, recording.response)
    try:
        matter = pipeline.matters.of(0.0, whole=False)  # the one that serves every exposure; loaded already
        texture, middle = texture_files.texture_of(recording, estimates, body, plate, matter, settings.fit)
    except ValueError as error:
        return f"{error}; not solved"
    exposure = recording.exposures[middle]
    vertices = body.vertices(estimates[middle], np.array([exposure.middle]))[0]
    texture_files.write_texture(folder, texture, body, vertices)
    surface = texture.origin != OUTSIDE
    seen = float((texture.origin[surface] == SEEN).mean())
    return f"texture: {folder} ({seen:.0%} of the surface seen; body.obj at {exposure.middle:.3f} s)"


def background_note(estimates: list[MotionEstimate]) -> str:
    """One line on a recording that came without a clean plate."""
    bare = sum(bool(e.status & Status.NO_BACKGROUND) for e in estimates)
    if 2 * bare <= len(estimates):
        return f"background: learned from the recording; known behind the person in {len(estimates) - bare} exposures"
    return (f"background: not known behind the person in {bare} exposures (the camera moves, or the person stays in one"
            " place); these are fitted to landmarks and a mask. Give --background IMAGE of the empty scene")


def summary(estimates: list[MotionEstimate], path: str) -> str:
    """One line for people."""
    count = len(estimates)
    flags = {f.name: sum(bool(e.status & f) for e in estimates) for f in Status if f}
    notes = ", ".join(f"{name} {n}" for name, n in flags.items() if n)
    return f"{path}: {count} exposures" + (f" ({notes})" if notes else "")
