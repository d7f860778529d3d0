"""Makes and reads the recordings that the landmark encoder learns from: BlazePose's real outputs with mocap truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data.mocap import PARENTS, forward
from blur_motion_ros.initialiser.vibe_landmarks import FEATURES, Start, features_of, mirror_features
from blur_motion_ros.learning.vibe_motion import MotionSettings, Sequence3D, draw_sequence
from blur_motion_ros.learning.vibe_scene import HEIGHT, WIDTH, Puppet, Studio, draw_place, draw_plate
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import Landmarks, Plate


@dataclass(frozen=True)
class Recordings:
    """S sequences of T frames.

    image [S, T, 33, 2] px, world [S, T, 33, 3] m, visibility [S, T, 33], score [S, T] (0 = nobody found),
    opened, closed [S, T] s, K [S, 3, 3], rotmat [S, T, 24, 3, 3] (local, root in the camera frame), pelvis [S, T, 3] m,
    joints [S, T, 24, 3] m in the camera frame, betas [S, 10], name [S]. Truth is at mid exposure. sides_sure [S]: as of
    `Landmarks` (older files say nothing: they are not).
    """

    image: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    score: np.ndarray
    opened: np.ndarray
    closed: np.ndarray
    K: np.ndarray
    rotmat: np.ndarray
    pelvis: np.ndarray
    joints: np.ndarray
    betas: np.ndarray
    name: np.ndarray
    sides_sure: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def load(paths: list[Path]) -> Recordings:
        """Concatenate shards. Raises ValueError when there are none."""
        if not paths:
            raise ValueError("no recordings (*.npz) found; make them with `blur-motion train vibe --record`")
        shards = [dict(np.load(p, allow_pickle=False)) for p in sorted(paths)]
        for s in shards:
            s.setdefault("sides_sure", np.zeros(len(s["image"]), bool))
        return Recordings(*(np.concatenate([s[f.name] for s in shards]) for f in fields(Recordings)))

    def select(self, index: np.ndarray) -> Recordings:
        return Recordings(*(getattr(self, f.name)[index] for f in fields(self)))


def film(puppet: Puppet, sequence: Sequence3D, rng: np.random.Generator, photos: list[np.ndarray],
         track: Callable[[np.ndarray, Plate | None], Landmarks | None]) -> dict[str, np.ndarray] | None:
    """Render one sequence, run the pose tracker on it; None where the person is rarely found."""
    plate = draw_place(rng, sequence) if rng.random() < 0.5 else draw_plate(rng, photos)
    studio = Studio(puppet, sequence, rng, plate)
    clean = Plate(plate, np.full((HEIGHT, WIDTH), studio.noise, np.float32)) if rng.random() < 0.85 else None
    t = len(sequence.open)
    out = {"image": np.zeros((t, 33, 2)), "world": np.zeros((t, 33, 3)), "visibility": np.zeros((t, 33)),
           "score": np.zeros(t)}
    sure = False
    for i in range(t):
        frame = studio.film(i)
        found = None if frame is None else track(frame, clean)
        if found is not None:
            for key in ("image", "world", "visibility", "score"):
                out[key][i] = getattr(found, key)
            sure = found.sides_sure
    local, pelvis = sequence.at(sequence.middle)
    _, joints = forward(local, studio.joints.astype(np.float64), PARENTS)
    out = {k: v.astype(np.float32) for k, v in out.items()}
    return out | {"opened": sequence.open, "closed": sequence.close, "K": sequence.K, "betas": sequence.betas,
                  "rotmat": local.astype(np.float32), "pelvis": pelvis,
                  "joints": joints - joints[:, :1] + pelvis[:, None], "name": np.array(sequence.name, "U48"),
                  "sides_sure": np.array(sure)}


def record(clips: list, puppet: Puppet, photos: list[np.ndarray], folder: Path, count: int, seed: int,
           settings: MotionSettings | None = None, plain: bool = False, shard: int = 20,
           landmarks: str = "blur") -> Iterator[int]:
    """Write `count` sequences as shards of `shard` into `folder`; existing shards are kept (resume). Yields progress.
    landmarks: the network that sees them (`settings.PersonSettings`).

    Sequence i is drawn from (seed, i) alone, so the result does not depend on where a run was stopped.
    """
    from blur_motion_ros.initialiser.blazepose import BlazePose
    from blur_motion_ros.initialiser.person import PersonTracker

    tracker = PersonTracker(BlazePose.pretrained(landmarks=landmarks))
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, shard):
        path = folder / f"record_{seed}_{first:06d}.npz"
        if path.exists():
            yield min(first + shard, count)
            continue
        rows = []
        for i in range(first, min(first + shard, count)):
            rng = np.random.default_rng([seed, i])
            tracker.reset()
            sequence = draw_sequence(clips, rng, settings or MotionSettings(), plain)
            rows.append(film(puppet, sequence, rng, photos, tracker.track))
            yield i + 1
        Recordings(*(np.stack([r[f.name] for r in rows]) for f in fields(Recordings))).save(path)


@dataclass(frozen=True)
class Examples:
    """What training reads. features [S, T, F], size [S, T], view [S, T, 3, 3], weight [S, T], rotmat
    [S, T, 24, 3, 3] and pelvis [S, T, 3] in view axes, betas [S, 10], name [S]. float32."""

    features: np.ndarray
    size: np.ndarray
    view: np.ndarray
    weight: np.ndarray
    rotmat: np.ndarray
    pelvis: np.ndarray
    betas: np.ndarray
    name: np.ndarray


@dataclass(frozen=True)
class Registered:
    """Recordings as the initialiser sees them: sides kept apart over time, and registered frame by frame.

    image, world, visibility as in `Recordings`; local [S, T, 24, 3, 3], betas [S, T, 10], pelvis [S, T, 3] (camera).
    """

    image: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    local: np.ndarray
    betas: np.ndarray
    pelvis: np.ndarray


def registered(r: Recordings, cache: Path | None = None) -> Iterator[Registered]:
    """Run side keeping and registration over every recording, one at a time. cache: npz that is read, or written."""
    if cache is not None and cache.exists():
        with np.load(cache) as data:
            arrays = [data[f.name] for f in fields(Registered)]
        yield from (Registered(*(a[i] for a in arrays)) for i in range(len(r)))
        return
    rows = []
    for i in range(len(r)):
        rows.append(_register(r, i))
        yield rows[-1]
    if cache is not None:
        np.savez(cache, **{f.name: np.stack([getattr(x, f.name) for x in rows]) for f in fields(Registered)})


def _register(r: Recordings, i: int) -> Registered:
    from blur_motion_ros.body import load_body
    from blur_motion_ros.initialiser.landmark import Registrar
    from blur_motion_ros.initialiser.sides import SideKeeper
    from blur_motion_ros.initialiser.vibe import start_of
    from blur_motion_ros.types import Exposure, Frame

    body, camera, image = load_body(), Camera(WIDTH, HEIGHT, r.K[i]), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    register, sides = Registrar(body), SideKeeper()
    t = r.score.shape[1]
    out = Registered(r.image[i].copy(), r.world[i].copy(), r.visibility[i].copy(), np.zeros((t, 24, 3, 3), np.float32),
                     np.zeros((t, 10), np.float32), np.zeros((t, 3), np.float32))
    for j in range(t):
        if r.score[i, j] <= 0:
            register.forget_pose()
            sides.reset()
            continue
        seen = sides.correct(landmarks_of(r, i, j), 0.5 * float(r.opened[i, j] + r.closed[i, j]))
        frame = Frame(image, Exposure(float(r.opened[i, j]), float(r.closed[i, j])), camera, j)
        start = start_of(register(seen, frame).state, body)
        out.image[j], out.world[j], out.visibility[j] = seen.image, seen.world, seen.visibility
        out.local[j], out.betas[j], out.pelvis[j] = start.local, start.betas, start.pelvis
    return out


def examples_of(r: Recordings, cache: Path | None = None) -> Examples:
    """Features and truth in view axes of every frame; frames without a person repeat the last features, weight 0.

    cache: keeps the registrations, which take 3 ms per frame.
    """
    s, t = r.score.shape
    features, size = np.zeros((s, t, FEATURES), np.float32), np.ones((s, t), np.float32)
    view = np.tile(np.eye(3, dtype=np.float32), (s, t, 1, 1))
    features[..., 204:348] = np.tile([1, 0, 0, 1, 0, 0], 24)
    for i, seen in enumerate(registered(r, cache)):
        camera = Camera(WIDTH, HEIGHT, r.K[i])
        for j in range(t):
            if r.score[i, j] <= 0:
                if j:
                    features[i, j], size[i, j], view[i, j] = features[i, j - 1], size[i, j - 1], view[i, j - 1]
                continue
            step = r.opened[i, j] - r.opened[i, j - 1] if j else 0.0
            marks = Landmarks(seen.image[j].astype(float), seen.world[j].astype(float), seen.visibility[j],
                              float(r.score[i, j]), None, np.zeros((2, 3)), np.zeros(4))
            start = Start(seen.local[j].astype(float), seen.betas[j], seen.pelvis[j].astype(float))
            features[i, j], look = features_of(marks, camera, step, r.closed[i, j] - r.opened[i, j], start)
            size[i, j], view[i, j] = look.size, look.rotation
    rotmat = r.rotmat.astype(np.float32).copy()
    rotmat[:, :, 0] = view @ rotmat[:, :, 0]
    pelvis = np.einsum("stab,stb->sta", view, r.pelvis.astype(np.float32))
    weight = (r.score > 0).astype(np.float32) * _inside(r)
    return Examples(features, size, view, weight, rotmat, pelvis, r.betas.astype(np.float32), r.name)


def _inside(r: Recordings) -> np.ndarray:
    """[S, T] 1 where the pelvis is in front of the camera and within the picture: the rest is not the person found."""
    uvw = np.einsum("sab,stb->sta", r.K, r.pelvis)
    uv = uvw[..., :2] / np.maximum(uvw[..., 2:], 1e-3)
    ok = (uvw[..., 2] > 0.5) & (uv > -20).all(-1) & (uv[..., 0] < WIDTH + 20) & (uv[..., 1] < HEIGHT + 20)
    hips = r.image[:, :, 23:25].mean(2)
    tall = r.K[:, None, 0, 0] / np.maximum(uvw[..., 2], 0.5)  # pixels of a metre
    return (ok & (np.linalg.norm(hips - uv, axis=-1) < 0.5 * tall)).astype(np.float32)


def landmarks_of(r: Recordings, i: int, j: int) -> Landmarks:
    """Frame j of recording i, as the tracker gave it (mask and box are not kept)."""
    return Landmarks(r.image[i, j].astype(np.float64), r.world[i, j].astype(np.float64), r.visibility[i, j],
                     float(r.score[i, j]), None, np.zeros((2, 3)), np.zeros(4), bool(r.sides_sure[i]))


def mirrored(e: Examples) -> Examples:
    """The mirrored world: left and right exchanged. Shape coefficients are symmetric."""
    from blur_motion_ros.body.joints import SMPL24_MIRROR

    flip = np.diag([-1.0, 1, 1]).astype(np.float32)
    rotmat = flip @ e.rotmat[:, :, list(SMPL24_MIRROR)] @ flip
    return Examples(mirror_features(e.features), e.size, flip @ e.view @ flip, e.weight, rotmat,
                    e.pelvis * np.array([-1, 1, 1], np.float32), e.betas, e.name)


def clip_windows(clips: list, frames: int, fps: float, stride: int) -> np.ndarray:
    """Body pose rotation vectors [M, frames, 69] of real motion at `fps`, both mirror images: the discriminator's real
    side."""
    out = []
    for clip in clips:
        for c in (clip.resampled(fps), clip.mirrored().resampled(fps)):
            body = c.rotvec[:, 1:].reshape(len(c), 69)
            out += [body[i:i + frames] for i in range(0, len(body) - frames + 1, stride)]
    wrapped = np.stack(out).astype(np.float32)
    shape = wrapped.shape
    return rotations.log(rotations.exp(wrapped.reshape(-1, 3))).reshape(shape).astype(np.float32)
