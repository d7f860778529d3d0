"""A recording registered all together: the search against trying everything, wrong readings put right, replay."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from people import fetched

from blur_motion_ros.body import load_body
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser.base import make_initialiser
from blur_motion_ros.initialiser.evidence import line_of_sight
from blur_motion_ros.initialiser.hindsight import (
    Explanation,
    Hindsight,
    Look,
    PathCosts,
    Reading,
    _Frame,
    cheapest_path,
)
from blur_motion_ros.initialiser.landmark import Registrar
from blur_motion_ros.initialiser.registration import Pose
from blur_motion_ros.initialiser.settings import InitialiserSettings
from blur_motion_ros.initialiser.sides import swapped
from blur_motion_ros.initialiser.vibe import LandmarkStream, StreamOutput, VibeInitialiser
from blur_motion_ros.initialiser.views import Again
from blur_motion_ros.motion import rotations
from blur_motion_ros.offline import _look, _packed, _unpacked
from blur_motion_ros.types import Exposure, Frame, Landmarks

FPS = 30
CAMERA = Camera(640, 480, np.array([[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]]), np.zeros(0))


AS_SEEN = Reading(False, False)


def explanation(joints: np.ndarray, cost: float, reading: Reading = AS_SEEN) -> Explanation:
    return Explanation(None, reading, None, cost, joints)


def price(times, path: list[Explanation], costs: PathCosts) -> float:
    """What a path costs, term by term and joint by joint."""
    def robust(distance: float, sigma: float) -> float:
        squared = (distance / sigma) ** 2
        return squared / (1 + squared / costs.cap)

    total = sum(costs.evidence * e.cost + costs.swap * sum(e.reading[:2]) + costs.alone * e.reading[2] for e in path)
    for k in range(1, len(path)):
        dt = 30 * (times[k] - times[k - 1])
        for j in range(1, 24):
            step = path[k].joints[j] - path[k - 1].joints[j]
            total += costs.step_weight * robust(np.linalg.norm(step), costs.step * dt)
            if k > 1:
                before = (path[k - 1].joints[j] - path[k - 2].joints[j]) / (times[k - 1] - times[k - 2])
                bend = step - costs.damping * before * (times[k] - times[k - 1])
                total += robust(np.linalg.norm(bend), costs.bend * dt)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_the_path_is_the_cheapest_of_all_paths(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.07, 5))
    frames = [[explanation(0.15 * rng.normal(size=(24, 3)), rng.uniform(50, 90),
                           Reading(bool(rng.integers(2)), False, bool(rng.integers(2))))
               for _ in range(rng.integers(1, 5))] for _ in times]
    costs = PathCosts()
    found = cheapest_path(times, frames, costs)
    best = min(price(times, list(path), costs) for path in itertools.product(*frames))
    assert price(times, found, costs) == pytest.approx(best, rel=1e-9)


def test_one_frame_and_two_frames_have_a_path():
    rng = np.random.default_rng(0)
    frames = [[explanation(rng.normal(size=(24, 3)), c) for c in (3.0, 1.0, 2.0)] for _ in range(2)]
    assert cheapest_path(np.zeros(1), frames[:1], PathCosts())[0].cost == 1.0
    costs = PathCosts(step_weight=0.0)
    assert [e.cost for e in cheapest_path(np.arange(2.0), frames, costs)] == [1.0, 1.0]


def walk(count: int, yaw: float = 1.3) -> list[Pose]:
    """Somebody walks on the spot, legs and arms swinging; seen from the side unless told another yaw, rad."""
    side = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, yaw, 0]))
    out = []
    for i in range(count):
        swing = 0.5 * np.sin(2 * np.pi * i / 20)
        vectors = np.zeros((24, 3))
        vectors[[1, 2], 0] = swing, -swing
        vectors[[4, 5], 0] = 0.3 - 0.3 * np.sign(swing), 0.3 + 0.3 * np.sign(swing)
        vectors[[16, 17]] = [[0, -swing, -1.2], [0, -swing, 1.2]]
        local = rotations.exp(vectors)
        local[0] = side
        out.append(Pose(np.array([0.0, 0.1, 4.0]), local, np.zeros(10)))
    return out


def landmarks(register: Registrar, pose: Pose, rng: np.random.Generator) -> Landmarks:
    points = register.body.posed(pose.transl, pose.local, pose.betas).points
    hips = points[[23, 24]].mean(0)
    world = (points - hips) @ line_of_sight(hips[:2] / hips[2])
    noise = rng.normal(size=(33, 2))
    return Landmarks(CAMERA.project(points) + noise, world + 0.01 * rng.normal(size=(33, 3)), np.ones(33), 1.0, None,
                     np.eye(2, 3), np.zeros(4))


@pytest.fixture(scope="module")
def recording():
    """Twelve frames; in the first two and the last three the network takes the legs for each other."""
    register, rng = Registrar(load_body()), np.random.default_rng(3)
    poses, looks = walk(12), []
    for i, pose in enumerate(poses):
        seen = landmarks(register, pose, rng)
        if i < 2 or i > 8:
            seen = swapped(seen, legs=True, arms=False)
        exposure = Exposure(i / FPS, (i + 0.9) / FPS)
        looks.append(Look(exposure, CAMERA, register(seen, Frame(np.zeros((480, 640, 3), np.uint8), exposure, CAMERA))))
    return register, poses, looks


def errors(register: Registrar, poses: list[Pose], measured: list) -> np.ndarray:
    """[T] m: mean distance of the leg joints from the truth, about the pelvis."""
    legs = [4, 5, 7, 8]
    out = []
    for pose, m in zip(poses, measured, strict=True):
        a, b = register.joints(pose), register.joints(Pose.of(m.state))
        out.append(np.linalg.norm((a - a[:1] - b + b[:1])[legs], axis=1).mean())
    return np.array(out)


def test_wrong_sides_at_the_ends_are_put_right(recording):
    register, poses, looks = recording
    live = errors(register, poses, [look.measurement for look in looks])
    again = errors(register, poses, Hindsight(register)(looks))
    assert live.max() > 0.15
    assert again.max() < 0.06


def turned_round(seen: Landmarks) -> Landmarks:
    """As a network says it that takes the front of a body for its back."""
    return replace(seen, world=seen.world * (1, 1, -1))


@pytest.mark.parametrize("wrong", ["followed", "consensus in one frame"])
def test_a_consensus_is_believed_and_where_it_is_absurd_the_view_followed(wrong):
    register, rng = Registrar(load_body()), np.random.default_rng(5)
    poses, looks = walk(8, yaw=0.3), []
    for i, pose in enumerate(poses):
        right, exposure = landmarks(register, pose, rng), Exposure(i / FPS, (i + 0.9) / FPS)
        followed = turned_round(right) if wrong == "followed" else right
        again = turned_round(right) if wrong != "followed" and i == 4 else right
        measured = register(followed, Frame(np.zeros((480, 640, 3), np.uint8), exposure, CAMERA))
        looks.append(Look(exposure, CAMERA, measured, Again(again)))
    assert errors(register, poses, Hindsight(register)(looks)).max() < 0.08
    without = Hindsight(register)([replace(look, again=None) for look in looks])
    assert (errors(register, poses, without).max() > 0.15) == (wrong == "followed")


def test_breaks_and_missing_frames_stay_where_they_were(recording):
    register, _, looks = recording
    gap = looks[:3] + [Look(looks[3].exposure, CAMERA, None)] + looks[4:6]
    late = [Look(Exposure(e.open + 5, e.close + 5), CAMERA, look.measurement)
            for look, e in ((look, look.exposure) for look in looks[6:8])]
    out = Hindsight(register)(gap + late)
    assert [m is None for m in out] == [False] * 3 + [True] + [False] * 4
    for m, look in zip(out, gap + late, strict=True):
        if m is not None:
            assert np.isfinite(m.covariance).all() and np.linalg.eigvalsh(m.covariance).min() > 0
            assert m.time == look.measurement.time


class Told:
    """A network that gives every frame the same turn of the left elbow away from its registration, surely."""

    def __init__(self):
        self.read_ = []

    def read(self, sights):
        self.read_.append(sights)
        turn = np.tile(np.eye(3), (24, 1, 1))
        turn[18] = rotations.exp(np.array([0, -0.4, 0]))
        spread = np.diag(np.r_[np.full(3, 1e4), np.full(72, 1e-8)])
        return [StreamOutput(s.start.local @ turn, s.start.betas, s.start.pelvis, spread) for s in sights]


def test_the_network_reads_whole_tracks_of_registrations_and_is_believed_by_its_information(recording):
    register, _, looks = recording
    late = Look(Exposure(9.0, 9.02), CAMERA, looks[0].measurement)
    network, track = Told(), [*looks[:5], late]
    plain, told = Hindsight(register)(track), Hindsight(register, network)(track)
    assert [len(s) for s in network.read_] == [5, 1]
    for sight, m in zip([s for sights in network.read_ for s in sights], plain, strict=True):
        np.testing.assert_allclose(sight.start.local, Pose.of(m.state).local, atol=1e-9)
        np.testing.assert_array_equal(sight.landmarks.image, m.landmarks.image)
    for a, b in zip(plain[-1:], told[-1:], strict=True):  # alone, so not smoothed
        step = rotations.log(np.swapaxes(Pose.of(a.state).local, 1, 2) @ Pose.of(b.state).local)
        np.testing.assert_allclose(step[18], [0, -0.4, 0], atol=0.01)
        assert np.abs(np.delete(step, 18, 0)).max() < 0.01


def test_a_live_initialiser_names_the_file_it_cannot_read_recordings_with(tmp_path):
    (tmp_path / "mine.ts").write_bytes(b"garbage")
    stream = LandmarkStream(None)
    live = VibeInitialiser(None, stream, load_body(), hindsight_network=tmp_path / "mine.ts")
    with pytest.raises(ValueError, match="mine.ts: not a TorchScript file"):
        Hindsight.of(live)


def test_a_second_landmark_network_looks_again_unless_it_is_the_first(tmp_path):
    body, own = load_body(), tmp_path / "own.tflite"
    own.write_bytes(fetched("pose_landmark_full.tflite").read_bytes())
    settings = InitialiserSettings(hindsight_landmarks=str(own))
    live = make_initialiser(replace(settings, kind="landmarks"), body)

    def files(**changed) -> list[str]:
        return [n.landmark_file.name for n in Hindsight.of(live, replace(settings, **changed)).networks]

    assert files() == ["pose_landmark_blur.tflite", "own.tflite"]
    assert files(hindsight_landmarks="blur") == files(hindsight_landmarks="") == ["pose_landmark_blur.tflite"]
    assert files(hindsight_views=False) == []
    with pytest.raises(ValueError, match="no landmark network 'huge'.*initialiser.hindsight_landmarks"):
        files(hindsight_landmarks="huge")


def test_the_best_that_faces_the_other_way_is_kept_however_bad_it_is():
    ways = Reading(False, False), Reading(False, False, turned=True)
    found = [Explanation(None, way, None, cost, np.zeros((24, 3))) for way in ways for cost in (10, 60)]
    found[2:] = [replace(e, cost=e.cost + 100) for e in found[2:]]
    frame = _Frame(None, None, None, {})
    frame._found = found
    assert [(e.reading.turned, e.cost) for e in frame.explanations()] == [(False, 10), (True, 110)]


def test_a_packed_mask_comes_back():
    mask = np.random.default_rng(0).random((256, 256)).astype(np.float32)
    np.testing.assert_allclose(_unpacked(_packed(mask)), mask, atol=0.5 / 255 + 1e-6)


def test_masks_are_packed_with_and_without_hindsight(recording):
    register, _, looks = recording
    measured = looks[0].measurement
    mask = np.random.default_rng(1).random((64, 64)).astype(np.float32)
    seen = replace(measured, landmarks=replace(measured.landmarks, mask=mask))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), looks[0].exposure, CAMERA)
    pipeline = SimpleNamespace(see=lambda frame: SimpleNamespace(frame=frame, plate=None, measurement=seen))
    for hindsight in (None, Hindsight(register)):
        kept = _look(pipeline, hindsight, frame).measurement.landmarks.mask
        np.testing.assert_allclose(_unpacked(kept), mask, atol=0.5 / 255 + 1e-6)
