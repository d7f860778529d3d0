"""`blur-motion train prior`: discriminator and corrector of short motions, adversarially; minutes on one core."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from blur_motion_ros.data import mocap
from blur_motion_ros.fit.short_motion import ASSET, LIMB_NAMES
from blur_motion_ros.learning import short_motion as sm
from blur_motion_ros.learning import training
from blur_motion_ros.learning.pose_prior import motion_statistics
from blur_motion_ros.learning.pose_prior_train import body_rest
from blur_motion_ros.learning.record import write_card

AT = (-1.0, -0.5, 0.0, 0.5, 1.0)  # where in the window poses and joints are compared


@dataclass(frozen=True)
class TrainOptions:
    """steps, batch, width of the networks, learning rates, loss weights (adversarial, L1, pose, MPJPE in 1/m,
    expected motion and its spread)."""

    steps: int = 3000
    batch: int = 192
    width: int = 256
    rate: float = 5e-4
    judge_rate: float = 5e-4
    adversarial: float = 0.05
    coefficients: float = 0.2
    pose: float = 1.0
    mpjpe: float = 5.0
    expectation: float = 0.2
    spread: float = 0.1
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = TrainOptions()
    training.add_arguments(parser, out=ASSET, run="short_motion", seed=defaults.seed)
    training.add_step_arguments(parser, steps=defaults.steps, batch=defaults.batch)
    parser.add_argument("--adversarial", type=float, default=defaults.adversarial, help="weight of the adversary")


def run(args: argparse.Namespace) -> int:
    options = TrainOptions(steps=args.steps, batch=args.batch, seed=args.seed, adversarial=args.adversarial)
    rest = body_rest()
    clips = mocap.load_training_clips("train", args.mocap, args.deepmimic, rest)
    trainer = Trainer(options, clips, rest, training.device(args.device))
    seconds = training.Loop(trainer, args.run, log=100, save=500).run()
    tests = mocap.load_training_clips("test", args.mocap, args.deepmimic, rest)
    metrics = evaluate(trainer.net.cpu().eval(), sm.Windows(tests), trainer.offsets.cpu())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(trainer.net).save(str(args.out))
    write_card(args.out, seed=options.seed, seconds=seconds, metrics=metrics, settings=asdict(options))
    print(json.dumps(metrics, indent=1))
    return 0


class Trainer:
    """The two networks and their optimisers: a `training.Trainee`."""

    def __init__(self, options: TrainOptions, clips: list, rest: np.ndarray, where: str = "cpu"):
        torch.manual_seed(options.seed)
        torch.set_num_threads(1 if where == "cpu" else 4)
        self.options, self.steps, self.where = options, options.steps, where
        self.data = sm.Windows(clips)
        self.offsets = torch.tensor(_bones(rest), dtype=torch.float32).to(where)
        self.sigma = torch.tensor(usual_sizes(clips), dtype=torch.float32)
        self.net = sm.ShortMotionNet(self.sigma, options.width).to(where)
        named = [(n.split(".")[0], p) for n, p in self.net.named_parameters()]
        judge = [p for n, p in named if n in ("judge", "whole", "limbs")]
        maker = [p for n, p in named if n in ("corrector", "turn", "change", "spread")]
        self.judge_optimiser = torch.optim.AdamW(judge, options.judge_rate, weight_decay=0.02)
        self.optimiser = torch.optim.AdamW(maker, options.rate, weight_decay=0.01)

    def update(self, step: int) -> dict[str, float]:
        """One step of both players."""
        for group in (*self.optimiser.param_groups, *self.judge_optimiser.param_groups):
            group["lr"] = self.options.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps)) + 1e-6
        generator = training.torch_generator(self.options.seed, step)
        real, motion, duration = self.data.draw(self.options.batch, generator)
        spoilt = sm.corrupt(real, motion, duration, self.sigma, generator)
        real, motion, duration, *spoilt = (t.to(self.where) for t in (real, motion, duration, *spoilt))
        turned, changed = self.net.correct(spoilt[0], spoilt[1], duration)
        judged = self._judge(real, motion, duration, spoilt, turned.detach(), changed.detach())
        self._apply(self.judge_optimiser, judged)
        terms = self._corrector_terms(real, motion, duration, spoilt, turned, changed)
        self._apply(self.optimiser, sum(terms.values()))
        return {k: float(v.detach()) for k, v in {"judge": judged, **terms}.items()}

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(),
                "judge": self.judge_optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.judge_optimiser.load_state_dict(state["judge"])

    def _judge(self, real: Tensor, motion: Tensor, duration: Tensor, spoilt: list[Tensor], turned: Tensor,
               changed: Tensor) -> Tensor:
        whole, limbs = self.net.discriminate(real, motion, duration)
        whole_bad, limbs_bad = self.net.discriminate(spoilt[0], spoilt[1], duration)
        whole_made, _ = self.net.discriminate(turned, changed, duration)
        good = spoilt[2].min(1).values
        return (_bce(whole, 1.0) + _bce(limbs, 1.0) + binary_cross_entropy_with_logits(whole_bad, good)
                + 2 * binary_cross_entropy_with_logits(limbs_bad, spoilt[2]) + 0.5 * _bce(whole_made, 0.0))

    def _corrector_terms(self, real: Tensor, motion: Tensor, duration: Tensor, spoilt: list[Tensor], turned: Tensor,
                         changed: Tensor) -> dict[str, Tensor]:
        o = self.options
        at = torch.tensor(AT, device=self.where)
        local, joints = sm.subframe_joints(turned, changed, self.offsets, at)
        true_local, true_joints = sm.subframe_joints(real, motion, self.offsets, at)
        unit = self.net.sigma[None] * self.net._ratio(duration)
        whole, _ = self.net.discriminate(turned, changed, duration)
        lost = (spoilt[1].abs().amax((1, 2, 3)) == 0).to(motion.dtype)  # here the expectation, not a likely motion
        known = 1 - lost
        off = ((changed - motion) / unit).clamp(-10, 10)
        return {"adversarial": o.adversarial * (known * binary_cross_entropy_with_logits(
                    whole, torch.ones_like(whole), reduction="none")).mean(),
                "coefficients": o.coefficients * (known * off.abs().mean((1, 2, 3))).mean(),
                "expectation": o.expectation * (lost * off.square().mean((1, 2, 3))).mean(),
                "spread": o.spread * self._spread_loss(off[:, 0].detach(), spoilt[0], duration, lost),
                "pose": o.pose * (local - true_local).square().sum((-1, -2)).mean(),
                "mpjpe": o.mpjpe * (joints - true_joints).norm(dim=-1).mean()}

    def _spread_loss(self, off: Tensor, rotmats: Tensor, duration: Tensor, lost: Tensor) -> Tensor:
        """-log likelihood of each limb's c_1, off [B, 23, 3] usual sizes from it, under `expect`'s Student-t."""
        _, spread = self.net.expect(rotmats, duration)
        squared, size = sm.limb_squares(off, self.net.members)
        nu = sm.SPREAD_FREEDOM
        cost = 0.5 * (nu + size) * torch.log1p(squared / (nu * spread**2)) + size * torch.log(spread)
        return (lost[:, None] * cost / size).mean()

    def _apply(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        self.net.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        optimiser.step()


def _bce(logits: Tensor, label: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _bones(rest: np.ndarray) -> np.ndarray:
    """[22, 3] joint minus parent."""
    return np.stack([rest[j] - rest[max(p, 0)] for j, p in enumerate(mocap.PARENTS[:sm.JOINTS])])


def usual_sizes(clips: list) -> np.ndarray:
    """[2, 23, 3]: deviations of the coefficients in windows of 2/30 s, the same for both sides and never tiny."""
    statistics = motion_statistics(clips, (sm.REFERENCE_DURATION, 0.1))
    sizes = np.stack([statistics.slope[0, :sm.ROWS], statistics.bend[0, :sm.ROWS]])
    return np.maximum(sizes, np.array([0.02, 0.005])[:, None, None])


# --------------------------------------------------------------------------------------------- evaluation


def evaluate(net: sm.ShortMotionNet, data: sm.Windows, offsets: Tensor, count: int = 4000) -> dict:
    """Unseen recordings: telling reversed from real motion, choosing a direction, what correction gains."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        real, motion, duration = data.draw(count, generator)
        kinds = {"test_windows": len(data)}
        return (kinds | directions(net, real, motion, duration, generator)
                | corrections(net, real, motion, duration, offsets, generator)
                | expectations(net, real, motion, duration, generator))


