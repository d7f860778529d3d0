"""`blur-motion play`: the camera player with command-line options instead of ROS parameters."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="sequence folder or video")
    parser.add_argument("--camera", default="", help="calibration file (needed for a video)")
    parser.add_argument("--background", default="", help="clean plate image")
    parser.add_argument("--exposure", type=float, default=0.0, help="open-shutter time of a video's frames, s")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of playing")
    parser.add_argument("--loop", action="store_true", help="start again at the end")
    parser.add_argument("--reliable", action="store_true", help="reliable instead of best-effort images")
    parser.add_argument("--topic", default="image", help="image topic; CameraInfo goes to its sibling camera_info")


def run(args: argparse.Namespace) -> int:
    from blur_motion_ros.nodes import entry, specs

    parameters = {"input": args.input, "camera": args.camera, "background": args.background, "exposure": args.exposure,
                  "rate": args.rate, "loop": str(args.loop).lower(),
                  "reliability": "reliable" if args.reliable else "best_effort"}
    words = ["--ros-args"]
    for name, value in parameters.items():
        if value != "":
            words += ["-p", f"{name}:={value}"]
    for name, topic in specs.camera_remappings(args.topic).items():
        words += ["-r", f"{name}:={topic}"]
    return entry.player(words)
