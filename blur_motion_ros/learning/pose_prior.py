"""Training of the free pose prior and of the short-motion statistics (seeded, about a minute of one core).

The recordings are few people doing few things, mostly walking; what a pose prior must not learn is that arms swing
with legs. Hence: kinds of motion weigh alike (square root of their length), every pose counts with its mirror image,
covariances are shrunk towards a block per limb, each joint keeps an anatomical spread that the capture skeletons lock
(collars, twist of knees and elbows), tails are Student-t. The constants were chosen by leaving kinds of motion out
(`validate`), never on the held-out clips.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from blur_motion_ros.data.mocap import NOMINAL_REST, MotionClip, forward, mirror_pose
from blur_motion_ros.fit.priors import DIMENSIONS, MixturePrior, MotionStatistics
from blur_motion_ros.motion import polynomials, rotations

if TYPE_CHECKING:
    from torch import Tensor

# Joints of body_pose (SMPL joint - 1) that may vary together; blocks are independent in the shrinkage target.
_BLOCKS = ((0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11, 14), (12, 15, 17, 19, 21), (13, 16, 18, 20, 22))
# Spread (rad) that our data cannot show: locked or crude joints of the capture skeletons. SMPL joint -> sigma.
_LEAST_SPREAD = {3: .08, 6: .06, 9: .06, 12: .10, 15: .12, 13: .12, 14: .12, 1: .08, 2: .08, 4: .08, 5: .08, 7: .12,
                 8: .12, 10: .12, 11: .12, 16: .12, 17: .12, 18: .15, 19: .15, 20: .2, 21: .2, 22: .1, 23: .1}
# Joint limits in rotation-vector coordinates (rad), left side; anatomy rounded outwards. SMPL joint -> (low, high).
_LIMITS = {1: ((-2.6, -1.4, -1.2), (1.0, 1.4, 1.4)), 4: ((-.08, -.6, -.4), (2.8, .6, .4)),
           7: ((-1.1, -1.1, -.9), (1.1, 1.1, .9)), 10: ((-1.2, -.5, -.5), (1.0, .5, .5)),
           3: ((-.6, -.6, -.6), (1.0, .6, .6)), 6: ((-.5, -.5, -.5), (.8, .5, .5)), 9: ((-.5, -.5, -.5), (.8, .5, .5)),
           12: ((-.9, -1.1, -.7), (.9, 1.1, .7)), 15: ((-.9, -1.0, -.7), (.9, 1.0, .7)),
           13: ((-.5, -.6, -.6), (.5, .6, .6)), 16: ((-2.3, -2.4, -2.0), (2.3, 1.6, 1.8)),
           18: ((-1.6, -2.75, -.8), (1.6, .1, 1.5)), 20: ((-2.0, -.9, -1.2), (2.0, .9, 1.2)),
           22: ((-.5, -.5, -.5), (.5, .5, .5))}


# Least spread of mean speed over a window (rad/s), for the same reason. SMPL joint -> sigma.
_LEAST_SPEED = {13: .8, 14: .8, 4: .3, 5: .3, 18: .5, 19: .5, 20: .8, 21: .8, 10: .5, 11: .5, 22: .1, 23: .1}


@dataclass(frozen=True)
class PoseSamples:
    """Body poses [N, 69] with weights [N] (mean one) and the kind of motion of each [N]."""

    poses: np.ndarray
    weights: np.ndarray
    kinds: np.ndarray


@dataclass(frozen=True)
class MixtureOptions:
    """How the mixture is fitted: components, shrinkage towards limb blocks, share of a broad component, tails."""

    components: int = 4
    shrinkage: float = 0.3
    broad: float = 0.1
    freedom: float = 30.0
    spread: float = 1.0
    iterations: int = 30
    seed: int = 0


def kind_of(clip_name: str) -> str:
    """'cmu_extra_walking_13#1~' -> 'walking', 'deepmimic_dance_a' -> 'dance'."""
    name = re.sub(r"[#~].*$", "", clip_name).removeprefix("cmu_").removeprefix("deepmimic_").removeprefix("extra_")
    return re.sub(r"(_\d+|_[ab]|_faceup|_facedown)$", "", name)


def gather(clips: list[MotionClip], step: float = 1 / 15) -> PoseSamples:
    """Poses every `step` s and their mirror images, kinds weighted by the square root of their length."""
    poses, kinds = [], []
    for clip in clips:
        taken = clip.rotvec[:: max(1, round(step * clip.fps)), 1:]
        both = np.concatenate([taken, mirror_pose(taken)]).reshape(-1, DIMENSIONS)
        poses.append(both)
        kinds += [kind_of(clip.name)] * len(both)
    kinds = np.array(kinds)
    names, inverse, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    weights = counts[inverse] ** -0.5
    return PoseSamples(np.concatenate(poses), weights / weights.mean(), kinds)


def fit_mixture(samples: PoseSamples, options: MixtureOptions, where: str = "cpu") -> MixturePrior:
    """Weighted EM with shrinkage; the last component is the broad one."""
    fit = MixtureFit(samples, options, where)
    for step in range(fit.steps):
        fit.update(step)
    return fit.prior()


class MixtureFit:
    """The EM, an iteration a step (a `training.Trainee`); the samples stay on the device `where`."""

    def __init__(self, samples: PoseSamples, options: MixtureOptions, where: str = "cpu"):
        import torch
        self.options, self.steps, self.where = options, options.iterations, where
        self._samples = samples
        self._x, self._w = (torch.as_tensor(a, dtype=torch.float64, device=where)
                            for a in (samples.poses, samples.weights))
        self.means, self.shares = _start(samples.poses, samples.weights, options)
        self._base = _shrunk(_moments(self._x, self._w)[0], options)
        self.covariances = np.repeat(self._base[None] * 0.5, len(self.means), 0)

    def update(self, step: int) -> dict[str, float]:
        """One iteration; the mean log density of the samples before it."""
        prior = MixturePrior.from_covariances(self.means, self.covariances, self.shares, self.options.freedom)
        responsibility, tail, density = _expect(prior, self._x)
        mass = self._w[:, None] * responsibility
        total = mass.sum(0).cpu().numpy()
        self.shares = (total + 1.0) / (total.sum() + len(self.means))
        for k in range(len(self.means)):
            covariance, mean, weight = _moments(self._x, mass[:, k] * tail[:, k])
            self.means[k] = mean
            self.covariances[k] = _shrunk(covariance * (weight / min(total[k], weight)), self.options, self._base,
                                          total[k])
        return {"log_density": float((self._w * density).sum() / self._w.sum())}

    def state(self) -> dict[str, object]:
        import torch
        return {k: torch.from_numpy(getattr(self, k).copy()) for k in ("means", "covariances", "shares")}

    def restore(self, state: dict) -> None:
        self.means, self.covariances, self.shares = (state[k].cpu().numpy() for k in ("means", "covariances", "shares"))

    def prior(self) -> MixturePrior:
        """The mixture as it is, with the broad component and joint limits."""
        return _with_broad(self.means, self.covariances, self.shares, self._samples.poses, self._samples.weights,
                           self.options)


def _start(x: np.ndarray, w: np.ndarray, options: MixtureOptions) -> tuple[np.ndarray, np.ndarray]:
    """k-means++ centres followed by a few Lloyd steps."""
    rng = np.random.default_rng(options.seed)
    centres = [x[rng.choice(len(x), p=w / w.sum())]]
    for _ in range(options.components - 1):
        distance = np.min([((x - c) ** 2).sum(1) for c in centres], 0) * w
        centres.append(x[rng.choice(len(x), p=distance / distance.sum())])
    means = np.array(centres)
    for _ in range(5):
        nearest = np.argmin(((x[:, None] - means) ** 2).sum(-1), 1)
        means = np.array([np.average(x[nearest == k], axis=0, weights=w[nearest == k])
                          if (nearest == k).any() else means[k] for k in range(len(means))])
    return means, np.full(len(means), 1 / len(means))


def _expect(prior: MixturePrior, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Responsibilities [N, K], Student-t weights [N, K] and log densities [N] of x [N, 69]."""
    import torch
    means, factors, peaks = (torch.as_tensor(a, device=x.device) for a in (prior.means, prior.factors,
                                                                            prior._log_peaks))
    squared = torch.stack([(((x - m) @ f.T) ** 2).sum(1) for m, f in zip(means, factors, strict=True)], 1)
    nu, d = prior.freedom, DIMENSIONS
    finite = np.isfinite(nu)
    log_terms = peaks - (0.5 * (nu + d) * torch.log1p(squared / nu) if finite else 0.5 * squared)
    tails = (nu + d) / (nu + squared) if finite else torch.ones_like(squared)
    return torch.softmax(log_terms, 1), tails, torch.logsumexp(log_terms, 1)


