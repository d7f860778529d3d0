"""The fitted motion rendered again as a blurred picture, to be compared with what the camera saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera, Crop
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.evaluation.images import psnr, soft_iou
from blur_motion_ros.render import raster
from blur_motion_ros.types import Frame, MotionEstimate

if TYPE_CHECKING:
    from blur_motion_ros.pipeline import Pipeline

INSTANTS = 16  # sub-frames: more than any fit uses, so that the number does not reward its own discretisation


@dataclass(frozen=True)
class Rerendered:
    """alpha [S, S]: average silhouette in the view `K` [3, 3]; psnr dB of the blurred picture where either body is."""

    alpha: np.ndarray
    K: np.ndarray
    psnr: float


def rerender(pipeline: Pipeline, estimate: MotionEstimate, frame: Frame, plate: np.ndarray,
             size: int = 128) -> Rerendered | None:
    """Draw the newest exposure of `estimate` with the fit's vertex colours over `plate` [H, W, 3] uint8.

    None where there is no body.
    """
    from blur_motion_ros.trajectory import pose_at

    cells = (np.arange(INSTANTS) + 0.5) / INSTANTS
    times = frame.exposure.open + cells * frame.exposure.duration
    vertices = np.asarray(pose_at(estimate, pipeline.skeleton, times).vertices, np.float32)
    if not np.isfinite(vertices).all() or vertices[..., 2].min() < 0.2:
        return None
    crop = Crop.holding(frame.camera, vertices, 1.5, size)
    drawn = raster.SubFrames.allocate(INSTANTS, size)
    raster.draw(vertices, pipeline.skeleton.faces, pipeline.colours, crop.K, drawn)
    alpha = drawn.alpha.mean(0)
    response = pipeline.settings.camera.response
    view = crop_map(frame.camera, crop)
    image, behind = view.sample(frame.image, response), view.sample(plate, response)
    made = drawn.colour.mean(0) + (1 - alpha[..., None]) * behind
    where = (alpha > 0.05) | (np.abs(image - behind).max(-1) > 0.1)
    return Rerendered(alpha, crop.K, psnr(made, image, where))


def alpha_agreement(alphas: np.ndarray, Ks: np.ndarray, folder: Path, camera: Camera) -> np.ndarray:
    """[F] soft IoU of rendered average silhouettes [F, S, S] in views Ks [F, 3, 3] with alpha_NNN.png of a sequence;
    NaN where either is missing. Only inside the view: it holds the whole rendered body and half of it again."""
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    out = np.full(len(alphas), np.nan)
    for i, (alpha, K) in enumerate(zip(alphas, Ks, strict=True)):
        path = folder / f"alpha_{i:03d}.png"
        if not path.is_file() or not np.isfinite(K).all():
            continue
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        crop = Crop(K, alpha.shape[0])
        out[i] = soft_iou(alpha, crop_map(camera, crop).sample_affine(truth.astype(np.float32) / 255, identity))
    return out
