"""Errors of sub-frame joint trajectories. Joints in LSP14 order, metres, camera frame; times in seconds.

Every metric is first one number per exposure (`per_exposure`), so that tables can be binned by blur rate, and then
the mean over the exposures that were predicted (`summarise`). F exposures, S sub-frames, 14 joints.

  mpjpe      mm: joints relative to the mid-hip of the same sub-frame; mean over sub-frames and joints
  mpjpe12    mm: the same without neck and head (whose definitions differ most between body models)
  pa         mm: after the best similarity, one per sub-frame;  pa_exp: one per exposure (keeps the motion)
  mid        mm: mpjpe of the middle sub-frame;  pa_mid: its Procrustes error
  root       mm: mid-hip in the camera frame;  root_rel: after removing the sequence's mean offset
  vel        m/s: velocity of root-relative joints, central differences at interior sub-frames
  vel_abs    m/s: velocity in the camera frame;  vel_gt: true mean speed = error of predicting no motion
  acc        m/s^2: second differences, root-relative;  acc_gt: true mean = error of predicting no acceleration
  pck50, pck150  share of root-relative joints within 50 / 150 mm;  auc: mean PCK over thresholds 0..150 mm
  reproj     px: between projections through K (no distortion)
  rev_mpjpe, rev_vel  after reversing the prediction inside each exposure;  best_mpjpe: the better of both directions
  dir_acc    share of moving exposures (true mean speed over 0.3 m/s) whose velocities point the right way on the
             whole (sum of dot products > 0); NaN where the truth or the prediction does not move
  missing    share of exposures without a prediction (NaN), which all other means leave out
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from blur_motion_ros.body.joints import LSP14

HIPS = (LSP14.index("right_hip"), LSP14.index("left_hip"))
COLUMNS = ("mpjpe", "mpjpe12", "pa", "pa_exp", "mid", "pa_mid", "root", "root_rel", "vel", "vel_abs", "vel_gt", "acc",
           "acc_gt", "pck50", "pck150", "auc", "reproj", "rev_mpjpe", "rev_vel", "dir_acc", "best_mpjpe", "missing")
UNITS = {"root": "mm", "root_rel": "mm", "vel": "m/s", "vel_abs": "m/s", "vel_gt": "m/s", "rev_vel": "m/s",
         "acc": "m/s2", "acc_gt": "m/s2", "reproj": "px", "pck50": "", "pck150": "", "auc": "", "dir_acc": "",
         "missing": ""} | {c: "mm" for c in ("mpjpe", "mpjpe12", "pa", "pa_exp", "mid", "pa_mid", "rev_mpjpe",
                                             "best_mpjpe")}
MOVING = 0.3  # m/s: below this the direction of time is not a fair question
STILL = 1e-3  # m/s: a prediction slower than this states no direction
AUC_THRESHOLDS = np.linspace(0.0, 0.150, 31)


def resample(times: np.ndarray, joints: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Linear interpolation of joints [F, S, J, 3] at times [F, S] to `wanted` [F, T]; clamped at the ends.

    One sample per exposure (S = 1) is held.
    """
    times, joints, wanted = (np.asarray(a, np.float64) for a in (times, joints, wanted))
    if times.shape != joints.shape[:2] or len(times) != len(wanted):
        raise ValueError(f"prediction: times {times.shape} and joints {joints.shape} do not belong together, or not to"
                         f" the {len(wanted)} exposures of the truth; expected [F, S] and [F, S, J, 3]")
    if times.shape == wanted.shape and np.allclose(times, wanted, atol=1e-6):
        return joints
    if times.shape[1] == 1:
        return np.repeat(joints, wanted.shape[1], axis=1)
    return np.stack([_interpolate(*row) for row in zip(times, joints, wanted, strict=True)])