def _moments(x: Tensor, weight: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted covariance [69, 69] and mean [69] of x [N, 69], and the sum of the weights."""
    total = weight.sum()
    mean = weight @ x / total
    centred = x - mean
    covariance = (centred * weight[:, None]).T @ centred / total
    return covariance.cpu().numpy(), mean.cpu().numpy(), float(total)


def _shrunk(covariance: np.ndarray, options: MixtureOptions, base: np.ndarray | None = None,
            mass: float = np.inf) -> np.ndarray:
    """Covariance with off-block parts shrunk, small components pulled to `base`, anatomical spread added."""
    target = np.where(_block_mask(), covariance, 0.0)
    covariance = (1 - options.shrinkage) * covariance + options.shrinkage * target
    covariance += np.diag((options.spread * least_spread()) ** 2)
    if base is not None:
        pull = 60.0 / (60.0 + mass)  # as if 60 samples had the overall covariance
        covariance = (1 - pull) * covariance + pull * base
    return covariance


def _block_mask() -> np.ndarray:
    mask = np.zeros((23, 23), bool)
    for block in _BLOCKS:
        mask[np.ix_(block, block)] = True
    return np.kron(mask, np.ones((3, 3), bool))


def least_spread() -> np.ndarray:
    """[69] rad."""
    return np.repeat([_LEAST_SPREAD[j] for j in range(1, 24)], 3)


def joint_limits() -> tuple[np.ndarray, np.ndarray]:
    """(low [69], high [69]) rad; the right side mirrors the left."""
    low, high = np.full((23, 3), -np.pi), np.full((23, 3), np.pi)
    for joint, (a, b) in _LIMITS.items():
        low[joint - 1], high[joint - 1] = a, b
    for left, right in ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23)):
        low[right - 1] = low[left - 1][0], -high[left - 1][1], -high[left - 1][2]
        high[right - 1] = high[left - 1][0], -low[left - 1][1], -low[left - 1][2]
    return low.reshape(-1), high.reshape(-1)


def _with_broad(means: np.ndarray, covariances: np.ndarray, shares: np.ndarray, x: np.ndarray, w: np.ndarray,
                options: MixtureOptions) -> MixturePrior:
    """Add a component with independent joints and twice the overall spread: unusual poses stay possible."""
    low, high = joint_limits()
    mean = w @ x / w.sum()
    variance = w @ (x - mean) ** 2 / w.sum()
    broad = np.diag(np.maximum(4 * variance, (3 * least_spread()) ** 2))
    return MixturePrior.from_covariances(
        np.vstack([means, mean]), np.concatenate([covariances, broad[None]]),
        np.append(shares * (1 - options.broad), options.broad), options.freedom, low=low, high=high)


# --------------------------------------------------------------------------------------------- motion statistics


def motion_statistics(clips: list[MotionClip], windows: tuple[float, ...] = (1 / 30, 2 / 30, 0.1, 4 / 30),
                      ) -> MotionStatistics:
    """Legendre coefficients of degree 2 over all windows of the clips (and mirror images), kinds weighted alike."""
    rows = [_window_statistics(clips, w) for w in windows]
    return MotionStatistics(np.array(windows), *(np.stack([r[i] for r in rows]) for i in range(8)))


def window_coefficients(clip: MotionClip, window: float, stride: float = 1 / 30) -> tuple[np.ndarray, np.ndarray]:
    """Windows of `window` s, `stride` s apart: coefficients [N, 25, 3, 3] (row, Legendre order, axis) and the local
    rotations [N, 24, 3, 3] at mid-window that they are relative to.

    Row 0 is the pelvis, in the axes and from the place of the pelvis at mid-window.
    """
    samples = max(round(window * clip.fps), 2) + 1
    starts = np.arange(0, len(clip) - samples + 1, max(1, round(stride * clip.fps)))
    if not len(starts):
        return np.zeros((0, 25, 3, 3)), np.zeros((0, 24, 3, 3))
    index = starts[:, None] + np.arange(samples)
    matrices, middle = rotations.exp(clip.rotvec), starts + samples // 2
    logs = rotations.log(np.swapaxes(matrices[middle], -1, -2)[:, None] @ matrices[index])
    moved = np.einsum("nab,nta->ntb", matrices[middle, 0], clip.pelvis[index] - clip.pelvis[middle][:, None])
    values = np.concatenate([moved[:, :, None], logs], 2)
    pinv = np.linalg.pinv(polynomials.basis(np.linspace(0, 1, samples), 0, 1, 2))
    return np.einsum("kt,ntjc->njkc", pinv, values), matrices[middle]


def _window_statistics(clips: list[MotionClip], window: float) -> tuple[np.ndarray, ...]:
    parts, kinds = [], []
    for clip in clips:
        if clip.fps < 25:
            continue
        for one in (clip, clip.mirrored()):
            c, _ = window_coefficients(one, window)
            parts.append(c)
            kinds += [kind_of(clip.name)] * len(c)
    coefficients = np.concatenate(parts)
    _, inverse, counts = np.unique(np.array(kinds), return_inverse=True, return_counts=True)
    weights = counts[inverse] ** -0.5
    floor = np.array([0.02] + [_LEAST_SPEED.get(j, 0.1) for j in range(24)])[:, None] * window / 2
    tables = [_order_statistics(coefficients[:, :, order], weights, least) for order, least in ((1, floor),
                                                                                               (2, 0.3 * floor))]
    return tuple(table[i] for i in range(4) for table in tables)


def _order_statistics(c: np.ndarray, weights: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients [N, 25, 3] -> deviation [25, 3], Student-t scale [25, 3] and freedom [25], precision [75, 75]."""
    deviation = np.sqrt(np.einsum("n,njc->jc", weights, c**2) / weights.sum() + least**2)
    scale, freedom = _student_t(c, weights, least)
    return deviation, scale, freedom, _precision(c, weights, np.broadcast_to(least, (25, 3)))


def _student_t(c: np.ndarray, weights: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood scale [25, 3] for each of a grid of freedoms; the likeliest freedom [25] of each row."""
    from scipy.stats import t
    thin = slice(None, None, max(1, len(c) // 4000))
    x, w = c[thin], weights[thin] / weights[thin].sum()
    grid, scales, scores = (1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0), [], []
    for nu in grid:
        variance = np.einsum("n,njc->jc", w, x**2) + least**2
        for _ in range(20):
            variance = np.einsum("n,njc->jc", w, (nu + 1) * x**2 / (nu + x**2 / variance)) + 0.1 * least**2
        scales.append(np.maximum(np.sqrt(variance), 0.3 * least))
        scores.append(np.einsum("n,njc->j", w, t.logpdf(x, nu, scale=scales[-1])))
    best = np.argmax(scores, 0)
    return np.array(scales)[best, np.arange(25)], np.array(grid)[best]


def _precision(c: np.ndarray, weights: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Inverse of the second moment over 75 numbers; the translation is uncorrelated with the joints."""
    flat = c.reshape(len(c), -1)
    moment = (flat * weights[:, None]).T @ flat / weights.sum()
    moment[:3, 3:] = moment[3:, :3] = 0.0
    return np.linalg.inv(0.7 * moment + 0.3 * np.diag(np.diag(moment)) + np.diag(least.reshape(-1) ** 2))


# --------------------------------------------------------------------------------------------- completion benchmark


@dataclass(frozen=True)
class CompletionTask:
    """Noisy image points of some joints of a known-size body: poses [N, 23, 3], pixels [N, 24, 2], seen [N, 24]."""

    poses: np.ndarray
    pixels: np.ndarray
    seen: np.ndarray
    rest: np.ndarray
    focal: float
    depth: float
    sigma: float


def completion_task(poses: np.ndarray, seed: int, hide: bool = True, sigma: float = 6.0,
                    rest: np.ndarray = NOMINAL_REST) -> CompletionTask:
    """Bodies 3.5 m away seen from random sides by a 600 px camera; one random limb is hidden."""
    rng = np.random.default_rng(seed)
    turn = rotations.exp(np.array([0, 1, 0]) * rng.uniform(-np.pi, np.pi, (len(poses), 1)))
    seen = np.ones((len(poses), 24), bool)
    task = CompletionTask(poses, np.zeros((len(poses), 24, 2)), seen, rest, 600.0, 3.5, sigma)
    seen[:, [3, 6, 9, 13, 14, 22, 23]] = False
    limbs = ((4, 7, 10), (5, 8, 11), (18, 20), (19, 21))
    for i, limb in enumerate(rng.integers(0, 4, len(poses))):
        if hide:
            seen[i, list(limbs[limb])] = False
    pixels = np.stack([_project(task, p, t)[0] for p, t in zip(poses, turn, strict=True)])
    noise = rng.normal(0, sigma, pixels.shape)
    return CompletionTask(np.concatenate([rotations.log(turn)[:, None], poses], 1), pixels + noise, seen, rest, 600.0,
                          3.5, sigma)


def complete(task: CompletionTask, prior: object, iterations: int = 25) -> np.ndarray:
    """Joint errors [N, 24] m of poses estimated from the pixels with `prior`.

    The search starts where an initialiser leaves it: joints wrong by 0.3 rad, the global turn by 0.17 rad.
    """
    errors = []
    rng = np.random.default_rng(1)
    for truth, pixels, seen in zip(task.poses, task.pixels, task.seen, strict=True):
        turn = rotations.exp(truth[0]) @ rotations.exp(rng.normal(0, 0.17, 3))
        pose = truth[1:] + rng.normal(0, 0.3, (23, 3))
        pose, turn = _solve(task, prior, pose, turn, pixels, seen, iterations)
        found = _project(task, pose, turn)[2]
        errors.append(np.linalg.norm(found - _project(task, truth[1:], rotations.exp(truth[0]))[2], axis=-1))
    return np.array(errors)


def _solve(task: CompletionTask, prior: object, pose: np.ndarray, turn: np.ndarray, pixels: np.ndarray,
           seen: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt over the global turn (3) and the pose (69)."""
    damping, best = 1e-2, np.inf
    state = (pose, turn)
    system = None
    for _ in range(iterations):
        trial = state if system is None else _step(state, system, damping)
        cost, fresh = _system(task, prior, trial, pixels, seen)
        if cost < best:
            state, best, system, damping = trial, cost, fresh, damping * 0.3
        else:
            damping *= 6
    return state


def _step(state: tuple, system: tuple, damping: float) -> tuple[np.ndarray, np.ndarray]:
    hessian, gradient = system
    step = -np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
    return state[0] + step[3:].reshape(23, 3), state[1] @ rotations.exp(step[:3])


def _system(task: CompletionTask, prior: object, state: tuple, pixels: np.ndarray, seen: np.ndarray) -> tuple:
    pose, turn = state
    found, jacobian, _ = _project(task, pose, turn, True)
    r = ((found - pixels)[seen] / task.sigma).reshape(-1)
    j = (jacobian[seen] / task.sigma).reshape(-1, 72)
    pr, pj = prior.residual(pose)
    hessian = j.T @ j + 1e-6 * np.eye(72)
    hessian[3:, 3:] += pj.T @ pj
    gradient = j.T @ r
    gradient[3:] += pj.T @ pr
    return float(r @ r + pr @ pr), (hessian, gradient)


def _project(task: CompletionTask, pose: np.ndarray, turn: np.ndarray, jacobian: bool = False) -> tuple:
    """Pixels [24, 2], their Jacobian [24, 2, 72] (turn tangent, pose vectors) and root-relative joints [24, 3]."""
    local = np.concatenate([turn[None], rotations.exp(pose)])
    turned, joints = (a[0] for a in forward(local[None], task.rest, _PARENTS))
    joints = joints - joints[0]
    view = joints * np.array([1, -1, -1]) + np.array([0, 0, task.depth])
    pixels = task.focal * view[:, :2] / view[:, 2:]
    if not jacobian:
        return pixels, None, joints
    blocks = np.concatenate([np.eye(3)[None], rotations.right_jacobian(pose)])
    axes = turned @ blocks  # world axis of each parameter
    lever = joints[:, None] - joints[None]
    moved = np.where(_DESCENDS[:, :, None, None], -rotations.skew(lever) @ axes[None], 0.0)  # [24, j, 3, 3]
    moved = moved.transpose(0, 2, 1, 3).reshape(24, 3, 72) * np.array([1, -1, -1])[:, None]
    z = view[:, 2:, None]
    return pixels, task.focal * (moved[:, :2] - pixels[:, :, None] / task.focal * moved[:, 2:]) / z, joints


def _descendants() -> np.ndarray:
    out = np.zeros((24, 24), bool)
    for j in range(24):
        parent = _PARENTS[j]
        if parent >= 0:
            out[j] = out[parent]
            out[j, parent] = True
    return out


_PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
_DESCENDS = _descendants()
