"""VPoser (SMPLify-X) as a drop-in pose prior, rebuilt from its state dict. Its weights are non-commercial: not ours.

Both published layouts are understood: V02_05 (`vp_model.encoder_net.N.*`) and V1_0 (`bodyprior_enc_*`). Encoder: batch
norm, linear, leaky ReLU, batch norm, linear ... to the mean of a normal in the latent space; decoder to 6D rotations.

As a prior on a given pose, the energy is half the squared length of its latent code plus how badly the code explains
the pose (rotation matrices, `spread` rad).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from blur_motion_ros.fit.priors import PriorError
from blur_motion_ros.motion import rotations_torch

_JOINTS = 21
# our name -> (name in V02_05, name in V1_0)
_NAMES = {
    "norm1": ("encoder_net.1", "bodyprior_enc_bn1"), "encode1": ("encoder_net.2", "bodyprior_enc_fc1"),
    "norm2": ("encoder_net.4", "bodyprior_enc_bn2"), "encode2": ("encoder_net.6", "bodyprior_enc_fc2"),
    "encode3": ("encoder_net.7", None), "mean": ("encoder_net.8.mu", "bodyprior_enc_mu"),
    "decode1": ("decoder_net.0", "bodyprior_dec_fc1"), "decode2": ("decoder_net.3", "bodyprior_dec_fc2"),
    "decode3": ("decoder_net.5", "bodyprior_dec_out"),
}


class VPoser(nn.Module):
    """width: neurons per layer; latent: size of the code; first: the V1_0 layout (activations differ)."""

    def __init__(self, width: int, latent: int, first: bool):
        super().__init__()
        self.slope, self.first = (0.2, True) if first else (0.01, False)
        self.norm1, self.norm2 = nn.BatchNorm1d(3 * _JOINTS), nn.BatchNorm1d(width)
        self.encode1, self.encode2 = nn.Linear(3 * _JOINTS, width), nn.Linear(width, width)
        self.encode3 = None if first else nn.Linear(width, width)
        self.mean = nn.Linear(width, latent)
        self.decode1, self.decode2 = nn.Linear(latent, width), nn.Linear(width, width)
        self.decode3 = nn.Linear(width, 6 * _JOINTS)

    def encode(self, pose: Tensor) -> Tensor:
        """Rotation vectors [B, 21, 3] -> mean code [B, latent]."""
        x = self._leaky(self.encode1(self.norm1(pose.flatten(1))))
        x = self.encode2(self.norm2(x))
        x = self._leaky(x) if self.encode3 is None else self.encode3(x)
        return self.mean(x)

    def decode(self, code: Tensor) -> Tensor:
        """Code [B, latent] -> rotations [B, 21, 3, 3]."""
        x = self._leaky(self.decode2(self._leaky(self.decode1(code))))
        return rotations_torch.from_6d(self.decode3(x).view(-1, _JOINTS, 6))

    def _leaky(self, x: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(x, self.slope)


class VPoserPrior:
    """`fit.priors.PosePrior` by VPoser; a few milliseconds an evaluation, for comparison rather than live use."""

    def __init__(self, network: VPoser, spread: float = 0.1):
        self.network = network.double().eval().requires_grad_(False)
        self.spread = spread

    def energy(self, body_pose: np.ndarray) -> float:
        with torch.no_grad():
            r = self._residual(self._pose(body_pose))
        return 0.5 * float(r @ r)

    def residual(self, body_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pose = self._pose(body_pose)
        jacobian = torch.func.jacrev(self._residual)(pose)
        return self._residual(pose).numpy(), jacobian.numpy()

    def decode(self, code: np.ndarray) -> np.ndarray:
        """Code [latent] -> body_pose [23, 3] with straight hands."""
        with torch.no_grad():
            turned = self.network.decode(torch.as_tensor(code, dtype=torch.float64)[None])[0]
            return np.concatenate([rotations_torch.log(turned).numpy(), np.zeros((2, 3))])

    def _residual(self, flat: Tensor) -> Tensor:
        pose = flat.view(1, 23, 3)
        code = self.network.encode(pose[:, :_JOINTS])
        missed = self.network.decode(code) - rotations_torch.exp(pose[:, :_JOINTS])
        return torch.cat([code.flatten(), missed.flatten() / (2**0.5 * self.spread), pose[0, _JOINTS:].flatten() / 0.2])

    @staticmethod
    def _pose(body_pose: np.ndarray) -> Tensor:
        pose = torch.as_tensor(np.asarray(body_pose, np.float64).reshape(-1))
        if pose.shape != (69,):
            raise PriorError(f"body_pose has shape {np.shape(body_pose)}; [23, 3] rotation vectors wanted")
        return pose


def load_vposer(path: str | Path) -> VPoserPrior:
    """A VPoser checkpoint (tensors only are unpickled). PriorError names what is missing or of the wrong shape."""
    try:
        loaded = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:
        raise PriorError(f"{path}: not a plain PyTorch checkpoint ({str(error).splitlines()[0]}); save its state dict "
                         "with torch.save(model.state_dict(), path)") from error
    return VPoserPrior(from_state_dict(loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}, str(path)))


def from_state_dict(state: dict[str, Tensor], source: str = "state dict") -> VPoser:
    """Build the network that a state dict describes."""
    state = {k.removeprefix("vp_model."): v for k, v in state.items()}
    first = "bodyprior_enc_fc1.weight" in state
    if not first and "encoder_net.2.weight" not in state:
        raise PriorError(f"{source}: no VPoser layers (encoder_net.2.weight or bodyprior_enc_fc1.weight)")
    renamed = {}
    for ours, theirs in _NAMES.items():
        prefix = theirs[1] if first else theirs[0]
        if prefix is not None:
            renamed |= {f"{ours}.{k[len(prefix) + 1:]}": v for k, v in state.items() if k.startswith(prefix + ".")}
    for need in ("mean.weight", "decode3.weight"):
        if need not in renamed:
            raise PriorError(f"{source}: VPoser layer '{need}' ({_NAMES[need[:-7]][first]}) is missing")
    latent, width = renamed["mean.weight"].shape
    network = VPoser(width, latent, first)
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        raise PriorError(f"{source}: not VPoser's layers: {' '.join(str(error).split())[:300]}") from error
    return network
