"""Files of priors: the free pose prior and its statistics of short motions, SMPLify's mixture, VPoser checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blur_motion_ros.fit.priors import MixturePrior, MotionStatistics, PosePrior, PriorError

ASSET = Path(__file__).resolve().parents[1] / "assets" / "pose_prior.npz"


def load_pose_prior(path: str | Path | None = None) -> PosePrior:
    """The free prior (None), our npz, SMPLify's `gmm_08.pkl`, or a VPoser checkpoint (`.pt`, `.ckpt`, `.pth`)."""
    path = _existing(path)
    if path.suffix in (".pt", ".ckpt", ".pth"):
        from blur_motion_ros.fit.vposer import load_vposer  # needs torch

        return load_vposer(path)
    if path.suffix == ".pkl":
        return _smplify_mixture(path)
    return _own_mixture(path)


def load_motion_statistics(path: str | Path | None = None) -> MotionStatistics:
    """The short-motion statistics stored beside the free pose prior."""
    with np.load(_existing(path), allow_pickle=False) as data:
        names = [f for f in MotionStatistics.__dataclass_fields__]
        _require(data, ["motion_" + n for n in names], path)
        return MotionStatistics(*(data["motion_" + n].astype(np.float64) for n in names))


def _own_mixture(path: Path) -> MixturePrior:
    with np.load(path, allow_pickle=False) as data:
        _require(data, ["means", "covariances", "weights", "freedom", "low", "high"], path)
        return MixturePrior.from_covariances(
            data["means"], _unpack(data["covariances"]), data["weights"], float(data["freedom"]),
            low=data["low"].astype(np.float64), high=data["high"].astype(np.float64))


def pack_symmetric(matrices: np.ndarray) -> np.ndarray:
    """[K, n, n] symmetric -> [K, n (n + 1) / 2] lower triangles, float32."""
    rows, columns = np.tril_indices(matrices.shape[-1])
    return matrices[:, rows, columns].astype(np.float32)


def _unpack(packed: np.ndarray) -> np.ndarray:
    n = int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2)
    out = np.zeros((len(packed), n, n))
    rows, columns = np.tril_indices(n)
    out[:, rows, columns] = out[:, columns, rows] = packed
    return out


def _smplify_mixture(path: Path) -> MixturePrior:
    from blur_motion_ros.data.mocap import load_pickle

    data = load_pickle(path)
    _require(data, ["means", "covars", "weights"], path)
    return MixturePrior.from_covariances(np.asarray(data["means"]), np.asarray(data["covars"]), data["weights"])


def _existing(path: str | Path | None) -> Path:
    path = Path(path) if path else ASSET
    if not path.is_file():
        raise PriorError(f"pose prior {path} does not exist; train it with `blur-motion train pose-prior`")
    return path


def _require(data: object, names: list[str], path: object) -> None:
    for name in names:
        if name not in data:
            raise PriorError(f"{path}: no array '{name}'; not a pose prior file")
