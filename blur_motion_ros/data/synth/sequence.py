"""One synthetic sequence from a seed: motion, body, place, camera, rendering, ground truth."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from blur_motion_ros.body.joints import LSP14, SMPL24, lsp14
from blur_motion_ros.data.mocap import NOMINAL_REST, MotionClip
from blur_motion_ros.data.sequence import write_image, write_sequence
from blur_motion_ros.data.synth import path_tracer, plates
from blur_motion_ros.data.synth.body import SkinnedBody, anny_body, random_phenotype, smpl_body, vertex_normals
from blur_motion_ros.data.synth.clothes import Outfit, random_outfit
from blur_motion_ros.data.synth.render import Light, Renderer, vertex_colours
from blur_motion_ros.data.synth.scene import FloorShadow, Shot, body_light, random_light, random_shot
from blur_motion_ros.data.synth.settings import SynthSettings
from blur_motion_ros.evaluation.blur_rate import blur_rate
from blur_motion_ros.light import to_codes
from blur_motion_ros.types import Exposure

TRUTH_INSTANTS = 9  # per exposure in gt.npz, first = shutter opens, last = closes
FEET = [SMPL24.index(n) for n in ("left_ankle", "right_ankle", "left_foot", "right_foot")]


@dataclass(frozen=True)
class Take:
    """What is filmed.  motion: instants s -> local rotations and pelvis of the body."""

    body: SkinnedBody
    outfit: Outfit
    clip: MotionClip
    start: float
    exposures: tuple[Exposure, ...]
    motion: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Stage:
    """Where it is filmed: camera, clean plate, light on the body, shade on the floor; sun and share as in `plates`."""

    shot: Shot
    view: plates.View
    place: plates.Place
    light: Light
    shadow: FloorShadow | None
    sun: np.ndarray
    share: float


@dataclass(frozen=True)
class Exposed:
    """One exposure.  image [H, W, 3] linear, alpha [H, W], sharp [H, W, 3] linear (middle instant), joints
    [9, 24, 3] m camera frame, rate: blur rate."""

    image: np.ndarray
    alpha: np.ndarray
    sharp: np.ndarray
    joints: np.ndarray
    rate: float


def make_sequence(folder: Path, clips: list[MotionClip], settings: SynthSettings, seed: int,
                  photos: list[Path] | None = None, step: Callable[[], None] = lambda: None) -> dict:
    """Make one sequence in `folder`; the same arguments give the same bytes. Calls `step` after every frame."""
    rng = np.random.default_rng(seed)
    take = _choose_take(rng, clips, settings)
    stage = _set_up(rng, take, settings, photos or [])
    noise = rng.uniform(0.6, 1.4) * settings.noise
    renderer = Renderer(settings.width, settings.height, settings.supersample)
    exposed = []
    for exposure in take.exposures:
        exposed.append(_expose(take, stage, renderer, exposure, settings))
        step()
    plate = stage.view.plate
    if settings.renderer == "cycles":
        exposed, plate = _traced(take, stage, exposed, settings, seed)
    return _write(folder, take, stage, exposed, plate, settings, seed, noise, rng)


def _write(folder: Path, take: Take, stage: Stage, exposed: list[Exposed], plate: np.ndarray, settings: SynthSettings,
           seed: int, noise: float, rng: np.random.Generator) -> dict:
    images = [_sensor(rng, e.image, noise, settings.response) for e in exposed]
    joints = np.stack([e.joints for e in exposed])
    times = np.stack([np.linspace(e.open, e.close, TRUTH_INSTANTS) for e in take.exposures])
    rates, shot = [e.rate for e in exposed], stage.shot
    gt = {"times": times, "joints": lsp14(joints).astype(np.float32), "joints_smpl24": joints.astype(np.float32),
          "blur_rate": np.array(rates), "K": shot.camera.K, "R_world2cam": shot.R, "T_world2cam": shot.T}
    if take.body.fitted is not None:
        vertices, _ = take.body.fitted.pose(*take.motion(np.array([e.middle for e in take.exposures])))
        gt["vertices"] = shot.to_camera(vertices).astype(np.float32)
    meta = _meta(take, settings, stage, joints, times, rates, seed) | {"noise": noise}
    write_sequence(folder, images, shot.camera, take.exposures, to_codes(plate, settings.response), meta=meta,
                   quality=settings.quality, gt=gt)
    for i, e in enumerate(exposed):
        write_image(folder / f"alpha_{i:03d}.png", np.round(255 * e.alpha).astype(np.uint8))
        if settings.sharp:
            write_image(folder / f"sharp_{i:03d}.jpg", to_codes(e.sharp, settings.response))
    return json.loads((folder / "meta.json").read_text())


def smooth_motion(clip: MotionClip, start: float, end: float) -> Callable:
    """Twice differentiable interpolation of a clip: instants [N] s -> local [N, 24, 3, 3], pelvis [N, 3].

    Linear interpolation would give every exposure a kink where two recorded frames meet.
    """
    low = max(int(np.floor(start * clip.fps)) - 4, 0)
    high = min(int(np.ceil(end * clip.fps)) + 5, len(clip))
    knots = np.arange(low, high) / clip.fps
    splines = [RotationSpline(knots, Rotation.from_rotvec(clip.rotvec[low:high, j])) for j in range(24)]
    pelvis = CubicSpline(knots, clip.pelvis[low:high])

    def at(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.stack([s(times).as_matrix() for s in splines], 1), pelvis(times)

    return at


def _choose_take(rng: np.random.Generator, clips: list[MotionClip], settings: SynthSettings) -> Take:
    length = (settings.frames - 1 + settings.duty) / settings.fps
    long_enough = [c for c in clips if c.duration >= length]
    if not long_enough:
        longest = max((c.duration for c in clips), default=0.0)
        raise ValueError(f"no clip lasts {length:.2f} s (longest {longest:.2f} s); ask for fewer frames")
    clip, start = _lively(rng, long_enough, length, settings.candidates)
    if rng.random() < 0.5:
        clip = clip.mirrored()
    phenotype = random_phenotype(rng)
    body = anny_body(phenotype) if settings.body == "anny" else smpl_body(rng.normal(0, 0.8, 10))
    outfit = random_outfit(body, rng)
    period = 1 / settings.fps
    exposures = tuple(Exposure(i * period, (i + settings.duty) * period) for i in range(settings.frames))
    recorded = smooth_motion(clip, start, start + length)
    floor = _floor_height(body, outfit, *recorded(start + np.linspace(0, length, 2 * settings.frames)))

    def motion(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local, pelvis = recorded(start + np.asarray(times))
        return local, _pelvis_of(body, local, pelvis) - [0, floor, 0]

    return Take(body, outfit, clip, start, exposures, motion)


def _lively(rng: np.random.Generator, clips: list[MotionClip], length: float,
            candidates: int) -> tuple[MotionClip, float]:
    """The stretch with the fastest joints among `candidates` random ones (recordings have long idle parts)."""
    best: tuple[float, MotionClip, float] | None = None
    for _ in range(candidates):
        clip = clips[rng.integers(len(clips))]
        start = float(rng.uniform(0, clip.duration - length))
        low, high = int(start * clip.fps), int((start + length) * clip.fps) + 1
        stretch = MotionClip(clip.name, clip.split, clip.fps, clip.rotvec[low:high], clip.pelvis[low:high])
        speed = float(np.linalg.norm(np.diff(stretch.joints(), axis=0), axis=-1).mean() * clip.fps)
        if best is None or speed > best[0]:
            best = speed, clip, start
    return best[1], best[2]


def _pelvis_of(body: SkinnedBody, local: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Where this body's pelvis joint must be so that its hips are where the recording has them."""
    recorded = NOMINAL_REST[[1, 2]].mean(0) - NOMINAL_REST[0]
    own = body.rest[[1, 2]].mean(0) - body.rest[0]
    return pelvis + local[:, 0] @ (recorded - own)