def expectations(net: sm.ShortMotionNet, real: Tensor, motion: Tensor, duration: Tensor, generator: torch.Generator,
                 noise: float = 0.15) -> dict:
    """What a pose with `noise` rad of error tells of its motion: direction of moving limbs, honesty of the spread."""
    turned = sm.rotations_torch.exp(noise * torch.randn(len(real), 21, 3, generator=generator))
    mean, spread = net.expect(torch.cat([real[:, :1], real[:, 1:] @ turned], 1), duration)
    unit = (net.sigma[None] * net._ratio(duration))[:, 0]
    m, v = mean[:, 0] / unit, motion[:, 0] / unit
    ahead, size = sm.limb_squares(v - m, net.members)
    back, _ = sm.limb_squares(v + m, net.members)
    moving = limb_speed(motion, duration) > 1.5
    out = {f"{name}_direction_expected_right": float((ahead < back)[moving[:, i], i].float().mean())
           for i, name in enumerate(LIMB_NAMES)}
    return out | {"expected_residual_over_spread": float((ahead / size / spread**2).sqrt().median())}


def directions(net: sm.ShortMotionNet, real: Tensor, motion: Tensor, duration: Tensor,
               generator: torch.Generator) -> dict:
    """Area under the curve and paired choice for reversed bodies and single reversed limbs (those that move)."""
    out: dict = {}
    whole, limbs = net.discriminate(real, motion, duration)
    back, _ = net.discriminate(real, sm.flip_limbs(motion, torch.ones(len(motion), 5)), duration)
    out["body_reversed_auc"] = auc(whole, back)
    out["body_direction_chosen_right"] = float((whole > back).float().mean())
    speed = limb_speed(motion, duration)
    for i, name in enumerate(LIMB_NAMES):
        flips = torch.zeros(len(motion), 5)
        flips[:, i] = 1
        whole_flip, limb_flip = net.discriminate(real, sm.flip_limbs(motion, flips), duration)
        moving = speed[:, i] > 1.5
        out[f"{name}_reversed_auc"] = auc(limbs[moving, i], limb_flip[moving, i])
        out[f"{name}_direction_chosen_right"] = float((limbs[moving, i] > limb_flip[moving, i]).float().mean())
    return out


