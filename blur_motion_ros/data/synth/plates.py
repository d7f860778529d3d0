"""Backgrounds: rooms and yards made up by formula, and photographs with an assumed floor.

World: metres, y up, floor at y = 0. A `Place` can be seen by any camera; `view` renders its clean plate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numba import njit

from blur_motion_ros.data.synth.render import noise
from blur_motion_ros.light import to_linear

PLANKS, TILES, CONCRETE, PANELS, BRICKS = range(5)


@dataclass(frozen=True)
class Place:
    """boxes [B, 6] m: x0 y0 z0 x1 y1 z1; the first is the room (or yard), seen from inside, the others stand in it.
    looks [B, 9]: base rgb, second rgb, texture, scale (1/m), contrast.  looks[0] is the walls, floor_look [9] the
    floor.  open_air: no ceiling and no walls beyond the ground, sky_colour [3] instead.  photo: [H, W, 3] float32
    linear, replaces everything but the floor's geometry."""

    boxes: np.ndarray
    looks: np.ndarray
    floor_look: np.ndarray
    open_air: bool
    sky_colour: np.ndarray
    photo: np.ndarray | None = None
    name: str = "room"


@dataclass(frozen=True)
class View:
    """plate [H, W, 3] float32 linear light; ground [H, W, 3] float32: world point of the floor seen by the pixel,
    NaN where something else is seen."""

    plate: np.ndarray
    ground: np.ndarray


def random_room(rng: np.random.Generator, centre: np.ndarray, reach: float) -> Place:
    """A closed room with furniture around `centre` [3]; nothing stands within `reach` m of it."""
    span = reach + rng.uniform(0.6, 3.0, 4)
    room = [centre[0] - span[0], 0, centre[2] - span[1], centre[0] + span[2], rng.uniform(2.6, 4.0),
            centre[2] + span[3]]
    boxes, looks = [room], [_look(rng, [CONCRETE, PANELS, BRICKS], (0.15, 0.75))]
    for _ in range(rng.integers(3, 9)):
        boxes.append(_furniture(rng, room, centre, reach))
        looks.append(_look(rng, [CONCRETE, PANELS, PLANKS, TILES], (0.05, 0.7)))
    floor = _look(rng, [PLANKS, TILES, CONCRETE], (0.08, 0.5))
    return Place(np.array(boxes), np.array(looks), floor, False, np.ones(3) * 0.6, name="room")


def random_yard(rng: np.random.Generator, centre: np.ndarray, reach: float) -> Place:
    """Open ground with walls and crates around `centre` [3] under a sky."""
    far = 40.0
    boxes = [[centre[0] - far, 0, centre[2] - far, centre[0] + far, far, centre[2] + far]]
    looks = [_look(rng, [CONCRETE], (0.2, 0.5))]
    for _ in range(rng.integers(4, 10)):
        angle, distance = rng.uniform(0, 2 * np.pi), reach + rng.uniform(1.5, 9.0)
        size = rng.uniform([0.5, 0.5, 0.5], [4.0, 5.0, 1.5])
        foot = centre + distance * np.array([np.cos(angle), 0, np.sin(angle)])
        boxes.append([foot[0] - size[0], 0, foot[2] - size[2], foot[0] + size[0], size[1], foot[2] + size[2]])
        looks.append(_look(rng, [BRICKS, CONCRETE, PANELS], (0.08, 0.6)))
    sky = np.array([0.55, 0.68, 0.9]) * rng.uniform(0.6, 1.0)
    floor = _look(rng, [CONCRETE, TILES], (0.1, 0.4))
    return Place(np.array(boxes), np.array(looks), floor, True, sky, name="yard")


