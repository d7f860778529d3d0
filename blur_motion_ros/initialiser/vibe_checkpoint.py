"""Reading the official VIBE and SPIN files, safely and key by key.

Files (both non-commercial, not shipped): `vibe_model_w_3dpw.pth.tar` with `gen_state_dict` (`encoder.*`, `regressor.*`,
no backbone), `spin_model_checkpoint.pth.tar` with `model` (`conv1`, `bn1`, `layer1` .. `layer4` and HMR's regressor),
and `smpl_mean_params.npz` (`pose` 144, `shape` 10, `cam` 3). Nothing in a file is executed (`weights_only`).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blur_motion_ros.initialiser.vibe_model import (
    CAMERA,
    POSE,
    SHAPE,
    EncoderSizes,
    RegressorSizes,
    ResNetFeatures,
    Vibe,
)

_SKIPPED = ("regressor.smpl.", "smpl.")  # upstream stores the body model inside the network; ours is loaded apart
_SPIN_REGRESSOR = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_pose", "init_shape", "init_cam")


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, the keys and what was expected."""


@dataclass(frozen=True)
class MeanParams:
    """Start of the iterative regressor.  pose: [144] 6D, shape: [10], cam: [3] (s, tx, ty), all float32."""

    pose: np.ndarray
    shape: np.ndarray
    cam: np.ndarray


def load_mean_params(path: str | Path) -> MeanParams:
    """Read `smpl_mean_params.npz`. Raises CheckpointError for a missing array, a wrong size or a NaN."""
    path = _existing(path, "the SMPL mean parameters (smpl_mean_params.npz)")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {k: np.asarray(data[k], np.float32) for k in data.files if k in ("pose", "shape", "cam")}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{path}: not a readable .npz file ({error})") from error
    for key, size in (("pose", POSE), ("shape", SHAPE), ("cam", CAMERA)):
        if key not in arrays:
            raise CheckpointError(f"{path}: array '{key}' is missing; expected pose [144], shape [10], cam [3]")
        if arrays[key].size != size or not np.isfinite(arrays[key]).all():
            raise CheckpointError(f"{path}: array '{key}' has shape {list(arrays[key].shape)}; expected {size} finite "
                                  "numbers")
    return MeanParams(*(arrays[k].reshape(-1) for k in ("pose", "shape", "cam")))


def set_mean_params(model: Vibe, mean: MeanParams) -> None:
    """Copy mean parameters into the regressor's buffers."""
    for name in ("pose", "shape", "cam"):
        getattr(model.regressor, f"init_{name}").copy_(torch.from_numpy(getattr(mean, name))[None])


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """torch.load with `weights_only`, on the CPU; zip and legacy formats, numpy scalars allowed (`performance`)."""
    path = _existing(path, "a VIBE or SPIN checkpoint (.pth.tar)")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that can be read safely ({reason})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__}; expected a dictionary of tensors")
    return data


def load_vibe(path: str | Path, encoder: EncoderSizes | None = None, regressor: RegressorSizes | None = None,
              mean: MeanParams | None = None) -> Vibe:
    """Official layout -> `Vibe` in eval mode.

    Sizes are read from the tensors unless given. `mean` replaces the file's `init_*` (or supplies them when absent).
    Raises CheckpointError listing missing, unexpected and wrong-shape keys.
    """
    state = _strip(_section(read_checkpoint(path), "gen_state_dict", "encoder.gru.weight_ih_l0", path))
    if mean is not None:
        named = {"pose": mean.pose, "shape": mean.shape, "cam": mean.cam}
        state.update({f"regressor.init_{k}": torch.from_numpy(v)[None] for k, v in named.items()})
    guess_encoder, guess_regressor = infer_sizes(state, path)
    model = Vibe(encoder or guess_encoder, regressor or guess_regressor)
    load_checked(model, state, path)
    return model.eval()


