"""A whole recording at once, without ROS: what comes later may correct what came before.

With hindsight the recording is gone through three times: first as the live node would, to see the person; then the
initialiser's measurements are made anew with all of them known (`initialiser.hindsight`), and every exposure is told
from the latest window that contains it (a fixed-lag smoother); then the same backwards (`fit.both_ways`). Where no
clean plate was given, one is made before all that (`background.recorded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np

from blur_motion_ros.background.model import person_mask
from blur_motion_ros.background.recorded import Sample, plate_of, sample_count
from blur_motion_ros.config import HINDSIGHT, Settings
from blur_motion_ros.data.sequence import Sequence, backwards
from blur_motion_ros.fit.both_ways import agreed, mirrored
from blur_motion_ros.fit.direction_search import in_hindsight
from blur_motion_ros.initialiser.base import Initialiser
from blur_motion_ros.initialiser.hindsight import Hindsight, Look
from blur_motion_ros.pipeline import Pipeline
from blur_motion_ros.types import BEGINNINGS, Frame, MotionEstimate, Plate, PoseMeasurement, Status

Progress = Callable[[Iterable[Frame], str], Iterable[Frame]]


def fit_recording(recording: Sequence, settings: Settings, hindsight: int = HINDSIGHT,
                  progress: Progress = lambda frames, what: frames,
                  adapt: Callable[[Pipeline], None] = lambda pipeline: None, directions: bool = True,
                  measurements: list[PoseMeasurement | None] | None = None, both_ways: bool = True
                  ) -> tuple[list[MotionEstimate], Pipeline]:
    """One estimate per exposure, and the pipeline that made them (its body and skeleton).

    hindsight: later exposures that may correct an exposure; 0: what the live node would have said.
    progress: wraps the frames of each of the rounds, e.g. tqdm.  adapt: changes a pipeline before it is used.
    directions: with windows of one exposure, decide the direction of time from the whole recording.
    measurements: what `measure_recording` found, so that the person need not be looked for again.
    both_ways: with hindsight, fit the recording played backwards as well (`fit.both_ways`).
    """
    settings = replace(settings, fit=replace(settings.fit, frames=max(settings.fit.frames, hindsight + 1)))
    if hindsight > 0:
        recording = with_plate(recording, settings, progress, measurements)
    if settings.camera.exposure_mode == "estimate" and hindsight > 0:
        recording, settings = _with_exposures(recording, settings, progress, adapt)
    if measurements is not None:
        pipeline = pipeline_for(recording, settings, adapt, Replay(measurements))
    else:
        pipeline = pipeline_for(recording, settings, adapt)
        again = _hindsight(pipeline) if hindsight > 0 else None
        if again is not None:
            looks = [_look(pipeline, again, frame) for frame in progress(recording, "looking")]
            pipeline = pipeline_for(recording, settings, adapt, Replay(again(looks)))
    record = pipeline.record_directions() if directions and settings.fit.frames == 1 else []
    estimates = [pipeline.process(frame) for frame in progress(recording, "fitting")]
    estimates = in_hindsight(with_hindsight(estimates, hindsight), record, settings.fit)
    if hindsight == 0 or not both_ways:
        return estimates, pipeline
    return _both_ways(estimates, recording, settings, hindsight, progress, adapt, pipeline.initialiser), pipeline


def _both_ways(estimates: list[MotionEstimate], recording: Sequence, settings: Settings, hindsight: int,
               progress: Progress, adapt: Callable[[Pipeline], None], replay: Initialiser) -> list[MotionEstimate]:
    """The estimates together with those of the recording played backwards, where measurements can be played so too."""
    if not isinstance(replay, Replay):
        return estimates
    reverse, total = backwards(recording)
    pipeline = pipeline_for(reverse, settings, adapt, replay.backwards())
    again = with_hindsight([pipeline.process(frame) for frame in progress(reverse, "backwards")], hindsight)
    return [agreed(a, mirrored(b, total)) for a, b in zip(estimates, again[::-1], strict=True)]


def measure_recording(recording: Sequence, settings: Settings, hindsight: bool = True
                      ) -> list[PoseMeasurement | None]:
    """The initialiser's measurement of every frame, made with all of them known (as found live where an initialiser has
    no hindsight), or without hindsight. For fits that are to be compared: `fit_recording(measurements=...)`."""
    if hindsight:
        recording = with_plate(recording, settings)
    pipeline = pipeline_for(recording, settings)
    again = _hindsight(pipeline) if hindsight else None
    looks = [_look(pipeline, again, frame) for frame in recording]
    return [look.measurement for look in looks] if again is None else again(looks)


def with_hindsight(estimates: list[MotionEstimate], hindsight: int) -> list[MotionEstimate]:
    """For every exposure the latest window, up to `hindsight` exposures on, that still contains it."""
    best = []
    for i, own in enumerate(estimates):
        about = own.exposures[-1]
        later = [e for e in estimates[i : i + hindsight + 1] if about in e.exposures and not e.status & Status.LOST]
        chosen = later[-1] if later else own
        keep = chosen.exposures[: chosen.exposures.index(about) + 1]
        # what has no past is settled by later exposures
        status = own.status & ~BEGINNINGS | chosen.status if chosen is not own else own.status
        best.append(replace(chosen, exposures=keep, blur_rate=own.blur_rate, status=status))
    return best


class Replay:
    """An initialiser that has been asked before: measurements by the frame's index, at the frame's own time."""

    def __init__(self, measurements: list[PoseMeasurement | None]):
        self._measurements = measurements

    def measure(self, frame: Frame, plate: Plate | None = None, late: bool = False) -> PoseMeasurement | None:
        measurement = self._measurements[frame.index]
        if measurement is None:
            return None
        return replace(_with_mask(measurement, _unpacked), time=frame.exposure.middle)

    def backwards(self) -> Replay:
        """The same for the recording played backwards."""
        return Replay(self._measurements[::-1])

    def reset(self) -> None:
        """Nothing is remembered between frames."""


def pipeline_for(recording: Sequence, settings: Settings, adapt: Callable[[Pipeline], None] = lambda pipeline: None,
                 initialiser: Replay | None = None) -> Pipeline:
    """A pipeline with the recording's response and clean plate. adapt: changes it before it is used."""
    settings = replace(settings, camera=replace(settings.camera, response=recording.response))
    pipeline = Pipeline(settings, initialiser=initialiser)
    if recording.plate is not None:
        pipeline.set_background(recording.plate, recording.known)
    adapt(pipeline)
    return pipeline


