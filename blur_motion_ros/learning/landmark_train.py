"""`blur-motion train landmarks`: BlazePose's landmark network learns to read blur (an hour and a half of two cores).

It starts from MediaPipe's full network and learns on rendered, blurred people where their landmarks truly are, in the
picture and in space. Of what it already knows of real people it must not forget too much: the maps of full and half
resolution stay as they are; visibility, the person's mask and the next region stay what the network said before, and
presence where the person is cut away (else they are there, however blurred); and the weights that are kept lie between
those before and those learned (Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blur_motion_ros.assets import asset
from blur_motion_ros.body.joints import BLAZEPOSE33
from blur_motion_ros.data import mocap
from blur_motion_ros.initialiser.blazepose import LANDMARK_SIZE, refine
from blur_motion_ros.initialiser.evidence import BONES
from blur_motion_ros.learning import landmark_data as data
from blur_motion_ros.learning import training
from blur_motion_ros.learning.landmark_net import Answer, LandmarkGraph, pictures_of
from blur_motion_ros.learning.record import write_card

OUT = Path(__file__).parent.parent / "assets" / "pose_landmark_blur.tflite"
BLEND = 0.7  # share of what was learned that is kept
_STEM = 64  # px: maps of so much and more stay as they are
_HEAT_SIGMA = 1.65  # px of 64, of the network's own heatmaps
_EVERY, _WITH_MASK = 3, 6  # steps in which the answers before are asked for
_NOBODY = 0.12  # share of examples of these steps in which the person is cut away
_AVERAGE = 0.998  # of the weights over the last steps
_POINT_WEIGHT = torch.tensor([0.5 if i < 11 or 17 <= i < 23 else 0.7 if i >= 29 else 1.0 for i in range(33)])
LIMBS = tuple((BLAZEPOSE33.index(f"{side}_{a}"), BLAZEPOSE33.index(f"{side}_{b}")) for side in ("left", "right")
              for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")))
_ENDS = [b for _, b in LIMBS]


@dataclass(frozen=True)
class LandmarkOptions:
    """sets: rendered people; streams: processes that render, each with its own seed; steps, batch, rate (in sizes of
    the weights)."""

    sets: int = 9600
    streams: int = 2
    steps: int = 2400
    batch: int = 32
    rate: float = 1e-3
    seed: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    d = LandmarkOptions()
    training.add_arguments(parser, out=OUT, run="landmarks", seed=d.seed)
    training.add_step_arguments(parser, steps=d.steps, batch=d.batch)
    parser.add_argument("--sets", type=int, default=d.sets, help="blurred people to render")
    parser.add_argument("--streams", type=int, default=d.streams, help="processes that render, each with its own seed")
    parser.add_argument("--rate", type=float, default=d.rate, help="learning rate, in sizes of the weights")
    parser.add_argument("--blend", type=float, default=BLEND, help="share of what was learned that is kept")
    parser.add_argument("--threads", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    options = LandmarkOptions(args.sets, args.streams, args.steps, args.batch, args.rate, args.seed)
    torch.set_num_threads(args.threads)
    sets = data.make_sets(mocap.load_training_clips("train", args.mocap, args.deepmimic), args.run / "sets",
                          options.sets, options.seed, options.streams)
    before = asset("pose_landmark_full.tflite").read_bytes()
    with ThreadPoolExecutor(args.threads) as pool:
        trainer = Trainer(options, sets, before, pool, training.device(args.device))
        seconds = training.Loop(trainer, args.run, save=100).run()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(trainer.blended(args.blend))
    tests = data.make_sets(mocap.load_training_clips("test", args.mocap, args.deepmimic), args.run / "tests",
                           300, options.seed + 9000, invented=0.0)
    metrics = {"before": evaluate(before, tests), "after": evaluate(args.out.read_bytes(), tests),
               "learned_unblended": evaluate(trainer.blended(1.0), tests)}
    write_card(args.out, seed=options.seed, seconds=seconds, metrics=metrics,
               settings=asdict(options) | {"blend": args.blend})
    print(json.dumps(metrics, indent=1))
    return 0


class Trainer:
    """Network, what it was before, and optimiser: a `training.Trainee`. pool: composes examples side by side."""

    def __init__(self, options: LandmarkOptions, sets: Sequence, before: bytes, pool: ThreadPoolExecutor,
                 where: str = "cpu"):
        torch.manual_seed(options.seed)
        self.options, self.steps, self.sets, self.where, self._pool = options, options.steps, sets, where, pool
        self._content = before
        self.net, self.before = (LandmarkGraph(before, _STEM).to(where) for _ in range(2))
        self.before.requires_grad_(False)
        self.mean = {k: w.detach().clone() for k, w in self.net.weights.items()}
        self._learned = [w for w in self.net.parameters() if w.requires_grad]
        self.optimiser = torch.optim.Adam(self._learned, options.rate, betas=(0.9, 0.99))
        self._next: tuple[int, list] | None = None

    def update(self, step: int) -> dict[str, float]:
        """One optimiser step with a warm-up and a decay of the rate."""
        pictures, points, world = self._batch(step)
        for group in self.optimiser.param_groups:
            decay = 0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps))
            group["lr"] = self.options.rate * min(1.0, (step + 1) / 100) * decay
        there, mask = torch.ones(len(pictures), device=self.where), step % _WITH_MASK == 0
        if step % _EVERY:
            terms = losses(self.net(pictures, mask=False), points, world, there)
        else:
            _cut_away(pictures, there, training.numpy_generator(self.options.seed + 1, step))
            with torch.no_grad():
                said = self.before(pictures, mask)
            answer = self.net(pictures, mask)
            terms = losses(answer, points, world, there) | kept(answer, said, there)
        self.optimiser.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(self._learned, 5.0)
        self.optimiser.step()
        share = 1 - min(_AVERAGE, (step + 1) / (step + 21))
        for key, weight in self.net.weights.items():
            self.mean[key].lerp_(weight.detach(), share)
        return {k: float(v.detach()) for k, v in terms.items()}

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """pictures, points [B, 33, 2], world [B, 33, 3]. The next step's are begun."""
        if self._next is None or self._next[0] != step:
            self._next = step, self._begin(step)
        examples = [f.result() for f in self._next[1]]
        self._next = step + 1, self._begin(step + 1)
        points, world = (torch.from_numpy(np.stack(a)) for a in zip(*((e.points, e.world) for e in examples),
                                                                    strict=True))
        return pictures_of([e.view for e in examples]).to(self.where), points.to(self.where), world.to(self.where)

    def _begin(self, step: int) -> list:
        def one(rng: np.random.Generator) -> data.Example:
            return data.compose(self.sets, int(rng.integers(len(self.sets))), rng)
        return [self._pool.submit(one, rng) for rng in
                training.numpy_generator(self.options.seed, step).spawn(self.options.batch)]

    def blended(self, share: float) -> bytes:
        """The file with so much of what was learned (0: as it was before, 1: all of it)."""
        out = LandmarkGraph(self._content)
        with torch.no_grad():
            for key, weight in out.weights.items():
                weight.lerp_(self.mean[key].cpu(), share)
        return out.packed()

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "mean": self.mean, "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.mean = dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])


