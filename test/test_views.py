"""Several views of one frame: mirrored regions, consensus, and what a recording gains from them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from people import demo_frames, fetched

from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR
from blur_motion_ros.initialiser.blazepose import BlazePose, Detection, Region
from blur_motion_ros.initialiser.person import PersonTracker
from blur_motion_ros.initialiser.settings import PersonSettings
from blur_motion_ros.initialiser.sides import swapped, turned
from blur_motion_ros.initialiser.views import VIEWS, agreed, consensus, looked_again, outvoted
from blur_motion_ros.types import Landmarks

MIRROR = list(BLAZEPOSE33_MIRROR)


@pytest.fixture(scope="module")
def networks() -> BlazePose:
    pytest.importorskip("ai_edge_litert")
    return BlazePose(fetched("pose_detection.tflite"), fetched("pose_landmark_full.tflite"))


@pytest.fixture(scope="module")
def walker() -> np.ndarray:
    """[497, 884, 3] RGB: a real man, 170 px tall, hips at (320, 130)."""
    return demo_frames([30])[0]


def landmarks(rng: np.random.Generator) -> Landmarks:
    image = rng.uniform(100, 400, (33, 2))
    return Landmarks(image, rng.normal(size=(33, 3)), rng.uniform(size=33), 0.9, None,
                     Region(np.array([250.0, 250]), 300.0, 0.1).to_image(256), np.array([100.0, 100, 400, 400]))


def shaken(seen: Landmarks, rng: np.random.Generator) -> Landmarks:
    image, world = rng.normal(size=(33, 2)), 0.01 * rng.normal(size=(33, 3))
    return replace(seen, image=seen.image + image, world=seen.world + world)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [-2.8, 0.0, 0.7])
def test_a_region_comes_back_from_its_cut(mirrored, angle):
    region = Region(np.array([321.5, 87.25]), 240.0, angle, mirrored)
    to_image = region.to_image(256)
    back = Region.of_cut(to_image, 256)
    np.testing.assert_allclose(back.centre, region.centre, atol=1e-9)
    assert (back.side, back.angle, back.mirrored) == (pytest.approx(240), pytest.approx(angle), mirrored)
    up = to_image[:, :2] @ [0, -1]  # of the person in the cut: the same mirrored or not
    np.testing.assert_allclose(up / np.linalg.norm(up), [np.sin(angle), -np.cos(angle)], atol=1e-12)
    right = to_image[:, :2] @ [1, 0]
    assert np.sign(right @ [np.cos(angle), np.sin(angle)]) == (-1 if mirrored else 1)


def test_a_mirrored_region_of_a_mirrored_picture_is_the_same_cut(networks, walker):
    """Seen twice in a mirror: the network gets the same pixels, so every point must come back to its own place."""
    region = Region(np.array([320.0, 130]), 230.0, 0.15)
    width = walker.shape[1]
    plain, where = networks.landmarks(walker, region)
    there = Region(np.array([width - 1 - 320.0, 130]), 230.0, -0.15, mirrored=True)
    other, other_where = networks.landmarks(np.ascontiguousarray(walker[:, ::-1]), there)
    np.testing.assert_allclose(other.image[MIRROR] * (-1, 1) + (width - 1, 0), plain.image, atol=0.5)
    np.testing.assert_allclose(other.world[MIRROR] * (-1, 1, 1), plain.world, atol=0.02)
    np.testing.assert_allclose(other.visibility[MIRROR], plain.visibility, atol=0.05)
    np.testing.assert_allclose(other_where.hip * (-1, 1) + (width - 1, 0), where.hip, atol=0.5)


def test_in_a_mirror_his_left_is_still_his_left(networks, walker):
    region = Region(np.array([320.0, 130]), 230.0, 0.0)
    plain, _ = networks.landmarks(walker, region)
    other, _ = networks.landmarks(walker, replace(region, mirrored=True))
    body = np.s_[11:29]
    apart = np.linalg.norm(other.image[body] - plain.image[body], axis=1).mean()
    exchanged = np.linalg.norm(other.image[MIRROR][body] - plain.image[body], axis=1).mean()
    assert apart < 8 and exchanged > 2 * apart  # px; he is 170 px tall
    assert np.linalg.norm(other.world[body] - plain.world[body], axis=1).mean() < 0.12
    mask = [cv2.warpAffine(np.ascontiguousarray(m.mask), m.mask_to_image, (884, 497)) > 0.5 for m in (plain, other)]
    assert (mask[0] & mask[1]).sum() / (mask[0] | mask[1]).sum() > 0.8


def test_views_of_a_real_man_agree_with_the_one_in_which_he_was_found(networks, walker):
    plain, _ = networks.landmarks(walker, Region(np.array([320.0, 130]), 230.0, 0.0))
    again = looked_again([networks], walker, None, plain).landmarks
    assert np.linalg.norm(again.image[11:29] - plain.image[11:29], axis=1).mean() < 8
    assert again.mask is plain.mask and again.score == plain.score


class Answers:
    """A landmark network that gives the same answer to whatever it is shown, and counts."""

    def __init__(self, answer: Landmarks):
        self.answer, self.looks = answer, 0

    def landmarks(self, image, region, plate, mask):
        self.looks += 1
        return self.answer, None


def test_landmarks_are_the_first_networks_and_all_are_asked_which_way_the_person_faces():
    seen, image = landmarks(np.random.default_rng(5)), np.zeros((480, 640, 3), np.uint8)
    first, second = Answers(replace(seen, image=seen.image + 2)), Answers(swapped(seen, True, True, True))
    again = looked_again([first, second], image, None, seen)
    assert (first.looks, second.looks) == (len(VIEWS), len(VIEWS))
    assert again.turned == 0.5
    np.testing.assert_allclose(again.landmarks.image[11:], first.answer.image[11:], atol=1e-6)
    assert looked_again([first], image, None, seen).turned == 0


def test_consensus_leaves_out_what_few_say():
    rng = np.random.default_rng(0)
    seen = landmarks(rng)
    near = [shaken(seen, rng) for _ in range(6)]
    wild = [replace(seen, image=seen.image + 200, world=-seen.world) for _ in range(2)]
    out = consensus(near + wild, seen)
    assert np.linalg.norm(out.image - seen.image, axis=1).max() < 2
    assert np.linalg.norm(out.world - seen.world, axis=1).max() < 0.03


def test_consensus_of_two_is_their_mean():
    rng = np.random.default_rng(1)
    seen = landmarks(rng)
    other = shaken(seen, rng)
    out = consensus([seen, other], seen)
    np.testing.assert_allclose(out.image, (seen.image + other.image) / 2, atol=1e-6)
    np.testing.assert_allclose(out.world, (seen.world + other.world) / 2, atol=1e-9)


@pytest.mark.parametrize("parts", [(True, False, False), (False, True, False), (True, True, False), (True, True, True)])
def test_answers_are_read_as_the_one_that_was_followed(parts):
    """Also the trunk: mixed with answers that take the front for the back, shoulders and hips came to lie between."""
    seen = landmarks(np.random.default_rng(2))
    out = consensus([seen, swapped(seen, *parts), swapped(seen, *parts)], seen, trunk=True)
    np.testing.assert_allclose(out.image, seen.image, atol=1e-9)


def test_views_that_take_the_front_for_the_back_are_read_the_right_way_and_counted():
    rng = np.random.default_rng(4)
    seen = landmarks(rng)
    behind = swapped(seen, True, True, True)
    out = agreed([shaken(seen, rng) for _ in range(3)] + [shaken(behind, rng) for _ in range(5)], seen)
    assert out.turned == pytest.approx(5 / 8)
    assert np.linalg.norm(out.landmarks.image - seen.image, axis=1).max() < 3
    assert np.linalg.norm(out.landmarks.world - seen.world, axis=1).max() < 0.03
    assert agreed([shaken(seen, rng) for _ in range(8)], seen).turned == 0.0


class TwoMinds:
    """Networks that are 2 px too far to the right, and in a mirror as far to the other side of the truth."""

    def __init__(self, truth: Landmarks):
        self.truth, self.looks, self.score = truth, [], 0.9

    def detect(self, image, least_score=0.5):
        return [Detection(np.array([250.0, 250]), np.array([250.0, 130]), 0.9)]

    def landmarks(self, image, region, plate=None, mask=True):
        self.looks.append((region.mirrored, mask))
        shift = (-2, 0) if region.mirrored else (2, 0)
        return replace(self.truth, image=self.truth.image + shift, score=self.score), self.detect(image)[0]


def test_the_first_frames_of_a_track_are_the_mean_with_the_mirror():
    networks, image = TwoMinds(landmarks(np.random.default_rng(3))), np.zeros((480, 640, 3), np.uint8)
    tracker = PersonTracker(networks, PersonSettings(mirrored=2))

    def shift() -> float:
        return float((tracker.track(image).image - networks.truth.image)[:, 0].mean())

    assert [shift() for _ in range(4)] == pytest.approx([0, 0, 2, 2])
    assert networks.looks == 2 * [(False, True), (True, True)] + 2 * [(False, True)]
    networks.score = 0.0
    assert tracker.track(image) is None
    networks.score = 0.9
    assert shift() == pytest.approx(0)  # found again: another track


class OfTheTrunk:
    """Networks that say whether the person turns their back, by the index of the frame and in the mirror."""

    def __init__(self, truth: Landmarks, plain: str, mirrored: str = ""):
        self.truth, self.said, self.frame = truth, (plain, mirrored or plain), 0

    def detect(self, image, least_score=0.5):
        return [Detection(np.array([250.0, 250]), np.array([250.0, 130]), 0.9)]

    def landmarks(self, image, region, plate=None, mask=True):
        back = self.said[region.mirrored][self.frame] == "b"
        return swapped(self.truth, True, True, True) if back else self.truth, self.detect(image)[0]


@pytest.mark.parametrize(("careful", "in_a_mirror", "quick", "seen"), [
    ("ffbbf", "", "fffff", "fffff"),  # two against two: as before
    ("bbbbb", "ffbbb", "fffff", "fffff"),  # outvoted, then two against two
    ("ffbbf", "fffff", "bbbbb", "ffbbb"),  # three against one, then two against two
    ("ffbbb", "", "fffbb", "fffbb"),  # whoever turns round is followed once both say so
    ("bbbbb", "", "bbfff", "bbbbb"),  # the quick one is not asked where nothing changes
])
def test_nobody_turns_round_on_the_word_of_one_network(careful, in_a_mirror, quick, seen):
    rng = np.random.default_rng(5)
    truth, image = landmarks(rng), np.zeros((480, 640, 3), np.uint8)
    networks = [OfTheTrunk(truth, quick), OfTheTrunk(truth, careful, in_a_mirror)]
    tracker = PersonTracker(networks[0], PersonSettings(mirrored=2), lambda: networks[1])
    said = ""
    for i in range(len(seen)):
        for n in networks:
            n.frame = i
        said += "b" if turned(tracker.track(image, None, 0.06), truth) else "f"
    assert said == seen


def test_most_views_decide_which_way_the_trunk_faces_and_the_last_frame_where_they_are_equal():
    rng = np.random.default_rng(6)
    front = landmarks(rng)
    back = swapped(front, True, True, True)
    of_three = outvoted([back, front, shaken(front, rng), front], None)
    assert not turned(of_three, front) and np.abs(of_three.image - front.image).max() < 1
    assert turned(outvoted([back, front, front, back], None), front), "the first"
    assert turned(outvoted([front, front, back, back], back), front)
    assert not turned(outvoted([back, back, front, front], front), front)
    assert turned(outvoted([back, back, front], front), front)


def test_every_frame_is_seen_both_ways_and_at_several_sizes():
    assert len({v.mirrored for v in VIEWS}) == 2 and len({v.scale for v in VIEWS}) >= 3
    assert all(v.scale != 1 or v.angle != 0 for v in VIEWS)  # the view that was followed brings nothing new
