"""What one frame's landmarks say about a body, as numbers with noise: rays of points, and directions of bones.

The network's 3D landmarks are used only through directions: their scale is the network's idea of the person, and their
axes are those of a camera that looks straight at the person, so they are turned to the true line of sight first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body.joints import BLAZEPOSE33
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser.settings import RegistrationSettings
from blur_motion_ros.types import Landmarks

_INDEX = {name: i for i, name in enumerate(BLAZEPOSE33)}


def _pairs(*names: tuple[str, str]) -> np.ndarray:
    """Index pairs of bones; a name without a side stands for the left and the right one."""
    out = []
    for a, b in names:
        if a in _INDEX and b in _INDEX:
            out.append((_INDEX[a], _INDEX[b]))
        else:
            out += [(_INDEX.get(a, _INDEX.get(f"{s}_{a}")), _INDEX.get(b, _INDEX.get(f"{s}_{b}")))
                    for s in ("left", "right")]
    return np.array(out)


BONES = _pairs(
    ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"), ("hip", "shoulder"), ("left_hip", "right_shoulder"),
    ("right_hip", "left_shoulder"), ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
    ("ankle", "foot_index"), ("heel", "foot_index"), ("wrist", "index"), ("wrist", "pinky"), ("left_ear", "right_ear"),
    ("ear", "nose"), ("shoulder", "ear"))
# Noise relative to a limb joint's: small parts are located less well for their size, the face is seen well but its
# landmarks lie on the skin, where bodies differ.
_POINT_NOISE = {"hip": 1.2, "pinky": 2.0, "index": 1.5, "thumb": 2.0, "nose": 1.2, "ear": 1.2, "mouth": 1.5, "eye": 1.5,
                "heel": 1.2}
# Noise of a bone's direction, relative to the settings. Long and calm parts are told well; the depth of forearms,
# hands and feet is close to a guess. A bone takes the larger noise of its two ends.
_BONE_NOISE = {"hip": 0.6, "shoulder": 0.6, "knee": 0.8, "ankle": 0.8, "elbow": 1.2, "wrist": 1.8, "index": 2.5,
               "pinky": 2.5, "heel": 1.5, "foot": 1.5, "ear": 1.5, "nose": 1.5}


def _part(name: str) -> str:
    """'left_foot_index' -> 'foot', 'right_eye_inner' -> 'eye', 'nose' -> 'nose'."""
    return name.removeprefix("left_").removeprefix("right_").split("_")[0]


_POINT_SIGMA = np.array([_POINT_NOISE.get(_part(n), 1.0) for n in BLAZEPOSE33])
_BONE_SIGMA = np.array([max(_BONE_NOISE[_part(BLAZEPOSE33[i])] for i in pair) for pair in BONES])
_UNSEEN = 4.0  # noise of an invisible landmark, in that of a visible one


@dataclass(frozen=True)
class Evidence:
    """rays: [33, 2] normalised (x/z, y/z).  whiten: [33, 2, 2] 1/m: ray differences times the point's distance ->
    standard deviations.  directions: [B, 3] unit, camera axes, of `BONES`.  bone_whiten: [B, 3, 3], direction
    differences -> standard deviations.  view: [3, 3], axes of the line of sight to camera axes."""

    rays: np.ndarray
    whiten: np.ndarray
    directions: np.ndarray
    bone_whiten: np.ndarray
    view: np.ndarray


def evidence(landmarks: Landmarks, camera: Camera, settings: RegistrationSettings,
             path: np.ndarray | None = None) -> Evidence:
    """path: [33, 2] m, how far each point travels across the image during the exposure (None: taken as no blur)."""
    rays = camera.undistort(landmarks.image)
    view = line_of_sight(rays[[23, 24]].mean(0))
    world = landmarks.world @ view.T
    bones = world[BONES[:, 1]] - world[BONES[:, 0]]
    length = np.linalg.norm(bones, axis=1, keepdims=True)
    unseen = 1 + (_UNSEEN - 1) * (1 - np.clip(landmarks.visibility, 0, 1))
    sigma = np.array([settings.direction_sigma, settings.direction_sigma, settings.depth_sigma])
    noise = _BONE_SIGMA * unseen[BONES].max(1)
    turned = view.T / sigma[:, None]
    return Evidence(rays, _whitening(settings.pixel_sigma * _POINT_SIGMA * unseen, path, settings.blur_sigma),
                    bones / np.maximum(length, 1e-6), turned / noise[:, None, None], view)


def line_of_sight(ray: np.ndarray) -> np.ndarray:
    """[3, 3] smallest rotation that takes the optical axis to the ray (x/z, y/z) [2]."""
    d = np.append(ray, 1.0) / np.sqrt(1 + ray @ ray)
    v = np.array([-d[1], d[0], 0.0])  # axis * sin
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + d[2])


def _whitening(sigma: np.ndarray, path: np.ndarray | None, blur_sigma: float) -> np.ndarray:
    """[33, 2, 2]: inverse standard deviations, smaller along the path of a blurred point."""
    out = np.eye(2) / sigma[:, None, None]
    if path is None:
        return out
    length = np.linalg.norm(path, axis=1)
    along = path / np.maximum(length, 1e-9)[:, None]
    blurred = 1 / np.hypot(sigma, blur_sigma * length) - 1 / sigma
    return out + blurred[:, None, None] * along[:, :, None] * along[:, None, :]
