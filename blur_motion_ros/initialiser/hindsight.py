"""A recording's landmarks registered all together: what a frame leaves open, the frames before and after decide.

One frame's landmarks have several explanations: legs or arms may be the other ones, a limb may point towards the
camera or away from it. The live initialiser follows one of them from frame to frame and sometimes the wrong one. Here
the person is looked at again in several views (`views`), and every frame keeps all the explanations found, from its own
directions and from those of its neighbours; the cheapest path through them is a Viterbi search in which bodies keep
their velocity. A bidirectional temporal network then reads that path, every frame with those before and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser.blazepose import BlazePose, landmark_file
from blur_motion_ros.initialiser.evidence import Evidence, evidence
from blur_motion_ros.initialiser.landmark import LandmarkInitialiser, Registrar
from blur_motion_ros.initialiser.person import PersonTracker
from blur_motion_ros.initialiser.registration import Pose, Registration, cold_start, covariance, register, with_shape
from blur_motion_ros.initialiser.settings import InitialiserSettings
from blur_motion_ros.initialiser.sides import READINGS, swapped
from blur_motion_ros.initialiser.vibe import LandmarkReader, LandmarkStream, Sight, VibeInitialiser, fuse, start_of
from blur_motion_ros.initialiser.vibe_filter import FilterNoise, PoseFilter
from blur_motion_ros.initialiser.views import Again, looked_again
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import BodyState, Exposure, Frame, Landmarks, Plate, PoseMeasurement

_GAP = 0.25  # s without a person: what comes after is another track
_SAME = 0.05  # m: explanations whose joints all lie this close are one
_WORSE = 40.0  # cost by which an explanation may exceed its frame's best (some 60 is usual)
_HEIRS = 5  # explanations of a frame that its neighbours try too
_CALM = FilterNoise(jitter=0.2)  # twice the live one, both directions make up for it; more costs the fit (docs/vibe.md)


@dataclass(frozen=True)
class Look:
    """One frame of a recording: when, through which camera, what the live initialiser made of it (None: nobody), and
    what several views agree on (None: not looked at again)."""

    exposure: Exposure
    camera: Camera
    measurement: PoseMeasurement | None
    again: Again | None = None


class Reading(NamedTuple):
    """How a frame's landmarks are read. legs, arms: taken for the other side's; alone: those of the one view in which
    the person was followed, though there is a consensus of several; turned: the whole body, limbs and trunk, taken for
    facing the other way (legs and arms then as against that)."""

    legs: bool
    arms: bool
    alone: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Explanation:
    """A frame explained: landmarks as read; pose; cost of the registration; joints [24, 3] m from the pelvis; against:
    share of the views that have the trunk face the other way."""

    landmarks: Landmarks
    reading: Reading
    pose: Pose
    cost: float
    joints: np.ndarray
    against: float = 0.0


@dataclass(frozen=True)
class PathCosts:
    """What a path pays. Chosen on synthesised recordings; flat within a factor of 1.5.

    evidence: per unit of the registration's cost (landmark errors last, so less than 1); swap: per pair read the other
    way round; alone: of a frame read as one view has it; facing: where all views have the trunk face the other way;
    step: m per 1/30 s of every joint, and its weight; bend: the same of the departure from `damping` times the velocity
    before; cap: largest squared sigmas of one joint.
    """

    evidence: float = 0.5
    swap: float = 1.0
    alone: float = 10.0
    facing: float = 10.0
    step: float = 0.3
    step_weight: float = 0.3
    bend: float = 0.1
    damping: float = 0.6
    cap: float = 9.0


class Hindsight:
    """Measures again, with all of a recording known, what an initialiser measured live.

    networks: those that look at every frame again.
    """

    def __init__(self, register: Registrar, reader: LandmarkReader | None = None, costs: PathCosts | None = None,
                 networks: Sequence[BlazePose] = ()):
        self._register, self._reader, self._costs = register, reader, costs or PathCosts()
        self.networks = networks

    @staticmethod
    def of(initialiser: object, settings: InitialiserSettings | None = None) -> Hindsight | None:
        """Of the parts of a live initialiser; None for one that does not work on landmarks alone. Raises ValueError
        where its `hindsight_network` is not a bidirectional landmark network, AssetError where a landmark network that
        the settings ask for cannot be fetched."""
        if isinstance(initialiser, LandmarkInitialiser):
            reader = None
        elif isinstance(initialiser, VibeInitialiser) and isinstance(initialiser.stream, LandmarkStream):
            reader = LandmarkReader.load(initialiser.hindsight_network)
        else:
            return None
        return Hindsight(initialiser.register, reader,
                         networks=_networks(initialiser.tracker, settings or InitialiserSettings()))

    def look(self, frame: Frame, plate: Plate | None, measurement: PoseMeasurement | None) -> Look:
        """What is kept of a frame once the live initialiser has measured it. plate: the one that it was given."""
        again = None
        if measurement is not None and self.networks:
            again = looked_again(self.networks, frame.image, plate, measurement.landmarks)
        return Look(frame.exposure, frame.camera, measurement, again)

    def __call__(self, looks: Sequence[Look]) -> list[PoseMeasurement | None]:
        """One measurement per look, None where there was none. The shape is the last one learned, for all."""
        out: list[PoseMeasurement | None] = [None] * len(looks)
        for track in _tracks(looks):
            for i, measurement in zip(track, self._measure([looks[i] for i in track]), strict=True):
                out[i] = measurement
        return out

    def _measure(self, looks: list[Look]) -> list[PoseMeasurement]:
        betas = looks[-1].measurement.state.betas
        explained = [_Frame.of(self._register, look, betas) for look in looks]
        for order in (range(1, len(looks)), range(len(looks) - 2, -1, -1)):
            for i in order:
                explained[i].inherit(explained[i - order.step])
        times = np.array([look.exposure.middle for look in looks])
        best = cheapest_path(times, [frame.explanations() for frame in explained], self._costs)
        registered = [frame.measured(e) for frame, e in zip(explained, best, strict=True)]
        return registered if self._reader is None else self._read(looks, registered)

    def _read(self, looks: list[Look], registered: list[PoseMeasurement]) -> list[PoseMeasurement]:
        """What the network makes of the whole track, fused with the registrations, and calmed."""
        body = self._register.body_model
        told = self._reader.read([Sight(look.exposure, look.camera, r.landmarks, start_of(r.state, body))
                                  for look, r in zip(looks, registered, strict=True)])
        return _calmed([fuse(r, out, body) for r, out in zip(registered, told, strict=True)])


def _networks(tracker: PersonTracker | None, settings: InitialiserSettings) -> list[BlazePose]:
    """Those that look at every frame again: the one that followed the person, and one asked for its opinion."""
    if tracker is None or not settings.hindsight_views:
        return []
    first, wanted = tracker.networks, settings.hindsight_landmarks
    if not wanted or landmark_file(wanted) == first.landmark_file:
        return [first]
    return [first, BlazePose.pretrained(settings.person.threads, wanted)]


class _Frame:
    """The explanations of one frame, as they are found."""

    def __init__(self, register: Registrar, look: Look, betas: np.ndarray, readings: dict[Reading, tuple]):
        self._register, self._look, self._betas, self._readings = register, look, betas, readings
        self._found: list[Explanation] = []

    @staticmethod
    def of(register: Registrar, look: Look, betas: np.ndarray) -> _Frame:
        """From the frame's own directions, in every reading, and from what was found live."""
        readings = {}
        for seen, alone, turned in _seen(look):
            for legs, arms in READINGS:
                read = swapped(seen, legs != turned, arms != turned, turned)
                readings[Reading(legs, arms, alone, turned)] = read, evidence(read, look.camera, register.settings)
        frame = _Frame(register, look, betas, readings)
        for reading, (_, facts) in readings.items():
            if not (reading.legs or reading.arms):
                frame._try(reading, Pose.of(look.measurement.state))
            frame._try(reading, cold_start(register.body, facts, register.mean_pose, betas),
                       register.settings.cold_iterations)
        return frame

    def explanations(self) -> list[Explanation]:
        """Those not much worse than the best that faces the same way."""
        limits = self._limits()
        return [e for e in self._found if e.cost < limits[e.reading.turned]]

    def _limits(self) -> dict[bool, float]:
        """The highest costs that count, of either way to face."""
        best: dict[bool, float] = {}
        for e in self._found:
            best[e.reading.turned] = min(e.cost, best.get(e.reading.turned, np.inf))
        return {turned: cost + _WORSE for turned, cost in best.items()}

    def inherit(self, other: _Frame) -> None:
        """Try what explains a neighbour best, in every reading that is not out of the question."""
        limits = self._limits()
        heirs = sorted(other._found, key=lambda e: e.cost)[:_HEIRS]
        for reading in self._readings:
            if min(e.cost for e in self._found if e.reading == reading) < limits[reading.turned]:
                for e in heirs:
                    self._try(reading, e.pose)

    def measured(self, e: Explanation) -> PoseMeasurement:
        """An explanation with its covariance."""
        at = self._solve(e.reading, e.pose, 0)
        return replace(self._look.measurement, state=at.pose.state, landmarks=e.landmarks,
                       covariance=self._register.settings.inflation**2 * covariance(at.normal))

    def _try(self, reading: Reading, start: Pose, iterations: int | None = None) -> None:
        found = self._solve(reading, with_shape(start, self._betas), iterations or self._register.settings.iterations)
        joints = self._register.joints(found.pose)
        new = Explanation(self._readings[reading][0], reading, found.pose, found.cost, joints - joints[:1],
                          self._against(reading))
        for i, e in enumerate(self._found):
            if e.reading == reading and np.abs(e.joints - new.joints).max() < _SAME:
                self._found[i] = min(e, new, key=lambda x: x.cost)
                return
        self._found.append(new)

    def _against(self, reading: Reading) -> float:
        share = 0.0 if self._look.again is None else self._look.again.turned
        return 1.0 - share if reading.turned else share

    def _solve(self, reading: Reading, start: Pose, iterations: int) -> Registration:
        seen: Evidence = self._readings[reading][1]
        problem = self._register.problem(seen, self._look.measurement.state.transl[2])
        return register(problem, start, iterations)


