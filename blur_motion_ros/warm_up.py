"""Compile and load everything that a live pipeline uses before its first image, which would else be answered late.

Three things are slow once: numba compiles its kernels (kept on disk: `cache_folders`), TorchScript modules specialise
in their first calls, and the networks' runtimes prepare their weights at the first one. A made-up person is therefore
measured and fitted through the pipeline's own networks, on every path that depends on what was seen before.

`python -m blur_motion_ros.warm_up` does it for a new installation (`./run setup` calls it).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blur_motion_ros.body.skin import Skin
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.config import Settings
from blur_motion_ros.initialiser.blazepose import Region
from blur_motion_ros.initialiser.evidence import BONES
from blur_motion_ros.motion import rotations
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.types import Exposure, Frame, Landmarks, PoseMeasurement

_CAMERA = Camera(320, 240, np.array([[260.0, 0, 160], [0, 260.0, 120], [0, 0, 1]]))
_LENS = replace(_CAMERA, dist=np.array([-0.05, 0.0, 0.0, 0.0, 0.0]))  # bends lines
_PERIOD, _OPEN = 1 / 15, (0.06, 0.03)  # s; long and short exposures are matted by different means
_BARE, _SEEN = 2, 12  # frames without and with a clean plate
_GONE = (4, 6)  # among the latter: nobody is measured; they come back elsewhere, so that the fit begins anew
_RESET = 9  # among the latter: everything is forgotten before, and the camera has a lens that bends lines from here on


def warm_up(pipeline: Pipeline) -> None:
    """Take a made-up person through the stages of `pipeline`; it remembers nothing of them afterwards.

    The stages' states are those of a second pipeline; networks, matter and body are the ones of `pipeline` itself.
    """
    person = _MadeUpPerson(pipeline.initialiser)
    twin = Pipeline(pipeline.settings, pipeline.body, person, pipeline.matters)
    person.look_for(_noise(0))
    for frame in person.frames(_BARE + _SEEN):
        if frame.index == _BARE:
            twin.set_background(_noise(0))
        if frame.index == _BARE + _RESET:
            twin.reset()
        estimate = twin.process(frame)
    _use(twin, estimate)
    pipeline.initialiser.reset()


def kernels() -> dict[str, Any]:
    """The package's numba kernels that are loaded now, by `module.name`."""
    from numba.core.dispatcher import Dispatcher

    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] == __package__]
    return {f"{k.__module__}.{k.__name__}": k for m in modules for k in vars(m).values() if isinstance(k, Dispatcher)}


def cache_folders() -> set[Path]:
    """Where numba keeps the compiled kernels: __pycache__ beside the modules; elsewhere if that cannot be written."""
    return {Path(k._cache.cache_path) for k in kernels().values()}


class _MadeUpPerson:
    """An initialiser that measures a person who is not there, through the stages of a real one after its networks.

    real: what `initialiser.base.make_initialiser` returns.
    """

    def __init__(self, real) -> None:
        self._real = real
        self._region = Region.around(np.array([160.0, 130.0]), np.array([160.0, 40.0]))
        self._landmarks: Landmarks | None = None

    def frames(self, count: int) -> Iterator[Frame]:
        """Pictures of them walking off, read-only like those of messages; a step aside after `_GONE`."""
        for i in range(count):
            seen = i - _BARE
            self._landmarks = None if _GONE[0] <= seen < _GONE[1] else self._at(0.03 * i + (seen >= _GONE[1]))
            image = _noise(i % 2)
            if self._landmarks is not None:
                _draw(image, self._landmarks.image)
            image.flags.writeable = False
            camera = _LENS if seen >= _RESET else _CAMERA
            yield Frame(image, Exposure(i * _PERIOD, i * _PERIOD + _OPEN[i % 2]), camera, i)

    def look_for(self, image: np.ndarray) -> None:
        """Run the detector, as at the first frame."""
        self._real.tracker.networks.detect(image)

    def measure(self, frame: Frame, plate=None, late: bool = False) -> PoseMeasurement | None:
        """See `initialiser.base.Initialiser.measure`."""
        if self._landmarks is None:
            return None
        networks = self._real.tracker.reading(frame.exposure.duration)
        seen, _ = networks.landmarks(frame.image, self._region, plate)
        made_up = self._landmarks
        return self._real.of_landmarks(frame, replace(made_up, mask=seen.mask, mask_to_image=seen.mask_to_image))

    def reset(self) -> None:
        """See `initialiser.base.Initialiser.reset`."""
        self._real.reset()

    def _at(self, x: float) -> Landmarks:
        """Landmarks of a person 3 m away who stands `x` m to the right, and swings arms and legs."""
        vectors = np.zeros((24, 3))
        vectors[0, 0] = np.pi  # the body model's y axis is up, the camera's is down
        vectors[[1, 2, 18, 19]] = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, -0.6, 0.2], [0, 0.6, 0.2]]) * np.sin(10 * x)
        place = np.array([x - 0.3, 0.2, 3.0])
        points = self._real.register.body.posed(place, rotations.exp(vectors), np.zeros(10)).points
        image = _CAMERA.project(points)
        return Landmarks(image, points - points[[23, 24]].mean(0), np.ones(len(points)), 1.0, None, np.eye(2, 3),
                         np.concatenate([image.min(0) - 5, image.max(0) + 5]))


def _noise(seed: int) -> np.ndarray:
    """A wall [H, W, 3] uint8 with a little noise of its own in every picture."""
    grain = np.random.default_rng(seed).integers(-3, 4, (_CAMERA.height, _CAMERA.width, 3))
    return (np.random.default_rng(99).integers(60, 200, grain.shape) + grain).astype(np.uint8)


def _draw(image: np.ndarray, points: np.ndarray) -> None:
    """Bones of a person in two colours into `image`."""
    pixels = np.rint(points).astype(int).tolist()
    for a, b in BONES.tolist():
        cv2.line(image, pixels[a], pixels[b], (220, 60, 40) if a < 23 else (30, 40, 160), 12)


def _use(pipeline: Pipeline, estimate) -> None:
    """What is asked of an estimate afterwards."""
    from blur_motion_ros.trajectory import sample

    times = np.linspace(estimate.start, estimate.end, 7)
    trajectory = sample(estimate, pipeline.skeleton, times, pipeline.settings.trajectory)
    rotations.to_quaternion(trajectory.rotations)
    pipeline.mesh(estimate, estimate.end)


def main() -> int:
    """Compile what the node uses, with the default settings, and say where what was compiled is kept."""
    from blur_motion_ros import threads

    threads.limit()
    settings = Settings()
    pipeline = Pipeline(settings)
    warm_up(pipeline)
    Skin(settings.body.path, settings.ros.mesh_lod).coloured(pipeline.body, pipeline.colours)
    print(f"compiled kernels are kept in {', '.join(sorted({_short(f) for f in cache_folders()}))}")
    return 0


def _short(folder: Path) -> str:
    """The folder that the packages' cache folders share."""
    package = Path(__file__).resolve().parent
    inside = folder.resolve().is_relative_to(package)
    return f"__pycache__ folders in {package}" if inside else str(folder.parent)


if __name__ == "__main__":
    sys.exit(main())
