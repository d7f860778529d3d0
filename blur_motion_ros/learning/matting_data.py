"""Examples for the matting network: blurred people rendered in layers once, composed anew at every step.

A *layer set* is one exposure of one person: premultiplied colour, alpha, the plate of the place, and what the person's
shadow leaves of the plate's light. Composition adds what a real camera and a real place do: another plate, a bystander,
shadows, a plate that is misaligned, older or brighter, noise and quantisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera, Crop
from blur_motion_ros.data.mocap import MotionClip
from blur_motion_ros.data.synth import plates
from blur_motion_ros.data.synth.body import SkinnedBody, smpl_body, vertex_normals
from blur_motion_ros.data.synth.clothes import Outfit, random_outfit
from blur_motion_ros.data.synth.render import Renderer
from blur_motion_ros.data.synth.scene import FloorShadow, Shot, body_light, random_light, random_shot
from blur_motion_ros.data.synth.sequence import FEET, smooth_motion
from blur_motion_ros.learning.lively import filmed, lively_start
from blur_motion_ros.light import to_codes, to_linear

SIDE = 144


@dataclass(frozen=True)
class Layers:
    """N layer sets, uint8: colour [N, S, S, 3] (sRGB codes of premultiplied light), alpha, plate, shade [N, S, S]."""

    colour: np.ndarray
    alpha: np.ndarray
    plate: np.ndarray
    shade: np.ndarray

    def __len__(self) -> int:
        return len(self.alpha)


# --------------------------------------------------------------------------------------------- layers


def make_layers(clips: list[MotionClip], folder: Path, count: int, seed: int, chunk: int = 50) -> Layers:
    """Render `count` layer sets into files of `chunk`; files that are there already are kept."""
    from tqdm import tqdm
    folder.mkdir(parents=True, exist_ok=True)
    clips, weights = filmed(clips)
    with tqdm(total=count, desc="layers", mininterval=5) as bar:
        for first in range(0, count, chunk):
            path = folder / f"layers_{seed}_{first:05d}.npz"
            if not path.is_file():
                rng = np.random.default_rng([seed, first])
                sets = [s for _ in range(chunk // 2) for s in _film(clips, weights, rng)]
                part = path.with_suffix(".part.npz")
                np.savez_compressed(part, **{k: np.stack([s[k] for s in sets]) for k in sets[0]})
                part.replace(path)
            bar.update(min(chunk, count - first))
    files = [folder / f"layers_{seed}_{first:05d}.npz" for first in range(0, count, chunk)]
    loaded = [dict(np.load(f)) for f in files]
    return Layers(*(np.concatenate([d[k] for d in loaded])[:count] for k in ("colour", "alpha", "plate", "shade")))


def _film(clips: list[MotionClip], weights: np.ndarray, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Two exposures of one dressed person in one place."""
    body = smpl_body(rng.normal(0, 0.9, 10))
    outfit = random_outfit(body, rng)
    clip = clips[rng.choice(len(clips), p=weights)]
    clip = clip.mirrored() if rng.random() < 0.5 else clip
    sets = []
    while len(sets) < 2:
        exposure = float(rng.choice([0.015, 0.03, 0.045, 0.07, 0.1]))
        start = lively_start(clip, exposure, rng)
        try:
            sets.append(_expose(body, outfit, clip, start, exposure, rng))
        except ValueError:  # no camera sees this stretch
            continue
    return sets


def _expose(body: SkinnedBody, outfit: Outfit, clip: MotionClip, start: float, exposure: float,
            rng: np.random.Generator) -> dict[str, np.ndarray]:
    local, pelvis = smooth_motion(clip, start, start + exposure)(start + np.linspace(0, exposure, 13))
    vertices, joints = body.pose(local, pelvis, outfit.vertices)
    floor = float(vertices[..., 1].min()) - (rng.uniform(0, 0.2) if rng.random() < 0.3 else 0.0)
    vertices[..., 1] -= floor
    joints = joints - np.array([0, floor, 0])
    shot, crop = _camera(joints, rng)
    shot = Shot(Camera(SIDE, SIDE, crop.K), shot.R, shot.T)
    sun, share, colour = random_light(rng, rng.uniform(0.5, 1.2))
    centre = joints.mean((0, 1)) * np.array([1, 0, 1])
    distance = float(np.linalg.norm((-shot.R.T @ shot.T - centre)[[0, 2]])) + 0.4
    place = (plates.random_room if rng.random() < 0.6 else plates.random_yard)(rng, centre, distance)
    view = plates.view(place, shot.R, shot.T, crop.K, (SIDE, SIDE), sun, share)
    light = body_light(shot, sun, share, colour, np.full(3, 0.3))
    shadow = FloorShadow(view, shot, sun, share, rng.uniform(1.0, 6.0), 1)
    return _average(body, outfit, vertices, joints, shot, light, shadow, view.plate)