def _seen(look: Look) -> list[tuple[Landmarks, bool, bool]]:
    """Landmarks to read a frame by, whether they are one view's against a consensus, and whether to turn the body."""
    followed = look.measurement.landmarks
    if look.again is None:
        return [(followed, False, False)]
    ways = [(look.again.landmarks, False, False), (followed, True, False)]
    return ways if look.again.turned == 0 else [*ways, (look.again.landmarks, False, True)]


def cheapest_path(times: np.ndarray, explained: Sequence[Sequence[Explanation]], costs: PathCosts
                  ) -> list[Explanation]:
    """Viterbi search of second order: one explanation per frame, times [T] s, by evidence and continuity of motion."""
    if len(explained) == 1:
        return [min(explained[0], key=lambda e: e.cost)]
    joints = [np.stack([e.joints[1:] for e in frame]) for frame in explained]
    own = [np.array([_price(e, costs) for e in frame]) for frame in explained]
    periods = np.diff(times) * 30
    total = own[0][:, None] + own[1] + _step(joints[0], joints[1], periods[0], costs)
    back = []
    for k in range(2, len(explained)):
        a, b, c = joints[k - 2 : k + 1]
        expected = b[None] + costs.damping * (b[None] - a[:, None]) * (periods[k - 1] / periods[k - 2])
        bend = _squared(c - expected[:, :, None], costs.bend * periods[k - 1], costs.cap)
        through = total[:, :, None] + bend + _step(b, c, periods[k - 1], costs) + own[k]
        back.append(through.argmin(0))
        total = through.min(0)
    last, after = np.unravel_index(total.argmin(), total.shape)
    path = [int(after), int(last)]
    for table in reversed(back):
        path.append(int(table[path[-1], path[-2]]))
    return [frame[i] for frame, i in zip(explained, reversed(path), strict=True)]


