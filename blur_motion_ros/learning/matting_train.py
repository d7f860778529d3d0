"""`blur-motion train matting`: the small free matting network (under an hour on one core), exported to ONNX."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blur_motion_ros.data import mocap
from blur_motion_ros.learning import matting_data as md
from blur_motion_ros.learning import training
from blur_motion_ros.learning.matting_net import MattingNet
from blur_motion_ros.learning.record import write_card
from blur_motion_ros.matting.network import ASSET


@dataclass(frozen=True)
class MattingOptions:
    """layers: rendered people; steps, batch, side (px), width of the network, learning rate."""

    layers: int = 500
    steps: int = 7000
    batch: int = 6
    side: int = 112
    width: int = 14
    rate: float = 2e-3
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = MattingOptions()
    training.add_arguments(parser, out=ASSET, run="matting", seed=defaults.seed)
    training.add_step_arguments(parser, steps=defaults.steps, batch=defaults.batch)
    parser.add_argument("--layers", type=int, default=defaults.layers, help="blurred people to render")


def run(args: argparse.Namespace) -> int:
    options = MattingOptions(layers=args.layers, steps=args.steps, batch=args.batch, seed=args.seed)
    layers = md.make_layers(mocap.load_training_clips("train", args.mocap, args.deepmimic), args.run / "layers",
                            options.layers, options.seed)
    trainer = Trainer(options, layers, training.device(args.device))
    seconds = training.Loop(trainer, args.run).run()
    tests = md.make_layers(mocap.load_training_clips("test", args.mocap, args.deepmimic), args.run / "layers",
                           100, options.seed + 1)
    network = trainer.net.cpu().eval()
    export(network, args.out)
    metrics = evaluate(args.out, tests, options.side)
    write_card(args.out, seed=options.seed, seconds=seconds, metrics=metrics, settings=asdict(options))
    print(json.dumps(metrics, indent=1))
    return 0


class Trainer:
    """Network and optimiser: a `training.Trainee`."""

    def __init__(self, options: MattingOptions, layers: md.Layers, where: str = "cpu"):
        torch.manual_seed(options.seed)
        torch.set_num_threads(1 if where == "cpu" else 4)
        self.options, self.steps, self.layers, self.where = options, options.steps, layers, where
        self.net = MattingNet(options.width).to(where, memory_format=torch.channels_last)  # 1.5 times faster on a CPU
        self.optimiser = torch.optim.AdamW(self.net.parameters(), options.rate, weight_decay=1e-3)

    def update(self, step: int) -> dict[str, float]:
        """One optimiser step with a warm-up and a decay of the rate."""
        self.net.train()
        progress = step / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * min(1.0, 20 * progress + 0.05) * (1.01 - progress) ** 0.9
        rng = training.numpy_generator(self.options.seed, step)
        examples = [md.compose(self.layers, rng, side=self.options.side) for _ in range(self.options.batch)]
        terms = losses(self.net, *(t.to(self.where, memory_format=torch.channels_last) for t in to_tensors(examples)))
        self.optimiser.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        return {k: float(v.detach()) for k, v in terms.items()}

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])


def to_tensors(examples: list[md.Example]) -> list[Tensor]:
    """src, bgr, colour [B, 3, S, S] and alpha [B, 1, S, S]."""
    planes = [np.stack([getattr(e, k) for e in examples]).transpose(0, 3, 1, 2) for k in ("src", "bgr", "colour")]
    alpha = np.stack([e.alpha for e in examples])[:, None]
    return [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (*planes, alpha)]


def losses(net: MattingNet, src: Tensor, bgr: Tensor, colour: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """L1 on alpha (blended pixels count more) and its gradients, L1 on colour where there is a person, error head."""
    pha, fgr, err = net(src, bgr)
    weight = 1 + 2 * ((alpha > 0.02) & (alpha < 0.98))
    wrong = (pha - alpha).abs()
    seen = (alpha > 0.1).float()
    return {"alpha": (weight * wrong).mean(), "edges": (_slopes(pha) - _slopes(alpha)).abs().mean(),
            "colour": 0.2 * ((fgr - colour).abs() * seen).mean(), "error": 0.5 * (err - wrong.detach()).abs().mean()}


def _slopes(a: Tensor) -> Tensor:
    """Differences across and down, [B, 2, S - 1, S - 1]."""
    return torch.cat([a[:, :, :-1, 1:] - a[:, :, :-1, :-1], a[:, :, 1:, :-1] - a[:, :, :-1, :-1]], 1)


def export(network: MattingNet, path: Path) -> None:
    """ONNX with free height and width, in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["pha", "fgr", "err"]
    axes = {n: {0: "batch", 2: "height", 3: "width"} for n in ("src", "bgr", *names)}
    torch.onnx.export(network, (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)), str(path), dynamo=False,
                      input_names=["src", "bgr"], output_names=names, dynamic_axes=axes, opset_version=17)


def evaluate(path: Path, layers: md.Layers, side: int) -> dict:
    """Unseen people and motions: mean absolute alpha error, network against background difference.

    `blended`: true alpha between 0.02 and 0.98.  Both get the same picture and no person mask (`difference_masked`:
    with a coarse mask of the person, as in the pipeline).
    """
    from blur_motion_ros.light import to_linear
    from blur_motion_ros.matting import MattingSettings
    from blur_motion_ros.matting.difference import DifferenceMatter
    from blur_motion_ros.matting.network import NetworkMatter
    rng = np.random.default_rng(11)
    matters = {"network": NetworkMatter(MattingSettings(method="network", model=str(path))),
               "difference": DifferenceMatter()}
    errors: dict[str, list] = {f"{m}{s}_{w}": [] for m in matters for s in ("", "_masked") for w in ("all", "blended")}
    for i in range(len(layers)):
        e = md.compose(layers, rng, i, side)
        image, plate = (to_linear(np.round(255 * a).astype(np.uint8)) for a in (e.src, e.bgr))
        for name, matter in matters.items():
            for suffix, mask in (("", None), ("_masked", coarse_mask(e.alpha))):
                wrong = np.abs(matter.matte(image, plate, None, mask).alpha - e.alpha)
                band = (e.alpha > 0.02) & (e.alpha < 0.98)
                errors[f"{name}{suffix}_all"].append(wrong.mean())
                errors[f"{name}{suffix}_blended"].append(wrong[band].mean())
    return {"test_examples": len(layers)} | {k: float(np.mean(v)) for k, v in errors.items()}


def coarse_mask(alpha: np.ndarray) -> np.ndarray:
    """What a pose network's mask looks like: smooth, a little too small or large."""
    import cv2
    return np.clip(1.6 * cv2.GaussianBlur(alpha, (0, 0), 0.02 * len(alpha)) - 0.3, 0, 1).astype(np.float32)
