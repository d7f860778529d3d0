"""`blur-motion assets`: fetch everything now, with progress."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fetches what is not in the cache yet (BLUR_MOTION_ASSETS, else ~/.cache/blur_motion_ros)."


def run(args: argparse.Namespace) -> int:
    from blur_motion_ros.assets import fetch_all

    fetch_all()
    return 0