def _camera(joints: np.ndarray, rng: np.random.Generator) -> tuple[Shot, Crop]:
    """A camera that sees the person, and a square crop around them with room to spare."""
    points = joints.reshape(-1, 3)
    shot = random_shot(rng, np.concatenate([points + [0, 0.17, 0], points - [0, 0.08, 0]]), 640, 480)
    pixels = shot.camera.project(shot.to_camera(points))
    low, high = pixels.min(0), pixels.max(0)
    side = float((high - low).max()) * rng.uniform(1.15, 1.9)
    centre = 0.5 * (low + high) + rng.uniform(-0.08, 0.08, 2) * side
    return shot, Crop.around(shot.camera, centre, side, SIDE)


def _average(body: SkinnedBody, outfit: Outfit, vertices: np.ndarray, joints: np.ndarray, shot: Shot, light: object,
             shadow: FloorShadow, plate: np.ndarray) -> dict[str, np.ndarray]:
    renderer = Renderer(SIDE, SIDE, 2)
    weights = np.full(len(vertices), 1 / (len(vertices) - 1), np.float32)
    weights[[0, -1]] /= 2
    colour, alpha = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)
    for weight, points in zip(weights, vertices, strict=True):
        seen = shot.to_camera(points)
        c, a = renderer.draw(seen, vertex_normals(seen, body.faces), outfit.surface, light, shot.camera.K)
        colour += weight * c
        alpha += weight * a
    middle = len(vertices) // 2
    shade = shadow.factor(vertices[middle], body.faces, joints[middle, FEET])
    return {"colour": to_codes(colour), "alpha": np.round(255 * alpha).astype(np.uint8), "plate": to_codes(plate),
            "shade": np.round(255 * shade[..., 0]).astype(np.uint8)}


# --------------------------------------------------------------------------------------------- composition


@dataclass(frozen=True)
class Example:
    """src, bgr [S, S, 3] float32 sRGB in [0, 1]; alpha [S, S]; colour [S, S, 3] sRGB of the person alone."""

    src: np.ndarray
    bgr: np.ndarray
    alpha: np.ndarray
    colour: np.ndarray


def compose(layers: Layers, rng: np.random.Generator, index: int | None = None, side: int = 128) -> Example:
    """One random example of `side` px (index: which person, else at random)."""
    i = int(rng.integers(len(layers))) if index is None else index
    other = int(rng.integers(len(layers)))
    colour, alpha = to_linear(layers.colour[i]), layers.alpha[i].astype(np.float32) / 255
    shade = layers.shade[i].astype(np.float32) / 255
    plate = _plate(layers, i if rng.random() < 0.5 else other, rng)
    lit = plate * (1 - rng.uniform(0, 1) * (1 - shade))[..., None]
    if rng.random() < 0.5:
        lit = lit * _cast_shadow(alpha, rng)[..., None]
    if rng.random() < 0.25:
        lit = _bystander(layers, lit, rng)
    colour = colour * rng.uniform(0.6, 1.5)
    image = colour + (1 - alpha)[..., None] * lit
    return _camera_effects(image, plate, alpha, colour, rng, side)


def _plate(layers: Layers, i: int, rng: np.random.Generator) -> np.ndarray:
    """A rendered plate, flipped, tinted, sometimes with a rough texture mixed in."""
    plate = to_linear(layers.plate[i])
    if rng.random() < 0.5:
        plate = plate[:, ::-1]
    plate = plate * rng.uniform(0.5, 1.5) * rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.4:
        rough = np.zeros(plate.shape[:2], np.float32)
        for size in (6, 18, 48, 144):
            grid = rng.normal(0, 1, (size, size)).astype(np.float32)
            rough += cv2.resize(grid, plate.shape[1::-1], interpolation=cv2.INTER_CUBIC) * rng.uniform(0, 0.25)
        plate = plate * np.exp(rough)[..., None]
    return np.ascontiguousarray(np.clip(plate, 0, 1.2), np.float32)


