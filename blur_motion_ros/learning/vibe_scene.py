"""Blurred pictures of our own body in random clothes before random walls, and what BlazePose says of them.

The look is coarse on purpose (per-vertex colours, one light): it only has to make the pose network err as it errs on
people. Image formation is the package's: sub-frames averaged in linear light over the plate, noise, sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numba import njit

from blur_motion_ros import light
from blur_motion_ros.body import BodyModel
from blur_motion_ros.learning.vibe_motion import Sequence3D
from blur_motion_ros.render import raster

WIDTH, HEIGHT = 640, 480
_SUBFRAMES = 8


@dataclass(frozen=True)
class Puppet:
    """A body in SMPL format, skinned with numpy.

    template [V, 3], shapes [V, 3, 10], weights [V, 24], joints [24, 3] and their slopes by betas [24, 3, 10],
    faces [F, 3] int32.
    """

    template: np.ndarray
    shapes: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    joint_shapes: np.ndarray
    faces: np.ndarray

    @cached_property
    def bones(self) -> np.ndarray:
        """[V, 4] the strongest joints of every vertex."""
        return np.argsort(-self.weights, 1)[:, :4].copy()

    @cached_property
    def shares(self) -> np.ndarray:
        """[V, 4] float32 their weights, summing to one."""
        w = np.take_along_axis(self.weights, self.bones, 1)
        return (w / w.sum(1, keepdims=True)).astype(np.float32)

    @staticmethod
    def of(body: BodyModel) -> Puppet:
        """The full-detail body, its pose-dependent corrections left out."""
        basis = np.asarray(body.joint_basis, np.float32)
        return Puppet(np.asarray(body.v_template, np.float32), np.asarray(body.shapedirs[..., :10], np.float32),
                      np.asarray(body.weights, np.float32), basis[..., 0], basis[..., 1:],
                      np.ascontiguousarray(body.faces, np.int32))

    def shaped(self, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rest vertices [V, 3] and joints [24, 3]."""
        betas = betas.astype(np.float32)
        return self.template + self.shapes @ betas, self.joints + self.joint_shapes @ betas

    def pose(self, rest: np.ndarray, joints: np.ndarray, local: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
        """Rest vertices posed by local rotations [M, 24, 3, 3] with the pelvis joint at [M, 3] -> [M, V, 3] float32."""
        from blur_motion_ros.data.mocap import PARENTS, forward

        turned, positions = forward(local, joints.astype(np.float64), PARENTS)
        positions = positions + (pelvis - positions[:, 0])[:, None]
        offset = positions - (turned @ joints[:, :, None].astype(np.float64))[..., 0]
        affine = np.concatenate([turned, offset[..., None]], -1).astype(np.float32)
        out = np.empty((len(local), len(rest), 3), np.float32)
        _skin(self.bones, self.shares, affine, rest, out)
        return out


@njit(cache=True, nogil=True, fastmath=True)
def _skin(bones, shares, affine, rest, out):
    """Linear blend skinning with the strongest four bones of every vertex."""
    for m in range(out.shape[0]):
        for v in range(out.shape[1]):
            x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
            for a in range(3):
                total = np.float32(0)
                for k in range(4):
                    t = affine[m, bones[v, k], a]
                    total += shares[v, k] * (t[0] * x + t[1] * y + t[2] * z + t[3])
                out[m, v, a] = total


@dataclass(frozen=True)
class Dress:
    """Clothes of one person: colour [V, 3] linear light, puff [V] m along the normals."""

    colour: np.ndarray
    puff: np.ndarray


def draw_dress(puppet: Puppet, rng: np.random.Generator) -> Dress:
    """Random skin, hair, shirt, trousers and shoes by skinning weight, with patterns and soft folds."""
    w, rest = puppet.weights, puppet.template
    part = lambda *joints: w[:, list(joints)].sum(1)  # noqa: E731
    skin = _linear(rng.choice(SKINS)) * rng.uniform(0.8, 1.15)
    colour = np.tile(skin, (len(w), 1))
    sleeve = rng.choice([0, 1, 2])
    top = part(3, 6, 9, 13, 14) + part(16, 17) * (sleeve > 0) + part(18, 19) * (sleeve > 1)
    shorts = rng.random() < 0.35
    legs = part(0, 1, 2) + part(4, 5) * (not shorts)
    shirt, trousers, shoes = (_cloth(rest, rng) for _ in range(3))
    for mask, cloth in ((top, shirt), (legs, trousers), (part(7, 8, 10, 11), shoes)):
        colour = np.where((mask > 0.5)[:, None], cloth, colour)
    colour = _face_and_hair(puppet, colour, skin, rng)
    folds = _smooth_noise(rest, rng, 9)
    puff = np.clip(top + legs, 0, 1) * rng.uniform(0.002, 0.02) * np.clip(1 + 0.5 * folds, 0, 2)
    puff += np.clip(part(7, 8, 10, 11), 0, 1) * rng.uniform(0, 0.01)
    return Dress(np.clip(colour, 0.004, 0.95).astype(np.float32), puff.astype(np.float32))


SKINS = np.array([[241, 200, 170], [224, 172, 138], [198, 134, 96], [141, 85, 54], [90, 56, 37]], float)


def _linear(code: np.ndarray) -> np.ndarray:
    return (np.asarray(code) / 255.0) ** 2.2


def _paint(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A random colour, linear light; most are muted."""
    colour = rng.uniform(low, high, 3)
    return _linear(colour.mean() + (colour - colour.mean()) * rng.uniform(0, 1) ** 1.5)


def _cloth(rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Per-vertex cloth colour [V, 3]: plain, stripes or blotches of two colours."""
    a, b = _paint(rng, 10, 245), _paint(rng, 10, 245)
    kind = rng.integers(0, 4)
    if kind == 0:
        blend = 0.5 + 0.5 * np.sign(np.sin(rest @ rng.normal(0, 1, 3) * rng.uniform(20, 90)))
    elif kind == 1:
        blend = 0.5 + 0.5 * np.tanh(3 * _smooth_noise(rest, rng, rng.uniform(8, 40)))
    else:
        blend = 0.1 * _smooth_noise(rest, rng, 25)
    return a + blend[:, None] * (b - a)


def _smooth_noise(points: np.ndarray, rng: np.random.Generator, frequency: float) -> np.ndarray:
    """Sum of random plane waves at the points [V, 3], about unit variance."""
    k = rng.normal(0, frequency, (6, 3))
    return np.sin(points @ k.T + rng.uniform(0, 6.28, 6)).sum(1) / np.sqrt(3)


def _face_and_hair(puppet: Puppet, colour: np.ndarray, skin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hair on the crown and back of the head; dark eyes and brows, reddish mouth, by position in the rest head."""
    rest, head = puppet.template, puppet.weights[:, 15] > 0.5
    p = rest[head]
    low, high = p.min(0), p.max(0)
    u = (rest - low) / (high - low)  # across, up, forward (rest pose faces +z)
    hair = _linear(rng.choice([[20, 15, 12], [60, 40, 25], [150, 110, 60], [120, 120, 120], [35, 25, 20]]))
    covered = head & ((u[:, 1] > 0.82) | ((u[:, 2] < rng.uniform(0.35, 0.55)) & (u[:, 1] > rng.uniform(0.1, 0.5))))
    if rng.random() < 0.92:
        colour = np.where(covered[:, None], hair * (1 + 0.2 * _smooth_noise(rest, rng, 60)[:, None]), colour)
    across = np.abs(u[:, 0] - 0.5)
    front = head & (u[:, 2] > 0.72)
    eyes = front & (np.abs(across - 0.21) < 0.085) & (np.abs(u[:, 1] - 0.55) < 0.045)
    mouth = front & (across < 0.16) & (np.abs(u[:, 1] - 0.24) < 0.035)
    colour = np.where(eyes[:, None], 0.25 * skin, colour)
    return np.where(mouth[:, None], skin * [0.75, 0.45, 0.45], colour)


def draw_plate(rng: np.random.Generator, photos: list[np.ndarray]) -> np.ndarray:
    """A background [480, 640, 3] float32 linear light: a crop of a photo, or a procedural wall and floor."""
    if photos and rng.random() < 0.4:
        photo = photos[rng.integers(len(photos))]
        h, w = photo.shape[:2]
        side = rng.uniform(0.5, 1.0)
        ch, cw = int(h * side), int(w * side)
        y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
        patch = cv2.resize(photo[y:y + ch, x:x + cw], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        return light.to_linear(np.ascontiguousarray(patch)) * np.float32(rng.uniform(0.6, 1.2))
    image = np.empty((HEIGHT, WIDTH, 3), np.float32)
    horizon = int(rng.uniform(0.4, 0.85) * HEIGHT)
    ramp = np.linspace(rng.uniform(0.7, 1), rng.uniform(0.7, 1.2), WIDTH, dtype=np.float32)[None, :, None]
    image[:horizon] = _paint(rng, 30, 240) * ramp
    image[horizon:] = _paint(rng, 20, 200) * ramp
    for _ in range(rng.integers(0, 12)):
        x, y = rng.integers(0, WIDTH), rng.integers(0, HEIGHT)
        w, h = rng.integers(10, 260), rng.integers(10, 260)
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), _paint(rng, 5, 250).tolist(), -1)
    texture = cv2.resize(rng.normal(0, 1, (HEIGHT // 4, WIDTH // 4)).astype(np.float32), (WIDTH, HEIGHT))
    image *= 1 + rng.uniform(0, 0.12) * texture[..., None]
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.0)).clip(0, 1)


def draw_place(rng: np.random.Generator, sequence: Sequence3D) -> np.ndarray:
    """A textured room or yard around the person, seen by the sequence's camera: [480, 640, 3] float32 linear light."""
    from blur_motion_ros.data.synth.plates import random_room, random_yard, view
    from blur_motion_ros.data.synth.scene import random_light

    eye, r = sequence.camera_position, sequence.camera_from_world
    _, pelvis = sequence.motion.at(sequence.middle[:1])
    reach = float(np.linalg.norm(eye - pelvis[0])) + 0.5
    place = (random_room if rng.random() < 0.6 else random_yard)(rng, pelvis[0] * [1, 0, 1], reach)
    sun, share, colour = random_light(rng, float(rng.uniform(0.6, 1.2)))
    plate = view(place, r, -r @ eye, sequence.K, (WIDTH, HEIGHT), sun, share, supersample=1).plate
    return (plate * colour.astype(np.float32)).clip(0, 1)


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit vertex normals [V, 3] of an outward-wound mesh."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    n = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for i in range(3):
        for d in range(3):
            out[:, d] += np.bincount(faces[:, i], n[:, d], len(vertices))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


class Studio:
    """Films a `Sequence3D`: yields (blurred frame uint8, sharp?) one at a time over one plate."""

    def __init__(self, puppet: Puppet, sequence: Sequence3D, rng: np.random.Generator, plate: np.ndarray):
        self.sequence, self.puppet, self.plate, self.rng = sequence, puppet, plate, rng
        dress = draw_dress(puppet, rng)
        rest, self.joints = puppet.shaped(sequence.betas)
        self.rest = rest + dress.puff[:, None] * normals(rest, puppet.faces)
        self.colour = dress.colour
        self.light = _unit(rng.normal(0, 1, 3) * [1, 0.5, 0.6] + [0, -0.9, -0.5])  # from above, behind the camera
        self.ambient = rng.uniform(0.35, 0.8)
        self.exposure = rng.uniform(0.7, 1.15)
        self.noise = rng.uniform(0.002, 0.01)
        self._noise = rng.standard_normal((HEIGHT, WIDTH, 3), np.float32) * np.float32(self.noise)
        self._frames: raster.SubFrames | None = None

    def film(self, index: int) -> np.ndarray | None:
        """Blurred frame [480, 640, 3] uint8 sRGB; None when the body is out of the picture."""
        s = self.sequence
        step = (np.arange(_SUBFRAMES) + 0.5) / _SUBFRAMES
        times = s.open[index] + step * (s.close[index] - s.open[index])
        local, pelvis = s.at(times)
        vertices = self.puppet.pose(self.rest, self.joints, local, pelvis)
        box = self._box(vertices)
        if box is None:
            return None
        x0, y0, size = box
        k = s.K.copy()
        k[:2, 2] -= [x0, y0]
        frames = self._buffer(size)
        raster.draw(vertices, self.puppet.faces, self._shade(vertices[_SUBFRAMES // 2]), k, frames)
        return self._develop(frames, x0, y0, size)

    def _buffer(self, size: int) -> raster.SubFrames:
        if self._frames is None or self._frames.alpha.shape[1] != size:
            self._frames = raster.SubFrames.allocate(_SUBFRAMES, size, 1)
        return self._frames

    def _box(self, vertices: np.ndarray) -> tuple[int, int, int] | None:
        """Integer corner and side (a multiple of 64) of a square that holds the visible body."""
        vertices = vertices[[0, _SUBFRAMES // 2, -1]][:, ::7]  # the extremes move little between these
        if vertices[..., 2].min() < 0.3:
            return None
        k = self.sequence.K
        uv = vertices[..., :2] / vertices[..., 2:] * k[[0, 1], [0, 1]] + k[:2, 2]
        low = np.floor(uv.reshape(-1, 2).min(0)).astype(int) - 8
        high = np.ceil(uv.reshape(-1, 2).max(0)).astype(int) + 9
        low, high = np.maximum(low, [-40, -40]), np.minimum(high, [WIDTH + 40, HEIGHT + 40])
        if (high - low).min() < 8:
            return None
        return int(low[0]), int(low[1]), int(-(-(high - low).max() // 64) * 64)

    def _shade(self, vertices: np.ndarray) -> np.ndarray:
        facing = np.clip(normals(vertices, self.puppet.faces) @ self.light, 0, 1)
        shade = self.exposure * (self.ambient + (1 - self.ambient) * 1.4 * facing)
        return (self.colour * shade[:, None]).astype(np.float32)

    def _develop(self, frames: raster.SubFrames, x0: int, y0: int, size: int) -> np.ndarray:
        """Average, soften, composite over the plate, add noise, encode."""
        colour = cv2.GaussianBlur(frames.colour.mean(0, dtype=np.float32), (0, 0), 0.6)
        alpha = cv2.GaussianBlur(frames.alpha.mean(0), (0, 0), 0.6)
        image = self.plate.copy()
        ax, ay, bx, by = max(0, x0), max(0, y0), min(WIDTH, x0 + size), min(HEIGHT, y0 + size)
        if bx > ax and by > ay:
            inside = np.s_[ay - y0:by - y0, ax - x0:bx - x0]
            image[ay:by, ax:bx] = colour[inside] + (1 - alpha[inside])[..., None] * image[ay:by, ax:bx]
        noise = np.roll(self._noise, tuple(self.rng.integers(0, 400, 2)), (0, 1))
        return light.to_codes(image + noise * np.sqrt(np.maximum(image, np.float32(0.01))))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)
