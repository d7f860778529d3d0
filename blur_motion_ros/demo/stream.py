"""A slow-shutter recording made of a sharp video: what a camera with a long exposure would have seen.

Between two video frames intermediate images are interpolated along optical flow (both directions), and the images of
one exposure are averaged in linear light, as a sensor does. The clean plate is the temporal median. Nothing here is
used by the method; it only makes its input.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blur_motion_ros import light
from blur_motion_ros.assets import asset
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.load import load_camera
from blur_motion_ros.data.sequence import VideoFile, write_sequence
from blur_motion_ros.types import Exposure


@dataclass(frozen=True)
class Shutter:
    """How the slow camera sees the video.

    frames: video frames per exposure period.  duty: open share of it.  steps: interpolated images per video frame.
    window: x, y, width, height cut from the video (px).  size: output width, height (px).
    """

    frames: int = 2
    duty: float = 0.9
    steps: int = 8
    window: tuple[int, int, int, int] = (170, 0, 1325, 994)
    size: tuple[int, int] = (640, 480)


def demo_sequence(folder: Path, seconds: float, shutter: Shutter, say: Callable[[str], None] = lambda text: None
                  ) -> Path:
    """`make_sequence` of the demo clip, once: a folder that is complete is left as it is."""
    done = folder / "complete"
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        make_sequence(asset("demo.mp4"), asset("Calib_demo.toml"), folder, seconds, shutter, say)
        done.touch()
    return folder


def slow_camera(calibration: Path, shutter: Shutter) -> Camera:
    """The video's camera, as the slow one sees through it."""
    return load_camera(calibration).window(*shutter.window).scaled(*shutter.size)


def make_sequence(video: Path, calibration: Path, folder: Path, seconds: float, shutter: Shutter,
                  say: Callable[[str], None]) -> Path:
    """Write the sequence folder of the first `seconds` of `video` (0: all of it) and return it."""
    source = VideoFile(video)
    camera = slow_camera(calibration, shutter)
    count = len(source) if seconds <= 0 else min(len(source), round(seconds * source.fps))
    say(f"clean plate of {video.name}")
    plate = clean_plate(source, shutter)
    periods = (count - 1) // shutter.frames
    images = _told(blurred(source, shutter, periods), periods, say)
    exposures, meta = timing(source, shutter, periods)
    return write_sequence(folder, images, camera, exposures, plate, meta={"source": video.name} | meta)


def timing(source: VideoFile, shutter: Shutter, periods: int) -> tuple[list[Exposure], dict[str, float]]:
    """When the slow camera's shutter is open, and what meta.json says of it."""
    period = shutter.frames / source.fps
    exposures = [Exposure(i * period, (i + shutter.duty) * period) for i in range(periods)]
    return exposures, {"fps": 1 / period, "duty": shutter.duty, "exposure_s": shutter.duty * period}


def blurred(source: VideoFile, shutter: Shutter, periods: int) -> Iterator[np.ndarray]:
    """The blurred images [H, W, 3] uint8 RGB: each the linear mean of the interpolated images while open."""
    per_period = shutter.frames * shutter.steps
    is_open = (np.arange(per_period) + 0.5) / per_period < shutter.duty
    total, weight, step = None, 0, 0
    for image in interpolated(source, shutter):
        if is_open[step % per_period]:
            total = image.copy() if total is None else total + image
            weight += 1
        step += 1
        if step % per_period == 0:
            yield light.to_codes(total / weight)
            total, weight = None, 0
            if step == periods * per_period:
                return


def interpolated(source: VideoFile, shutter: Shutter) -> Iterator[np.ndarray]:
    """Linear-light images [H, W, 3] float32, `steps` per video frame, at the middle of each step."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before = None
    for image in source:
        now = _view(image, shutter)
        if before is not None:
            yield from _between(before, now, flow, shutter.steps)
        before = now


def _between(a: np.ndarray, b: np.ndarray, flow: cv2.DISOpticalFlow, steps: int) -> Iterator[np.ndarray]:
    """Images between uint8 images a (t = 0) and b (t = 1): both warped to t along flow, mixed by nearness in time.

    Flow at t from the flows between the ends as in Super SloMo (Jiang et al. 2018, eq. 4).
    """
    grey_a, grey_b = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (a, b))
    forward, backward = flow.calc(grey_a, grey_b, None), flow.calc(grey_b, grey_a, None)
    la, lb = light.to_linear(a), light.to_linear(b)
    y, x = np.mgrid[:a.shape[0], :a.shape[1]].astype(np.float32)
    grid = np.stack([x, y], -1)
    for k in range(steps):
        t = np.float32((k + 0.5) / steps)
        to_a = grid + t * (t * backward - (1 - t) * forward)
        to_b = grid + (1 - t) * ((1 - t) * forward - t * backward)
        yield (1 - t) * _warp(la, to_a) + t * _warp(lb, to_b)


def views(source: VideoFile, shutter: Shutter) -> Iterator[np.ndarray]:
    """The video's own images [H, W, 3] uint8 RGB as the slow camera would see them with a short exposure."""
    return (_view(image, shutter) for image in source)


def clean_plate(source: VideoFile, shutter: Shutter, every: int = 6) -> np.ndarray:
    """The scene without people [H, W, 3] uint8 RGB: the temporal median, as nobody covers a pixel half of the time."""
    stack = np.stack([_view(image, shutter) for i, image in enumerate(source) if i % every == 0])
    return np.median(stack, axis=0).astype(np.uint8)


def _view(image: np.ndarray, shutter: Shutter) -> np.ndarray:
    x, y, w, h = shutter.window
    return cv2.resize(image[y:y + h, x:x + w], shutter.size, interpolation=cv2.INTER_AREA)


def _warp(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _told(images: Iterator[np.ndarray], count: int, say: Callable[[str], None]) -> Iterator[np.ndarray]:
    for i, image in enumerate(images, 1):
        if i % 15 == 0 or i == count:
            say(f"blurred frame {i} of {count}")
        yield image