def _cast_shadow(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a second light's soft shadow leaves: the silhouette laid flat from the feet (1 = full light)."""
    rows, columns = np.nonzero(alpha > 0.5)
    if not len(rows):
        return np.ones_like(alpha)
    foot = rows.max()
    at = columns[rows > foot - 4].mean()
    flat, lean = rng.uniform(0.12, 0.6) * rng.choice([-1, 1]), rng.uniform(-1.5, 1.5)
    lay = np.array([[1, lean, -lean * foot + rng.normal(0, 2)], [0, flat, foot * (1 - flat) + rng.normal(0, 1.5)]])
    mask = cv2.GaussianBlur(cv2.warpAffine(alpha, lay, alpha.shape[::-1]), (0, 0), rng.uniform(0.8, 6.0))
    y, x = np.mgrid[:alpha.shape[0], :alpha.shape[1]]
    size = rng.uniform(4, 14)
    contact = np.exp(-((x - at) / size) ** 2 - ((y - foot) / (0.35 * size)) ** 2)
    dark = rng.uniform(0.1, 0.7) * mask + rng.uniform(0, 0.6) * contact
    return (1 - np.clip(dark, 0, 0.8)).astype(np.float32)


def _bystander(layers: Layers, lit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Someone else at the edge of the picture, behind: not to be matted."""
    j = int(rng.integers(len(layers)))
    shift = rng.uniform(0.42, 0.7) * SIDE * rng.choice([-1, 1])
    move = np.array([[1, 0, shift], [0, 1, rng.uniform(-0.15, 0.15) * SIDE]], np.float32)
    colour = cv2.warpAffine(to_linear(layers.colour[j]), move, (SIDE, SIDE))
    alpha = cv2.warpAffine(layers.alpha[j].astype(np.float32) / 255, move, (SIDE, SIDE))
    return colour + (1 - alpha)[..., None] * lit


def _camera_effects(image: np.ndarray, plate: np.ndarray, alpha: np.ndarray, colour: np.ndarray,
                    rng: np.random.Generator, side: int) -> Example:
    """Cut, scale, drift, misalign, add noise, quantise."""
    cut = int(rng.integers(int(0.72 * SIDE), SIDE + 1))
    x, y = rng.integers(0, SIDE - cut + 1, 2)
    scale = side / cut
    keep = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]], np.float32)
    slip = keep.copy()
    if rng.random() < 0.5:
        slip[:, 2] += rng.normal(0, 0.8, 2)

    def take(a: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(a, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    drift = np.exp(rng.normal(0, 0.05)) * np.exp(rng.normal(0, 0.015, 3)) if rng.random() < 0.6 else np.ones(3)
    noise = rng.uniform(0.002, 0.02)
    src = _sensed(take(image, keep), noise, rng)
    bgr = _sensed(take(plate, slip) * drift.astype(np.float32), noise * rng.uniform(0, 0.6), rng)
    a, c = take(alpha, keep), take(colour, keep)
    own = to_codes(c / np.maximum(a, 1e-3)[..., None]).astype(np.float32) / 255
    if rng.random() < 0.5:
        src, bgr, a, own = (np.ascontiguousarray(v[:, ::-1]) for v in (src, bgr, a, own))
    return Example(src, bgr, a, own)


def _sensed(linear: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Photon-like noise in linear light (`noise` at light 0.2), correlated over pixels by a random amount."""
    grain = rng.normal(0, 1, linear.shape).astype(np.float32)
    if rng.random() < 0.5:  # what resampling and compression leave of it
        grain = cv2.GaussianBlur(grain, (0, 0), 0.7) * 1.8
    sigma = noise * np.sqrt(0.15 + 0.85 * np.clip(linear, 0, 1) / 0.2)
    return to_codes(linear + grain * sigma).astype(np.float32) / 255
