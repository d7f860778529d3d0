"""Recorded input as a camera would deliver it: a sequence folder or a video -> timed frames. No ROS.

Sequence folder: `blur_NNN.jpg` (or .png), `meta.json`, optional `exposure.json` / `gt.npz` (only its exposures are
read) and `background.png`. Video: needs a calibration file; exposures from the frame rate and the duty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.exposure import sequence_exposures
from blur_motion_ros.camera.load import load_camera
from blur_motion_ros.types import Exposure

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True)
class Recording:
    """A recording: its camera, the exposure of every frame (s, from any origin), and its clean plate if it has one."""

    path: Path
    camera: Camera
    exposures: tuple[Exposure, ...]
    background: np.ndarray | None

    def images(self) -> Iterator[np.ndarray]:
        """RGB uint8 images [H, W, 3] in order, one per exposure."""
        return _folder_images(self.path) if self.path.is_dir() else _video_images(self.path)

    @property
    def period(self) -> float:
        """Median time between two frames, s."""
        opens = [e.open for e in self.exposures]
        return float(np.median(np.diff(opens))) if len(opens) > 1 else 1 / 30


def open_recording(path: str | Path, camera: str = "", background: str = "", duty: float = 0.9) -> Recording:
    """Open a sequence folder or a video. ValueError (one sentence) says what is missing."""
    path = Path(path)
    plate = _read(Path(background)) if background else None
    if path.is_dir():
        return _open_folder(path, camera, plate)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path, camera, plate, duty)
    raise ValueError(f"'{path}' is neither a sequence folder nor a video ({', '.join(VIDEO_SUFFIXES)})")


def _open_folder(path: Path, camera: str, plate: np.ndarray | None) -> Recording:
    files = _folder_files(path)
    if not files:
        raise ValueError(f"sequence folder '{path}' holds no blur_NNN.jpg or .png")
    exposures = sequence_exposures(path, len(files))
    if len(exposures) < len(files):
        raise ValueError(f"sequence folder '{path}' has {len(files)} images but {len(exposures)} exposures")
    own = path / "background.png"
    if plate is None and own.is_file():
        plate = _read(own)
    return Recording(path, load_camera(camera or path / "meta.json"), tuple(exposures[:len(files)]), plate)


def _open_video(path: Path, camera: str, plate: np.ndarray | None, duty: float) -> Recording:
    if not camera:
        raise ValueError(f"video '{path.name}' needs a calibration file (camera_info .yaml, meta.json or .toml)")
    capture = cv2.VideoCapture(str(path))
    count, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    capture.release()
    if count < 1 or rate <= 0:
        raise ValueError(f"video '{path.name}' cannot be decoded by OpenCV; convert it to H.264 in .mp4")
    model = load_camera(camera)
    if (model.width, model.height) != size:
        raise ValueError(f"video '{path.name}' is {size[0]}x{size[1]} but its calibration is for "
                         f"{model.width}x{model.height}")
    exposures = tuple(Exposure(i / rate, (i + duty) / rate) for i in range(count))
    return Recording(path, model, exposures, plate)


def _folder_files(path: Path) -> list[Path]:
    return sorted(p for p in path.glob("blur_*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _folder_images(path: Path) -> Iterator[np.ndarray]:
    for file in _folder_files(path):
        yield _read(file)


def _video_images(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            ok, image = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"image '{path}' cannot be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