def corrections(net: sm.ShortMotionNet, real: Tensor, motion: Tensor, duration: Tensor, offsets: Tensor,
                generator: torch.Generator) -> dict:
    """MPJPE (mm, all sub-frames, pelvis at mid-window fixed) and joint speed error (m/s) before and after."""
    out: dict = {}
    arms = torch.zeros(len(motion), 5)
    arms[torch.arange(len(motion)), torch.randint(0, 5, (len(motion),), generator=generator)] = 1
    cases = {"clean": (real, motion), "one_limb_reversed": (real, sm.flip_limbs(motion, arms)),
             "no_velocity": (real, motion * torch.tensor([0.0, 1.0])[None, :, None, None]),
             "all": sm.corrupt(real, motion, duration, net.sigma, generator)[:2]}
    noise = 0.2 * torch.randn(len(real), 21, 3, generator=generator)
    cases["pose_noise_0.2"] = (torch.cat([real[:, :1], real[:, 1:] @ sm.rotations_torch.exp(noise)], 1), motion)
    for name, (turned, moved) in cases.items():
        fixed = net(turned, moved, duration)[2:]
        before = differences((turned, moved), (real, motion), duration, offsets)
        after = differences(fixed, (real, motion), duration, offsets)
        out[f"{name}_mpjpe_mm"] = [before[0], after[0]]
        out[f"{name}_velocity_m_s"] = [before[1], after[1]]
    return out


def differences(a: tuple, b: tuple, duration: Tensor, offsets: Tensor) -> tuple[float, float]:
    at = torch.tensor(AT)
    ja, jb = (sm.subframe_joints(r, m, offsets, at)[1] for r, m in (a, b))
    va, vb = ((j[:, -1] - j[:, 0]) / duration[:, None, None] for j in (ja, jb))
    return float((ja - jb).norm(dim=-1).mean() * 1000), float((va - vb).norm(dim=-1).mean())


def limb_speed(motion: Tensor, duration: Tensor) -> Tensor:
    """[B, 5] fastest joint of each limb, rad/s."""
    speed = motion[:, 0, 1:].norm(dim=-1) * 2 / duration[:, None]
    return torch.stack([speed[:, list(limb)].max(1).values for limb in sm.LIMBS], 1)


def auc(good: Tensor, bad: Tensor) -> float:
    """Chance that a good example scores above a bad one (ties half)."""
    from scipy.stats import rankdata
    ranks = rankdata(torch.cat([good, bad]).numpy())
    n, m = len(good), len(bad)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
