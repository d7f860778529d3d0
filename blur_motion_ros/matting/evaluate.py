"""Mattes of sequences with true alpha, scored: `python -m blur_motion_ros.matting.evaluate --data FOLDER`.

FOLDER holds sequence folders with blur_NNN.jpg, background.png, meta.json and alpha_NNN.png (docs/data.md). Every
frame goes through the live path: plate matched to the frame, pose network's mask, undistorted crop, matte.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros import light
from blur_motion_ros.background import BackgroundModel
from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.camera.load import load_camera
from blur_motion_ros.camera.sampling import CropMap, crop_map
from blur_motion_ros.matting import Matter, MattingSettings, make_matter
from blur_motion_ros.types import Landmarks, Matte


@dataclass(frozen=True)
class Scored:
    """One frame's crop: image [S, S, 3] linear, network mask, matte, true alpha [S, S]; seconds the matte took."""

    image: np.ndarray
    mask: np.ndarray
    matte: Matte
    truth: np.ndarray
    seconds: float


def matte_sequence(folder: Path, matter: Matter, tracker, size: int) -> list[Scored]:
    """All frames of a sequence in which `tracker` (initialiser.person.PersonTracker) finds the person."""
    camera, background = load_camera(folder / "meta.json"), BackgroundModel()
    background.set_plate(_rgb(folder / "background.png"))
    scored = []
    for path in sorted(folder.glob("blur_*")):
        image = _rgb(path)
        person, plate = tracker.track(image), background.plate(image)
        background.update(image, person)
        if person is not None:
            box = camera.undistorted_pixels(person.box.reshape(2, 2))
            where = crop_map(camera, Crop.around(camera, box.mean(0), 1.35 * np.ptp(box, axis=0).max(), size))
            truth = cv2.imread(str(folder / f"alpha_{path.stem[5:]}.png"), cv2.IMREAD_GRAYSCALE)
            scored.append(_score(where, image, plate, person, truth, matter))
    return scored


def table_row(frames: list[Scored]) -> dict[str, float]:
    """Mean absolute errors of alpha (all, blur band, opaque, empty), bias in the band, calibration, milliseconds."""
    truth = np.concatenate([f.truth.ravel() for f in frames])
    alpha = np.concatenate([f.matte.alpha.ravel() for f in frames])
    z = np.abs(alpha - truth) / np.concatenate([f.matte.sigma.ravel() for f in frames])
    error, band = np.abs(alpha - truth), (truth > 0.05) & (truth < 0.95)
    mask = np.abs(np.concatenate([f.mask.ravel() for f in frames]) - truth)
    person = truth > 0.05
    return {"all": error.mean(), "band": error[band].mean(), "bias": (alpha - truth)[band].mean(),
            "opaque": error[truth >= 0.95].mean(), "empty": error[truth <= 0.05].mean(),
            "mask all": mask.mean(), "mask band": mask[band].mean(), "in 1 sigma": (z[person] < 1).mean(),
            "in 2 sigma": (z[person] < 2).mean(), "ms": 1e3 * float(np.median([f.seconds for f in frames]))}


def montage(frames: list[Scored]) -> np.ndarray:
    """Rows of image, network mask, true alpha, alpha, error, sigma: uint8 RGB."""
    rows = []
    for f in frames:
        grey = [f.mask, f.truth, f.matte.alpha, np.abs(f.matte.alpha - f.truth), f.matte.sigma]
        grey = [np.repeat((np.clip(v, 0, 1) * 255).astype(np.uint8)[..., None], 3, 2) for v in grey]
        rows.append(np.hstack([light.to_codes(f.image), *grey]))
    return np.vstack(rows)


def _score(where: CropMap, image: np.ndarray, plate, person: Landmarks, truth: np.ndarray, matter: Matter) -> Scored:
    view, mask = where.sample(image), where.sample_affine(person.mask, person.mask_to_image)
    background, sigma = where.sample(plate.image), where.sample(plate.sigma)
    start = time.process_time()
    matte = matter.matte(view, background, sigma, mask)
    seconds = time.process_time() - start
    return Scored(view, mask, matte, where.sample((truth / 255).astype(np.float32)), seconds)


def _rgb(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} cannot be read as an image")
    return np.ascontiguousarray(image[..., ::-1])


def main() -> None:
    """Command line: print the table, optionally write a montage."""
    from blur_motion_ros.initialiser.blazepose import BlazePose
    from blur_motion_ros.initialiser.person import PersonTracker

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of sequence folders")
    parser.add_argument("--size", type=int, default=128, help="crop side, px")
    parser.add_argument("--montage", type=Path, help="write images here (.png or .jpg)")
    parser.add_argument("--method", default="difference", help="setting matting.method: difference, network or fused")
    parser.add_argument("--model", default="", help="setting matting.model: network file instead of the package's own")
    options = parser.parse_args()
    settings = MattingSettings(method=options.method, model=options.model)
    matter, networks = make_matter(settings), BlazePose.pretrained()
    shown, everything = [], []
    for folder in sorted(p.parent for p in options.data.glob("*/meta.json")):
        frames = matte_sequence(folder, matter, PersonTracker(networks), options.size)
        shown += frames[2::7]
        everything += frames
        print(folder.name, *(f"{k} {v:.4f}" for k, v in table_row(frames).items()), sep="  ")
    print("together", *(f"{k} {v:.4f}" for k, v in table_row(everything).items()), sep="  ")
    if options.montage:
        cv2.imwrite(str(options.montage), montage(shown)[..., ::-1])


if __name__ == "__main__":
    main()
