"""`blur-motion train vibe`: record training sequences, train the landmark encoder, evaluate and export it."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from blur_motion_ros.learning.vibe_train import PRIORS, TrainSettings

TEST_SEED = 1_000_003  # seed of the recordings that are only ever evaluated
MOST_TESTS = 160  # as many as are enough to tell networks 1 mm apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    d = TrainSettings()
    parser.add_argument("--data", type=Path, default=Path("vibe_data"), help="folder of recordings")
    parser.add_argument("--record", type=int, default=0, metavar="N",
                        help="first record N training and N/8 (at most 160) test sequences; existing ones are kept")
    parser.add_argument("--record-seed", type=int, default=1, help="seed of the recorded training sequences")
    parser.add_argument("--landmarks", default="blur", metavar="NETWORK", help="landmark network that sees what "
                        "is recorded: full, heavy, blur, or a file")
    parser.add_argument("--photos", type=Path, default=None, help="video or folder of pictures used as backgrounds")
    parser.add_argument("--mocap", default=None, help="CMU subset (.npz); default: BLUR_MOTION_MOCAP")
    parser.add_argument("--deepmimic", default=None, help="folder of humanoid3d_*.txt; default: BLUR_MOTION_DEEPMIMIC")
    parser.add_argument("--out", type=Path, default=Path("vibe_run"), help="checkpoints, logs, exported network")
    parser.add_argument("--steps", type=int, default=d.steps)
    parser.add_argument("--batch", type=int, default=d.batch)
    parser.add_argument("--rate", type=float, default=d.rate)
    parser.add_argument("--prior", choices=PRIORS, default=d.prior, help="motion prior (the paper's ablation)")
    parser.add_argument("--bidirectional", action="store_true",
                        help="an encoder that also reads the frames that come later, for recordings")
    parser.add_argument("--seed", type=int, default=d.seed)
    parser.add_argument("--sequences", type=int, default=0, help="use only the first N training sequences (0: all)")
    parser.add_argument("--simulate", type=int, default=0, metavar="N",
                        help="add N unrendered sequences with the noise measured on the recordings")
    parser.add_argument("--noise-from", type=int, default=0, metavar="N",
                        help="measure the noise for --simulate on the first N training sequences (0: all)")
    parser.add_argument("--init", type=Path, default=None,
                        help="start from the weights of this run's checkpoint.pt, or of this TorchScript file (.ts)")
    parser.add_argument("--blend", type=float, default=1.0, metavar="SHARE",
                        help="export SHARE of the trained weights and the rest of those of --init (1: the trained)")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, default=None, help="write TorchScript here (default: OUT/vibe.ts)")


def run(args: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(args.threads)
    if not 0 <= args.blend <= 1 or (args.blend < 1 and args.init is None):
        raise ValueError(f"--blend is {args.blend}; it must lie within 0 .. 1, and below 1 it needs --init")
    if args.record:
        record(args)
    if args.steps <= 0:
        return 0
    trainer = make_trainer(args)
    first = None
    if args.init is not None:
        first = args.init if args.init.suffix == ".ts" else args.init / "checkpoint.pt"
        trainer.start_from(first)
    if args.resume and trainer.resume():
        print(f"resumed at step {trainer.step} of {trainer.settings.steps}")
    seconds = _train(trainer, args.out)
    if args.blend < 1:
        trainer.blend_with(first, args.blend)
    scores = score(trainer.model, test_examples(args.data), trainer.body)
    print_scores(scores)
    _export(trainer, args, scores, seconds)
    return 0


def record(args: argparse.Namespace) -> None:
    """Render and track the training and the test sequences."""
    from tqdm import tqdm

    from blur_motion_ros.data.mocap import load_training_clips
    from blur_motion_ros.learning.vibe_data import record as record_sequences

    puppet, photos = load_puppet(), load_photos(args.photos)
    jobs = (("test", min(MOST_TESTS, max(1, args.record // 8)), TEST_SEED), ("train", args.record, args.record_seed))
    for split, count, seed in jobs:
        clips = load_training_clips(split, args.mocap, args.deepmimic)
        steps = record_sequences(clips, puppet, photos, args.data / split, count, seed, plain=split == "test",
                                 landmarks=args.landmarks)
        with tqdm(total=count, desc=f"recording {split}", unit="seq", mininterval=2) as bar:
            for done in steps:
                bar.update(done - bar.n)


def load_puppet():
    from blur_motion_ros.body import load_body
    from blur_motion_ros.learning.vibe_scene import Puppet

    return Puppet.of(load_body(lod="full"))


def load_skeleton():
    """Joints of the free body for the losses."""
    import torch

    from blur_motion_ros.body import load_body
    from blur_motion_ros.learning.vibe_losses import Skeleton

    basis = torch.from_numpy(np.asarray(load_body(lod="fit").joint_basis, np.float32))
    return Skeleton(basis[..., 0], basis[..., 1:])


def load_photos(path: Path | None, most: int = 40) -> list[np.ndarray]:
    """Background pictures [H, W, 3] uint8 RGB: frames of a video or files of a folder; none without a path."""
    import cv2

    if path is None:
        return []
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpg", ".png"))[:most]
        return [cv2.imread(str(p))[..., ::-1].copy() for p in files]
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if count < 1:
        raise ValueError(f"--photos {path}: neither a folder nor a readable video")
    frames = []
    for index in np.linspace(0, count - 1, min(most, count)).astype(int):
        video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        ok, frame = video.read()
        frames += [cv2.resize(frame[..., ::-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)] if ok else []
    return frames


def make_trainer(args: argparse.Namespace):
    from blur_motion_ros.data.mocap import load_training_clips
    from blur_motion_ros.learning.vibe_data import Recordings, clip_windows, examples_of, mirrored
    from blur_motion_ros.learning.vibe_train import WINDOW, Trainer

    sizes = dataclasses.replace(TrainSettings().sizes, bidirectional=args.bidirectional)
    settings = dataclasses.replace(TrainSettings(), steps=args.steps, batch=args.batch, rate=args.rate,
                                   prior=args.prior, seed=args.seed, sizes=sizes)
    recordings = Recordings.load(list((args.data / "train").glob("*.npz")))
    if args.sequences:
        recordings = recordings.select(np.arange(min(args.sequences, len(recordings))))
    plain = examples_of(recordings, args.data / f"registered_train_{len(recordings)}.npz")
    train = joined(plain, mirrored(plain))
    clips = load_training_clips("train", args.mocap, args.deepmimic)
    if args.simulate:
        noisy = recordings.select(np.arange(min(args.noise_from or len(recordings), len(recordings))))
        kept = args.data / f"simulated_{args.simulate}_{args.seed}_{len(noisy)}.npz"
        train = joined(train, simulated(noisy, clips, args.simulate, args.seed, kept))
    motion = clip_windows(clips, WINDOW, 25.0, WINDOW // 2)
    return Trainer(settings, train, motion, load_skeleton(), args.out)


def simulated(recordings, clips: list, count: int, seed: int, cache: Path):
    """Examples of motions that were not rendered, seen with the noise of those that were."""
    from blur_motion_ros.body import load_body
    from blur_motion_ros.learning.vibe_data import examples_of
    from blur_motion_ros.learning.vibe_noise import measure, simulate

    body = load_body()
    noise, _, _ = measure(recordings, body)
    return examples_of(simulate(clips, body, noise, count, seed, recordings.score.shape[1]), cache)


def joined(a, b):
    """Two sets of examples as one."""
    return type(a)(*(np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in dataclasses.fields(a)))


def test_examples(data: Path):
    from blur_motion_ros.learning.vibe_data import Recordings, examples_of

    recordings = Recordings.load(list((data / "test").glob("*.npz")))
    return examples_of(recordings, data / f"registered_test_{len(recordings)}.npz")


def score(model, examples, body) -> dict[str, Any]:
    """Scores on all test sequences and on those of each kind of motion."""
    from blur_motion_ros.learning.vibe_train import evaluate

    names = np.array([n.split("#")[0].rstrip("~0123456789_") for n in examples.name])
    out = {"all": asdict(evaluate(model, examples, body))}
    for kind in sorted(set(names)):
        index = np.flatnonzero(names == kind)
        part = type(examples)(*(getattr(examples, f.name)[index] for f in dataclasses.fields(examples)))
        if part.weight.sum() > 3:
            out[kind] = asdict(evaluate(model, part, body))
    return out


def print_scores(scores: dict[str, Any]) -> None:
    heads = ("frames", "MPJPE", "PA", "accel", "pelvis", "r/sigma")
    print(f"{'held-out mocap':28s} " + " ".join(f"{h:>7s}" for h in heads))
    for name, s in scores.items():
        print(f"{name:28s} {s['frames']:7d} {s['mpjpe']:7.1f} {s['pa']:7.1f} {s['acceleration']:7.1f} "
              f"{s['pelvis']:7.1f} {s['calibration']:7.2f}")


def _train(trainer, out: Path) -> float:
    """Run to the end with a progress bar and TensorBoard logs; returns CPU seconds."""
    import time

    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    start = time.process_time()
    with SummaryWriter(str(out / "logs")) as log, tqdm(total=trainer.settings.steps, initial=trainer.step,
                                                       desc="training vibe", unit="step", mininterval=2) as bar:
        for terms in trainer.run():
            bar.update()
            if trainer.step % 20 == 0:
                for name, value in terms.items():
                    log.add_scalar(name, value, trainer.step)
                bar.set_postfix(loss=f"{terms['loss']:.2f}", mm=f"{1e3 * terms['distance']:.0f}")
    return time.process_time() - start


def _export(trainer, args: argparse.Namespace, scores: dict[str, Any], seconds: float) -> None:
    from blur_motion_ros.learning.vibe_train import export

    path = args.export or args.out / "vibe.ts"
    words = [Path(w).name if "/" in w else w for w in sys.argv[2:]]  # folders of this machine mean nothing elsewhere
    command = " ".join(["blur-motion train", *words])
    record = {"what": "landmark encoder (VIBE's temporal encoder and regressor on BlazePose landmarks)",
              "command": command, "seed": args.seed, "cpu_seconds": round(seconds),
              "training_sequences": len(trainer.train.features),
              "settings": json.loads(json.dumps(asdict(trainer.settings))), "held_out": scores}
    if args.init is not None and args.init.is_file():
        record["started_from"] = hashlib.sha256(args.init.read_bytes()).hexdigest()
    digest = export(trainer.model, path, record, half=args.bidirectional)  # twice the numbers, the same size
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, sha256 {digest[:12]}) and {path.with_suffix('.json')}")
