"""Training of the landmark encoder: supervised terms, and one of three motion priors (discriminator, MPoser, none)."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blur_motion_ros.initialiser.vibe_landmarks import FEATURES, LandmarkPrediction, LandmarkSizes, LandmarkVibe
from blur_motion_ros.learning import vibe_losses as losses
from blur_motion_ros.learning.vibe_data import Examples
from blur_motion_ros.learning.vibe_discriminator import (
    DiscriminatorSizes,
    MotionDiscriminator,
    adversarial_loss,
    discriminator_loss,
)
from blur_motion_ros.learning.vibe_mposer import MPoser, MPoserSizes, elbo_loss
from blur_motion_ros.motion import rotations_torch
from blur_motion_ros.settings import setting

PRIORS = ("attention", "concat", "mposer", "none")
WINDOW = 16  # frames of a motion that the prior judges (the paper's T)


@dataclass(frozen=True)
class TrainSettings:
    """How long, how fast, and with which motion prior."""

    steps: int = setting(3000, "optimiser steps", low=1)
    batch: int = setting(48, "sequences per step", low=1)
    rate: float = setting(1e-3, "peak learning rate of the encoder (released VIBE: 5e-5)", low=1e-7, high=1)
    discriminator_rate: float = setting(1e-4, "learning rate of the motion discriminator", low=1e-7, high=1)
    prior: str = setting("attention", "motion prior", choices=PRIORS)
    prior_weight: float = setting(0.02, "weight of MPoser's latent norm", low=0)
    prior_steps: int = setting(600, "steps of training MPoser before it judges", low=1)
    noise: float = setting(1.0, "strength of the added landmark noise (1 = as measured)", low=0, high=10)
    roll: float = setting(0.1, "standard deviation of the turn about the view axis given to every sequence", unit="rad",
                          low=0, high=3)
    half: bool = setting(True, "multiply in bfloat16 (twice as fast on processors that have it)")
    seed: int = setting(0, "seed of weights and batches", low=0)
    checkpoint: int = setting(250, "steps between checkpoints", low=1)
    sizes: LandmarkSizes = field(default_factory=LandmarkSizes)
    weights: losses.LossWeights = losses.LANDMARK_WEIGHTS


class Trainer:
    """Owns networks, optimisers and the step counter; `run` yields after every step. Resumable bit for bit."""

    def __init__(self, settings: TrainSettings, train: Examples, motion: np.ndarray, body: losses.Skeleton, out: Path):
        torch.manual_seed(settings.seed)
        self.settings, self.train, self.motion, self.body, self.out = settings, train, motion, body, Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.model = LandmarkVibe(settings.sizes)
        set_mean_pose(self.model, train)
        set_input_scale(self.model, train)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), settings.rate, weight_decay=1e-4)
        self.judge, self.judge_optimiser = _make_judge(settings)
        self.step = 0

    def run(self) -> Iterator[dict[str, float]]:
        """Train to `settings.steps`, yielding the loss terms of every step; checkpoints on the way and at the end."""
        if self.settings.prior == "mposer" and self.step == 0:
            self._train_mposer()
        self.model.train()
        while self.step < self.settings.steps:
            terms = self._step()
            self.step += 1
            if self.step % self.settings.checkpoint == 0 or self.step == self.settings.steps:
                self.save()
            yield terms

    def _step(self) -> dict[str, float]:
        s = self.settings
        rng = np.random.default_rng([s.seed, self.step])
        torch.manual_seed(int(rng.integers(1 << 31)))  # dropout, so that a resumed run is the same run
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * schedule(self.step, s.steps)
        features, target = draw_batch(self.train, s, rng)
        prediction = self._predict(features)
        terms = losses.landmark_losses(prediction, target, self.body)
        loss = losses.total(terms, s.weights)
        fake = body_motion(prediction.rotmat, rng)
        loss = loss + self._prior_loss(fake, terms)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        if s.prior in ("attention", "concat"):
            terms["discriminator"] = self._judge_step(fake.detach(), rng)
        return {k: float(v.detach()) for k, v in terms.items()} | {"loss": float(loss.detach())}

    def _predict(self, features: Tensor) -> LandmarkPrediction:
        """The model's forward pass, its learned part in bfloat16."""
        with torch.no_grad():
            inputs, start, root = self.model.geometry(features)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.half):
            p, log_sigma, _ = self.model.network(inputs, start)
        return self.model.compose(type(p)(*(x.float() for x in p)), log_sigma.float(), root)

    def _prior_loss(self, fake: Tensor, terms: dict[str, Tensor]) -> Tensor:
        s = self.settings
        if s.prior == "none":
            return torch.zeros(())
        if s.prior == "mposer":
            terms["mposer"] = self.judge.prior_loss(fake)
            return s.prior_weight * terms["mposer"]
        terms["adversarial"] = adversarial_loss(self.judge(fake))
        return s.weights.adversarial * terms["adversarial"]

    def _judge_step(self, fake: Tensor, rng: np.random.Generator) -> Tensor:
        real = self._real(rng, len(fake))
        loss = discriminator_loss(self.judge(real), self.judge(fake))
        self.judge_optimiser.zero_grad()
        loss.backward()
        self.judge_optimiser.step()
        return loss

    def _real(self, rng: np.random.Generator, count: int) -> Tensor:
        return torch.from_numpy(self.motion[rng.integers(0, len(self.motion), count)])

    def _train_mposer(self) -> None:
        """Fit the variational prior to real motion, then freeze it."""
        rng = np.random.default_rng([self.settings.seed, 1 << 20])
        for _ in range(self.settings.prior_steps):
            real = self._real(rng, 64)
            out, mean, log_variance = self.judge(real)
            loss = elbo_loss(real, out, mean, log_variance, beta=3e-3)
            self.judge_optimiser.zero_grad()
            loss.backward()
            self.judge_optimiser.step()
        self.judge.eval().requires_grad_(False)

    def save(self) -> None:
        """Write `checkpoint.pt` (everything a resumed run needs), replacing the last one in one move."""
        data = {"step": self.step, "settings": json.dumps(asdict(self.settings)), "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict()}
        if self.judge is not None:
            data |= {"judge": self.judge.state_dict(), "judge_optimiser": self.judge_optimiser.state_dict()}
        torch.save(data, self.out / "checkpoint.part")
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")

    def start_from(self, path: Path) -> None:
        """Take the encoder's (and, of the same kind, the judge's) weights of another run; the step count stays 0.

        path: a checkpoint, or the TorchScript file exported from one (then the scale of the inputs is its own too).
        """
        if not path.is_file():
            raise ValueError(f"{path}: no such file; --init takes the --out folder of an earlier run, or its .ts file")
        if path.suffix == ".ts":
            self.model.load_state_dict(self._fitting(_weights(path)))
            return
        data = torch.load(path, weights_only=True)
        self.model.load_state_dict(self._fitting(data["model"]))
        if self.judge is not None and json.loads(data["settings"])["prior"] == self.settings.prior:
            self.judge.load_state_dict(data["judge"])

    def _fitting(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights as this model takes them: of a streaming encoder, both directions of a bidirectional one."""
        backwards = any(k.endswith("_reverse") for k in weights)
        return both_directions(weights) if self.settings.sizes.bidirectional and not backwards else weights

    def blend_with(self, path: Path, share: float) -> None:
        """Keep `share` of the weights and take the rest from those the training started from (`start_from`): better on
        what only the older data held (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022)."""
        old = self._fitting(_weights(path))
        self.model.load_state_dict({k: share * v + (1 - share) * old[k] for k, v in self.model.state_dict().items()})

    def resume(self) -> bool:
        """Continue from `checkpoint.pt` if there is one. Raises ValueError if it was made with other settings."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        data = torch.load(path, weights_only=True)
        theirs, ours = json.loads(data["settings"]), json.loads(json.dumps(asdict(self.settings)))
        different = [k for k in ours if theirs.get(k) != ours[k]]
        if different:
            raise ValueError(f"{path} was made with other settings ({', '.join(different)}); give the same ones or "
                             "another --out")
        self.model.load_state_dict(data["model"])
        self.optimiser.load_state_dict(data["optimiser"])
        if self.judge is not None:
            self.judge.load_state_dict(data["judge"])
            self.judge_optimiser.load_state_dict(data["judge_optimiser"])
            if self.settings.prior == "mposer":
                self.judge.eval().requires_grad_(False)
        self.step = data["step"]
        return True


def _weights(path: Path) -> dict[str, Tensor]:
    """The encoder's weights in a checkpoint or a TorchScript file."""
    if path.suffix == ".ts":
        return torch.jit.load(str(path), map_location="cpu").state_dict()
    return torch.load(path, weights_only=True)["model"]


def both_directions(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a streaming encoder as those of a bidirectional one whose every frame is encoded as the mean of what
    the streaming one says forwards and backwards: each direction listens to its own kind only."""
    out = {}
    for name, w in weights.items():
        if ".gru." not in name:
            out[name] = torch.cat([w, w], 1) / 2 if name.endswith("encoder.linear.weight") else w
            continue
        nothing = torch.zeros_like(w)
        inner = ".weight_ih_l" in name and not name.endswith("_l0")
        out[name] = torch.cat([w, nothing], 1) if inner else w
        out[name + "_reverse"] = torch.cat([nothing, w], 1) if inner else w
    return out


def _make_judge(s: TrainSettings) -> tuple[Any, Any]:
    if s.prior == "none":
        return None, None
    if s.prior == "mposer":
        judge = MPoser(MPoserSizes(hidden=128, latent=32))
        return judge, torch.optim.Adam(judge.parameters(), 1e-3)
    judge = MotionDiscriminator(DiscriminatorSizes(hidden=128, attention=128, pool=s.prior))
    return judge, torch.optim.Adam(judge.parameters(), s.discriminator_rate, weight_decay=1e-4)


def schedule(step: int, steps: int) -> float:
    """Warm up over 100 steps, then a cosine to 2 %."""
    warm = min(1.0, (step + 1) / 100)
    return float(warm * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(1.0, step / steps)))))


def set_input_scale(model: LandmarkVibe, train: Examples) -> None:
    """Standardise the inputs with the training set's mean and deviation."""
    seen = train.features[train.weight > 0]
    if len(seen) == 0:
        raise ValueError("the recordings hold no frame with a person in it; record again")
    with torch.no_grad():
        inputs = model.geometry(torch.from_numpy(seen[None]))[0][0]
    model.input_mean.copy_(inputs.mean(0))
    model.input_scale.copy_(1 / inputs.std(0).clamp(min=1e-2))


def set_mean_pose(model: LandmarkVibe, train: Examples) -> None:
    """The training set's mean body pose (6D) and camera, from which the regressor starts where nothing is known."""
    from blur_motion_ros.initialiser.vibe_landmarks import camera_of

    seen = train.weight > 0
    columns = train.rotmat[seen][:, :, :, :2].mean(0).reshape(1, -1)
    columns[:, :6] = [1, 0, 0, 1, 0, 0]  # relative to the trunk
    model.vibe.regressor.init_pose.copy_(torch.from_numpy(columns))
    cam = np.median(camera_of(train.pelvis[seen], train.size[seen]), 0)
    model.vibe.regressor.init_cam.copy_(torch.from_numpy(cam.astype(np.float32))[None])


def draw_batch(e: Examples, s: TrainSettings, rng: np.random.Generator) -> tuple[Tensor, losses.Target]:
    """Random sequences as tensors; measured-scale noise, a common scale error and landmark drop-outs on the inputs."""
    i = rng.integers(0, len(e.features), s.batch)
    t = torch.from_numpy
    batch = dataclasses.replace(e, **{f.name: getattr(e, f.name)[i] for f in dataclasses.fields(e)})
    if s.roll > 0:
        batch = rolled(batch, s.roll * rng.standard_normal(s.batch))
    target = losses.Target(t(batch.rotmat), t(batch.betas), t(batch.pelvis), t(batch.size), t(batch.view),
                           t(batch.weight))
    return t(disturb(batch.features, s.noise, rng)), target


def rolled(e: Examples, angle: np.ndarray) -> Examples:
    """The examples as a camera turned by `angle` [S] rad about every view's axis sees them."""
    c, s = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    turn = np.zeros((len(angle), 1, 3, 3), np.float32)
    turn[:, 0, 0, 0], turn[:, 0, 0, 1], turn[:, 0, 1, 0], turn[:, 0, 1, 1], turn[:, 0, 2, 2] = c, -s, s, c, 1
    flat = turn[..., :2, :2]
    x = e.features.copy()
    head = x.shape[:2]
    x[..., :66] = (x[..., :66].reshape(head + (33, 2)) @ np.swapaxes(flat, -1, -2)).reshape(head + (66,))
    x[..., 66:165] = (x[..., 66:165].reshape(head + (33, 3)) @ np.swapaxes(turn, -1, -2)).reshape(head + (99,))
    for place in (slice(199, 201), slice(359, 361)):  # bearing, and the registered place across the view
        x[..., place] = (flat @ x[..., place, None])[..., 0]
    x[..., 204:210] = (turn @ x[..., 204:210].reshape(head + (3, 2))).reshape(head + (6,))
    rotmat = e.rotmat.copy()
    rotmat[:, :, 0] = turn @ rotmat[:, :, 0]
    return dataclasses.replace(e, features=x, rotmat=rotmat, view=turn @ e.view,
                               pelvis=(turn @ e.pelvis[..., None])[..., 0])


def disturb(features: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Landmark noise on features [N, T, FEATURES] that the recordings do not have enough of."""
    if strength == 0:
        return features
    x = features.copy()
    n, t = x.shape[:2]
    x[..., :66] += strength * 0.01 * rng.standard_normal((n, t, 66), np.float32)
    x[..., :66] += strength * 0.015 * rng.standard_normal((n, 1, 66), np.float32)
    x[..., 66:165] += strength * 0.01 * rng.standard_normal((n, t, 99), np.float32)
    x[..., 66:165] += strength * 0.015 * rng.standard_normal((n, 1, 99), np.float32)
    x[..., 66:165] *= 1 + strength * 0.03 * rng.standard_normal((n, 1, 1), np.float32)
    x[..., 165:198] += strength * 0.05 * rng.standard_normal((n, 1, 33), np.float32)
    return x


def body_motion(rotmat: Tensor, rng: np.random.Generator) -> Tensor:
    """A random window of WINDOW frames of body pose as rotation vectors [N, WINDOW, 69]."""
    t = rotmat.shape[1]
    window = min(WINDOW, t)
    start = int(rng.integers(0, t - window + 1))
    return rotations_torch.log(rotmat[:, start:start + window, 1:]).flatten(-2)


@dataclass(frozen=True)
class Score:
    """Means over frames with a person: LSP14 joints in mm, pelvis in mm, acceleration in mm/frame^2."""

    mpjpe: float
    pa: float
    pelvis: float
    acceleration: float
    frames: int
    calibration: float  # root mean square of residual / sigma: 1 is honest


def evaluate(model: LandmarkVibe, e: Examples, body: losses.Skeleton) -> Score:
    """Streaming-equivalent evaluation over whole sequences; LSP14, mid-hip aligned."""
    model.eval()
    with torch.no_grad():
        p, _ = model(torch.from_numpy(e.features))
        t = torch.from_numpy
        target = losses.Target(t(e.rotmat), t(e.betas), t(e.pelvis), t(e.size), t(e.view), t(e.weight))
        pelvis = losses.pelvis_of(p.cam, target.size)
        ours, truth = body.joints(p.rotmat, running_mean(p.shape)), body.joints(
            target.rotmat, target.shape[:, None].expand(-1, e.rotmat.shape[1], -1))
        r = losses.residuals(p, pelvis, target) * torch.exp(-p.log_sigma)
    back = np.swapaxes(e.view, -1, -2)[:, :, None]
    a, b = ((back @ lsp(x.numpy())[..., None])[..., 0] for x in (ours, truth))
    depth = float(np.linalg.norm(pelvis.numpy() - e.pelvis, axis=-1)[e.weight > 0].mean() * 1e3)
    seen = e.weight > 0
    rms = float(np.sqrt((np.clip(r.numpy()[seen], -4, 4) ** 2).mean()))
    mpjpe, pa, acceleration = joint_scores(a, b, seen)
    return Score(mpjpe, pa, depth, acceleration, int(seen.sum()), rms)


def running_mean(shape: Tensor) -> Tensor:
    """[N, T, 10] -> mean of all frames so far: what streaming can know of the sequence's one shape."""
    count = torch.arange(1, shape.shape[1] + 1, dtype=shape.dtype)[:, None]
    return shape.cumsum(1) / count


def lsp(joints: np.ndarray) -> np.ndarray:
    from blur_motion_ros.body.joints import lsp14

    return lsp14(joints)


def joint_scores(a: np.ndarray, b: np.ndarray, seen: np.ndarray) -> tuple[float, float, float]:
    """MPJPE (mid-hip aligned), PA-MPJPE in mm and acceleration error in mm/frame^2; a, b [S, T, 14, 3], seen [S, T]."""
    a, b = (x - x[..., 2:4, :].mean(-2, keepdims=True) for x in (a, b))
    mpjpe = np.linalg.norm(a - b, axis=-1)[seen].mean() * 1e3
    pa = np.linalg.norm(procrustes(a[seen], b[seen]) - b[seen], axis=-1).mean() * 1e3
    second = np.linalg.norm(np.diff(a - b, 2, axis=1), axis=-1)
    three = seen[:, 2:] & seen[:, 1:-1] & seen[:, :-2]
    return float(mpjpe), float(pa), float(second[three].mean() * 1e3)


def procrustes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Similarity alignment of a to b, both [N, J, 3], per item."""
    ma, mb = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    x, y = a - ma, b - mb
    u, s, vt = np.linalg.svd(np.swapaxes(x, 1, 2) @ y)
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= sign[:, None]
    s[:, 2] *= sign
    scale = s.sum(1) / np.maximum((x**2).sum((1, 2)), 1e-12)
    return scale[:, None, None] * x @ (u @ vt) + mb


def export(model: LandmarkVibe, path: Path, record: dict[str, Any], half: bool = False) -> str:
    """TorchScript file and its json beside it (what, seed, command, metrics, sha256). Returns the sha256.

    half: keep the weights in half precision; whoever loads the file calls `.float()` (`initialiser.vibe` does).
    """
    import copy
    import hashlib

    kept = copy.deepcopy(model).half() if half else model
    torch.jit.script(kept.eval()).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = record | {"sha256": digest, "bytes": path.stat().st_size, "inputs": FEATURES,
                       "made": time.strftime("%Y-%m-%d")}
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return digest