def _floor_height(body: SkinnedBody, outfit: Outfit, local: np.ndarray, pelvis: np.ndarray) -> float:
    """Height of the lowest point of the sole over the whole take: the floor is put there."""
    soles = np.argsort(outfit.vertices[:, 1])[:400]
    light = SkinnedBody(outfit.vertices[soles], body.faces[:0], body.weights[soles], body.heads, body.align, body.rest,
                        body.name)
    vertices, _ = light.pose(local, _pelvis_of(body, local, pelvis))
    return float(vertices[..., 1].min())


def _set_up(rng: np.random.Generator, take: Take, settings: SynthSettings, photos: list[Path]) -> Stage:
    """Camera, clean plate, light and shadow for a take."""
    times = np.linspace(take.exposures[0].open, take.exposures[-1].close, 3 * len(take.exposures))
    joints = _joints(take, times)
    reach = joints.reshape(-1, 3)
    around = np.concatenate([reach + [0, 0.17, 0], reach - [0, 0.08, 0], reach + [0.08, 0, 0], reach - [0.08, 0, 0]])
    shot = random_shot(rng, around, settings.width, settings.height)
    centre = 0.5 * (reach.min(0) + reach.max(0))
    eye = -shot.R.T @ shot.T
    clear = float(np.linalg.norm((eye - centre)[[0, 2]])) + 0.4
    kind = settings.place if settings.place != "any" else str(
        rng.choice(["room", "yard", "photo"] if photos else ["room", "yard"]))
    if kind == "photo" and not photos:
        raise ValueError("place 'photo' needs photographs; pass --photos FILE ...")
    if kind == "photo":
        place = plates.photo_place(photos[rng.integers(len(photos))], settings.width, settings.height)
    else:
        place = (plates.random_room if kind == "room" else plates.random_yard)(rng, centre, clear)
    sun, share, colour = random_light(rng, rng.uniform(0.75, 1.1))
    view = plates.view(place, shot.R, shot.T, shot.camera.K, (settings.width, settings.height), sun, share)
    if place.photo is not None:
        view = _assumed_floor(view, shot)
    floor = view.plate[np.isfinite(view.ground[..., 0])]
    light = body_light(shot, sun, share, colour, floor.mean(0) if len(floor) else np.full(3, 0.3))
    shadow = FloorShadow(view, shot, sun, share, rng.uniform(1.5, 6.0)) if settings.shadows else None
    return Stage(shot, view, place, light, shadow, sun, share)


