"""Ground truth of a sequence (`gt.npz`): opened by the evaluation and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class GroundTruth:
    """times [F, S] s; joints [F, S, 14, 3] m in LSP14 order and the camera frame; smpl24 [F, S, 24, 3] or None;
    blur_rate [F]; exposure [F, 2] s; K [3, 3]; vertices [F, V, 3] m of the unclothed body's fitting mesh at
    mid-exposure, or None (bodies with another mesh)."""

    name: str
    times: np.ndarray
    joints: np.ndarray
    smpl24: np.ndarray | None
    blur_rate: np.ndarray
    exposure: np.ndarray
    K: np.ndarray
    vertices: np.ndarray | None = None


def read_ground_truth(folder: str | Path) -> GroundTruth:
    """Ground truth of a sequence folder. ValueError naming the missing file or array."""
    folder = Path(folder)
    path = folder / "gt.npz"
    if not path.is_file():
        raise ValueError(f"{folder.name} has no gt.npz, so it cannot be evaluated")
    with np.load(path) as data:
        missing = [k for k in ("times", "joints", "exposure", "K") if k not in data]
        if missing:
            raise ValueError(f"{folder.name}/gt.npz has no array '{missing[0]}'")
        times, joints = data["times"].astype(np.float64), data["joints"].astype(np.float64)
        smpl24 = data["joints_smpl24"].astype(np.float64) if "joints_smpl24" in data else None
        rate = data["blur_rate"] if "blur_rate" in data else np.full(len(times), np.nan)
        if joints.shape != times.shape + (14, 3):
            raise ValueError(f"{folder.name}/gt.npz: joints {joints.shape} against times {times.shape};"
                             " expected [F, S, 14, 3] and [F, S]")
        vertices = data["vertices"] if "vertices" in data else None
        return GroundTruth(folder.name, times, joints, smpl24, rate, data["exposure"], data["K"].astype(np.float64),
                           vertices)


def evaluated_folders(paths: list[str | Path]) -> list[Path]:
    """Sequence folders with ground truth: each path is one itself, or a folder of such folders."""
    found = []
    for path in map(Path, paths):
        if (path / "gt.npz").is_file():
            found.append(path)
            continue
        inside = sorted(p.parent for p in path.glob("*/gt.npz")) if path.is_dir() else []
        if not inside:
            raise ValueError(f"{path} is no sequence with gt.npz, nor a folder of such sequences")
        found += inside
    return found