def losses(answer: Answer, points: Tensor, world: Tensor, there: Tensor) -> dict[str, Tensor]:
    """How far an answer is from where the landmarks are: across the picture (points [N, 33, 2] px, and their
    heatmaps), in space (world [N, 33, 3] m) and in the directions of bones. there [N]: 1 where there is a person."""
    weight = _POINT_WEIGHT.to(points.device) * there[:, None] / (33 * len(points))
    near = ((points > -40) & (points < LANDMARK_SIZE + 40)).all(-1)
    inside = ((points > 0) & (points < LANDMARK_SIZE - 1)).all(-1)
    across = (((answer.points[:, :33, :2] - 0.5 - points) ** 2).sum(-1) + 1).sqrt()
    heat = F.binary_cross_entropy_with_logits(answer.heat[:, :33], heatmaps(points), reduction="none").mean((2, 3))
    space = (((answer.world[:, :33] - world) ** 2).sum(-1) + 1e-4).sqrt()
    told, true = (w[:, BONES[:, 1]] - w[:, BONES[:, 0]] for w in (answer.world, world))
    bones = 1 - F.cosine_similarity(told, true, -1, 1e-3)
    return {"across": 0.1 * (across * weight * near).sum(), "heat": 60 * (heat * weight * inside).sum(),
            "space": 6 * (space * weight).sum(), "bones": 2 * (bones * there[:, None]).mean()}


