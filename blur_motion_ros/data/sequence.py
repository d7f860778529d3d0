"""Blurred sequences on disk: a folder of frames, or a video with its calibration.

Folder layout (docs/data.md): `blur_NNN.jpg` or `.png`, `background.png` (clean plate), `meta.json` (camera) and the
exposures. This module reads *inputs* only: of `gt.npz` it opens the key 'exposure' and nothing else, and with
`use_gt=False` not even that. Ground truth is read by `evaluation.ground_truth`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.camera.exposure import checked_exposures, read_exposures
from blur_motion_ros.camera.load import camera_from_meta, load_camera
from blur_motion_ros.types import Exposure, Frame

PLATE_NAMES = ("background.png", "background.jpg")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg")


class SequenceError(ValueError):
    """A sequence is incomplete or inconsistent. The message names the file or field and the fix."""


class Images(Protocol):
    """Frames in order, each [H, W, 3] uint8 RGB, loaded when asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> np.ndarray: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class Sequence:
    """A blurred recording: what the method may see, and the path of its ground truth if it has one.

    exposures: one per frame.  plate: [H, W, 3] uint8 RGB clean background, or None; known: [H, W] bool, where it is
    (None: everywhere).  response: camera response (`light`).  ground_truth: path of gt.npz, never opened here for more
    than exposures.  meta: meta.json as read.
    """

    name: str
    camera: Camera
    exposures: tuple[Exposure, ...]
    images: Images
    plate: np.ndarray | None = None
    response: str = "srgb"
    ground_truth: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    known: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.exposures)

    def __getitem__(self, index: int) -> Frame:
        """One frame (of a video: found by seeking; to go through it, iterate)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {self.name}: it has {len(self)} frames")
        index %= len(self)
        return self._frame(index, self.images[index])

    def __iter__(self) -> Iterator[Frame]:
        for index, image in zip(range(len(self)), self.images):  # noqa: B905 (a video may hold more than was asked)
            yield self._frame(index, image)

    def _frame(self, index: int, image: np.ndarray) -> Frame:
        if image.shape[:2] != (self.camera.height, self.camera.width):
            raise SequenceError(f"{self.name}: frame {index} is {image.shape[1]} x {image.shape[0]}, the camera"
                                f" {self.camera.width} x {self.camera.height}; use the calibration of this resolution")
        return Frame(image, self.exposures[index], self.camera, index)


def backwards(recording: Sequence) -> tuple[Sequence, float]:
    """The recording played backwards, and the time that it is mirrored about, doubled: what was at t is at that - t."""
    total = recording.exposures[0].open + recording.exposures[-1].close
    exposures = tuple(Exposure(total - e.close, total - e.open) for e in recording.exposures[::-1])
    return replace(recording, exposures=exposures, images=_Backwards(recording.images, len(recording))), total


class _Backwards:
    """The first `count` images from the last to the first; decoded in runs, because a video only plays forwards."""

    def __init__(self, images: Images, count: int, run: int = 32):
        self._images, self._count, self._run = images, count, run

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[self._count - 1 - index]

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in reversed(range(0, self._count, self._run)):
            stop = min(start + self._run, self._count)
            if isinstance(self._images, VideoFile):
                run = list(self._images.between(start, stop))
            else:
                run = [self._images[i] for i in range(start, stop)]
            yield from reversed(run)


def read(path: str | Path, camera: str | Path | Camera | None = None, background: str | Path | None = None,
         exposure: float | str | Path | None = None, use_gt: bool = True) -> Sequence:
    """A sequence folder, or a video file with `camera`, `background` and `exposure` (see `read_video`)."""
    path = Path(path)
    if path.is_dir():
        return read_sequence(path, use_gt)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise SequenceError(f"{path} is neither a sequence folder nor a video ({', '.join(VIDEO_SUFFIXES)})")
    if camera is None:
        raise SequenceError(f"{path.name} is a video and needs its calibration; pass --camera FILE (or, where there is"
                            " none, --fov DEGREES, a guess of what it sees across the longer side)")
    return read_video(path, camera, background, exposure)


def read_sequence(folder: str | Path, use_gt: bool = True) -> Sequence:
    """Read a sequence folder lazily. use_gt: exposures may come from gt.npz['exposure'] (else exposure.json).

    Without either file the nominal timing of meta.json ('fps' and 'exposure_s') is used. SequenceError names what
    is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SequenceError(f"sequence folder {folder} does not exist")
    meta = _read_meta(folder)
    paths = frame_paths(folder)
    camera = camera_from_meta(meta, source=f"{folder.name}/meta.json")
    exposures = _exposures(folder, meta, len(paths), use_gt)
    if len(exposures) != len(paths):
        raise SequenceError(f"{folder.name}: {len(paths)} blurred frames but {len(exposures)} exposures;"
                            " give one [open, close] per frame")
    truth = folder / "gt.npz"
    return Sequence(folder.name, camera, exposures, ImageFiles(tuple(paths)), _read_plate(folder, camera),
                    str(meta.get("response", "srgb")), truth if truth.is_file() else None, meta)