def _assumed_floor(view: plates.View, shot: Shot) -> plates.View:
    """For a photograph: every pixel below the horizon within 12 m is taken for floor."""
    height, width = view.plate.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(shot.camera.K).T @ shot.R
    eye = -shot.R.T @ shot.T
    with np.errstate(divide="ignore"):
        far = np.where(rays[..., 1] < 0, -eye[1] / rays[..., 1], np.nan)
    return plates.View(view.plate, np.where((far < 12)[..., None], eye + far[..., None] * rays, np.nan))


def _joints(take: Take, times: np.ndarray) -> np.ndarray:
    """World joints [T, 24, 3]."""
    from blur_motion_ros.data.mocap import PARENTS, forward

    local, pelvis = take.motion(times)
    _, positions = forward(local, take.body.rest, PARENTS)
    return positions + (pelvis - positions[:, 0])[:, None]


def _expose(take: Take, stage: Stage, renderer: Renderer, exposure: Exposure, settings: SynthSettings) -> Exposed:
    """Average over the open shutter by the trapezoid rule, whose instants include both ends."""
    shot, shadow = stage.shot, stage.shadow
    count = _instants(take, shot, exposure, settings)
    times = np.linspace(exposure.open, exposure.close, count)
    weights = np.full(count, 1 / (count - 1))
    weights[[0, -1]] /= 2
    local, pelvis = take.motion(times)
    every = (count - 1) // (TRUTH_INSTANTS - 1)
    image, alpha = np.zeros(stage.view.plate.shape, np.float32), np.zeros(stage.view.plate.shape[:2], np.float32)
    silhouettes, joints, sharp = [], [], None
    for k in range(count):
        vertices, positions = take.body.pose(local[k:k + 1], pelvis[k:k + 1], take.outfit.vertices)
        seen = shot.to_camera(vertices[0])
        normals = vertex_normals(seen, take.body.faces)
        colour, cover = renderer.draw(seen, normals, take.outfit.surface, stage.light, shot.camera.K)
        plate = stage.view.plate
        if shadow is not None:
            plate = plate * shadow.factor(vertices[0], take.body.faces, positions[0, FEET])
        composed = colour + (1 - cover[..., None]) * plate
        image += np.float32(weights[k]) * composed
        alpha += np.float32(weights[k]) * cover
        if k % every == 0:
            silhouettes.append(cover > 0.5)
            joints.append(shot.to_camera(positions[0]))
        if k == (count - 1) // 2:
            sharp = composed
    return Exposed(image, alpha, sharp, np.stack(joints), blur_rate(np.stack(silhouettes)))