def load_spin_backbone(path: str | Path) -> ResNetFeatures:
    """SPIN's `checkpoint['model']` -> ResNet-50 features in eval mode. Raises CheckpointError."""
    state = _strip(_section(read_checkpoint(path), "model", "conv1.weight", path))
    state = {k: v for k, v in state.items() if not k.startswith(_SPIN_REGRESSOR)}
    model = ResNetFeatures()
    load_checked(model, state, path)
    return model.eval()


def load_spin_regressor(model: Vibe, path: str | Path) -> None:
    """Copy SPIN's single-frame regressor into `model.regressor`: upstream's start of training."""
    state = _strip(_section(read_checkpoint(path), "model", "fc1.weight", path))
    load_checked(model.regressor, {k: v for k, v in state.items() if k.startswith(_SPIN_REGRESSOR)}, path)


def load_checked(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Strict load with one readable error. Step counters of batch norm may be absent (they are unused in eval)."""
    expected = module.state_dict()
    optional = {k for k in expected if k.endswith("num_batches_tracked")}
    missing = sorted(set(expected) - set(state) - optional)
    unexpected = sorted(set(state) - set(expected))
    wrong, broken = [], []
    for key in sorted(set(expected) & set(state)):
        value = state[key]
        if not isinstance(value, Tensor) or value.shape != expected[key].shape:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            wrong.append(f"{key} is {found}, expected {list(expected[key].shape)}")
        elif value.is_floating_point() and not torch.isfinite(value).all():
            broken.append(key)
    problems = [_listed("missing", missing), _listed("unexpected", unexpected), _listed("wrong shape", wrong),
                _listed("not finite", broken)]
    if any(problems):
        raise CheckpointError(f"{path}: " + "; ".join(p for p in problems if p))
    module.load_state_dict(dict(state), strict=not optional)


def infer_sizes(state: Mapping[str, Tensor], path: str | Path) -> tuple[EncoderSizes, RegressorSizes]:
    """Read the sizes off the tensors of `encoder.gru` and `regressor.fc1`."""
    gru, fc1 = _matrix(state, "encoder.gru.weight_ih_l0", path), _matrix(state, "regressor.fc1.weight", path)
    layers = 1 + max(int(m.group(1)) for k in state if (m := re.fullmatch(r"encoder\.gru\.weight_ih_l(\d+)", k)))
    encoder = EncoderSizes(feature=gru[1], hidden=gru[0] // 3, layers=layers,
                           bidirectional="encoder.gru.weight_ih_l0_reverse" in state,
                           linear="encoder.linear.weight" in state)
    return encoder, RegressorSizes(feature=gru[1], hidden=fc1[0])


def _matrix(state: Mapping[str, Tensor], key: str, path: str | Path) -> tuple[int, int]:
    value = state.get(key)
    if not isinstance(value, Tensor) or value.dim() != 2:
        raise CheckpointError(f"{path}: missing: {key} (a matrix); is this a VIBE generator?")
    return value.shape[0], value.shape[1]


def _section(data: dict[str, Any], name: str, marker: str, path: str | Path) -> dict[str, Tensor]:
    """`data[name]`, or `data` itself where it already is the state dict (recognised by `marker`)."""
    section = data.get(name, data if any(k.removeprefix("module.") == marker for k in data) else None)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path}: key '{name}' is missing; found {', '.join(sorted(map(str, data))[:8])}")
    return section


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {k.removeprefix("module."): v for k, v in state.items()}
    return {k: v for k, v in plain.items() if not k.startswith(_SKIPPED)}


def _listed(what: str, keys: list[str], most: int = 6) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{len(keys)} {what}: {', '.join(keys[:most])}{more}"


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of {what}")
    return path


def _numpy_scalars() -> list[Any]:
    """What a pickled numpy scalar needs, under its names before and after numpy 2."""
    core = np._core if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else np.core  # 1.26 has an empty `_core`
    scalar = core.multiarray.scalar
    dtypes = [type(np.dtype(t)) for t in (np.float64, np.float32, np.int64)]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *dtypes]
