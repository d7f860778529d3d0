"""What BlazePose makes of a body, measured on recordings and played back onto motions that were never rendered.

Measured in the *true* view (see `vibe_landmarks`), per frame y = (image points / true size [66], world points [99]):
  systematic part   y ~ A y_ideal + b by ridge regression: landmark definitions, depth compression, size bias;
  the rest          residual tracks of whole recordings, with their visibilities, kept as they are: jitter and its
                    correlation in time and between landmarks, lag under blur, left/right swaps, drop-outs.
A new motion takes the residual track of a recording that faced the camera alike and was blurred alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blur_motion_ros.body import BodyModel
from blur_motion_ros.body.joints import BLAZEPOSE33, BLAZEPOSE33_MIRROR
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data.mocap import PARENTS, forward
from blur_motion_ros.initialiser.vibe_landmarks import turn_to
from blur_motion_ros.learning.vibe_data import Recordings
from blur_motion_ros.learning.vibe_scene import HEIGHT, WIDTH

_TORSO = [BLAZEPOSE33.index(n) for n in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")]
_LIMBS = [BLAZEPOSE33.index("nose"), *range(11, 17), *range(23, 29)]
_RIDGE = 3.0  # in units of one frame: 10^4 frames make it negligible except for collinear inputs


@dataclass(frozen=True)
class Ideal:
    """What a perfect network would say of T frames: flat [T, 33, 2], world [T, 33, 3] m, in the true view; view
    [T, 3, 3], size [T]; facing [T] rad (0 = towards the camera); speed: blur, median travel of the limbs during the
    exposure in units of size."""

    flat: np.ndarray
    world: np.ndarray
    view: np.ndarray
    size: np.ndarray
    facing: np.ndarray
    speed: float

    @property
    def vector(self) -> np.ndarray:
        t = len(self.flat)
        return np.concatenate([self.flat.reshape(t, -1), self.world.reshape(t, -1)], 1)


def landmark_positions(body: BodyModel, local: np.ndarray, pelvis: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """BlazePose's 33 points on our body, [T, 33, 3] m in the camera frame."""
    joints, points = body.rest_joints(betas), body.rest_landmarks(betas)[:33]
    turned, positions = forward(local.astype(np.float64), joints, PARENTS)
    positions = positions + (pelvis - positions[:, 0])[:, None]
    ride = body.landmark_joint[:33]
    return positions[:, ride] + np.einsum("tpab,pb->tpa", turned[:, ride], points - joints[ride])


def ideal(points: np.ndarray, root: np.ndarray, duty: float) -> Ideal:
    """points [T, 33, 3] in the camera frame, root [T, 3, 3]; duty: exposure over frame period."""
    rays = points[..., :2] / np.maximum(points[..., 2:], 0.2)
    view = np.stack([turn_to(c) for c in rays[:, _TORSO].mean(1)])
    turned = points @ np.swapaxes(view, 1, 2)
    flat = turned[..., :2] / np.maximum(turned[..., 2:], 0.2)
    size = np.sqrt((flat[:, _LIMBS] ** 2).sum(-1).mean(1))
    flat = flat / size[:, None, None]
    world = turned - turned[:, [23, 24]].mean(1, keepdims=True)
    ahead = np.einsum("tab,tb->ta", view, root[..., 2])
    steps = np.linalg.norm(np.diff(flat[:, _LIMBS], axis=0), axis=-1)
    return Ideal(flat, world, view, size, np.arctan2(ahead[:, 0], -ahead[:, 2]), float(np.median(steps) * duty))