def _price(e: Explanation, costs: PathCosts) -> float:
    return (costs.evidence * e.cost + costs.swap * (e.reading.legs + e.reading.arms) + costs.alone * e.reading.alone
            + costs.facing * e.against)


def _step(a: np.ndarray, b: np.ndarray, periods: float, costs: PathCosts) -> np.ndarray:
    return costs.step_weight * _squared(b - a[:, None], costs.step * periods, costs.cap)


def _squared(difference: np.ndarray, sigma: float, cap: float) -> np.ndarray:
    """[..., 23, 3] m -> [...]: Geman-McClure of every joint's distance in sigmas, summed."""
    squared = (difference**2).sum(-1) / sigma**2
    return (squared / (1 + squared / cap)).sum(-1)


def _tracks(looks: Iterable[Look]) -> Iterator[list[int]]:
    """Runs of frames, by index, in which the person was never out of sight for long."""
    run: list[int] = []
    last = -np.inf
    for i, look in enumerate(looks):
        if look.measurement is None:
            continue
        if run and not 0 < look.exposure.middle - last < _GAP:
            yield run
            run = []
        run.append(i)
        last = look.exposure.middle
    if run:
        yield run


def _calmed(measured: list[PoseMeasurement]) -> list[PoseMeasurement]:
    """The live filter, stronger and run in both directions: without its lag."""
    ahead, back = PoseFilter(_CALM), PoseFilter(_CALM)
    forwards = [ahead(m.state, m.time) for m in measured]
    backwards = [back(m.state, -m.time) for m in reversed(measured)][::-1]
    return [replace(m, state=_halfway(a, b)) for m, a, b in zip(measured, forwards, backwards, strict=True)]


def _halfway(a: BodyState, b: BodyState) -> BodyState:
    local = rotations.slerp(Pose.of(a).local, Pose.of(b).local, 0.5)
    return Pose(0.5 * (a.transl + b.transl), local, a.betas).state
