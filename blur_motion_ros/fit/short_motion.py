"""The adversarial short-motion prior at run time: judges and repairs the coefficients of one window.

For single frames and cold starts only: where frames follow each other, their continuity knows better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from blur_motion_ros.motion import rotations
from blur_motion_ros.motion.pose import body_state, local_rotations
from blur_motion_ros.types import MotionEstimate, Status

ASSET = Path(__file__).resolve().parents[1] / "assets" / "short_motion.pt"
LIMB_NAMES = ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")
LIMBS = ((0, 3, 6, 9, 12, 15), (13, 16, 18, 20), (14, 17, 19, 21), (1, 4, 7, 10), (2, 5, 8, 11))
LIMB_ROWS = tuple(([0] if i == 0 else []) + [1 + j for j in limb] for i, limb in enumerate(LIMBS))
TRUST = (11.0, 18.0)  # 1/rad^2, see `Expectation.trusted`: not at all below, fully above
REFERENCE_DURATION = 2.0 / 30.0  # s; the network's usual sizes are of windows this long


class ShortMotionError(ValueError):
    """The network file or an estimate is unusable. The message names what and the fix."""


@dataclass(frozen=True)
class Judgement:
    """real: log-odds that the whole motion is one a body makes; limbs [5]: that each limb's motion fits (LIMB_NAMES);
    direction [5]: log-odds of each limb's direction in time against its reverse (positive: keep it)."""

    real: float
    limbs: np.ndarray
    direction: np.ndarray


@dataclass(frozen=True)
class Expectation:
    """What motion a pose makes one expect, before looking at the blur.

    motion [25, 2, 3]: c_1 and c_2 of `MotionEstimate.coefficients` (translation in the camera frame, m; joints rad).
    spread [25, 3]: scale of what c_1 really is around it, same units and axes as `motion`.
    """

    motion: np.ndarray
    spread: np.ndarray

    def trusted(self, pose_variance: float) -> Expectation:
        """As much of it as the pose deserves that it was drawn from: all, a part, or rest.

        pose_variance: rad^2 per axis, of the measured pose. What matters is how far the expected motion stands out of
        its spread, against that variance: on motions that the network never saw, both are bad (docs/learning.md).
        """
        standing_out = np.sqrt(((self.motion[:23, 0] / self.spread[:23]) ** 2).mean())
        low, high = TRUST
        share = float(np.clip((standing_out / max(pose_variance, 1e-9) - low) / (high - low), 0.0, 1.0))
        return replace(self, motion=share * self.motion)

    def direction_log_odds(self, first_order: np.ndarray) -> np.ndarray:
        """[5] log-odds (LIMB_NAMES) that a motion with c_1 = first_order [25, 3] runs that way, not backwards.

        Both explain a blurred image alike; the expectation tells them apart: 2 m.v / s^2 for a Gaussian around m. What
        the fitted motion v has along m beyond m itself counts for nothing, since the fit began there; a limb's joints
        move as one, so their mean counts, not their sum (calibrated on held-out recordings: docs/learning.md).
        """
        out = np.zeros(len(LIMBS))
        for i, rows in enumerate(LIMB_ROWS):
            m, v = self.motion[rows, 0] / self.spread[rows], first_order[rows] / self.spread[rows]
            power = float((m * m).mean())
            out[i] = 2 * np.clip((m * v).mean(), -power, power)
        return out


def load_network(path: str | Path | None = None, device: str = "cpu"):
    """The TorchScript module of a file (None: the packaged one), one per process: its first calls are slow.

    Raises ShortMotionError where there is no such file or it is something else.
    """
    path = Path(path) if path else ASSET
    if not path.is_file():
        raise ShortMotionError(f"short-motion network {path} does not exist; train it: blur-motion train prior")
    return _loaded(path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=2)
def _loaded(path: Path, _modified: int, device: str):
    import torch

    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ShortMotionError(f"{path} is not a TorchScript file: {error}") from error
    if not hasattr(network, "expect"):
        raise ShortMotionError(f"{path} was trained before version 2 of the network; train it again: "
                               "blur-motion train prior")
    return network


