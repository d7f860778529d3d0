"""`blur-motion synth --out DIR`: blurred sequences with exact ground truth, from motion capture or a sharp video."""

from __future__ import annotations

import argparse
from pathlib import Path

from blur_motion_ros import settings as _settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--out", default="synth", metavar="DIR", help="folder of the set (default ./synth)")
    parser.add_argument("--count", type=int, default=8, help="number of sequences (default 8)")
    parser.add_argument("--name", default="", metavar="WORD", help="sequences are WORD_SEED (default: the split)")
    parser.add_argument("--seed", type=int, default=0, help="sequence i depends on seed + i only (default 0)")
    parser.add_argument("--clips", nargs="+", default=[], metavar="WORD", help="only motions whose name has this word")
    parser.add_argument("--photos", nargs="+", default=[], metavar="IMAGE", help="photographs to use as plates")
    parser.add_argument("--mocap", metavar="NPZ", help="CMU subset (default: BLUR_MOTION_MOCAP)")
    parser.add_argument("--deepmimic", metavar="DIR", help="folder of humanoid3d_*.txt")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--verify", action="store_true", help="check DIR against its manifest and stop")
    parser.add_argument("--video", metavar="FILE", help="blur a sharp video instead (needs --camera)")
    parser.add_argument("--camera", metavar="FILE", help="calibration of the video")
    parser.add_argument("--average", type=int, default=2, help="video frames per blurred frame (default 2)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="assignments",
                        help="one setting of the synthesis, e.g. duty=0.5; --list shows them all")
    parser.add_argument("--list", action="store_true", help="list the settings and stop")


def run(args: argparse.Namespace) -> int:
    """Make the set, with progress."""
    from tqdm import tqdm

    from blur_motion_ros.config import parse_assignments
    from blur_motion_ros.data.synth import dataset
    from blur_motion_ros.data.synth.settings import SynthSettings

    chosen = _settings.replace(SynthSettings(), parse_assignments(args.assignments))
    if args.list:
        for leaf in _settings.leaves(chosen):
            print(f"{leaf.name} = {leaf.value} {leaf.info.unit}: {leaf.info.doc}")
        return 0
    out = Path(args.out)
    if args.verify:
        return _verify(out)
    if args.video:
        return _from_video(args, chosen.duty, out)
    work = dataset.jobs(out, args.count, args.seed, chosen, args.name, clips=tuple(args.clips), mocap=_path(args.mocap),
                        photos=tuple(Path(p) for p in args.photos), deepmimic=_path(args.deepmimic))
    with tqdm(total=len(work), unit="sequence") as bar:
        metas = dataset.make(work, args.workers, bar.update)
    path = dataset.write_manifest(out, metas)
    print(f"{len(metas)} sequences of the {chosen.split} split; {path}")
    return 0


def _verify(out: Path) -> int:
    from blur_motion_ros.data.synth.dataset import verify

    bad = verify(out)
    print("\n".join(f"differs: {name}" for name in bad) or f"{out}: every file is as the manifest says")
    return 1 if bad else 0


def _from_video(args: argparse.Namespace, duty: float, out: Path) -> int:
    """The flow-interpolated average that the demo makes of its video, for any video."""
    from blur_motion_ros.data.sequence import VideoFile
    from blur_motion_ros.demo.stream import Shutter, make_sequence

    if not args.camera:
        raise ValueError("--video needs its calibration; pass --camera FILE")
    source = VideoFile(args.video)
    whole = (source.width, source.height)
    shutter = Shutter(args.average, duty, window=(0, 0, *whole), size=whole)
    folder = make_sequence(Path(args.video), Path(args.camera), out / Path(args.video).stem, 0.0, shutter, print)
    print(f"{folder}: a blurred sequence without ground truth")
    return 0


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
