"""Which clips and moments of motion capture to film: recordings stand still for much of their time."""

from __future__ import annotations

import numpy as np

from blur_motion_ros.data.mocap import MotionClip

_ENDS = [7, 8, 20, 21]  # SMPL's ankles and wrists


def filmed(clips: list[MotionClip]) -> tuple[list[MotionClip], np.ndarray]:
    """The clips that can be filmed, and how likely each is [N]: longer and faster ones are more so."""
    clips = [c for c in clips if c.duration > 0.4 and c.fps > 25]
    weights = np.array([liveliness(c) for c in clips])
    return clips, weights / weights.sum()


def liveliness(clip: MotionClip) -> float:
    """Grows with duration and with the speed of hands and feet."""
    speed = np.linalg.norm(np.diff(clip.joints()[:, _ENDS], axis=0), axis=-1).mean() * clip.fps
    return float(np.sqrt(clip.duration) * (0.3 + speed))


def lively_start(clip: MotionClip, exposure: float, rng: np.random.Generator) -> float:
    """When an exposure begins, s: of several moments the one with the fastest hands and feet."""
    starts = rng.uniform(0, clip.duration - exposure, int(rng.choice([1, 4, 12])))
    speed = np.linalg.norm(np.diff(clip.joints()[:, _ENDS], axis=0), axis=-1).max(1)
    frames = np.clip(((starts + 0.5 * exposure) * clip.fps).astype(int), 0, len(speed) - 1)
    return float(starts[np.argmax(speed[frames])])
