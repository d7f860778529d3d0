"""What the initialiser saw of a recording, made once and shared by every fit that is compared.

    measured = measurements(folder, settings, hindsight, cache)

A cache folder keeps them between runs. Its files are named by everything that the measurements depend on: frames,
settings and sources of initialiser and background, and networks; so nothing out of date is ever read.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import blur_motion_ros
from blur_motion_ros.config import Settings
from blur_motion_ros.data import sequence
from blur_motion_ros.initialiser.blazepose import landmark_file
from blur_motion_ros.offline import fit_recording, measure_recording
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.types import MotionEstimate, PoseMeasurement

Measurements = list[PoseMeasurement | None]
# What the truth of sharp frames is read by: not by what `blur-motion fit` prefers, whose mistakes it must not share.
TRUE_LANDMARKS = {"initialiser.person.landmarks": "full", "initialiser.hindsight_landmarks": ""}
SOURCES = ("initialiser", "background", "camera", "offline.py", "types.py")


def measurements(folder: Path, settings: Settings, hindsight: int, cache: Path | None = None) -> Measurements:
    """The initialiser's measurements of a sequence folder, as `fit_recording` makes them live (hindsight 0) or not."""
    folder = Path(folder)
    kept = cache / f"{folder.name}_{_key(folder, settings, hindsight > 0)}.pickle.gz" if cache else None
    if kept and kept.is_file():
        return pickle.loads(gzip.decompress(kept.read_bytes()))
    found = measure_recording(sequence.read(folder), settings, hindsight > 0)
    if kept:
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(gzip.compress(pickle.dumps(found), 3))
    return found


def fitted(folder: Path, settings: Settings, measured: Measurements, hindsight: int, **options
           ) -> tuple[list[MotionEstimate], Pipeline]:
    """`fit_recording` on measurements made before."""
    return fit_recording(sequence.read(folder), settings, hindsight, measurements=measured, **options)


def _key(folder: Path, settings: Settings, hindsight: bool) -> str:
    """A name for everything that decides the measurements."""
    package = Path(blur_motion_ros.__file__).parent
    digest = hashlib.sha256(repr((settings.initialiser, settings.background, settings.body, hindsight)).encode())
    for source in SOURCES:
        for path in sorted((package / source).rglob("*.py")) or [package / source]:
            digest.update(path.read_bytes())
    named = [settings.initialiser.person.landmarks, settings.initialiser.hindsight_landmarks]
    named += ["best"] if "auto" in named else []  # which reads long exposures
    networks = [landmark_file(name) for name in named if name]
    for path in [*sorted((package / "assets").iterdir()), *networks, *sorted(folder.glob("b*")),
                 folder / "exposure.json"]:
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:12]
