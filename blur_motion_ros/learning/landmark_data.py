"""Examples for the landmark network that reads blur: rendered people in layers, composed anew at every step.

A *set* is one exposure of one dressed person, cut as the pose network cuts them and a quarter wider: premultiplied
colour, alpha, the plate of the place, what the person's shadow leaves of the plate's light, and where BlazePose's 33
landmarks truly are. Composition makes pictures of it as cameras and places might: other backgrounds, looks, light,
noise and compression; another cut; seen as captured or un-mixed with the plate (`initialiser.unmix`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR, LANDMARK_JOINT
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data.mocap import PARENTS, MotionClip, forward
from blur_motion_ros.data.synth import plates
from blur_motion_ros.data.synth.body import SkinnedBody, anny_body, random_phenotype, smpl_body, vertex_normals
from blur_motion_ros.data.synth.clothes import Outfit, random_outfit
from blur_motion_ros.data.synth.render import Renderer
from blur_motion_ros.data.synth.scene import FloorShadow, Shot, body_light, random_light, random_shot
from blur_motion_ros.data.synth.sequence import FEET, smooth_motion
from blur_motion_ros.initialiser.blazepose import LANDMARK_SIZE, Region, rotate_xy
from blur_motion_ros.initialiser.evidence import line_of_sight
from blur_motion_ros.initialiser.kinematics import LandmarkBody
from blur_motion_ros.initialiser.unmix import unmix
from blur_motion_ros.learning.lively import filmed, lively_start
from blur_motion_ros.learning.vibe_motion import random_clip
from blur_motion_ros.light import to_codes, to_linear

SIDE = 320  # px of a set: LANDMARK_SIZE and a margin
MARGIN = SIDE / LANDMARK_SIZE
CHUNK = 50  # sets per file
_HIPS, _SHOULDERS = [23, 24], [11, 12]
_EXPOSURES = (0.008, 0.017, 0.03, 0.03, 0.045, 0.06, 0.066, 0.1)  # s
_BODIES = 40  # that were not made for the fit, of anny
_BODY_SEED = 77
_FIELDS = np.dtype([("colour", np.uint8, (SIDE, SIDE, 3)), ("alpha", np.uint8, (SIDE, SIDE)),
                    ("plate", np.uint8, (SIDE, SIDE, 3)), ("shade", np.uint8, (SIDE, SIDE)),
                    ("points", np.float32, (33, 2)), ("world", np.float32, (33, 3)), ("resolution", np.float32),
                    ("travel", np.float32)])
# colour (sRGB codes of premultiplied light), alpha, plate, shade.  points: px of the set.  world: m from the hips'
# middle, in the axes of a camera that looks straight at it, rolled with the set.  resolution: px that the camera had
# across the set.  travel: of the fastest landmark during the exposure, in sides of the network's cut.


# ---------------------------------------------------------------------------------------------------- rendering


class Sets(Sequence):
    """Rendered sets in files, read as they are asked for: items are records of `_FIELDS`."""

    def __init__(self, files: Sequence[Path]):
        self._chunks = [np.load(f, mmap_mode="r") for f in files]

    def __len__(self) -> int:
        return CHUNK * len(self._chunks)

    def __getitem__(self, index):
        return self._chunks[index // CHUNK][index % CHUNK]


def make_sets(clips: list[MotionClip], folder: Path, count: int, seed: int, streams: int = 1,
              invented: float = 0.35) -> Sets:
    """Render `count` sets, rounded up to files of `CHUNK`; files that are there already are kept.

    streams: that many processes, each with its own seed from `seed` on.  invented: share of motions nobody recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-count // (CHUNK * streams))
    files = [folder / f"sets_{seed + s}_{k * CHUNK:05d}.npy" for s in range(streams) for k in range(each)]
    missing = [f for f in files if not f.is_file()]
    if missing:
        work = [[f for f in missing if f.name.split("_")[1] == str(seed + s)] for s in range(streams)]
        if streams == 1:
            _render(clips, invented, work[0])
        else:
            with ProcessPoolExecutor(streams) as pool:
                list(pool.map(partial(_render, clips, invented), work))
    return Sets(files)


