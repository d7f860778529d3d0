"""Random motions and cameras to learn from: mocap clips, mirrored, sped up, spliced and perturbed; a static camera.

Clips live in a y-up world (see `data.mocap`); everything returned is in the camera frame (x right, y down, z forward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blur_motion_ros.data.mocap import NOMINAL_REST, PARENTS, MotionClip, forward
from blur_motion_ros.motion import rotations
from blur_motion_ros.settings import setting

LOWER = np.array([1, 2, 4, 5, 7, 8, 10, 11])  # SMPL joints of the legs; a splice takes root and legs from one clip
_ARMS = {13: 0.15, 14: 0.15, 16: 0.7, 17: 0.7, 18: 0.5, 19: 0.5, 20: 0.3, 21: 0.3}  # joint -> perturbation, rad
_BODY = {3: 0.1, 6: 0.1, 9: 0.1, 12: 0.2, 15: 0.2, 1: 0.15, 2: 0.15, 4: 0.15, 5: 0.15}


@dataclass(frozen=True)
class MotionSettings:
    """What is drawn at random for every training sequence."""

    frames: int = setting(32, "frames per sequence", low=2, high=1000)
    invented: float = setting(0.35, "share of clips that nobody recorded: ways between random poses", low=0, high=1)
    splice: float = setting(0.35, "share of sequences whose upper body comes from another clip", low=0, high=1)
    perturb: float = setting(0.6, "share of sequences with smooth random offsets on the joints", low=0, high=1)
    slowest: float = setting(0.7, "least playback speed", low=0.1, high=5)
    fastest: float = setting(2.0, "greatest playback speed", low=0.1, high=5)
    near: float = setting(2.0, "nearest camera", unit="m", low=0.5, high=50)
    far: float = setting(8.0, "farthest camera", unit="m", low=0.5, high=50)
    truncated: float = setting(0.12, "share of sequences that may leave the picture", low=0, high=1)
    betas: float = setting(1.0, "standard deviation of the shape coefficients", low=0, high=3)


@dataclass(frozen=True)
class Sequence3D:
    """A body moving before a camera.

    open, close: [T] s shutter times.  K: [3, 3] px for a 640 x 480 image.  betas: [10].  `at(times)` gives local
    rotations [N, 24, 3, 3] (root in the camera frame) and the pelvis [N, 3] m in the camera frame.
    """

    name: str
    open: np.ndarray
    close: np.ndarray
    K: np.ndarray
    betas: np.ndarray
    motion: RandomMotion
    camera_from_world: np.ndarray
    camera_position: np.ndarray

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local, pelvis = self.motion.at(times)
        local[:, 0] = self.camera_from_world @ local[:, 0]
        return local, (pelvis - self.camera_position) @ self.camera_from_world.T

    @property
    def middle(self) -> np.ndarray:
        return 0.5 * (self.open + self.close)


@dataclass(frozen=True)
class RandomMotion:
    """A clip from `start` s at `speed`, optionally with another clip's upper body and sinusoidal offsets."""

    clip: MotionClip
    start: float
    speed: float
    upper: MotionClip | None
    upper_start: float
    amplitude: np.ndarray  # [K, 24, 3] rad
    frequency: np.ndarray  # [K] Hz
    phase: np.ndarray  # [K, 24, 3] rad

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local rotations [N, 24, 3, 3] and pelvis [N, 3], y-up world, at `times` [N] s of the sequence."""
        local, pelvis = self.clip.sample(self.start + self.speed * np.asarray(times))
        if self.upper is not None:
            other, _ = self.upper.sample(self.upper_start + self.speed * np.asarray(times))
            keep = np.zeros(24, bool)
            keep[LOWER] = keep[0] = True
            local = np.where(keep[None, :, None, None], local, other)
        if len(self.frequency):
            wave = np.sin(2 * np.pi * self.frequency[:, None, None, None] * times[None, :, None, None]
                          + self.phase[:, None])
            local = local @ rotations.exp((self.amplitude[:, None] * wave).sum(0))
        return local.copy(), pelvis


def draw_sequence(clips: Sequence[MotionClip], rng: np.random.Generator,
                  settings: MotionSettings, plain: bool = False) -> Sequence3D:
    """One random sequence. plain: clips as recorded at their own speed (for evaluation), cameras still random."""
    fps = float(rng.choice([30.0, 30.0, 30.0, 25.0, 20.0, 15.0]))
    duty = float(rng.choice([rng.uniform(0.15, 0.6), rng.uniform(0.6, 0.95), 0.9]))
    opened = np.arange(settings.frames) / fps
    speed = 1.0 if plain else float(rng.uniform(settings.slowest, settings.fastest))
    motion = _draw_motion(clips, opened[-1] + 1 / fps, speed, rng, settings, plain)
    rotation, position, k = _draw_camera(motion, opened, rng, settings)
    betas = np.clip(rng.standard_normal(10) * settings.betas, -2.5, 2.5)
    return Sequence3D(motion.clip.name, opened, opened + duty / fps, k, betas, motion, rotation, position)


def _draw_motion(clips: Sequence[MotionClip], span: float, speed: float, rng: np.random.Generator,
                 settings: MotionSettings, plain: bool) -> RandomMotion:
    invented = 0.0 if plain else settings.invented
    clip, start = _draw_clip(clips, span * speed, rng, plain, invented)
    upper, upper_start = None, 0.0
    if not plain and rng.random() < settings.splice:
        upper, upper_start = _draw_clip(clips, span * speed, rng, plain, invented)
    waves = 0 if plain or rng.random() > settings.perturb else 3
    scale = np.zeros((24, 1))
    for joint, size in {**_ARMS, **_BODY}.items():
        scale[joint] = size
    amplitude = rng.standard_normal((waves, 24, 3)) * scale * rng.uniform(0.2, 1.3)
    return RandomMotion(clip, start, speed, upper, upper_start, amplitude, np.array([0.1, 0.5, 1.1])[:waves] *
                        rng.uniform(0.6, 1.4, waves), rng.uniform(0, 2 * np.pi, (waves, 24, 3)))


def _draw_clip(clips: Sequence[MotionClip], span: float, rng: np.random.Generator, plain: bool,
               invented: float = 0.0) -> tuple[MotionClip, float]:
    """A clip with chance proportional to its duration (a short clip holds its last frame), and a start in it; or,
    with chance `invented`, a new random one."""
    if invented and rng.random() < invented:
        return random_clip(rng, "random", span + 0.1, 60.0), 0.0
    weight = np.array([max(c.duration, 0.5) ** 0.7 for c in clips])  # the power lets rare actions be seen more
    clip = clips[rng.choice(len(clips), p=weight / weight.sum())]
    if not plain and rng.random() < 0.5:
        clip = clip.mirrored()
    return clip, float(rng.uniform(0, max(clip.duration - span, 0.0)))


def _draw_camera(motion: RandomMotion, opened: np.ndarray, rng: np.random.Generator,
                 settings: MotionSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A static camera that looks near the person's path: world-to-camera rotation, position [3], K [3, 3]."""
    local, path = motion.at(opened[:: max(1, len(opened) // 8)])
    _, joints = forward(local, NOMINAL_REST, PARENTS)
    joints = joints - joints[:, :1] + path[:, None]
    target = path.mean(0)
    spread = np.abs(joints - target)[..., [0, 2]].max()
    distance = max(np.exp(rng.uniform(np.log(settings.near), np.log(settings.far))), 1.2 + spread)
    azimuth = rng.uniform(0, 2 * np.pi)
    height = joints[..., 1].min() + rng.uniform(0.3, 2.6)
    position = np.array([target[0], height, target[2]]) + distance * np.array([np.sin(azimuth), 0, np.cos(azimuth)])
    roll = rotations.exp(np.array([0, 0, rng.normal(0, 0.03)]))
    rotation = roll @ look(target - position)
    focal, aim = _frame_up((joints - position) @ rotation.T, distance, rng, settings)
    rotation = roll @ look(rotation.T @ aim)
    k = np.array([[focal, 0, 319.5 + rng.normal(0, 6)], [0, focal, 239.5 + rng.normal(0, 6)], [0, 0, 1]])
    return rotation, position, k


def _frame_up(points: np.ndarray, distance: float, rng: np.random.Generator,
              settings: MotionSettings) -> tuple[float, np.ndarray]:
    """Focal length in px and a direction to look in [3] (camera axes), so that most sequences stay in the picture."""
    rays = points[..., :2] / points[..., 2:]
    low, high = rays.reshape(-1, 2).min(0) - 0.12 / distance, rays.reshape(-1, 2).max(0) + 0.12 / distance
    focal = rng.uniform(130, 420) * distance / 1.75
    slack = np.zeros(2)
    if rng.random() > settings.truncated:
        focal = min(focal, rng.uniform(0.75, 0.98) * min(640 / (high[0] - low[0]), 480 / (high[1] - low[1])))
        slack = np.maximum(np.array([640, 480]) / focal - (high - low), 0)
    focal = float(np.clip(focal, 250, 1600))
    aim = 0.5 * (low + high) + slack * rng.uniform(-0.45, 0.45, 2)
    return focal, np.append(aim, 1.0)


def look(forward: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] from a y-up world to a level camera (x right, y down, z forward) looking along `forward`."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(z, np.array([0.0, 1, 0]))
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


# joint: ranges in rad about x, y, z (SMPL axes; left side, the right one mirrored): wide, but a person could do it
_RANGES = {
    "hip": ((-2.0, 0.5), (-0.5, 0.5), (-0.25, 0.7)), "knee": ((0.0, 2.2), (-0.1, 0.1), (-0.05, 0.05)),
    "ankle": ((-0.5, 0.5), (-0.3, 0.3), (-0.2, 0.2)), "foot": ((-0.3, 0.1), (0, 0), (0, 0)),
    "collar": ((-0.1, 0.1), (-0.2, 0.2), (-0.2, 0.3)), "elbow": ((-0.5, 0.5), (-2.4, 0.05), (-0.2, 0.2)),
    "wrist": ((-0.5, 0.5), (-0.3, 0.3), (-0.6, 0.6)), "spine1": ((-0.2, 0.5), (-0.3, 0.3), (-0.25, 0.25)),
    "spine2": ((-0.15, 0.3), (-0.3, 0.3), (-0.2, 0.2)), "spine3": ((-0.15, 0.2), (-0.2, 0.2), (-0.15, 0.15)),
    "neck": ((-0.3, 0.5), (-0.6, 0.6), (-0.3, 0.3)), "head": ((-0.3, 0.4), (-0.4, 0.4), (-0.2, 0.2)),
}


def random_clips(count: int, seed: int, seconds: float = 3.0, fps: float = 60.0) -> list[MotionClip]:
    """Motions that nobody recorded: smooth ways between random poses, so that no habit of the mocap is taken for a
    law. One in six turns over (cartwheels, rolls)."""
    return [random_clip(np.random.default_rng([seed, i, 99]), f"random_{i}", seconds, fps) for i in range(count)]


def random_clip(rng: np.random.Generator, name: str, seconds: float, fps: float) -> MotionClip:
    pace = rng.uniform(0.25, 1.0)
    keys = int(np.ceil(seconds / pace)) + 2
    poses = np.stack([_random_pose(rng) for _ in range(keys)])
    still = rng.random((keys, 24)) < 0.35  # limbs often rest while others move
    for k in range(1, keys):
        poses[k, still[k]] = poses[k - 1, still[k]]
    poses[:, 0] = _random_headings(rng, keys)
    times = np.arange(int(seconds * fps)) / fps / pace
    low = times.astype(int)
    x = times - low
    ease = (x * x * (3 - 2 * x))[:, None]
    local = rotations.slerp(poses[low], poses[low + 1], np.broadcast_to(ease, (len(x), 24)))
    path = np.cumsum(rng.normal(0, [0.25, 0.08, 0.25], (keys, 3)), 0) * rng.uniform(0, 1.5) + [0, 0.95, 0]
    pelvis = path[low] + ease * (path[low + 1] - path[low])
    return MotionClip(name, "train", fps, rotations.log(local), pelvis)


def _random_pose(rng: np.random.Generator) -> np.ndarray:
    """Local rotations [24, 3, 3]; the root is left alone."""
    from blur_motion_ros.body.joints import SMPL24, side

    calm = rng.uniform(0.3, 1.0)  # how far towards the ends of the ranges
    out = np.tile(np.eye(3), (24, 1, 1))
    for j, joint in enumerate(SMPL24):
        sign = np.array([1, -1, -1]) if side(joint) == "right" else np.ones(3)
        part = joint.removeprefix(f"{side(joint)}_")
        if part == "shoulder":
            out[j] = _random_shoulder(rng, sign)
        elif part in _RANGES:
            low, high = np.array(_RANGES[part]).T
            out[j] = rotations.exp(sign * (low + (high - low) * (0.5 + calm * (rng.random(3) - 0.5))))
    return out


def _random_shoulder(rng: np.random.Generator, sign: np.ndarray) -> np.ndarray:
    """The arm points anywhere in reach, hanging half of the time; some twist."""
    while True:
        d = _unit(rng.standard_normal(3) + ([0.2, -1.2, 0.3] if rng.random() < 0.5 else [0.3, 0, 0.4]))
        if d[0] > -0.5 and d[2] > -0.7:
            break
    axis = np.cross([1.0, 0, 0], d)
    swing = rotations.exp(_unit(axis) * np.arccos(np.clip(d[0], -1, 1)))
    left = rotations.log(swing @ rotations.exp(np.array([rng.uniform(-1, 1), 0, 0])))
    return rotations.exp(sign * left)


def _random_headings(rng: np.random.Generator, keys: int) -> np.ndarray:
    """Root rotations [keys, 3, 3]: a turning, swaying body; one in six tumbles."""
    yaw = np.cumsum(rng.normal(0, rng.choice([0.1, 0.6]), keys)) + rng.uniform(0, 2 * np.pi)
    sway = rng.normal(0, rng.choice([0.1, 0.3, 0.6], p=[0.5, 0.35, 0.15]), (keys, 3)) * [1, 0, 1]
    upright = rotations.exp(np.stack([0 * yaw, yaw, 0 * yaw], 1)) @ rotations.exp(sway)
    if rng.random() > 1 / 6:
        return upright
    tumble = np.cumsum(rng.uniform(0.3, 1.2, keys)) * rng.choice([-1, 1])
    axis = _unit(rng.standard_normal(3) * [1, 0.2, 1])
    return upright @ rotations.exp(tumble[:, None] * axis)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / max(np.linalg.norm(v), 1e-9)