def read_video(path: str | Path, camera: str | Path | Camera, background: str | Path | None = None,
               exposure: float | str | Path | None = None) -> Sequence:
    """Read a video lazily.

    camera: a `Camera` or its file.  background: image of the empty scene, or None (then it must be estimated).
    exposure: seconds that the shutter is open in every frame (None: 0.9 of the period), or a JSON list of
    [open, close] s.  Frame i opens at i / fps.
    """
    path = Path(path)
    images = VideoFile(path)
    camera = camera if isinstance(camera, Camera) else load_camera(camera)
    if isinstance(exposure, (str, Path)) and not _is_number(exposure):
        exposures = tuple(read_exposures(exposure))
    else:
        duration = 0.9 / images.fps if exposure is None else float(exposure)
        if not 0 < duration <= 1.001 / images.fps:
            raise SequenceError(f"exposure is {duration:g} s; it must be positive and at most the frame period"
                                f" {1 / images.fps:.4f} s")
        exposures = tuple(Exposure(i / images.fps, i / images.fps + duration) for i in range(len(images)))
    plate = None if background is None else read_image(background)
    if plate is not None:
        _check_plate(plate, camera, str(background))
    return Sequence(path.stem, camera, exposures, images, plate, meta={"fps": images.fps})


def guessed_camera(video: str | Path, degrees: float) -> Camera:
    """`Camera.of_field` of a video's size."""
    first = next(iter(VideoFile(Path(video))))
    return Camera.of_field(first.shape[1], first.shape[0], degrees)


def write_sequence(folder: str | Path, images: Iterable[np.ndarray], camera: Camera, exposures: Iterable[Exposure],
                   plate: np.ndarray | None = None, *, meta: dict[str, Any] | None = None, quality: int = 95,
                   gt: dict[str, np.ndarray] | None = None) -> Path:
    """Write a sequence folder that `read_sequence` reads back.

    images, plate: uint8 RGB.  quality: of the JPEG frames; 0 writes PNG.  gt: arrays of gt.npz ('exposure' is
    added); without it exposure.json holds the exposures.  Returns the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for image in images:
        suffix = "jpg" if quality else "png"
        write_image(folder / f"blur_{count:03d}.{suffix}", image, quality)
        count += 1
    rows = [[e.open, e.close] for e in exposures]
    if len(rows) != count:
        raise SequenceError(f"{folder.name}: {count} images but {len(rows)} exposures")
    if plate is not None:
        write_image(folder / "background.png", plate)
    if gt is not None:
        np.savez_compressed(folder / "gt.npz", **{**gt, "exposure": np.array(rows)})
    (folder / "exposure.json").write_text(json.dumps(rows) + "\n")
    (folder / "meta.json").write_text(json.dumps(_meta_of(camera, rows, folder.name) | (meta or {}), indent=1) + "\n")
    return folder


def frame_paths(folder: Path, stem: str = "blur") -> list[Path]:
    """`STEM_NNN.jpg|png` in numeric order, counted from 0 without holes."""
    found = sorted((p for s in ("jpg", "jpeg", "png") for p in folder.glob(f"{stem}_*.{s}")
                    if p.stem.rpartition("_")[2].isdigit()), key=lambda p: int(p.stem.rpartition("_")[2]))
    if not found:
        raise SequenceError(f"{folder.name} has no frames; it must hold {stem}_000.jpg (or .png), {stem}_001.jpg, ...")
    numbers = [int(p.stem.rpartition("_")[2]) for p in found]
    if numbers != list(range(len(numbers))):
        missing = sorted(set(range(numbers[-1] + 1)) - set(numbers))
        what = f"{stem}_{missing[0]:03d} is missing" if missing else f"{stem}_{numbers[0]:03d} occurs twice"
        raise SequenceError(f"{folder.name}: {what}; frames must be numbered 0, 1, 2, ...")
    return found


def read_image(path: str | Path) -> np.ndarray:
    """An image file -> [H, W, 3] uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        reason = "is damaged or not an image" if Path(path).is_file() else "does not exist"
        raise SequenceError(f"image {path} {reason}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_image(path: str | Path, image: np.ndarray, quality: int = 95) -> None:
    """[H, W, 3] uint8 RGB or [H, W] uint8 -> file by its suffix. JPEG keeps full colour resolution (4:4:4)."""
    if image.dtype != np.uint8:
        raise SequenceError(f"{Path(path).name}: image is {image.dtype}; write uint8")
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444] if str(path).endswith("jpg") else []
    if not cv2.imwrite(str(path), image, options):
        raise SequenceError(f"cannot write {path}; does its folder exist and may it be written?")