def _render(clips: list[MotionClip], invented: float, files: list[Path]) -> None:
    from tqdm import tqdm

    cv2.setNumThreads(1)
    bodies = _bodies()
    clips, weights = filmed(clips)
    for path in tqdm(files, desc="sets", unit=f"{CHUNK} people", mininterval=5):
        _, seed, first = path.stem.split("_")
        rng = np.random.default_rng([int(seed), int(first)])
        out = np.empty(CHUNK, _FIELDS)
        rows = 0
        while rows < CHUNK:
            for row in _film(bodies, clips, weights, invented, rng)[:CHUNK - rows]:
                out[rows] = row
                rows += 1
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, out)
        part.replace(path)


def _bodies() -> list[SkinnedBody]:
    rng = np.random.default_rng(_BODY_SEED)
    return [anny_body(random_phenotype(rng)) for _ in range(_BODIES)]


def _film(bodies: list[SkinnedBody], clips: list[MotionClip], weights: np.ndarray, invented: float,
          rng: np.random.Generator) -> list[tuple]:
    """Two exposures of one person (fewer where no camera sees their motions)."""
    body = bodies[rng.integers(len(bodies))] if rng.random() < 0.6 else smpl_body(rng.normal(0, 1.0, 10))
    outfit = random_outfit(body, rng)
    rows: list[tuple] = []
    for _ in range(6):
        if len(rows) == 2:
            break
        if invented and rng.random() < invented:
            clip = random_clip(rng, "random", 1.0, 60.0)
        else:
            clip = clips[rng.choice(len(clips), p=weights)]
        clip = clip.mirrored() if rng.random() < 0.5 else clip
        exposure = float(rng.choice(_EXPOSURES))
        try:
            rows.append(_expose(body, outfit, clip, lively_start(clip, exposure, rng), exposure, rng))
        except ValueError:  # no camera sees this stretch
            continue
    return rows


def _expose(body: SkinnedBody, outfit: Outfit, clip: MotionClip, start: float, exposure: float,
            rng: np.random.Generator) -> tuple:
    """A row of `_FIELDS`."""
    motion = smooth_motion(clip, start, start + exposure)
    marks, joints, floor = _marks(body, outfit, motion, start + exposure * np.linspace(0, 1, 3), rng)
    shot = _shot(marks, rng)
    seen = shot.to_camera(marks)
    pixels = shot.camera.project(seen.reshape(-1, 3)).reshape(3, 33, 2)
    travel = float(np.linalg.norm(pixels[2] - pixels[0], axis=1).max())
    region = _region(pixels[1])
    box = Region(region.centre, region.side * MARGIN, region.angle)
    resolution = int(np.clip(box.side, 96, SIDE))
    to_image = np.vstack([box.to_image(resolution), [0, 0, 1]])
    cut = _turned(shot, np.linalg.inv(to_image), resolution)
    samples = int(np.clip(round(travel / 3.0), 4, 16))
    vertices, _ = body.pose(*motion(start + exposure * (np.arange(samples) + 0.5) / samples), outfit.vertices)
    layers = _layers(body, outfit, vertices - floor.astype(np.float32), joints, cut, marks, rng)
    points = (pixels[1] - to_image[:2, 2]) @ np.linalg.inv(to_image[:2, :2]).T
    points = (points + 0.5) * (SIDE / resolution) - 0.5
    return (*(_enlarged(layer) for layer in layers), points, _world(seen[1], region.angle), resolution,
            travel / region.side)


