"""Pictures of a fitted motion: the body at shutter opening and closing, the speed-coloured skeleton, sub-frame trails.

Everything is drawn in a `View`: a window of the camera image, enlarged. Colours are RGB uint8. What an estimate itself
distrusts (`types.DISTRUSTED`) is grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blur_motion_ros.body.joints import SMPL24_BONES
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.messages.diagnostics import flag_names
from blur_motion_ros.messages.markers import speed_colour
from blur_motion_ros.types import DISTRUSTED, Status

OPEN_COLOUR, CLOSE_COLOUR = (70, 200, 235), (250, 150, 50)
DOUBT_COLOUR = (150, 150, 150)
TOP_SPEED = 6.0  # m/s at the last colour of the bar
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions


@dataclass(frozen=True)
class Shown:
    """What is known of one exposure.

    joints: [S, 24, 3] m over the exposure (first = opening, last = closing), or None when nobody was found.
    speeds: [S, 24] m/s.  meshes: vertices [V, 3] at opening and closing, or None.  faces: [F, 3].
    """

    joints: np.ndarray | None
    speeds: np.ndarray | None
    meshes: tuple[np.ndarray, np.ndarray] | None
    faces: np.ndarray | None
    status: Status
    time: float

    @property
    def trusted(self) -> bool:
        """Whether there is a body that the estimate itself stands for."""
        return self.joints is not None and not self.status & DISTRUSTED

    def colours(self, speeds: np.ndarray) -> np.ndarray:
        """Speeds [...] m/s -> RGB [..., 3] in [0, 255]."""
        if not self.trusted:
            return np.broadcast_to(np.array(DOUBT_COLOUR, float), np.shape(speeds) + (3,))
        return 255 * speed_colour(speeds, TOP_SPEED)


@dataclass(frozen=True)
class View:
    """A window x, y, width, height of the image, shown at `size` (width, height)."""

    window: tuple[int, int, int, int]
    size: tuple[int, int]

    @staticmethod
    def whole(camera: Camera, width: int = 960) -> View:
        height = 2 * round(width * camera.height / camera.width / 2)
        return View((0, 0, camera.width, camera.height), (width, height))

    @staticmethod
    def around(camera: Camera, points: np.ndarray, size: tuple[int, int], margin: float = 0.25) -> View:
        """A view of camera-frame `points` [..., 3] with the aspect of `size`, inside the image."""
        pixels = camera.project(points.reshape(-1, 3))
        low, high = np.nanmin(pixels, 0), np.nanmax(pixels, 0)
        scale = max((high[0] - low[0]) / size[0], (high[1] - low[1]) / size[1]) * (1 + 2 * margin)
        scale = min(max(scale, 32 / size[0]), camera.width / size[0], camera.height / size[1])
        w, h = int(scale * size[0]), int(scale * size[1])
        x, y = (int(np.clip(c - n / 2, 0, limit - n)) for c, n, limit in
                zip((low + high) / 2, (w, h), (camera.width, camera.height), strict=True))
        return View((x, y, w, h), size)

    def image(self, image: np.ndarray) -> np.ndarray:
        x, y, w, h = self.window
        return cv2.resize(image[y:y + h, x:x + w], self.size, interpolation=cv2.INTER_CUBIC)

    def camera(self, camera: Camera) -> Camera:
        return camera.window(*self.window).scaled(*self.size)


def draw_meshes(image: np.ndarray, camera: Camera, shown: Shown, opacity: float = 0.55) -> np.ndarray:
    """The body at opening (blue) and closing (orange; grey where distrusted), half transparent over `image` (already in
    `camera`'s view)."""
    if shown.meshes is None:
        return image
    colours = (OPEN_COLOUR, CLOSE_COLOUR) if shown.trusted else (DOUBT_COLOUR, DOUBT_COLOUR)
    for vertices, colour in zip(shown.meshes, colours, strict=True):
        layer = image.copy()
        _paint(layer, camera, vertices, shown.faces, colour)
        image = cv2.addWeighted(layer, opacity, image, 1 - opacity, 0)
    return image


def draw_skeleton(image: np.ndarray, camera: Camera, shown: Shown, thickness: int = 3) -> np.ndarray:
    """Bones at closing, coloured by the speeds of their ends."""
    image = image.copy()
    pixels, colours = camera.project(shown.joints[-1]), shown.colours(shown.speeds[-1])
    for parent, joint in SMPL24_BONES:
        _line(image, pixels[[parent, joint]], colours[[parent, joint]].mean(0), thickness)
    for p, c in zip(pixels, colours, strict=True):
        if np.isfinite(p).all():
            cv2.circle(image, _fixed(p), (thickness + 1) << _SHIFT, c.tolist(), -1, cv2.LINE_AA, _SHIFT)
    return image


def draw_trails(image: np.ndarray, camera: Camera, trail: Sequence[Shown], thickness: int = 2) -> np.ndarray:
    """Paths of head, hands and feet through the exposures of `trail`, sub-frame by sub-frame, coloured by speed."""
    image = image.copy()
    for shown in trail:
        if shown.joints is None:
            continue
        for j in (15, 22, 23, 10, 11):
            pixels = camera.project(shown.joints[:, j])
            colours = shown.colours(shown.speeds[:, j])
            for a in range(len(pixels) - 1):
                _line(image, pixels[a:a + 2], colours[a], thickness)
    return image


def draw_speed_bar(image: np.ndarray) -> np.ndarray:
    """A colour bar in m/s at the right edge."""
    image = image.copy()
    height, width = image.shape[:2]
    top, bottom, x = round(0.2 * height), round(0.8 * height), width - 26
    rows = np.linspace(TOP_SPEED, 0, bottom - top)
    image[top:bottom, x:x + 12] = np.rint(255 * speed_colour(rows, TOP_SPEED))[:, None].astype(np.uint8)
    for speed in range(0, int(TOP_SPEED) + 1, 2):
        y = round(bottom - (bottom - top) * speed / TOP_SPEED)
        draw_text(image, f"{speed}", (x - 14, y + 4), 0.45)
    draw_text(image, "m/s", (x - 14, top - 12), 0.45)
    return image


def draw_text(image: np.ndarray, text: str, at: tuple[int, int], size: float = 0.5) -> None:
    """White text with a dark shadow, drawn in place."""
    for colour, shift in (((20, 20, 20), 1), ((255, 255, 255), 0)):
        cv2.putText(image, text, (at[0] + shift, at[1] + shift), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def frame_picture(image: np.ndarray, camera: Camera, trail: Sequence[Shown], view: View, label: str = "") -> np.ndarray:
    """One frame of the overlay video; the last of `trail` is what is shown in full."""
    shown = trail[-1]
    small, out = view.camera(camera), view.image(image)
    out = draw_meshes(out, small, shown, 0.35)
    out = draw_trails(out, small, trail)
    if shown.joints is not None:
        out = draw_skeleton(out, small, shown)
    out = draw_speed_bar(out)
    draw_text(out, f"{shown.time:6.2f} s  {flag_names(shown.status)}  {label}", (10, 22))
    draw_text(out, "body at shutter open: blue, close: orange; grey: not trusted", (10, out.shape[0] - 12), 0.45)
    return out


def contact_sheet(rows: Iterable[tuple[np.ndarray, Camera, Shown]], cell: tuple[int, int] = (420, 420)) -> np.ndarray:
    """Rows of blurred input | body at opening and closing | speed-coloured skeleton with sub-frame trails."""
    pictures = [_sheet_row(image, camera, shown, cell) for image, camera, shown in rows]
    if not pictures:
        raise ValueError("contact sheet: no frame with a body to show")
    head = np.full((34, pictures[0].shape[1], 3), 30, np.uint8)
    titles = ("blurred input", "body at opening (blue), closing (orange)", "skeleton by speed, sub-frame trails")
    for i, title in enumerate(titles):
        draw_text(head, title, (i * cell[0] + 10, 23), min(0.5, cell[0] / 750))
    return np.vstack([head, *pictures])


def write_video(path: str | Path, pictures: Iterable[np.ndarray], rate: float) -> None:
    """RGB pictures of one even size -> H.264 in .mp4 (MPEG-4 where the encoder is missing)."""
    import av

    with av.open(str(path), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
        for i, picture in enumerate(pictures):
            if i == 0:
                stream.height, stream.width = picture.shape[:2]
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_overlay(path: str | Path, recording: Any, estimates: Sequence[Any], pipeline: Any, samples: int = 9) -> None:
    """Overlay video of an offline fit: `recording` (data.sequence), its estimates, and the pipeline that made them."""
    exposures = recording.exposures
    rate = (len(exposures) - 1) / (exposures[-1].open - exposures[0].open) if len(exposures) > 1 else 30.0
    shown = [show(pipeline, e, samples) for e in estimates]
    view = View.whole(recording.camera)
    write_video(path, _overlay_pictures(recording, shown, view), rate)


def show(pipeline: Any, estimate: Any, samples: int = 9) -> Shown:
    """What is to be drawn of one estimate."""
    from blur_motion_ros.trajectory import sample

    exposure = estimate.exposures[-1]
    if Status.LOST in estimate.status:
        return Shown(None, None, None, None, estimate.status, exposure.open)
    trajectory = sample(estimate, pipeline.skeleton, np.linspace(exposure.open, exposure.close, samples))
    meshes = tuple(pipeline.mesh(estimate, t) for t in (exposure.open, exposure.close))
    return Shown(trajectory.positions, np.linalg.norm(trajectory.linear_velocity, axis=-1), meshes,
                 pipeline.skeleton.faces, estimate.status, exposure.open)


def _overlay_pictures(recording: Any, shown: Sequence[Shown], view: View, trail: int = 6) -> Iterator[np.ndarray]:
    for frame in recording:
        start = max(0, frame.index - trail + 1)
        yield frame_picture(frame.image, recording.camera, shown[start:frame.index + 1], view)


def _sheet_row(image: np.ndarray, camera: Camera, shown: Shown, cell: tuple[int, int]) -> np.ndarray:
    view = View.around(camera, shown.joints, cell)
    small, plain = view.camera(camera), view.image(image)
    skeleton = draw_trails(plain, small, [shown], 3)
    skeleton = draw_speed_bar(draw_skeleton(skeleton, small, shown, 4))
    first = plain.copy()
    draw_text(first, f"{shown.time:.2f} s  {flag_names(shown.status)}", (10, 22))
    return np.hstack([first, draw_meshes(plain, small, shown), skeleton])


def _paint(image: np.ndarray, camera: Camera, vertices: np.ndarray, faces: np.ndarray, colour: tuple) -> None:
    """Draw a closed mesh back to front with a head light, in place."""
    pixels = camera.project(vertices)
    corners = np.asarray(vertices, np.float64)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = corners.mean(1)
    facing = -np.einsum("fi,fi->f", normal, centre) / np.maximum(
        np.linalg.norm(normal, axis=1) * np.linalg.norm(centre, axis=1), 1e-12)
    visible = np.flatnonzero((np.abs(facing) > 1e-3) & np.isfinite(pixels[faces]).all((1, 2)))
    order = visible[np.argsort(-centre[visible, 2])]
    fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
    for f in order:
        shade = 0.35 + 0.65 * abs(facing[f])
        cv2.fillConvexPoly(image, fixed[faces[f]], [shade * c for c in colour], cv2.LINE_8, _SHIFT)


def _line(image: np.ndarray, ends: np.ndarray, colour: np.ndarray, thickness: int) -> None:
    if np.isfinite(ends).all() and np.abs(ends).max() < 20000:
        cv2.line(image, _fixed(ends[0]), _fixed(ends[1]), np.asarray(colour).tolist(), thickness, cv2.LINE_AA, _SHIFT)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    return int(round(point[0] * (1 << _SHIFT))), int(round(point[1] * (1 << _SHIFT)))
