"""The texture of a fitted recording, from its frames and motion, and the files that show it: image, map, mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blur_motion_ros.body import BodyModel
from blur_motion_ros.body.obj import write_obj
from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.texels import TexelGrid
from blur_motion_ros.fit.texture import TexelView, Texture, draw_view, solve_texture
from blur_motion_ros.light import to_codes, to_linear
from blur_motion_ros.matting import Matter
from blur_motion_ros.types import Frame, MotionEstimate, Status

if TYPE_CHECKING:
    from blur_motion_ros.data.sequence import Sequence as Recording

VIEW = 256  # px: side of the picture of the person that texels are solved from
_UNUSABLE = Status.LOST | Status.PREDICTED | Status.NO_BACKGROUND | Status.POOR_FIT


@dataclass(frozen=True)
class TexturedBody:
    """A body (with a texture layout) as it is fitted: shape and cloth thickness applied per motion."""

    model: BodyModel
    mean: FitBody
    inflation: float

    @staticmethod
    def of(model: BodyModel, inflation: float = 0.0) -> TexturedBody:
        """model: with texture coordinates (`texture_layout.textured`); inflation: m, as in `FitSettings`."""
        mean = FitBody.of(model.rest_vertices(), model.rest_joints(), model.weights, model.parents, model.faces)
        return TexturedBody(model, mean, inflation)

    def shaped(self, betas: np.ndarray) -> FitBody:
        """The body with a shape [10]."""
        return self.mean.reshaped(self.model.rest_vertices(betas), self.model.rest_joints(betas), self.inflation)

    def vertices(self, estimate: MotionEstimate, times: np.ndarray) -> np.ndarray:
        """[T, V, 3] float32 m, camera frame."""
        from blur_motion_ros.trajectory import pose_at

        return pose_at(estimate, self.shaped(estimate.reference.betas), np.asarray(times)).vertices


def chosen(estimates: Sequence[MotionEstimate], most: int) -> list[int]:
    """Indices of at most `most` exposures fit for colouring, spread over the recording.

    A poor fit is only used where there is nothing better. Empty when the person was never found.
    """
    good = [i for i, e in enumerate(estimates) if not e.status & _UNUSABLE]
    good = good or [i for i, e in enumerate(estimates) if not e.status & (Status.LOST | Status.NO_BACKGROUND)]
    if len(good) <= most:
        return good
    return [good[i] for i in np.unique(np.linspace(0, len(good) - 1, most).round().astype(int))]


def exposure_view(grid: TexelGrid, body: TexturedBody, estimate: MotionEstimate, frame: Frame, plate: np.ndarray,
                  matter: Matter, subframes: int, response: str = "srgb") -> TexelView | None:
    """Equations of one exposure; None where the body is not in front of the camera. plate [H, W, 3] uint8."""
    cells = (np.arange(subframes) + 0.5) / subframes
    vertices = body.vertices(estimate, frame.exposure.open + cells * frame.exposure.duration)
    if not np.isfinite(vertices).all() or vertices[..., 2].min() < 0.2:
        return None
    crop = Crop.holding(frame.camera, vertices, 1.3, VIEW)
    sampler = crop_map(frame.camera, crop)
    image, behind = sampler.sample(frame.image, response), sampler.sample(plate, response)
    alpha = matter.matte(image, behind).alpha
    value = np.concatenate([image - behind, alpha[..., None]], -1)[None]
    weight = np.repeat(sampler.valid[None, ..., None], 4, -1).astype(np.float32)
    target = Target(value, weight, behind[None], crop.K)
    return draw_view(grid, body.mean, vertices, target)


def texture_of(recording: Recording, estimates: Sequence[MotionEstimate], body: TexturedBody, plate: np.ndarray,
               matter: Matter, settings: FitSettings) -> tuple[Texture, int]:
    """Texture of a fitted recording, and the index of the exposure in its middle. ValueError if nobody was found.

    estimates: one per frame (what `motion.npz` holds; `fit_command.load`).  plate [H, W, 3] uint8: the empty scene.
    """
    use = chosen(estimates, settings.texture_frames)
    grid = TexelGrid.of(body.model.uv, body.model.uv_faces, settings.texture_size)
    views = [exposure_view(grid, body, estimates[i], recording[i], plate, matter, 2 * settings.subframes,
                           recording.response) for i in use]
    seen = [v for v in views if v is not None and v.rows.nnz]
    if not seen:
        raise ValueError("texture: the person was not found in any exposure in front of a known background")
    texture = solve_texture(grid, body.mean, seen, body.model.v_template, settings.texture_smoothness)
    return texture, use[len(use) // 2]


def write_texture(folder: str | Path, texture: Texture, body: TexturedBody, vertices: np.ndarray) -> None:
    """texture.png (sRGB), visible.png (`texture.SEEN`, `MIRRORED`, `FILLED`, `OUTSIDE`), body.obj and body.mtl.

    vertices [V, 3] m in the camera frame; the OBJ has y up and the camera looking along -z, as viewers expect.
    """
    from blur_motion_ros.data.sequence import write_image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / "texture.png", to_codes(texture.image))
    write_image(folder / "visible.png", texture.origin)
    write_obj(folder / "body.obj", vertices * [1.0, -1.0, -1.0], body.model.faces, body.model.uv, body.model.uv_faces)


def read_texture(folder: str | Path) -> Texture:
    """What `write_texture` wrote (8 bits per channel)."""
    import cv2

    from blur_motion_ros.data.sequence import SequenceError, read_image

    image = to_linear(read_image(Path(folder) / "texture.png"))
    origin = cv2.imread(str(Path(folder) / "visible.png"), cv2.IMREAD_GRAYSCALE)
    if origin is None or origin.shape != image.shape[:2]:
        raise SequenceError(f"{folder}: visible.png is missing or has not the size of texture.png")
    return Texture(image, origin)