def photo_place(path: str | Path, width: int, height: int, response: str = "srgb") -> Place:
    """A photograph (file) as the plate, cut to the aspect and resized; the floor is assumed, not known."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"plate {path} does not exist or is not an image")
    light = to_linear(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), response)
    scale = max(width / light.shape[1], height / light.shape[0])
    resized = cv2.resize(light, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    y, x = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    nothing = np.zeros((1, 6))
    return Place(nothing, np.zeros((1, 9)), np.zeros(9), True, np.ones(3) * 0.5,
                 np.ascontiguousarray(resized[max(y, 0):, max(x, 0):][:height, :width]), Path(path).stem)


def view(place: Place, R: np.ndarray, T: np.ndarray, K: np.ndarray, size: tuple[int, int], sun: np.ndarray,
         sun_share: float, supersample: int = 2) -> View:
    """Clean plate of a place. R, T: world -> camera.  size: width, height.  sun [3]: towards the light, world.
    sun_share: part of the light that comes from the sun."""
    width, height = size
    eye = -R.T @ T
    plate, ground = np.zeros((height, width, 3), np.float32), np.full((height, width, 3), np.nan, np.float32)
    looks = np.concatenate([place.looks, place.floor_look[None]]).astype(np.float32)
    _trace(eye, np.ascontiguousarray(R.T @ np.linalg.inv(K)), place.boxes.astype(np.float64), looks, place.open_air,
           place.sky_colour.astype(np.float32), sun, sun_share, supersample, plate, ground)
    return View(plate if place.photo is None else place.photo.copy(), ground)


def _furniture(rng: np.random.Generator, room: list, centre: np.ndarray, reach: float) -> list[float]:
    size = rng.uniform([0.3, 0.4, 0.3], [1.0, 2.0, 0.8])
    for _ in range(20):
        x, z = rng.uniform(room[0], room[3]), rng.uniform(room[2], room[5])
        if max(abs(x - centre[0]), abs(z - centre[2])) > reach:
            break
    else:
        x, z = room[0], room[2]
    lift = rng.choice([0.0, 0.0, rng.uniform(0.8, 1.6)])
    return [x - size[0] / 2, lift, z - size[2] / 2, x + size[0] / 2, lift + size[1], z + size[2] / 2]


def _look(rng: np.random.Generator, textures: list[int], value: tuple[float, float]) -> np.ndarray:
    base = rng.uniform(*value) * (1 - rng.uniform(0, 0.6) * rng.dirichlet([1, 1, 1]))
    second = base * rng.uniform(0.35, 0.9, 3)
    return np.array([*base, *second, rng.choice(textures), rng.uniform(0.8, 5.0), rng.uniform(0.3, 1.0)])


@njit(cache=True, nogil=True)
def _texture(kind, u, v, scale):
    """Share of the second colour at (u, v) m on a surface."""
    fine = noise(9 * u * scale, 9 * v * scale, 0.5)
    grain = 0.6 * fine + 0.4 * noise(40 * u, 40 * v, 3.5)
    if kind == PLANKS:
        board = np.floor(5 * v)
        seam = 1.0 if 5 * v - board < 0.05 or abs(0.7 * u + 0.37 * board - np.round(0.7 * u + 0.37 * board)) < 0.006 \
            else 0.0
        tone = noise(board * 7.3, np.floor(0.7 * u + 0.37 * board) * 3.1, 1.5)
        return max(seam, 0.5 * tone + 0.4 * noise(3 * u, 60 * v, 2.5))
    if kind == TILES:
        a, b = scale * u - np.floor(scale * u), scale * v - np.floor(scale * v)
        edge = 1.0 if a < 0.03 or b < 0.03 else 0.0
        return max(edge, 0.35 * noise(np.floor(scale * u) * 5.7, np.floor(scale * v) * 3.3, 1.5) + 0.25 * grain)
    if kind == BRICKS:
        row = np.floor(8 * v)
        a, b = 3 * u + 0.5 * (row % 2), 8 * v - row
        a = a - np.floor(a)
        edge = 1.0 if a < 0.05 or b < 0.12 else 0.0
        return max(edge, 0.3 * grain)
    if kind == PANELS:
        a = scale * 0.5 * u
        return (0.8 if a - np.floor(a) < 0.02 else 0.0) + 0.2 * grain
    return 0.45 * noise(1.3 * u * scale, 1.3 * v * scale, 7.5) + 0.45 * grain


@njit(cache=True, nogil=True)
def _enter(eye, ray, box, inside):
    """Distance along the ray to a box's surface (from outside, or from inside), and the axis of the face; 1e9: none."""
    near, far, near_axis, far_axis = -1e9, 1e9, 0, 0
    for i in range(3):
        r = ray[i] if abs(ray[i]) > 1e-12 else 1e-12
        a, b = (box[i] - eye[i]) / r, (box[3 + i] - eye[i]) / r
        if a > b:
            a, b = b, a
        if a > near:
            near, near_axis = a, i
        if b < far:
            far, far_axis = b, i
    if far < near or far < 1e-6:
        return 1e9, 0
    if inside:
        return far, far_axis
    return (near, near_axis) if near > 1e-6 else (1e9, 0)


@njit(cache=True, nogil=True)
def _trace(eye, unproject, boxes, looks, open_air, sky, sun, sun_share, ss, plate, ground):
    height, width = plate.shape[:2]
    ray, normal = np.zeros(3), np.zeros(3)
    for y in range(height):
        for x in range(width):
            for s in range(ss * ss):
                px = x + (s % ss + 0.5) / ss - 0.5
                py = y + (s // ss + 0.5) / ss - 0.5
                for i in range(3):
                    ray[i] = unproject[i, 0] * px + unproject[i, 1] * py + unproject[i, 2]
                best, axis = _enter(eye, ray, boxes[0], True)
                which = 0
                for b in range(1, boxes.shape[0]):
                    d, a = _enter(eye, ray, boxes[b], False)
                    if d < best:
                        best, axis, which = d, a, b
                hit = eye + best * ray
                floor = which == 0 and axis == 1 and ray[1] < 0
                if floor and s == 0:
                    for i in range(3):
                        ground[y, x, i] = hit[i]
                if open_air and which == 0 and not floor:
                    up = ray[1] / np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
                    cloud = noise(4 * ray[0] / (0.3 + up), 2.0, 4 * ray[2] / (0.3 + up))
                    for i in range(3):
                        plate[y, x, i] += (sky[i] * (1.1 - 0.5 * up) + 0.15 * cloud) / (ss * ss)
                    continue
                look = looks[-1] if floor else looks[which]
                u, v = (hit[2], hit[1]) if axis == 0 else ((hit[0], hit[2]) if axis == 1 else (hit[0], hit[1]))
                mix = look[8] * min(max(_texture(int(look[6]), u + 31.7, v + 17.3, look[7]), 0.0), 1.0)
                normal[:] = 0
                normal[axis] = -np.sign(ray[axis])
                facing = max(normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2], 0.0)
                lit = sun_share * facing + (1 - sun_share) * (0.75 + 0.25 * normal[1])
                if not floor or which > 0:
                    lit *= 0.75 + 0.25 * min(1.0, hit[1] / 0.5)  # corners near the floor are darker
                for i in range(3):
                    plate[y, x, i] += lit * ((1 - mix) * look[i] + mix * look[3 + i]) / (ss * ss)
