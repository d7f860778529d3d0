"""Where the camera stands, how the light falls, what the floor receives: everything around the body."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data.synth.plates import View
from blur_motion_ros.data.synth.render import Light, Renderer


@dataclass(frozen=True)
class Shot:
    """A camera in the world: X_camera = R X_world + T.  camera: intrinsics, no distortion."""

    camera: Camera
    R: np.ndarray
    T: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 3] -> camera frame."""
        return points @ self.R.T + self.T


def look_at(eye: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World (y up) -> camera (x right, y down, z forward) of an upright camera at `eye` looking at `target`."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    return R, -R @ eye


def random_shot(rng: np.random.Generator, points: np.ndarray, width: int, height: int, yaw: float | None = None,
                margin: float = 0.06) -> Shot:
    """The nearest upright camera in a random direction that keeps all `points` [N, 3] (world) inside the image."""
    focal = rng.uniform(0.85, 1.25) * width
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    camera = Camera(width, height, K)
    centre = 0.5 * (points.min(0) + points.max(0))
    yaw = rng.uniform(0, 2 * np.pi) if yaw is None else yaw
    eye_height = rng.uniform(0.7, 2.2)
    for distance in np.arange(1.8, 30.0, 0.1):
        eye = centre + distance * np.array([np.sin(yaw), 0, np.cos(yaw)])
        eye[1] = eye_height
        R, T = look_at(eye, centre)
        seen = points @ R.T + T
        if seen[:, 2].min() < 0.8:
            continue
        pixels = camera.project(seen)
        border = margin * np.array([width, height])
        if (pixels > border).all() and (pixels < np.array([width, height]) - border).all():
            return Shot(camera, R, T)
    raise ValueError("no camera within 30 m sees the whole motion; use fewer frames")


def random_light(rng: np.random.Generator, brightness: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Direction to the sun (world), the sun's share of the light (0.15-0.7), and its colour."""
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 75))
    sun = np.array([np.cos(height) * np.cos(azimuth), np.sin(height), np.cos(height) * np.sin(azimuth)])
    warmth = rng.uniform(-0.12, 0.12)
    return sun, float(rng.uniform(0.15, 0.7)), brightness * np.array([1 + warmth, 1.0, 1 - warmth])


def body_light(shot: Shot, sun: np.ndarray, share: float, colour: np.ndarray, floor: np.ndarray) -> Light:
    """The same light as the body sees it (camera frame). floor [3]: mean colour of the floor, for the bounce."""
    return Light(shot.R @ sun, shot.R @ np.array([0.0, 1.0, 0.0]), 1.3 * share * colour, (1 - share) * colour,
                 0.6 * (1 - share) * colour * floor / max(floor.max(), 1e-6) + 0.2 * share * floor)


class FloorShadow:
    """Shade that a body casts on the floor: a soft shadow of the sun and dark contact under the feet."""

    def __init__(self, view: View, shot: Shot, sun: np.ndarray, share: float, softness: float, scale: int = 2):
        self._shot, self._sun, self._share = shot, sun, share
        self._on_floor = np.isfinite(view.ground[..., 0])
        self._ground = np.nan_to_num(view.ground, nan=1e6)
        camera = shot.camera.scaled(shot.camera.width // scale, shot.camera.height // scale)
        self._K, self._softness = camera.K, softness / scale
        self._renderer = Renderer(camera.width, camera.height, 1)

    def factor(self, vertices: np.ndarray, faces: np.ndarray, feet: np.ndarray) -> np.ndarray:
        """What is left of the floor's light, [H, W, 1]. vertices [V, 3] and feet [4, 3]: world."""
        flat = vertices - (vertices[:, 1:2] / self._sun[1]) * self._sun
        mask = self._renderer.silhouette(self._shot.to_camera(flat), faces, self._K)
        mask = cv2.GaussianBlur(mask, (0, 0), self._softness)
        mask = cv2.resize(mask, self._on_floor.shape[::-1], interpolation=cv2.INTER_LINEAR)
        contact = np.zeros(mask.shape, np.float32)
        for foot in feet:
            height = max(float(foot[1]), 0.0)
            squared = (self._ground[..., 0] - foot[0]) ** 2 + (self._ground[..., 2] - foot[2]) ** 2
            contact += 0.35 * np.exp(-squared / (2 * (0.07 + 0.5 * height) ** 2)) * np.exp(-height / 0.25)
        direct = 1 - self._share * mask
        return np.where(self._on_floor, direct * (1 - np.minimum(contact, 0.6)), 1.0)[..., None].astype(np.float32)
