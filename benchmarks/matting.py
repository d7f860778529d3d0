"""What the matting methods do where plates go wrong: alpha errors and the fit that follows.

    PYTHONPATH=. python benchmarks/matting.py DATA... [--methods difference network fused] [--spoil shadow shift drift]

Every sequence folder in DATA (with alpha_NNN.png and gt.npz) is run through the pipeline as it is and spoilt:
  shadow  a soft shadow of the person lies on the ground beside them: up to 55 % of the light is gone, at every blur
  shift   the plate is 1.5 px away from where it was taken (a camera that was touched)
  drift   exposure and white balance swing by 25 % over the sequence, differently in every colour
  all     the three together
Columns: mean absolute error of alpha in the fit's 128 px crop (everywhere; in the blur band, where the true alpha is
between 0.05 and 0.95; outside the person), share of the person's pixels within one and two sigma, then the fit online:
MPJPE, root error (mm), velocity error (m/s).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros.body.joints import lsp14
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.config import Settings
from blur_motion_ros.data import sequence
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.ground_truth import evaluated_folders, read_ground_truth
from blur_motion_ros.fit_command import sample_exposure
from blur_motion_ros.light import to_codes, to_linear
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.types import Frame

SHIFT = (1.2, -0.9)  # px
COLUMNS = ("all", "band", "empty", "in 1 s", "in 2 s", "mpjpe", "root", "vel")


class Watched(Pipeline):
    """A pipeline that keeps, per frame, its matte's alpha and sigma beside the true alpha in the same crop."""

    def watch(self, truth: list[np.ndarray]) -> None:
        self.truth, self.mattes = truth, []

    def _matted(self, seen, crop):
        out = super()._matted(seen, crop)
        true = crop_map(seen.frame.camera, crop).sample(self.truth[seen.frame.index])
        self.mattes.append((out.matted[1].alpha, out.matted[1].sigma, true))
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA")
    parser.add_argument("--methods", nargs="+", default=["difference", "network"])
    parser.add_argument("--spoil", nargs="+", default=["as made", *SPOILERS], choices=["as made", *SPOILERS])
    args = parser.parse_args()
    folders = evaluated_folders(args.data)
    print("| spoilt by | method | " + " | ".join(COLUMNS) + " |\n|---|---|" + "---|" * len(COLUMNS))
    for spoil in args.spoil:
        for method in args.methods:
            rows = [score(folder, spoil, method) for folder in folders]
            means = [np.mean([r[c] for r in rows]) for c in COLUMNS]
            cells = [f"{m:.1f}" if c in ("mpjpe", "root") else f"{m:.4f}" if c in ("all", "empty") else f"{m:.3f}"
                     for c, m in zip(COLUMNS, means, strict=True)]
            print(f"| {spoil} | {method} | " + " | ".join(cells) + " |", flush=True)


def score(folder: Path, spoil: str, method: str) -> dict[str, float]:
    """One sequence: alpha errors over all crops, and what the fit makes of them."""
    recording = sequence.read(folder)
    truth = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
             for p in sorted(folder.glob("alpha_*.png"))]
    frames, plate = SPOILERS[spoil](list(recording), recording.plate, truth) if spoil in SPOILERS else (
        list(recording), recording.plate)
    settings = Settings()
    pipeline = Watched(replace(settings, matting=replace(settings.matting, method=method)))
    pipeline.set_background(plate)
    pipeline.watch(truth)
    tracks = [sample_exposure(pipeline, pipeline.process(frame), 9) for frame in frames]
    gt = read_ground_truth(folder)
    fit = metrics.evaluate(np.stack([t.times for t in tracks]), lsp14(np.stack([t.positions for t in tracks])),
                           gt.times, gt.joints, gt.K)
    return alpha_errors(pipeline.mattes) | {k: float(fit[k]) for k in ("mpjpe", "root", "vel")}


def alpha_errors(mattes: list) -> dict[str, float]:
    alpha, sigma, true = (np.concatenate([m[i].ravel() for m in mattes]) for i in range(3))
    wrong, person = np.abs(alpha - true), true > 0.05
    band = person & (true < 0.95)
    return {"all": wrong.mean(), "band": wrong[band].mean(), "empty": wrong[~person].mean(),
            "in 1 s": (wrong < sigma)[person].mean(), "in 2 s": (wrong < 2 * sigma)[person].mean()}


# --------------------------------------------------------------------------------------------- what goes wrong


def shadow(frames: list[Frame], plate: np.ndarray, truth: list[np.ndarray]) -> tuple[list[Frame], np.ndarray]:
    """The silhouette laid flat from the feet, softer with distance, takes light from whatever is behind the person."""
    rng = np.random.default_rng(5)
    flat, lean, depth = rng.uniform(0.15, 0.35), rng.uniform(-1.2, 1.2), 0.55
    background, out = to_linear(plate), []
    for frame, alpha in zip(frames, truth, strict=True):
        rows = np.flatnonzero((alpha > 0.3).any(1))
        foot = float(rows.max()) if len(rows) else alpha.shape[0] - 1.0
        lay = np.array([[1, lean, -lean * foot], [0, flat, foot * (1 - flat)]])
        laid = cv2.GaussianBlur(cv2.warpAffine(alpha, lay, alpha.shape[::-1]), (0, 0), 6.0)
        taken = depth * laid * (1 - alpha)
        out.append(_with_light(frame, to_linear(frame.image) - taken[..., None] * background))
    return out, plate


def shift(frames: list[Frame], plate: np.ndarray, truth: list[np.ndarray]) -> tuple[list[Frame], np.ndarray]:
    """The plate is moved by SHIFT."""
    move = np.array([[1, 0, SHIFT[0]], [0, 1, SHIFT[1]]])
    return frames, cv2.warpAffine(plate, move, plate.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def drift(frames: list[Frame], plate: np.ndarray, truth: list[np.ndarray]) -> tuple[list[Frame], np.ndarray]:
    """Gains of the three colours swing over the sequence, each with its own phase."""
    out = []
    for i, frame in enumerate(frames):
        gain = 1 + 0.25 * np.sin(2 * np.pi * i / len(frames) + np.array([0.5, 0.8, 1.1]))
        out.append(_with_light(frame, to_linear(frame.image) * gain.astype(np.float32)))
    return out, plate


def everything(frames: list[Frame], plate: np.ndarray, truth: list[np.ndarray]) -> tuple[list[Frame], np.ndarray]:
    """Shadow, shift and drift."""
    for spoil in (shadow, shift, drift):
        frames, plate = spoil(frames, plate, truth)
    return frames, plate


def _with_light(frame: Frame, linear: np.ndarray) -> Frame:
    return replace(frame, image=to_codes(np.clip(linear, 0, 1).astype(np.float32)))


SPOILERS: dict[str, Callable] = {"shadow": shadow, "shift": shift, "drift": drift, "all": everything}

if __name__ == "__main__":
    main()