def _interpolate(times: np.ndarray, joints: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(times)
    times, joints = times[order], joints[order]
    low = np.clip(np.searchsorted(times, wanted) - 1, 0, len(times) - 2)
    step = np.maximum(times[low + 1] - times[low], 1e-12)
    weight = np.clip((wanted - times[low]) / step, 0.0, 1.0)[:, None, None]
    return (1 - weight) * joints[low] + weight * joints[low + 1]


def root(joints: np.ndarray) -> np.ndarray:
    """Mid-hip [..., 3] of LSP14 joints [..., 14, 3]."""
    return joints[..., HIPS, :].mean(-2)


def root_relative(joints: np.ndarray) -> np.ndarray:
    """Joints [..., 14, 3] minus the mid-hip of the same instant."""
    return joints - root(joints)[..., None, :]


def procrustes(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity (no reflection) of `points` [..., N, 3] that fits `target` [..., N, 3] best, least squares."""
    mean, target_mean = points.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    a, b = points - mean, target - target_mean
    u, s, vt = np.linalg.svd(np.swapaxes(a, -1, -2) @ b)
    sign = np.ones(s.shape)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    turn = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(-1) / np.maximum((a * a).sum((-1, -2)), 1e-12)
    return scale[..., None, None] * (a @ turn) + target_mean


def procrustes_error(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distances [..., N] left after `procrustes`."""
    return _norm(procrustes(points, target) - target)


def velocity(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Central differences [F, S - 2, ...] of points [F, S, ...] at times [F, S] (interior instants)."""
    step = times[:, 2:] - times[:, :-2]
    return (points[:, 2:] - points[:, :-2]) / step.reshape(step.shape + (1,) * (points.ndim - 2))


def acceleration(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Second differences [F, S - 2, ...]; sub-frames evenly spaced."""
    step = (times[:, -1] - times[:, 0]) / (times.shape[1] - 1)
    second = points[:, 2:] - 2 * points[:, 1:-1] + points[:, :-2]
    return second / step.reshape((-1,) + (1,) * (points.ndim - 1)) ** 2


def project(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pinhole pixels [..., 2] of camera-frame points [..., 3]; depth is kept above 1 mm."""
    p = points @ np.asarray(K).T
    return p[..., :2] / np.maximum(p[..., 2:], 1e-3)


def per_exposure(predicted: np.ndarray, truth: np.ndarray, times: np.ndarray,
                 K: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric for each exposure, [F] arrays (NaN where nothing is predicted).

    predicted, truth: [F, S, 14, 3] at times [F, S].  K: [3, 3], for 'reproj'.
    """
    predicted, truth, times = (np.asarray(a, np.float64) for a in (predicted, truth, times))
    if predicted.shape != truth.shape or predicted.shape[2:] != (14, 3):
        raise ValueError(f"joints: prediction {predicted.shape}, truth {truth.shape}; both must be [F, S, 14, 3]")
    known = np.isfinite(predicted).all((1, 2, 3))
    rows = {"missing": 1.0 - known}
    if not known.any():
        return rows | {name: np.full(len(known), np.nan) for name in COLUMNS if name != "missing"}
    values = _position_errors(predicted[known], truth[known]) | _motion_errors(predicted[known], truth[known],
                                                                             times[known])
    values |= _root_errors(predicted[known], truth[known])
    if K is not None:
        shift = project(predicted[known], K) - project(truth[known], K)
        values["reproj"] = _norm(shift).mean((1, 2))
    for name, value in values.items():
        rows[name] = np.full(len(known), np.nan)
        rows[name][known] = value
    return rows


def summarise(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean of each metric over the exposures where it is defined (NaN if none)."""
    return {name: finite_mean(rows[name]) for name in COLUMNS if name in rows}


def evaluate(times: np.ndarray, joints: np.ndarray, true_times: np.ndarray, true_joints: np.ndarray,
             K: np.ndarray | None = None) -> dict[str, float]:
    """Metrics of one sequence: prediction times [F, S], joints [F, S, 14, 3] against the truth's."""
    return summarise(per_exposure(resample(times, joints, true_times), true_joints, true_times, K))


def overall(sequences: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean over sequences, each with equal weight."""
    sequences = list(sequences)
    return {c: finite_mean([s.get(c, np.nan) for s in sequences]) for c in COLUMNS}


def pve(vertices: np.ndarray, true_vertices: np.ndarray, roots: np.ndarray | None = None,
        true_roots: np.ndarray | None = None) -> float:
    """Per-vertex error, mm: vertices [..., V, 3] against the truth's, after moving each root [..., 3] to the origin."""
    if vertices.shape != true_vertices.shape:
        raise ValueError(f"vertices {vertices.shape} against {true_vertices.shape}; PVE needs the same topology")
    if roots is not None and true_roots is not None:
        vertices = vertices - roots[..., None, :]
        true_vertices = true_vertices - true_roots[..., None, :]
    return float(_norm(vertices - true_vertices).mean() * 1e3)


def finite_mean(values: object) -> float:
    """Mean of the finite values, NaN if there is none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def _position_errors(p: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
    count, subframes = p.shape[:2]
    relative, true = root_relative(p), root_relative(g)
    error = _norm(relative - true)
    middle = subframes // 2
    aligned = procrustes_error(p, g)
    whole = procrustes_error(p.reshape(count, -1, 3), g.reshape(count, -1, 3))
    out = {"mpjpe": error.mean((1, 2)), "mpjpe12": error[..., :12].mean((1, 2)), "mid": error[:, middle].mean(1),
           "pa": aligned.mean((1, 2)), "pa_mid": aligned[:, middle].mean(1), "pa_exp": whole.mean(1),
           "rev_mpjpe": _norm(relative[:, ::-1] - true).mean((1, 2))}
    out["best_mpjpe"] = np.minimum(out["mpjpe"], out["rev_mpjpe"])
    out = {name: 1e3 * value for name, value in out.items()}
    for name, limit in (("pck50", 0.05), ("pck150", 0.15)):
        out[name] = (error < limit).mean((1, 2))
    out["auc"] = np.mean([(error <= limit).mean((1, 2)) for limit in AUC_THRESHOLDS], axis=0)
    return out


def _motion_errors(p: np.ndarray, g: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    if times.shape[1] < 3:
        return {}
    relative, true = root_relative(p), root_relative(g)
    v, true_v = velocity(relative, times), velocity(true, times)
    a, true_a = acceleration(relative, times), acceleration(true, times)
    means = {"vel": v - true_v, "vel_abs": velocity(p, times) - velocity(g, times), "vel_gt": true_v,
             "acc": a - true_a, "acc_gt": true_a, "rev_vel": velocity(relative[:, ::-1], times) - true_v}
    out = {name: _norm(value).mean((1, 2)) for name, value in means.items()}
    fair = (out["vel_gt"] >= MOVING) & (_norm(v).mean((1, 2)) >= STILL)
    out["dir_acc"] = np.where(fair, (v * true_v).sum((1, 2, 3)) > 0, np.nan)
    return out


def _root_errors(p: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
    offset = root(p) - root(g)
    return {"root": 1e3 * _norm(offset).mean(1), "root_rel": 1e3 * _norm(offset - offset.mean((0, 1))).mean(1)}


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)