def _marks(body: SkinnedBody, outfit: Outfit, motion: Callable, times: np.ndarray,
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks [T, 33, 3] and joints [24, 3] in the middle, m above the floor, and how far that was moved [3]."""
    local, pelvis = motion(times)
    vertices, joints = body.pose(local, pelvis, outfit.vertices)
    middle = len(times) // 2
    floor = float(vertices[middle, :, 1].min()) - (rng.uniform(0, 0.2) if rng.random() < 0.3 else 0)
    move = np.array([0, floor, 0])
    return body_landmarks(body, local, joints) - move, joints[middle] - move, move


def body_landmarks(body: SkinnedBody, local: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """BlazePose's landmarks [T, 33, 3] of any body with SMPL's joints [T, 24, 3] in a pose [T, 24, 3, 3]: where the
    fitted body has them, in the size of this one."""
    free = _free_body()
    own = np.array(LANDMARK_JOINT[:33])
    tips, roots = [4, 7, 15], [1, 4, 12]
    size = np.linalg.norm(body.rest[tips] - body.rest[roots], axis=1).sum()
    size /= np.linalg.norm(free.joints[tips] - free.joints[roots], axis=1).sum()
    turned, _ = forward(local, body.rest, PARENTS)
    offsets = size * (free.points - free.joints[own])
    return joints[:, own] + np.einsum("tjab,jb->tja", turned[:, free.point_joint], offsets)


@cache  # asked for at every exposure
def _free_body() -> LandmarkBody:
    from blur_motion_ros.body import load_body

    return LandmarkBody.of(load_body(lod="full"))


def _shot(marks: np.ndarray, rng: np.random.Generator) -> Shot:
    """A camera that sees all landmarks, sometimes from farther away than it must."""
    points = marks.reshape(-1, 3)
    shot = random_shot(rng, np.concatenate([points + [0, 0.1, 0], points - [0, 0.05, 0]]), 640, 480)
    if rng.random() < 0.4:
        back = (rng.uniform(1.0, 1.8) - 1) * float(shot.to_camera(points)[:, 2].mean())
        shot = Shot(shot.camera, shot.R, shot.T + np.array([0, 0, back]))
    return shot


def _region(pixels: np.ndarray) -> Region:
    """What MediaPipe looks at: about the middle of the hips, as far as the body reaches, its trunk upright."""
    hip = pixels[_HIPS].mean(0)
    up = pixels[_SHOULDERS].mean(0) - hip
    up = up / max(np.linalg.norm(up), 1e-6)
    return Region.around(hip, hip + up * np.linalg.norm(pixels - hip, axis=1).max() * 1.03)


def _turned(shot: Shot, to_cut: np.ndarray, side: int) -> Shot:
    """The camera whose picture is the cut: to_cut [3, 3] takes pixels of the shot's to it (turned and scaled)."""
    flip = np.flipud(np.eye(3))
    q, r = np.linalg.qr((flip @ to_cut @ shot.camera.K).T)  # K R of the cut is upper triangular times a rotation
    K, roll = flip @ r.T @ flip, flip @ q.T
    signs = np.diag(np.sign(np.diag(K)))
    K, roll = K @ signs, signs @ roll
    return Shot(Camera(side, side, K / K[2, 2]), roll @ shot.R, roll @ shot.T)


def _layers(body: SkinnedBody, outfit: Outfit, vertices: np.ndarray, joints: np.ndarray, shot: Shot, marks: np.ndarray,
            rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Colour, alpha, plate and shade (codes) of the body in its place, averaged over vertices [N, V, 3] of samples."""
    side = shot.camera.width
    sun, share, tint = random_light(rng, rng.uniform(0.5, 1.2))
    centre = marks.mean((0, 1)) * np.array([1, 0, 1])
    reach = float(np.linalg.norm((-shot.R.T @ shot.T - centre)[[0, 2]])) + 0.4
    place = (plates.random_room if rng.random() < 0.6 else plates.random_yard)(rng, centre, reach)
    view = plates.view(place, shot.R, shot.T, shot.camera.K, (side, side), sun, share, supersample=1)
    light = body_light(shot, sun, share, tint, np.full(3, 0.3))
    renderer = Renderer(side, side, 1 if side > 200 else 2)
    colour, alpha = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32)
    for points in vertices:
        seen = shot.to_camera(points)
        c, a = renderer.draw(seen, vertex_normals(seen, body.faces), outfit.surface, light, shot.camera.K)
        colour += c / len(vertices)
        alpha += a / len(vertices)
    shade = np.ones((side, side), np.float32)
    if rng.random() < 0.7:
        shadow = FloorShadow(view, shot, sun, share, rng.uniform(1, 6), 1)
        shade = shadow.factor(vertices[len(vertices) // 2], body.faces, joints[FEET])[..., 0]
    return (to_codes(colour), np.round(255 * alpha).astype(np.uint8), to_codes(view.plate),
            np.round(255 * shade).astype(np.uint8))


def _world(seen: np.ndarray, angle: float) -> np.ndarray:
    """[33, 3] of landmarks in camera axes: from the hips' middle, along the line of sight to it, rolled by `angle`."""
    hips = seen[_HIPS].mean(0)
    return rotate_xy((seen - hips) @ line_of_sight(hips[:2] / hips[2]), -angle)  # from the image's axes to the region's


def _enlarged(layer: np.ndarray) -> np.ndarray:
    return layer if len(layer) == SIDE else cv2.resize(layer, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


# ------------------------------------------------------------------------------------------------- composition


@dataclass(frozen=True)
class Example:
    """view: [256, 256, 3] float32 sRGB in [0, 1], what the network is shown.  points: [33, 2] px of it.  world:
    [33, 3] m, in its axes."""

    view: np.ndarray
    points: np.ndarray
    world: np.ndarray


@dataclass(frozen=True)
class Looks:
    """How far composition goes. Shares of examples: plain (as captured, not un-mixed), elsewhere (before another
    background), worn (another look of background and person), turned (by any angle), edge (the frame ends within the
    cut). scale, angle (rad), offset (sides): standard deviations of the cut."""

    plain: float = 0.45
    elsewhere: float = 0.4
    worn: bool = True
    turned: float = 0.1
    edge: float = 0.15
    mirrored: float = 0.5
    scale: float = 0.09
    angle: float = 0.12
    offset: float = 0.035


TEST = Looks(plain=0.0, elsewhere=0.0, worn=False, turned=0.0, edge=0.0, mirrored=0.0, scale=0.07, angle=0.1,
             offset=0.03)


def compose(sets: Sequence, index: int, rng: np.random.Generator, looks: Looks | None = None) -> Example:
    """One picture of a set."""
    looks = looks or Looks()
    own = sets[index]
    alpha = own["alpha"].astype(np.float32) / 255
    plate = to_linear(sets[int(rng.integers(len(sets)))]["plate"] if rng.random() < looks.elsewhere else own["plate"])
    colour = to_linear(own["colour"])
    if looks.worn:
        plate, colour = _place(plate, sets, rng), _appearance(colour, alpha, rng)
    lit = plate * (1 - rng.uniform(0, 1) * (1 - own["shade"].astype(np.float32) / 255))[..., None]
    image = colour + (1 - alpha)[..., None] * lit
    if looks.worn and rng.random() < 0.12:
        image = _occluded(image, rng)
    noise = float(rng.uniform(0.001, 0.012))
    captured = _captured(image, noise, int(own["resolution"]), looks.worn, rng)
    if rng.random() < looks.edge:
        captured, plate = _ended(captured, plate, rng)
    return _cut(captured, plate, noise, own, looks, rng)


def _cut(captured: np.ndarray, plate: np.ndarray, noise: float, own: np.void, looks: Looks,
         rng: np.random.Generator) -> Example:
    """The network's view of a captured picture, a little off the right region, and the landmarks in it."""
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < looks.turned else rng.normal(0, looks.angle)
    middle = (SIDE - 1) / 2 + rng.normal(0, looks.offset, 2) * LANDMARK_SIZE
    mirrored = bool(rng.random() < looks.mirrored)
    region = Region(middle, LANDMARK_SIZE * float(np.exp(rng.normal(0, looks.scale))), angle, mirrored)
    to_set = region.to_image(LANDMARK_SIZE)

    def cut(layer: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(layer, to_set, (LANDMARK_SIZE, LANDMARK_SIZE), flags=cv2.INTER_LINEAR |
                              cv2.WARP_INVERSE_MAP)
    if rng.random() < looks.plain:
        view = cut(captured).astype(np.float32) / 255
    else:
        known = cut(plate * np.float32(np.exp(rng.normal(0, 0.02))))  # the light may have changed since
        view = unmix(cut(captured), known, np.full(known.shape[:2], noise, np.float32))
    points = (own["points"] - to_set[:, 2]) @ np.linalg.inv(to_set[:, :2]).T
    world = rotate_xy(own["world"], -angle)
    if mirrored:
        order = np.array(BLAZEPOSE33_MIRROR)
        points, world = points[order], (world * [-1, 1, 1])[order]
    return Example(view, points.astype(np.float32), world.astype(np.float32))


def _captured(image: np.ndarray, noise: float, resolution: int, worn: bool, rng: np.random.Generator) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: photon-like noise of the camera's own pixels, sometimes soft, sharpened or compressed."""
    grain = rng.standard_normal((resolution, resolution, 3), np.float32)
    grain = cv2.resize(grain, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    codes = to_codes(image + noise * grain * np.sqrt(np.maximum(image, 0.02) / 0.2))
    if worn and rng.random() < 0.3:
        blurred = cv2.GaussianBlur(codes, (0, 0), rng.uniform(0.4, 1.4))
        codes = blurred if rng.random() < 0.6 else cv2.addWeighted(codes, 1.6, blurred, -0.6, 0)
    if worn and rng.random() < 0.5:
        codes = cv2.imdecode(cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 95))])[1], 1)
    return codes


def _place(plate: np.ndarray, sets: Sequence, rng: np.random.Generator) -> np.ndarray:
    """Another look of a background: flipped, rough, tinted; with boxes, or with somebody else in it."""
    if rng.random() < 0.25:
        plate = _bystander(plate, sets[int(rng.integers(len(sets)))], rng)
    if rng.random() < 0.5:
        plate = plate[:, ::-1]
    if rng.random() < 0.5:
        plate = plate * np.exp(_rough(rng, (6, 18, 48, 128)))[..., None]
        if rng.random() < 0.5:
            plate = plate * np.exp(np.stack([_rough(rng, (6, 18, 48)) for _ in range(3)], -1))
    plate = np.ascontiguousarray(plate, np.float32)
    for _ in range(int(rng.integers(1, 8)) if rng.random() < 0.25 else 0):
        _box(plate, rng.integers(0, SIDE, 2), rng.integers(4, 140, 2), rng)
    return np.clip(plate, 0, 1.3) * (rng.uniform(0.5, 1.4) * rng.uniform(0.85, 1.15, 3)).astype(np.float32)


def _bystander(plate: np.ndarray, other: np.void, rng: np.random.Generator) -> np.ndarray:
    size = rng.uniform(0.5, 1.0)
    aside = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6) * SIDE
    middle = (1 - size) * SIDE / 2
    move = np.array([[size, 0, aside + middle], [0, size, rng.uniform(-0.2, 0.2) * SIDE + middle]], np.float32)
    colour = cv2.warpAffine(to_linear(other["colour"]), move, (SIDE, SIDE))
    alpha = cv2.warpAffine(other["alpha"].astype(np.float32) / 255, move, (SIDE, SIDE))
    return colour + (1 - alpha)[..., None] * plate