def kept(answer: Answer, said: Answer, there: Tensor) -> dict[str, Tensor]:
    """How far an answer is from what the network said before, in all that is to stay: the next region (the auxiliary
    points), visibility, the person's mask; and presence where the person was cut away (else they are there, however
    blurred)."""
    region = (answer.points[:, 33:, :2] - said.points[:, 33:, :2]).abs().mean((1, 2))
    terms = {"region": 0.05 * (region * there).mean(),
             "visibility": 3 * (answer.points[..., 3:].sigmoid() - said.points[..., 3:].sigmoid()).square().mean(),
             "presence": 0.3 * F.binary_cross_entropy(answer.score.clamp(1e-6, 1 - 1e-6), said.score.maximum(there))}
    if answer.mask is not None and said.mask is not None:
        terms["mask"] = 3 * (answer.mask.sigmoid() - said.mask.sigmoid()).square().mean()
    return terms


def heatmaps(points: Tensor, size: int = 64) -> Tensor:
    """[N, P, size, size]: what the network's heatmaps are of points [N, P, 2] px of its picture, peaks of 1."""
    at = (points + 0.5) * (size / LANDMARK_SIZE) - 0.5
    grid = torch.arange(size, device=points.device)
    x, y = (torch.exp(-0.5 * ((grid - at[..., k:k + 1]) / _HEAT_SIGMA) ** 2) for k in (0, 1))
    return y[..., :, None] * x[..., None, :]


def _cut_away(pictures: Tensor, there: Tensor, rng: np.random.Generator) -> None:
    """Take the person out of some pictures, in place: they end at its edge, or there is only noise."""
    for i in np.flatnonzero(rng.random(len(pictures)) < _NOBODY):
        if rng.random() < 0.7:
            pictures[i] = torch.roll(pictures[i], int(rng.integers(90, 166)), int(rng.integers(1, 3)))
        else:
            noise = 0.03 * rng.standard_normal(tuple(pictures[i].shape)).astype(np.float32)
            pictures[i] = pictures[i].mean((1, 2), keepdim=True) + torch.from_numpy(noise).to(pictures.device)
        there[i] = 0


def evaluate(content: bytes, sets: Sequence, seed: int = 5) -> dict[str, float]:
    """Of unseen motions: mean error of elbows, wrists, knees and ankles across the picture (px of 256), share of them
    over 15 px off, and error of the eight limbs' directions in space (degrees); of all, and of the most blurred third.
    """
    net = LandmarkGraph(content).eval()
    rows = []
    for i in range(len(sets)):
        example = data.compose(sets, i, np.random.default_rng([seed, i]), data.TEST)
        with torch.no_grad():
            answer = net(pictures_of([example.view]), mask=False)
        rows.append(_errors(answer, example))
    blurred = np.argsort([s["travel"] for s in sets])[-len(sets) // 3:]
    table = np.array(rows)
    names = ("limb_ends_px", "limb_ends_lost", "limb_degrees")
    return {"test_examples": len(sets)} | dict(zip(names, table.mean(0).tolist(), strict=True)) | {
        f"{name}_blurred": float(v) for name, v in zip(names, table[blurred].mean(0), strict=True)}


def _errors(answer: Answer, example: data.Example) -> tuple[float, float, float]:
    heat = np.ascontiguousarray(answer.heat[0, :33].permute(1, 2, 0).numpy())
    points = refine(answer.points[0, :33, :2].numpy() / LANDMARK_SIZE, heat) * LANDMARK_SIZE - 0.5
    off = np.linalg.norm(points - example.points, axis=1)[_ENDS]
    a, b = np.array(LIMBS).T
    told, true = answer.world[0].numpy(), example.world
    told, true = told[b] - told[a], true[b] - true[a]
    cosine = (told * true).sum(1) / (np.linalg.norm(told, axis=1) * np.linalg.norm(true, axis=1))
    return float(off.mean()), float((off > 15).mean()), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