def with_plate(recording: Sequence, settings: Settings,
               progress: Progress = lambda frames, what: frames,
               measurements: list[PoseMeasurement | None] | None = None) -> Sequence:
    """The recording with a clean plate made of its own frames; as it is where it has one, where the settings name one,
    and where its frames do not give one. measurements: of its frames, where they have been made before."""
    if recording.plate is not None or settings.background.plate:
        return recording
    initialiser = pipeline_for(recording, settings).initialiser if measurements is None else Replay(measurements)
    samples = list(_samples(recording, initialiser, settings.background.margin, progress))
    plate = plate_of(samples, settings.background, recording.response)
    return recording if plate is None else replace(recording, plate=plate.image, known=plate.known)


def _samples(recording: Sequence, initialiser: Initialiser, margin: float, progress: Progress) -> Iterator[Sample]:
    """Some of the frames, evenly spread, with the person that is followed through all of them."""
    every = -(-len(recording) // sample_count(recording.camera.width, recording.camera.height))
    for frame in progress(recording, "background"):
        found = initialiser.measure(frame)
        if frame.index % every == 0:
            person = None if found is None else person_mask(found.landmarks, frame.image.shape[:2], margin)
            yield Sample(frame.exposure.middle, frame.image, person)


def _with_exposures(recording: Sequence, settings: Settings, progress: Progress, adapt: Callable[[Pipeline], None]
                    ) -> tuple[Sequence, Settings]:
    """The recording with the exposures that a live round over it ends up with, and settings that take them as given."""
    pipeline = pipeline_for(recording, settings, adapt)
    for frame in progress(recording, "exposure"):
        pipeline.process(frame)
    exposures = tuple(pipeline.exposure.scaled(e) for e in recording.exposures)
    given = replace(settings, camera=replace(settings.camera, exposure_mode="given"))
    return replace(recording, exposures=exposures), given


def _hindsight(pipeline: Pipeline) -> Hindsight | None:
    return Hindsight.of(pipeline.initialiser, pipeline.settings.initialiser)


def _look(pipeline: Pipeline, hindsight: Hindsight | None, frame: Frame) -> Look:
    """The first stages; the person mask is packed, because a long recording has many."""
    seen = pipeline.see(frame)
    if seen.measurement is None:
        return Look(frame.exposure, frame.camera, None)
    packed = _with_mask(seen.measurement, _packed)
    if hindsight is None:
        return Look(frame.exposure, frame.camera, packed)
    return hindsight.look(seen.frame, seen.plate, packed)


def _with_mask(measurement: PoseMeasurement, change: Callable[[np.ndarray], np.ndarray]) -> PoseMeasurement:
    seen = measurement.landmarks
    if seen is None or seen.mask is None:
        return measurement
    return replace(measurement, landmarks=replace(seen, mask=change(seen.mask)))


def _packed(mask: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", np.round(255 * mask).astype(np.uint8))[1]


def _unpacked(mask: np.ndarray) -> np.ndarray:
    return cv2.imdecode(mask, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
