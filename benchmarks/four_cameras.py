"""A real person with 3D truth: python benchmarks/four_cameras.py --out DIR [--frames 2], then blur-motion benchmark DIR

Pose2Sim's demo (BSD-3-Clause, 51 MB wheel): a man balances on one leg, 1.7 s at 60 Hz, filmed by four calibrated
cameras at once. Each camera's video is blurred over `--frames` of its frames (2: 30 Hz, shutter open 0.9 of the period;
`demo.stream`) and becomes a sequence folder without a clean plate. Its truth comes from the *sharp* frames of all four:
BlazePose's landmarks in each with hindsight, triangulated, the body fitted to the points with one shape for all frames,
smoothed over 7 frames. Good to about 2 cm, as the errors say that are printed; the method under test sees
one blurred video and none of this. The body's definition of the joints is the truth's own, so that systematic errors of
the landmarks which all cameras share do not show.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measurements import TRUE_LANDMARKS
from real_clip import between
from scipy.signal import savgol_filter

from blur_motion_ros import config, threads
from blur_motion_ros.assets import asset
from blur_motion_ros.body import load_body
from blur_motion_ros.body.joints import BLAZEPOSE33, lsp14
from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data import sequence
from blur_motion_ros.data.sequence import VideoFile, write_sequence
from blur_motion_ros.demo.stream import Shutter, blurred, timing
from blur_motion_ros.fit.prior_files import load_pose_prior
from blur_motion_ros.initialiser.kinematics import BETAS, UNKNOWNS, LandmarkBody
from blur_motion_ros.initialiser.registration import Pose, pose_prior_terms
from blur_motion_ros.offline import measure_recording
from blur_motion_ros.types import Exposure

CAMERAS = (1, 2, 3, 4)
INSTANTS = 9
LIMBS = [*range(11, 17), *range(23, 29)]  # BlazePose: shoulders to wrists, hips to ankles
_SHUT = 0.004  # s: the sharp frames' exposure, as far as the initialiser is told
_OUTLIER = 15.0  # px: reprojection error beyond which a camera's word on a point loses weight
_POINT = 0.02  # m: noise of a triangulated point
_SHAPE = 0.3  # of betas: how far frames may differ while the shape is looked for
_ROUNDS = 30


@dataclass(frozen=True)
class View:
    """One camera of several. camera; R [3, 3], T [3] m: world to camera."""

    camera: Camera
    R: np.ndarray
    T: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the four sequences are written")
    parser.add_argument("--frames", type=int, default=2, metavar="N", help="video frames per exposure (default 2)")
    args = parser.parse_args()
    threads.limit()
    views = read_qualisys(asset("balance_Calib.qca.txt").read_text())
    videos = [VideoFile(asset(f"balance_cam{c:02d}.mp4")) for c in CAMERAS]
    pixels, weights = (np.stack(x) for x in zip(*map(sharp_landmarks, views, videos), strict=True))
    views = aligned(pixels[:, :, LIMBS], weights[:, :, LIMBS], views)
    joints = true_joints(pixels, weights, views)
    for number, view, video in zip(CAMERAS, views, videos, strict=True):
        folder = args.out / f"balance_cam{number}_{round(1e3 * args.frames / video.fps)}ms"
        write(folder, view, video, joints @ view.R.T + view.T, args.frames)
        print(folder)


def read_qualisys(text: str) -> list[View]:
    """Cameras of a Qualisys calibration: 1/64 pixels, mm, world axes of the camera by columns, camera y up, z back.
    Distortion (a pixel at the edge) is left out."""
    views = []
    for tag in ElementTree.fromstring(text).iter("camera"):
        inner, place, size = (tag.find(name).attrib for name in ("intrinsic", "transform", "fov_video"))
        fx, fy, cx, cy = (float(inner[k]) / 64 for k in ("focalLengthU", "focalLengthV", "centerPointU",
                                                         "centerPointV"))
        to_world = np.array([[float(place[f"r{a}{b}"]) for b in "123"] for a in "123"]).T
        R = np.diag([1.0, -1.0, -1.0]) @ to_world.T
        T = -R @ np.array([float(place[k]) for k in "xyz"]) / 1e3
        width, height = int(float(size["right"])) + 1, int(float(size["bottom"])) + 1
        views.append(View(Camera(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), R, T))
    return views


def sharp_landmarks(view: View, video: VideoFile) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the sharp video, with hindsight: [V, 33, 2] px, visibility [V, 33] (0: nobody found)."""
    first = next(iter(video))
    camera = view.camera.window(0, 0, first.shape[1], first.shape[0])
    exposures = tuple(Exposure(i / video.fps, i / video.fps + _SHUT) for i in range(len(video)))
    recording = sequence.Sequence("sharp", camera, exposures, video)
    settings = config.load(offline=True, overrides=TRUE_LANDMARKS)
    measured = measure_recording(recording, settings)
    pixels, weights = np.zeros((len(video), 33, 2)), np.zeros((len(video), 33))
    for i, m in enumerate(measured):
        if m is not None:
            pixels[i], weights[i] = m.landmarks.image, m.landmarks.visibility
    return pixels, weights