def _appearance(colour: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another look of the same person: hues, contrast, patterns, light. colour is premultiplied."""
    if rng.random() < 0.6:
        colour = np.clip(colour @ (np.eye(3) + rng.normal(0, 0.12, (3, 3))).T.astype(np.float32), 0, None)
    if rng.random() < 0.5:
        bare = np.clip(colour / np.maximum(alpha, 1e-3)[..., None], 1e-4, 1.5)
        colour = alpha[..., None] * bare ** np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.5:
        colour = colour * np.exp(np.float32(rng.uniform(0.3, 1.2)) * _rough(rng, (3, 8, 20, 60)))[..., None]
    return colour * (rng.uniform(0.5, 1.4) * rng.uniform(0.85, 1.15, 3)).astype(np.float32)


def _rough(rng: np.random.Generator, sizes: tuple[int, ...]) -> np.ndarray:
    """[SIDE, SIDE] float32: noise of several grain sizes, each of random strength."""
    out = np.zeros((SIDE, SIDE), np.float32)
    for n in sizes:
        grain = cv2.resize(rng.standard_normal((n, n), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        out += np.float32(rng.uniform(0, 0.25)) * grain
    return out


def _occluded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = np.ascontiguousarray(image, np.float32)
    _box(image, (rng.uniform(0.25, 0.75, 2) * SIDE).astype(int), rng.integers(10, 60, 2), rng)
    return image


def _ended(captured: np.ndarray, plate: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both where a frame ends on one side, as cuts beyond it are: black."""
    depth, turns = int(rng.uniform(0.1, 0.45) * SIDE), int(rng.integers(4))
    captured, plate = (np.rot90(a, turns).copy() for a in (captured, plate))
    captured[:depth], plate[:depth] = 0, 0
    return tuple(np.ascontiguousarray(np.rot90(a, -turns)) for a in (captured, plate))


def _box(image: np.ndarray, corner: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> None:
    paint = (rng.uniform(0.01, 0.85) * rng.uniform(0.5, 1, 3)).tolist()
    cv2.rectangle(image, tuple(int(v) for v in corner), tuple(int(v) for v in corner + size), paint, -1)
