"""`blur-motion demo`: slow-shutter stream of a real person -> live pipeline -> pictures and report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blur_motion_ros import config

if TYPE_CHECKING:
    from blur_motion_ros.demo.live import Usage
    from blur_motion_ros.demo.results import Run

SHORT_S = 3.0
ENOUGH = 0.5  # share of the frames that must be estimated live; with fewer the demo is played again, slower
SLOWEST, SLOWER = 0.1, 0.5  # paces to choose from then


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="out/demo", metavar="FOLDER", help="where the results go (default out/demo)")
    parser.add_argument("--short", action="store_true", help=f"only the first {SHORT_S:g} s of the clip")
    parser.add_argument("--sequence", metavar="FOLDER", help="play this sequence folder instead of the demo clip")
    parser.add_argument("--pace", type=float, metavar="X", help="speed of playing (default 1, real time; and once "
                        "more, slower, where fewer than half of the frames were estimated: a slow or busy machine)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="assignments",
                        help="override one setting of the pipeline; may be repeated")


def run(args: argparse.Namespace) -> int:
    from blur_motion_ros.body.skin import Skin
    from blur_motion_ros.data.sequence import read_sequence
    from blur_motion_ros.demo.live import play_live
    from blur_motion_ros.demo.results import read_run, report, shown_frames

    config.load(overrides=config.parse_assignments(args.assignments))  # a wrong setting is told now
    if args.pace is not None and not 0.01 <= args.pace <= 100:
        raise ValueError(f"--pace is {args.pace}; it must be between 0.01 and 100")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    say = _Progress(start)
    folder = Path(args.sequence) if args.sequence else _stream(out, args.short, say)
    sequence = read_sequence(folder)

    def play(pace: float) -> tuple[Run, Usage]:
        usage = play_live(folder.resolve(), (out / "bag").resolve(), out, args.assignments, say, pace)
        run_ = read_run(out / "bag")
        if not run_.played:
            raise RuntimeError("nothing was played; see player.log in the output folder")
        return run_, usage

    run_, usage = _unhurried(play, say) if args.pace is None else play(args.pace)
    say("drawing")
    shown = shown_frames(run_, sequence, Skin())
    (out / "report.md").write_text(report(run_, usage, shown, sequence, "Live demo"))
    _pictures(out, sequence, shown)
    bodies = sum(s is not None and s.joints is not None for s in shown)
    say(f"{len(run_.trajectories)} of {len(run_.played)} frames estimated, {bodies} with a body")
    say(f"done: {out}/overlay.mp4, {out}/contact_sheet.png, {out}/report.md, {out}/bag")
    return 0


def _unhurried(play: Callable[[float], tuple[Run, Usage]], say: Callable[[str], None]) -> tuple[Run, Usage]:
    """Play in real time; again, as slowly as was kept up with, where too few frames were estimated."""
    run_, usage = play(1.0)
    share = len(run_.trajectories) / len(run_.played)
    if share >= ENOUGH:
        return run_, usage
    say(f"only {len(run_.trajectories)} of {len(run_.played)} frames were estimated: this machine is slow or busy; "
        "again, slower")
    return play(min(max(0.7 * share, SLOWEST), SLOWER))


class _Progress:
    """Prints a line with the seconds since start."""

    def __init__(self, start: float) -> None:
        self._start = start

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", flush=True)


def _stream(out: Path, short: bool, say: _Progress) -> Path:
    """The slow-shutter sequence of the demo clip, made once."""
    from blur_motion_ros.demo.stream import Shutter, demo_sequence

    return demo_sequence(out / ("sequence_short" if short else "sequence"), SHORT_S if short else 0.0, Shutter(), say)


def _pictures(out: Path, sequence, shown: Sequence) -> None:
    from blur_motion_ros.data.sequence import write_image
    from blur_motion_ros.evaluation.overlay import View, contact_sheet, write_video

    rate = 1.0 / float(np.median(np.diff([e.open for e in sequence.exposures])))
    write_video(out / "overlay.mp4", _overlay(sequence, shown, View.whole(sequence.camera)), rate)
    rows = [(sequence[i].image, sequence.camera, shown[i]) for i in _most_telling(shown)]
    if rows:
        write_image(out / "contact_sheet.png", contact_sheet(rows))


def _overlay(sequence, shown: Sequence, view, trail: int = 6) -> Iterator[np.ndarray]:
    """Pictures of every frame; a frame without an estimate shows the last one, and says so."""
    from blur_motion_ros.evaluation.overlay import Shown, frame_picture
    from blur_motion_ros.types import Status

    past: list[Shown] = [Shown(None, None, None, None, Status.LOST, 0.0)]
    for frame, now in zip(sequence, shown, strict=False):
        past = (past + [now])[-trail:] if now is not None else past
        yield frame_picture(frame.image, sequence.camera, past, view, "" if now is not None else "(no estimate)")


def _most_telling(shown: Sequence, rows: int = 6) -> list[int]:
    """Indices of the frame in which the whole body moves most, of each of `rows` stretches of the recording, in order;
    one that is trusted, where there is one. (The fastest single joint would be the worst outlier.)"""
    found = [i for i, s in enumerate(shown) if s is not None and s.joints is not None]
    parts = np.array_split(found, rows)
    return [int(max(part, key=lambda i: (shown[i].trusted, shown[i].speeds.mean()))) for part in parts if len(part)]