@dataclass(frozen=True)
class NoiseModel:
    """matrix [165, 166] (last column constant); tracks [M, T, 165] residuals; visibility, score of the same;
    facing [M] rad, speed [M] of the recordings they come from; found [M, T]. sides_sure: as of all of these."""

    matrix: np.ndarray
    tracks: np.ndarray
    visibility: np.ndarray
    score: np.ndarray
    facing: np.ndarray
    speed: np.ndarray
    sides_sure: bool

    def play(self, truth: Ideal, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Noisy rays [T, 33, 2] in camera axes, world [T, 33, 3], visibility [T, 33], score [T] (0 = nobody found)."""
        t = len(truth.flat)
        turn = np.angle(np.exp(1j * (self.facing - np.angle(np.exp(1j * truth.facing).mean()))))
        far = np.abs(turn) + 0.7 * np.abs(np.log((self.speed + 0.01) / (truth.speed + 0.01)))
        near = np.argsort(far)[:max(8, len(far) // 20)]
        m = rng.choice(near)
        y = truth.vector @ self.matrix[:, :-1].T + self.matrix[:, -1] + self.tracks[m, :t] * rng.uniform(0.8, 1.1)
        flat = y[:, :66].reshape(t, 33, 2) * truth.size[:, None, None]
        back = np.concatenate([flat, np.ones((t, 33, 1))], -1) @ truth.view
        rays = back[..., :2] / np.maximum(back[..., 2:], 0.1)
        return rays, y[:, 66:].reshape(t, 33, 3), self.visibility[m, :t], self.score[m, :t]


def measure(r: Recordings, body: BodyModel) -> tuple[NoiseModel, list[Ideal], np.ndarray]:
    """Fit to recordings (and their mirror images). Also returns the ideal landmarks and weight [S, T] of each frame."""
    from blur_motion_ros.learning.vibe_data import _inside

    weight = (r.score > 0) * _inside(r)
    truths, seen = [], []
    for i in range(len(r)):
        duty = float((r.closed[i] - r.opened[i]).mean() / np.diff(r.opened[i]).mean())
        points = landmark_positions(body, r.rotmat[i], r.pelvis[i], r.betas[i])
        truths.append(ideal(points, r.rotmat[i][:, 0], duty))
        seen.append(observed(r, i, truths[-1]))
    x, y = np.stack([t.vector for t in truths]), np.stack(seen)
    ok = weight > 0
    rows, targets = np.concatenate([x[ok], _mirror(x[ok])]), np.concatenate([y[ok], _mirror(y[ok])])
    matrix = ridge(rows, targets)
    track = (y - x @ matrix[:, :-1].T - matrix[:, -1]) * ok[..., None]
    use = ok.mean(1) > 0.6
    facing = np.array([np.angle(np.exp(1j * t.facing).mean()) for t in truths])[use]
    speed = np.array([t.speed for t in truths])[use]
    order = list(BLAZEPOSE33_MIRROR)
    model = NoiseModel(
        matrix, np.concatenate([track[use], _mirror(track[use])]).astype(np.float32),
        np.concatenate([r.visibility[use], r.visibility[use][..., order]]), np.tile((r.score * ok)[use], (2, 1)),
        np.concatenate([facing, -facing]), np.tile(speed, 2), bool(r.sides_sure.all()))
    return model, truths, weight


def observed(r: Recordings, i: int, truth: Ideal) -> np.ndarray:
    """What BlazePose said in recording i, as vectors [T, 165] in the true view."""
    camera = Camera(WIDTH, HEIGHT, r.K[i])
    rays = np.stack([camera.undistort(p.astype(np.float64)) for p in r.image[i]])
    turned = np.concatenate([rays, np.ones(rays.shape[:-1] + (1,))], -1) @ np.swapaxes(truth.view, 1, 2)
    flat = turned[..., :2] / np.maximum(turned[..., 2:], 0.1) / truth.size[:, None, None]
    t = len(flat)
    return np.concatenate([flat.reshape(t, -1), r.world[i].reshape(t, -1)], 1)


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[165, 166]: y ~ x M + constant, shrunk towards y = x; robust by two rounds of down-weighting."""
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    out = np.concatenate([np.eye(x.shape[1]), np.zeros((1, x.shape[1]))])
    weight = np.ones(len(x))
    for _ in range(3):
        normal = (design * weight[:, None]).T @ design + _RIDGE * np.eye(design.shape[1])
        out = out + np.linalg.solve(normal, (design * weight[:, None]).T @ (y - design @ out) * 1.0)
        error = ((y - design @ out) ** 2).mean(1)
        weight = 1 / (1 + error / (2 * np.median(error)))
    return out.T


def _mirror(v: np.ndarray) -> np.ndarray:
    """Vectors [..., 165] of the mirrored scene."""
    order = list(BLAZEPOSE33_MIRROR)
    head = v.shape[:-1]
    flat = v[..., :66].reshape(head + (33, 2))[..., order, :] * [-1, 1]
    world = v[..., 66:].reshape(head + (33, 3))[..., order, :] * [-1, 1, 1]
    return np.concatenate([flat.reshape(head + (66,)), world.reshape(head + (99,))], -1)


def simulate(clips: list, body: BodyModel, noise: NoiseModel, count: int, seed: int, frames: int) -> Recordings:
    """`count` sequences of unrendered motion with measured noise, in the layout of recordings."""
    from blur_motion_ros.learning.vibe_motion import MotionSettings, draw_sequence

    rows = []
    settings = MotionSettings(frames=frames)
    for i in range(count):
        rng = np.random.default_rng([seed, i, 7])
        s = draw_sequence(clips, rng, settings)
        local, pelvis = s.at(s.middle)
        duty = float((s.close[0] - s.open[0]) / (s.open[1] - s.open[0]))
        points = landmark_positions(body, local, pelvis, s.betas)
        if points[..., 2].min() < 0.4:
            continue
        rays, world, visibility, score = noise.play(ideal(points, local[:, 0], duty), rng)
        pixels = rays * s.K[[0, 1], [0, 1]] + s.K[:2, 2]
        rows.append((pixels, world, visibility, score, s.open, s.close, s.K, local, pelvis, points[:, :24] * 0,
                     s.betas, np.array(s.name, "U48"), noise.sides_sure))
    kinds = [np.float32] * 4 + [float] * 3 + [np.float32] + [float] * 3 + [None, bool]
    return Recordings(*(np.stack([np.asarray(row[k], kinds[k]) for row in rows]) for k in range(len(kinds))))


def report(r: Recordings, body: BodyModel) -> dict[str, object]:
    """The noise in numbers, by blur: bias, jitter and its correlation, depth compression, swaps, drop-outs."""
    model, truths, weight = measure(r, body)
    speed = np.array([t.speed for t in truths])
    edges = np.quantile(speed, [0, 1 / 3, 2 / 3, 1])
    out = {}
    for k, name in enumerate(("little blur", "medium", "strong")):
        use = [i for i in range(len(r)) if edges[k] <= speed[i] <= edges[k + 1]]
        out[name] = _numbers(r, truths, weight, use) | {"blur": [round(float(e), 3) for e in edges[k:k + 2]]}
    return out


def _numbers(r: Recordings, truths: list[Ideal], weight: np.ndarray, use: list[int]) -> dict[str, float]:
    limbs, left, right = _LIMBS[1:], [13, 15, 25, 27], [14, 16, 26, 28]
    rows: dict[str, list] = {k: [] for k in ("bias", "jitter", "memory", "depth", "flat", "swap", "lag")}
    for i in use:
        ok = weight[i] > 0
        if ok.sum() < 8:
            continue
        y, x = observed(r, i, truths[i]), truths[i].vector
        e = (y - x).reshape(len(y), -1)
        world, true = y[:, 66:].reshape(-1, 33, 3), truths[i].world
        we = (world - true)[ok][:, limbs]
        rows["bias"].append(np.linalg.norm(we.mean(0), axis=-1).mean())
        rows["jitter"].append(np.sqrt(((we - we.mean(0)) ** 2).sum(-1).mean()))
        d = e - e[ok].mean(0)
        rows["memory"].append((d[1:] * d[:-1]).sum() / (d**2).sum())
        rows["depth"].append((world[ok][:, limbs, 2] * true[ok][:, limbs, 2]).sum()
                             / (true[ok][:, limbs, 2] ** 2).sum())
        flat, ideal_flat = y[:, :66].reshape(-1, 33, 2), truths[i].flat
        rows["flat"].append(np.linalg.norm((flat - ideal_flat)[ok][:, limbs], axis=-1).mean())
        straight = np.linalg.norm((flat[:, left + right] - ideal_flat[:, left + right]), axis=-1)
        crossed = np.linalg.norm((flat[:, left + right] - ideal_flat[:, right + left]), axis=-1)
        apart = np.linalg.norm(ideal_flat[:, left + right] - ideal_flat[:, right + left], axis=-1) > 0.4
        rows["swap"].append(((crossed < 0.5 * straight) & apart)[ok].mean())
        v = np.gradient(ideal_flat, axis=0)[ok][:, limbs]
        err = (flat - ideal_flat)[ok][:, limbs]
        rows["lag"].append(-((err - err.mean(0)) * v).sum() / max((v**2).sum(), 1e-9))
    means = {k: round(float(np.mean(v)), 4) for k, v in rows.items() if v}
    return means | {"missing": round(float(1 - (r.score[use] > 0).mean()), 4), "sequences": len(use)}