def _traced(take: Take, stage: Stage, exposed: list[Exposed], settings: SynthSettings,
            seed: int) -> tuple[list[Exposed], np.ndarray]:
    """The same take seen by the path tracer: blurred images, sharp ones and plate are replaced, the rest is kept."""
    if stage.place.photo is not None:
        raise ValueError("renderer=cycles needs a modelled place; set place to room or yard")
    times = np.stack([np.linspace(e.open, e.close, path_tracer.KEYS) for e in take.exposures])
    local, pelvis = take.motion(times.ravel())
    vertices, _ = take.body.pose(local, pelvis, take.outfit.vertices)
    place, shot = stage.place, stage.shot
    arrays = {"vertices": vertices.reshape(times.shape + vertices.shape[1:]), "faces": take.body.faces,
              "colours": vertex_colours(take.outfit.surface), "boxes": place.boxes, "looks": place.looks,
              "floor_look": place.floor_look, "K": shot.camera.K, "R": shot.R, "T": shot.T, "sun": stage.sun,
              "sky": place.sky_colour}
    options = {"width": settings.width, "height": settings.height, "samples": settings.samples, "share": stage.share,
               "open_air": place.open_air, "threads": settings.threads, "seed": seed, "sharp": settings.sharp}
    with tempfile.TemporaryDirectory() as temp:
        path_tracer.write_bundle(Path(temp) / "bundle.npz", arrays, options)
        images, sharps, plate = path_tracer.render(Path(temp) / "bundle.npz", Path(temp) / "out")
    return [replace(e, image=i, sharp=s) for e, i, s in zip(exposed, images, sharps, strict=True)], plate


def _instants(take: Take, shot: Shot, exposure: Exposure, settings: SynthSettings) -> int:
    """Enough instants that no joint moves further than `settings.step` px between two; 8 m + 1."""
    path = shot.camera.project(shot.to_camera(_joints(take, np.linspace(exposure.open, exposure.close, 9))))
    longest = np.linalg.norm(np.diff(path, axis=0), axis=-1).max() * 8
    wanted = max(settings.subframes, longest / settings.step)
    return 8 * int(np.ceil(min(wanted, 128) / 8)) + 1


def _sensor(rng: np.random.Generator, image: np.ndarray, noise: float, response: str) -> np.ndarray:
    """Photon and read noise (sigma^2 is affine in the light, `noise` at light 0.2), then the response curve."""
    sigma = noise * np.sqrt(0.15 + 0.85 * np.clip(image, 0, 1) / 0.2)
    noisy = image + rng.normal(0, 1, image.shape).astype(np.float32) * sigma
    return to_codes(noisy, response)


def _meta(take: Take, settings: SynthSettings, stage: Stage, joints: np.ndarray, times: np.ndarray,
          rates: list[float], seed: int) -> dict:
    shot, lamp = stage.shot, {"sun": stage.sun.tolist(), "sun_share": stage.share}
    speed = np.linalg.norm(np.diff(joints, axis=1), axis=-1) / np.diff(times, axis=1)[..., None]
    return {"seed": seed, "clip": take.clip.name, "clip_t0": take.start, "split": take.clip.split, "set": "synth",
            "body": take.body.name, "body_height_m": float(np.ptp(take.body.vertices[:, 1])),
            "clothes": take.outfit.description, "scene": stage.place.name, "light": lamp, "renderer": settings.renderer,
            "shadows": settings.shadows,
            "response": settings.response, "R_world2cam": shot.R.tolist(), "T_world2cam": shot.T.tolist(),
            "blur_rate_mean": float(np.mean(rates)), "blur_rate_max": float(np.max(rates)),
            "mean_joint_speed": float(speed.mean()), "peak_joint_speed": float(speed.max()),
            "joint_names": list(LSP14), "smpl24_names": list(SMPL24), "fps": settings.fps, "duty": settings.duty}