@dataclass(frozen=True)
class ImageFiles:
    """Images in files, read one at a time."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_image(self.paths[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_image, self.paths)


class VideoFile:
    """Frames of a video file; decoded in order when iterated."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        capture = self._open()
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if self.fps <= 0 or self._count <= 0:
            raise SequenceError(f"video {self.path.name} states {self.fps:g} frames/s and {self._count} frames;"
                                " re-encode it with a constant rate")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        return next(self.between(index, index + 1))

    def between(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1, found by seeking once."""
        capture = self._open()
        try:
            capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            for index in range(start, stop):
                ok, image = capture.read()
                if not ok:
                    raise SequenceError(f"video {self.path.name}: frame {index} cannot be decoded")
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = self._open()
        try:
            while True:
                ok, image = capture.read()
                if not ok:
                    return
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        if not self.path.is_file():
            raise SequenceError(f"video {self.path} does not exist")
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SequenceError(f"video {self.path.name} cannot be opened; is it a video file?")
        return capture


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        raise SequenceError(f"{folder.name} has no meta.json; it must give width, height and K")
    try:
        meta = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise SequenceError(f"{folder.name}/meta.json is not valid JSON (line {error.lineno})") from None
    if not isinstance(meta, dict):
        raise SequenceError(f"{folder.name}/meta.json holds a {type(meta).__name__}; it must be an object")
    return meta


def _exposures(folder: Path, meta: dict[str, Any], count: int, use_gt: bool) -> tuple[Exposure, ...]:
    for name in ("gt.npz", "exposure.json") if use_gt else ("exposure.json",):
        if (folder / name).is_file():
            return tuple(read_exposures(folder / name))
    if not meta.get("fps") or not meta.get("exposure_s"):
        raise SequenceError(f"{folder.name} has no exposure.json (a list of [open, close] seconds per frame),"
                            " and meta.json does not give both 'fps' and 'exposure_s'")
    rows = [[i / meta["fps"], i / meta["fps"] + meta["exposure_s"]] for i in range(count)]
    return tuple(checked_exposures(rows, f"{folder.name}/meta.json"))


def _read_plate(folder: Path, camera: Camera) -> np.ndarray | None:
    found = next((folder / n for n in PLATE_NAMES if (folder / n).is_file()), None)
    if found is None:
        return None
    plate = read_image(found)
    _check_plate(plate, camera, f"{folder.name}/{found.name}")
    return plate


def _check_plate(plate: np.ndarray, camera: Camera, name: str) -> None:
    if plate.shape[:2] != (camera.height, camera.width):
        raise SequenceError(f"{name} is {plate.shape[1]} x {plate.shape[0]}, the camera {camera.width} x"
                            f" {camera.height}; they must agree")


def _meta_of(camera: Camera, rows: list[list[float]], name: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "n": len(rows), "width": camera.width, "height": camera.height,
                            "K": np.asarray(camera.K, float).tolist(), "dist": np.asarray(camera.dist, float).tolist(),
                            "exposure_s": float(np.median([b - a for a, b in rows]))}
    if len(rows) > 1:
        meta["fps"] = 1.0 / float(np.median(np.diff([a for a, _ in rows])))
        meta["duty"] = meta["exposure_s"] * meta["fps"]
    return meta


def _is_number(text: str | Path) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True
