"""`blur-motion train WHAT`: one table of what can be trained; a module is imported only when it is used.

A trainable's module has `add_arguments(parser)` and `run(args) -> int`. Runs are seeded; the long ones write
checkpoints and continue where they stopped. A card (.json: command, seed, time, metrics, SHA-256) lies
beside the weights.
"""

from __future__ import annotations

import argparse
import importlib

# name -> (module, one-line help)
TRAINABLES: dict[str, tuple[str, str]] = {
    "pose-prior": ("blur_motion_ros.learning.pose_prior_train", "density of poses and short-motion statistics"),
    "prior": ("blur_motion_ros.learning.short_motion_train", "adversarial short-motion prior for single frames"),
    "matting": ("blur_motion_ros.learning.matting_train", "small background-matting network"),
    "landmarks": ("blur_motion_ros.learning.landmark_train", "BlazePose's landmark network, to read blur"),
    "vibe": ("blur_motion_ros.learning.vibe_command", "temporal pose network on recorded landmarks"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=sorted(TRAINABLES), metavar="WHAT",
                        help="; ".join(f"{name}: {text}" for name, (_, text) in TRAINABLES.items()))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="options of WHAT; 'WHAT --help' lists them")


def run(args: argparse.Namespace) -> int:
    module_name, text = TRAINABLES[args.what]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"blur-motion train {args.what}", description=text)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.arguments)) or 0)