class ShortMotionPrior:
    """The network of one file; every call is about a millisecond on one core."""

    def __init__(self, path: str | Path | None = None):
        self._net = load_network(path)
        self._usual = np.asarray(self._net.sigma[0], np.float64)

    @property
    def network(self):
        """The TorchScript module: `learning.short_motion.ShortMotionNet.forward`."""
        return self._net

    def judge(self, estimate: MotionEstimate) -> Judgement:
        """How plausible the estimated motion is, and how sure its direction in time, limb by limb."""
        rotmats, motion, duration = network_inputs(estimate)
        flips = np.concatenate([np.zeros((1, 5)), np.eye(5)])
        batch = np.repeat(motion[None], 6, 0)
        batch[:, 0] *= _row_signs(flips)[:, :, None]
        whole, limbs, _, _ = self._run(np.repeat(rotmats[None], 6, 0), batch, duration)
        direction = limbs[0] - limbs[1:][np.arange(5), np.arange(5)]
        return Judgement(float(whole[0]), limbs[0], direction)

    def expect(self, estimate: MotionEstimate) -> Expectation:
        """The motion expected of the estimate's pose at mid-window; its motion is not looked at."""
        rotmats, _, duration = network_inputs(estimate)
        mean, spread = self._call(self._net.expect, rotmats[None], duration)
        ratio = duration / REFERENCE_DURATION
        motion, scale = np.zeros((25, 2, 3)), np.full((25, 3), 1e-3)
        motion[:23] = np.swapaxes(mean[0], 0, 1)
        motion[0] = motion[0] @ rotmats[0].T
        for i, rows in enumerate(LIMB_ROWS):
            scale[rows] = spread[0, i] * ratio * self._usual[rows]
        scale[0] = np.sqrt((scale[0] ** 2).mean())  # the pelvis' axes are not the camera's
        return Expectation(motion, scale)

    def choose_direction(self, estimate: MotionEstimate, least: float = 0.5) -> MotionEstimate:
        """Reverse the limbs whose reversed motion is likelier by `least` log-odds."""
        judgement = self.judge(estimate)
        flips = (judgement.direction < -least).astype(float)
        sign = np.ones(25)
        sign[:23] = _row_signs(flips[None])[0]
        odd = np.where(np.arange(estimate.coefficients.shape[1]) % 2 == 1, 1, 0)
        signs = np.where(odd[None] == 1, sign[:, None], 1.0)
        return replace(estimate, coefficients=estimate.coefficients * signs[:, :, None])

    def correct(self, estimate: MotionEstimate, share: float = 1.0) -> MotionEstimate:
        """The corrector's motion (or a `share` of the way to it). The covariance is dropped: it is not known."""
        rotmats, motion, duration = network_inputs(estimate)
        _, _, turned, changed = self._run(rotmats[None], motion[None], duration)
        return _with_motion(estimate, rotmats, turned[0], motion + share * (changed[0] - motion), share)

    def _run(self, rotmats: np.ndarray, motion: np.ndarray, duration: float) -> tuple[np.ndarray, ...]:
        return self._call(self._net, rotmats, motion, duration)

    def _call(self, function: Callable[..., tuple], *arguments: np.ndarray | float) -> tuple[np.ndarray, ...]:
        """Arrays [N, ...] and, last, the duration (s), through the network."""
        import torch
        *arrays, duration = arguments
        with torch.no_grad():
            tensors = [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays]
            out = function(*tensors, torch.full((len(arrays[0]),), duration))
        return tuple(np.asarray(t, np.float64) for t in out)


def network_inputs(estimate: MotionEstimate) -> tuple[np.ndarray, np.ndarray, float]:
    """-> local rotations [22, 3, 3] at mid-window, motion [2, 23, 3] (translation in the pelvis' axes), duration s."""
    coefficients = np.asarray(estimate.coefficients, np.float64)
    if coefficients.ndim != 3 or coefficients.shape[0] != 25 or coefficients.shape[1] < 3:
        raise ShortMotionError(f"coefficients of shape {coefficients.shape}; [25, 3 or more, 3] wanted (degree 2)")
    if not np.isfinite(coefficients).all():
        raise ShortMotionError("coefficients are not finite: there is no motion to judge")
    local = _mid_rotations(estimate)[:22]
    motion = np.swapaxes(coefficients[:23, 1:3], 0, 1).copy()
    motion[:, 0] = motion[:, 0] @ local[0]
    return local, motion, float(estimate.end - estimate.start)


def _mid_rotations(estimate: MotionEstimate) -> np.ndarray:
    """[24, 3, 3]: reference composed with the constant term."""
    return local_rotations(estimate.reference) @ rotations.exp(estimate.coefficients[1:, 0])


def _row_signs(flips: np.ndarray) -> np.ndarray:
    """flips [N, 5] in {0, 1} -> signs [N, 23] of the odd coefficients; translation goes with the trunk."""
    sign = np.ones((len(flips), 23))
    for i, limb in enumerate(LIMBS):
        rows = [1 + j for j in limb] + ([0] if i == 0 else [])
        sign[:, rows] = 1 - 2 * flips[:, i:i + 1]
    return sign


def _with_motion(estimate: MotionEstimate, before: np.ndarray, turned: np.ndarray, motion: np.ndarray,
                 share: float) -> MotionEstimate:
    """Put corrected rotations [22, 3, 3] and motion [2, 23, 3] back into an estimate."""
    step = rotations.log(np.swapaxes(before, -1, -2) @ turned)
    mid = _mid_rotations(estimate)
    mid[:22] = before @ rotations.exp(share * step)
    coefficients = np.array(estimate.coefficients, np.float64)
    reference = body_state(mid, estimate.reference.betas, estimate.reference.transl + coefficients[0, 0])
    coefficients[:, 0] = 0.0
    coefficients[:23, 1:3] = np.swapaxes(motion, 0, 1)
    coefficients[0, 1:3] = motion[:, 0] @ before[0].T
    return replace(estimate, reference=reference, coefficients=coefficients, covariance=None,
                   status=estimate.status | Status.DIRECTION_UNDECIDED)