def aligned(pixels: np.ndarray, weights: np.ndarray, views: list[View]) -> list[View]:
    """The cameras with their principal points moved so that the rays meet: two of the videos are 1080 px wide, the
    calibration says 1088, and the demo's points lie up to 25 px off. The mean move cannot be told and is left out."""
    for _ in range(_ROUNDS):
        apart = triangulated(pixels, weights, views)[2]
        near = np.linalg.norm(apart, axis=-1) < 4 * _OUTLIER
        step = np.stack([np.median(a[n], axis=0) for a, n in zip(apart, near, strict=True)])
        views = [replace(v, camera=replace(v.camera, K=v.camera.K + np.pad(s[:, None], ((0, 1), (2, 0)))))
                 for v, s in zip(views, 0.7 * (step - step.mean(0)), strict=True)]
    return views


def true_joints(pixels: np.ndarray, weights: np.ndarray, views: list[View]) -> np.ndarray:
    """[V, 24, 3] m, world, of every video frame."""
    points, certainty, apart = triangulated(pixels, weights, views)
    error = np.linalg.norm(apart, axis=-1)[:, :, LIMBS]
    print(f"reprojection error of limb points, median px: {np.round(np.median(error, axis=(1, 2)), 1)}")
    joints, missed = bodies(points, certainty, load_body(None, lod="fit"))
    print(f"body from triangulated limb points, median mm: {1e3 * np.median(missed[:, LIMBS]):.0f}")
    return savgol_filter(joints, 7, 2, axis=0)


