"""Predictions of a method for one sequence, in memory and on disk (the layout `blur-motion fit` writes)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """times [F, S] s; joints [F, S, 14, 3] m, LSP14, camera frame, NaN where an exposure has no prediction.

    smpl24 [F, S, 24, 3] m and covariance [F, S, 24, 3, 3] m^2 of those, or None.  seconds: median processor time.
    alpha [F, C, C] in views alpha_K [F, 3, 3] and psnr [F] dB: the motion rendered again (`rerender`), or None.
    vertices [F, V, 3] m: the unclothed body at mid-exposure, or None.
    """

    times: np.ndarray
    joints: np.ndarray
    smpl24: np.ndarray | None = None
    covariance: np.ndarray | None = None
    seconds: float = float("nan")
    alpha: np.ndarray | None = None
    alpha_K: np.ndarray | None = None
    psnr: np.ndarray | None = None
    vertices: np.ndarray | None = None


def save_prediction(path: str | Path, prediction: Prediction) -> None:
    """Write an NPZ that `read_prediction` and the sequences' own evaluator read."""
    alpha = None if prediction.alpha is None else prediction.alpha.astype(np.float16)
    vertices = None if prediction.vertices is None else prediction.vertices.astype(np.float32)
    extra = {"joints_smpl24": prediction.smpl24, "covariance_smpl24": prediction.covariance, "alpha": alpha,
             "alpha_K": prediction.alpha_K, "psnr": prediction.psnr, "vertices": vertices}
    extra = {k: v for k, v in extra.items() if v is not None}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, times=prediction.times, joints=prediction.joints, seconds=prediction.seconds, **extra)


def read_prediction(path: str | Path) -> Prediction:
    """Read an NPZ with `times` and `joints` (and what else it has). ValueError names what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"prediction {path} does not exist")
    with np.load(path, allow_pickle=False) as data:
        missing = [k for k in ("times", "joints") if k not in data]
        if missing:
            raise ValueError(f"prediction {path.name} has no array '{missing[0]}'")
        times, joints = data["times"], data["joints"]
        if joints.ndim != 4 or joints.shape[2:] != (14, 3) or times.shape != joints.shape[:2]:
            raise ValueError(f"prediction {path.name}: joints {joints.shape} and times {times.shape};"
                             " expected [F, S, 14, 3] and [F, S]")
        return Prediction(times, joints, _optional(data, "joints_smpl24"), _optional(data, "covariance_smpl24"),
                          float(data["seconds"]) if "seconds" in data else float("nan"),
                          *(_optional(data, k) for k in ("alpha", "alpha_K", "psnr", "vertices")))


def _optional(data: np.lib.npyio.NpzFile, key: str) -> np.ndarray | None:
    return data[key] if key in data else None