def triangulated(pixels: np.ndarray, weights: np.ndarray, views: list[View], rounds: int = 4
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pixels [C, V, P, 2], weights [C, V, P] -> points [V, P, 3] m, weight [V, P], errors [C, V, P, 2] px. Linear,
    with cameras that disagree losing weight (Cauchy)."""
    matrices = np.stack([np.column_stack([v.R, v.T]) for v in views])
    rays = np.stack([v.camera.undistort(p) for v, p in zip(views, pixels, strict=True)])
    robust = np.ones(weights.shape)
    for _ in range(rounds):
        rows = rays[..., None] * matrices[:, None, None, 2:] - matrices[:, None, None, :2]  # [C, V, P, 2, 4]
        rows = (rows * (weights * robust)[..., None, None]).transpose(1, 2, 0, 3, 4)
        vector = np.linalg.svd(rows.reshape(*rows.shape[:2], -1, 4))[2][..., -1, :]
        points = vector[..., :3] / vector[..., 3:]
        seen = np.stack([v.camera.project(points @ v.R.T + v.T) for v in views])
        apart = pixels - seen
        robust = 1 / (1 + (apart**2).sum(-1) / _OUTLIER**2)
    return points, np.minimum((weights * robust).sum(0), 2.0) / 2.0, apart


def bodies(points: np.ndarray, certainty: np.ndarray, model: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    """The body of one shape for points [V, 33, 3] of weights [V, 33]: joints [V, 24, 3]; how far off [V, 33] m."""
    body, betas = LandmarkBody.of(model), np.zeros(10)
    for precision in (np.eye(10), np.eye(10) / _SHAPE**2, 1e6 * np.eye(10)):
        pose, poses = None, []
        for at, weight in zip(points, certainty, strict=True):
            pose = solve(body, at, weight, pose or start(body, at, betas), betas, precision)
            poses.append(pose)
        betas = np.median([p.betas for p in poses], axis=0)
    posed = [body.posed(p.transl, p.local, p.betas) for p in poses]
    return np.stack([p.joints for p in posed]), np.linalg.norm(np.stack([p.points for p in posed]) - points, axis=-1)


def start(body: LandmarkBody, at: np.ndarray, betas: np.ndarray) -> Pose:
    """The rest pose, turned and put so that the trunk's four corners lie best (Kabsch)."""
    corners = [BLAZEPOSE33.index(f"{side}_{joint}") for joint in ("shoulder", "hip") for side in ("left", "right")]
    rest = body.points[corners]
    u, _, vt = np.linalg.svd((rest - rest.mean(0)).T @ (at[corners] - at[corners].mean(0)))
    turn = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
    local = np.tile(np.eye(3), (24, 1, 1))
    local[0] = turn
    middle = body.posed(np.zeros(3), local, betas).points[corners].mean(0)
    return Pose(at[corners].mean(0) - middle, local, betas)


def solve(body: LandmarkBody, at: np.ndarray, weight: np.ndarray, pose: Pose, betas: np.ndarray,
          precision: np.ndarray) -> Pose:
    """Levenberg-Marquardt: points within `_POINT`, the pose prior, betas about those given."""
    prior, damping = load_pose_prior(), 1e-2
    cost, normal, gradient = _evaluate(body, at, weight, pose, betas, precision, prior)
    for _ in range(_ROUNDS):
        damped = normal + damping * np.diag(np.diag(normal)) + 1e-9 * np.eye(UNKNOWNS)
        trial = pose.moved(-np.linalg.solve(damped, gradient))
        new = _evaluate(body, at, weight, trial, betas, precision, prior)
        if new[0] < cost:
            done = new[0] > cost * (1 - 1e-4)
            pose, (cost, normal, gradient), damping = trial, new, damping / 4
            if done:
                break
        else:
            damping *= 8
    return pose


def _evaluate(body: LandmarkBody, at: np.ndarray, weight: np.ndarray, pose: Pose, betas: np.ndarray,
              precision: np.ndarray, prior) -> tuple[float, np.ndarray, np.ndarray]:
    """Cost, normal matrix [85, 85] and gradient [85]."""
    posed = body.posed(pose.transl, pose.local, pose.betas)
    whiten = (weight / _POINT)[:, None]
    r = (whiten * (posed.points - at)).reshape(-1)
    jacobian = (whiten[..., None] * posed.jacobian).reshape(-1, UNKNOWNS)
    normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
    told, slopes = pose_prior_terms(prior, pose)
    normal[6:75, 6:75] += slopes.T @ slopes
    gradient[6:75] += slopes.T @ told
    away = pose.betas - betas
    normal[BETAS, BETAS] += precision
    gradient[BETAS] += precision @ away
    return float(r @ r + told @ told + away @ precision @ away), normal, gradient


def write(folder: Path, view: View, video: VideoFile, joints: np.ndarray, frames: int) -> None:
    """The blurred video of one camera with the truth in its frame; joints [V, 24, 3]."""
    height, width = next(iter(video)).shape[:2]
    shutter = Shutter(frames, window=(0, 0, width, height), size=(width // 2, height // 2))
    camera = view.camera.window(0, 0, width, height).scaled(*shutter.size)
    count = (len(video) - 1) // frames
    exposures, meta = timing(video, shutter, count)
    times = np.linspace([e.open for e in exposures], [e.close for e in exposures], INSTANTS, axis=1)
    moving = between(joints, times * video.fps)
    truth = {"times": times, "joints": lsp14(moving), "joints_smpl24": moving, "K": camera.K}
    write_sequence(folder, blurred(video, shutter, count), camera, exposures, gt=truth, meta=meta)


if __name__ == "__main__":
    main()
