"""Synthesis: geometry of the renderer, light, the average over the shutter, ground truth, determinism, splits."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from blur_motion_ros.body.joints import LSP14, SMPL24
from blur_motion_ros.camera.camera import Camera
from blur_motion_ros.data.mocap import NOMINAL_REST, MotionClip
from blur_motion_ros.data.sequence import frame_paths, read_image, read_sequence
from blur_motion_ros.data.synth import body as bodies
from blur_motion_ros.data.synth import dataset, path_tracer, plates, scene, sequence
from blur_motion_ros.data.synth.render import PLAIN, Light, Renderer, Surface
from blur_motion_ros.data.synth.settings import SynthSettings
from blur_motion_ros.evaluation import metrics
from blur_motion_ros.evaluation.ground_truth import read_ground_truth
from blur_motion_ros.light import to_linear
from blur_motion_ros.motion import rotations

K = np.array([[100.0, 0, 31.5], [0, 100, 31.5], [0, 0, 1]])
SMALL = SynthSettings(width=160, height=120, frames=2, body="free", subframes=8, candidates=1, place="room", noise=0.0,
                      quality=0)


def ball(centre, radius, n=24):
    """A closed sphere, outside counter-clockwise."""
    u, v = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n, endpoint=False), indexing="ij")
    points = np.stack([np.sin(u) * np.cos(v), np.sin(u) * np.sin(v), np.cos(u)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(2 * n), indexing="ij")
    a, b = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
    faces = np.concatenate([np.stack([a, a + 2 * n, b], -1).reshape(-1, 3),
                            np.stack([b, a + 2 * n, b + 2 * n], -1).reshape(-1, 3)])
    return np.asarray(centre) + radius * points, faces.astype(np.int32), points


def surface(faces, points, colour=(0.5, 0.5, 0.5)):
    return Surface(faces, points, np.zeros(len(faces), np.int32),
                   np.array([[*colour, *colour, PLAIN, 1.0, 0.0, 0.0]]))


def light(sun=(0, -1, 0), share=1.0):
    sun = np.array(sun, float)
    return Light(sun / np.linalg.norm(sun), np.array([0, -1.0, 0]), share * np.ones(3), (1 - share) * np.ones(3),
                 np.zeros(3))


def walker(split="train", seconds=2.0, moving=True):
    """A clip that turns its left arm down at 0.7 rad/s and slides forward (+z) at 1 m/s; frozen if not `moving`."""
    t = np.arange(int(60 * seconds)) / 60 * moving
    rotvec = np.zeros((len(t), 24, 3))
    rotvec[:, SMPL24.index("left_shoulder"), 2] = -0.7 * t
    pelvis = np.stack([0 * t, 0.95 + 0 * t, t], 1)
    return MotionClip("walker", split, 60.0, rotvec, pelvis)


# ------------------------------------------------------------------------------------------------- renderer


def test_silhouette_of_a_ball_has_the_right_size_and_place():
    vertices, faces, normals = ball([0.2, -0.1, 2.0], 0.3, 40)
    assert bodies.signed_volume(vertices, faces) > 0
    _, alpha = Renderer(64, 64, 4).draw(vertices, normals, surface(faces, vertices), light(), K)
    y, x = np.mgrid[:64, :64]
    assert alpha.sum() == pytest.approx(np.pi * (100 * 0.3 / 2.0) ** 2, rel=0.05)
    assert (alpha * x).sum() / alpha.sum() == pytest.approx(31.5 + 10, abs=0.5)
    assert (alpha * y).sum() / alpha.sum() == pytest.approx(31.5 - 5, abs=0.5)


def test_the_nearer_surface_hides_the_other():
    near, faces, normals = ball([0, 0, 1.5], 0.1)
    far, _, _ = ball([0, 0, 2.5], 0.5)
    both = np.concatenate([far, near])
    faces = np.concatenate([faces, faces + len(far)])
    look = Surface(faces, both, np.repeat([0, 1], len(faces) // 2).astype(np.int32),
                   np.array([[0.8, 0, 0, 0, 0, 0, PLAIN, 1, 0, 0], [0, 0.8, 0, 0, 0, 0, PLAIN, 1, 0, 0]]))
    colour, _ = Renderer(64, 64).draw(both, np.tile(normals, (2, 1)), look, light((0, 0, -1)), K)
    assert colour[31, 31, 1] > 0.5 > 0.01 > colour[31, 31, 0]
    assert colour[31, 46, 0] > 0.3 and colour[31, 46, 1] == 0


def test_light_comes_from_where_the_sun_is():
    vertices, faces, normals = ball([0, 0, 2.0], 0.4)
    for sun, bright in (((-1, 0, -0.3), (31, 18)), ((1, 0, -0.3), (31, 45)), ((0, -1, -0.3), (18, 31))):
        colour, _ = Renderer(64, 64).draw(vertices, normals, surface(faces, vertices), light(sun), K)
        dark = tuple(63 - i for i in bright)
        assert colour[bright][0] > 0.3 and colour[dark][0] < 0.02, sun
    straight, _ = Renderer(64, 64).draw(vertices, normals, surface(faces, vertices), light((0, 0, -1)), K)
    assert straight[29:35, 29:35, 0].mean() == pytest.approx(0.5, rel=0.06), "albedo facing the sun"


def test_a_body_shades_itself():
    big, faces, normals = ball([0, 0.3, 2.0], 0.3)
    small, _, _ = ball([0, -0.35, 1.8], 0.15)
    both, count = np.concatenate([big, small]), len(big)
    look = surface(np.concatenate([faces, faces + count]), both)
    sun = light((0, -1, -0.4))
    lit, _ = Renderer(64, 64).draw(big, normals, surface(faces, big), sun, K)
    shaded, alpha = Renderer(64, 64).draw(both, np.tile(normals, (2, 1)), look, sun, K)
    lost = (lit[..., 0] - shaded[..., 0]) > 0.1
    assert lost[33:45, 24:40].sum() > 15, "the small ball's shadow falls on the big one below it"
    assert not lost[:, :16].any() and not lost[:, 48:].any()


# ------------------------------------------------------------------------------------------------- bodies


def test_posing_moves_the_named_limb_the_right_way():
    body = bodies.smpl_body(np.zeros(10))
    local = np.tile(np.eye(3), (2, 24, 1, 1))
    local[1, SMPL24.index("left_shoulder")] = rotations.exp(np.array([0, 0, np.pi / 2]))  # raise the left arm
    vertices, joints = body.pose(local, np.zeros((2, 3)))
    wrist = SMPL24.index("left_wrist")
    assert joints[0, wrist, 0] > 0.5 and abs(joints[1, wrist, 0] - joints[1, SMPL24.index("left_shoulder"), 0]) < 0.1
    assert joints[1, wrist, 1] > joints[0, wrist, 1] + 0.4
    hand = body.weights[:, [wrist, SMPL24.index("left_hand")]].sum(1) > 0.99
    moved = np.linalg.norm(vertices[1, hand].mean(0) - joints[1, wrist])
    assert moved < 0.2, f"the hand's skin is {moved:.2f} m from the wrist"
    other = body.vertices[:, 0] < -0.3
    assert np.abs(vertices[1, other] - vertices[0, other]).max() < 1e-6
    assert np.allclose(joints[0], body.rest - body.rest[0], atol=1e-9)


def test_joints_that_the_rig_does_not_turn_about_ride_on_their_bones():
    body = bodies.smpl_body(np.zeros(10))
    offsets = np.zeros((24, 3))
    offsets[0], offsets[6] = (0, 0.02, 0.07), (0, 0.1, 0)
    local = np.tile(np.eye(3), (1, 24, 1, 1))
    local[0, 0] = rotations.exp(np.array([0, np.pi / 2, 0]))  # to the left: what was in front is now at +x
    vertices, joints = body.pose(local, np.zeros((1, 3)))
    same, told = replace(body, offsets=offsets).pose(local, np.zeros((1, 3)))
    np.testing.assert_array_equal(vertices, same)
    np.testing.assert_allclose((told - joints)[0, [0, 6, 9]], [[0.07, 0.02, 0], [0, 0.1, 0], [0, 0, 0]], atol=1e-12)


def test_the_trunk_of_anny_has_the_joints_of_smpl():
    pytest.importorskip("anny")
    middle = dict.fromkeys(("age", "gender", "height", "muscle", "weight", "proportions"), 0.5) | {"age": 0.65}
    local, free = np.tile(np.eye(3), (1, 24, 1, 1)), bodies.smpl_body(np.zeros(10)).rest
    _, joints = bodies.anny_body(middle).pose(local, np.zeros((1, 3)))
    hips = [(j[1] + j[2]) / 2 for j in (joints[0], free)]
    trunk = [SMPL24.index(n) for n in ("pelvis", "spine1", "spine2", "spine3", "neck", "left_collar", "right_collar")]
    apart = np.linalg.norm((joints[0] - hips[0])[trunk] - (free - hips[1])[trunk], axis=1)
    assert apart.max() < 0.035, dict(zip(trunk, apart.round(3), strict=True))


def test_a_mesh_in_another_rest_pose_points_its_limbs_the_same_way():
    """A body whose arms hang 45 degrees in its rest pose follows SMPL motion as one at rest with arms sideways."""
    body = bodies.smpl_body(np.zeros(10))
    local = np.tile(np.eye(3), (1, 24, 1, 1))
    for side, sign in (("left", -1), ("right", 1)):
        local[0, SMPL24.index(f"{side}_shoulder")] = rotations.exp(np.array([0, 0, sign * np.pi / 4]))
    vertices, joints = body.pose(local, body.rest[:1])
    hanging = bodies.skinned_body(vertices[0], body.faces, body.weights, joints[0], "hanging")
    assert np.abs(hanging.rest - body.rest).max() < 0.005, "the aligned skeleton is the sideways one"
    straight, found = hanging.pose(np.tile(np.eye(3), (1, 24, 1, 1)), body.rest[:1])
    elbow, shoulder = (SMPL24.index(f"left_{n}") for n in ("elbow", "shoulder"))
    bone = found[0, elbow] - found[0, shoulder]
    wanted = NOMINAL_REST[elbow] - NOMINAL_REST[shoulder]
    assert bone @ wanted / np.linalg.norm(bone) / np.linalg.norm(wanted) > 0.9999
    tips = np.abs(body.vertices[:, 0]) > 0.5
    gap = np.linalg.norm(straight[0, tips] - body.pose(np.tile(np.eye(3), (1, 24, 1, 1)), body.rest[:1])[0][0, tips],
                         axis=1)
    assert gap.mean() < 0.03, f"arm skin is off by {gap.mean():.3f} m"


# ------------------------------------------------------------------------------------------------- scene


def test_the_camera_is_upright_and_sees_what_it_looks_at():
    R, T = scene.look_at(np.array([2.0, 1.5, 3.0]), np.array([0.0, 1.0, 0.0]))
    assert np.allclose(R @ R.T, np.eye(3)) and np.linalg.det(R) == pytest.approx(1)
    target = R @ [0.0, 1.0, 0.0] + T
    assert np.allclose(target[:2], 0) and target[2] == pytest.approx(np.sqrt(13.25))
    assert (R @ [0, 1.0, 0])[1] < -0.9, "up is -y in the camera"
    points = np.random.default_rng(0).normal(0, 0.5, (50, 3)) + [0, 1, 0]
    shot = scene.random_shot(np.random.default_rng(1), points, 160, 120)
    pixels = shot.camera.project(shot.to_camera(points))
    assert (pixels > 0).all() and (pixels < [160, 120]).all()


def test_plates_know_their_floor():
    place = plates.random_room(np.random.default_rng(3), np.zeros(3), 3.0)
    R, T = scene.look_at(np.array([0.0, 1.5, 2.5]), np.array([0.0, 0.8, 0.0]))
    intrinsics = np.array([[120.0, 0, 79.5], [0, 120, 59.5], [0, 0, 1]])
    view = plates.view(place, R, T, intrinsics, (160, 120), np.array([0.3, 0.9, 0.2]), 0.4)
    on_floor = np.isfinite(view.ground[..., 0])
    assert on_floor[-1].mean() > 0.6 and not on_floor[0].any()
    ground = view.ground[on_floor]
    assert np.abs(ground[:, 1]).max() < 1e-5
    y, x = np.nonzero(on_floor)
    seen = ground @ R.T + T
    offset = seen @ intrinsics.T
    pixels = offset[:, :2] / offset[:, 2:]
    assert np.abs(pixels - np.stack([x, y], 1)).max() < 0.51
    assert 0.01 < view.plate.mean() < 0.9


def test_the_shadow_falls_away_from_the_sun():
    ground = np.stack(np.meshgrid(np.linspace(-2, 2, 160), [0.0], np.linspace(2, -2, 120), indexing="ij"), -1)[:, 0]
    R, T = scene.look_at(np.array([0.0, 6.0, 0.001]), np.zeros(3))  # from above
    shot = scene.Shot(Camera(160, 120, np.array([[120.0, 0, 79.5], [0, 120, 59.5], [0, 0, 1]])), R, T)
    view = plates.View(np.ones((120, 160, 3), np.float32), np.ascontiguousarray(ground.swapaxes(0, 1), np.float32))
    vertices, faces, _ = ball([0, 1.0, 0], 0.3)
    shadow = scene.FloorShadow(view, shot, np.array([-0.6, 0.8, 0.0]), 0.5, 1.0)  # sun on the left
    left = shadow.factor(vertices, faces, np.full((4, 3), 50.0))
    y, x = np.mgrid[:120, :160]
    dark = 1 - left[..., 0]
    where = shot.camera.project(shot.to_camera(np.array([0.75, 0.0, 0.0])))
    assert (dark * x).sum() / dark.sum() == pytest.approx(where[0], abs=1.5)
    assert (dark * y).sum() / dark.sum() == pytest.approx(where[1], abs=1.5)
    assert dark.max() == pytest.approx(0.5, abs=0.05)


# ------------------------------------------------------------------------------------------------- sequences


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "a"
    return folder, sequence.make_sequence(folder, [walker()], SMALL, 5)


def test_a_sequence_has_the_documented_layout(made):
    folder, meta = made
    found, truth = read_sequence(folder), read_ground_truth(folder)
    assert len(found) == 2 and found.plate.shape == (120, 160, 3)
    assert truth.times.shape == (2, 9) and truth.joints.shape == (2, 9, 14, 3) and truth.smpl24.shape == (2, 9, 24, 3)
    assert np.allclose(truth.times[:, [0, -1]], truth.exposure)
    assert np.allclose(truth.exposure, [[0, 0.03], [1 / 30, 1 / 30 + 0.03]])
    assert np.array_equal(truth.K, found.camera.K) and meta["split"] == "train" and meta["seed"] == 5
    assert meta["joint_names"] == list(LSP14)
    assert len(frame_paths(folder, "alpha")) == len(frame_paths(folder, "sharp")) == 2


def test_ground_truth_lies_on_the_picture(made):
    """Every joint is inside the average silhouette at every instant: left/right and projection agree with pixels."""
    folder, _ = made
    truth, camera = read_ground_truth(folder), read_sequence(folder).camera
    for f in range(2):
        alpha = cv2.imread(str(folder / f"alpha_{f:03d}.png"), cv2.IMREAD_GRAYSCALE)
        near = cv2.dilate(alpha, np.ones((3, 3)))
        inner = [SMPL24.index(n) for n in ("pelvis", "left_knee", "right_knee", "neck", "left_elbow", "right_elbow")]
        pixels = np.round(camera.project(truth.smpl24[f][:, inner])).astype(int).reshape(-1, 2)
        assert (near[pixels[:, 1], pixels[:, 0]] > 20).all()


def test_true_vertices_are_the_body_under_the_clothes(made):
    """At mid-exposure, on the picture, and where the full mesh of the same body is."""
    folder, _ = made
    truth = read_ground_truth(folder)
    assert truth.vertices.shape == (2, 752, 3)
    for i in range(2):
        alpha = read_image(folder / f"alpha_{i:03d}.png")[..., 0]
        u, v = np.round(metrics.project(truth.vertices[i], truth.K)).astype(int).T
        inside = (u >= 0) & (u < alpha.shape[1]) & (v >= 0) & (v < alpha.shape[0])
        assert (alpha[v[inside], u[inside]] > 0).mean() > 0.97
        hip = truth.smpl24[i, 4, 0]
        assert np.linalg.norm(truth.vertices[i] - hip, axis=1).min() < 0.15
    body = bodies.smpl_body(np.linspace(-1, 1, 10))
    local = np.tile(np.eye(3), (1, 24, 1, 1))
    local[0, 16] = Rotation.from_euler("z", -60, degrees=True).as_matrix()
    full, coarse = (b.pose(local, np.zeros((1, 3)))[0][0] for b in (body, body.fitted))
    nearest, _ = cKDTree(full).query(coarse)
    assert nearest.mean() < 0.004 and nearest.max() < 0.02


def test_ground_truth_moves_as_the_clip(made):
    """The pelvis slides 1 m/s; mirrored or not, the arm that turns in the clip turns 0.7 rad/s here."""
    folder, meta = made
    truth = read_ground_truth(folder)
    side = "right" if meta["clip"].endswith("~") else "left"
    joints, t = truth.smpl24.reshape(-1, 24, 3), truth.times.ravel()
    pelvis = joints[:, 0]
    assert np.linalg.norm(pelvis[-1] - pelvis[0]) / (t[-1] - t[0]) == pytest.approx(1.0, abs=0.02)
    bone = joints[:, SMPL24.index(f"{side}_elbow")] - joints[:, SMPL24.index(f"{side}_shoulder")]
    turned = np.arccos(np.clip(bone[0] @ bone[-1] / np.linalg.norm(bone[0]) ** 2, -1, 1)) / (t[-1] - t[0])
    assert turned == pytest.approx(0.7, abs=0.01)
    other = "left" if side == "right" else "right"
    still = joints[:, SMPL24.index(f"{other}_elbow")] - joints[:, SMPL24.index(f"{other}_shoulder")]
    assert np.abs(still - still[0]).max() < 1e-4


def test_background_shows_where_nobody_was_and_pictures_are_bright(made):
    folder, _ = made
    found = read_sequence(folder)
    alpha = cv2.imread(str(folder / "alpha_000.png"), cv2.IMREAD_GRAYSCALE)
    top = np.zeros(alpha.shape, bool)
    top[:40] = True
    away = (alpha == 0) & top
    assert np.abs(found[0].image[away].astype(int) - found.plate[away]).max() <= 1
    assert 0.02 < (alpha / 255).mean() < 0.5


def test_a_still_body_is_not_blurred_and_the_average_is_of_light(tmp_path):
    sequence.make_sequence(tmp_path / "s", [walker(moving=False)], SMALL, 1)
    image, sharp = read_image(tmp_path / "s" / "blur_000.png"), read_image(tmp_path / "s" / "sharp_000.jpg")
    assert np.abs(to_linear(image) - to_linear(sharp)).mean() < 0.01
    assert read_ground_truth(tmp_path / "s").blur_rate.max() == 0


def test_same_seed_same_bytes_other_seed_other_picture(made, tmp_path):
    folder, _ = made
    sequence.make_sequence(tmp_path / "a", [walker()], SMALL, 5)
    names = sorted(p.name for p in folder.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "a").iterdir())
    for name in names:
        if not name.endswith(".npz"):  # a zip carries the time of day
            assert dataset.checksum(folder / name) == dataset.checksum(tmp_path / "a" / name), name
    a, b = np.load(folder / "gt.npz"), np.load(tmp_path / "a" / "gt.npz")
    assert all(np.array_equal(a[k], b[k]) for k in a.files)
    sequence.make_sequence(tmp_path / "b", [walker()], SMALL, 6)
    assert not np.array_equal(read_image(tmp_path / "b" / "blur_000.png"), read_image(folder / "blur_000.png"))


def test_fast_motion_gets_more_instants(made):
    rng = np.random.default_rng(0)
    take = sequence._choose_take(rng, [walker()], SMALL)
    shot = sequence._set_up(rng, take, SMALL, []).shot
    few = sequence._instants(take, shot, take.exposures[0], replace(SMALL, step=100.0))
    many = sequence._instants(take, shot, take.exposures[0], replace(SMALL, step=0.05))
    assert few == 9 and many > 16 and (many - 1) % 8 == 0


def test_motion_is_smooth_where_recorded_frames_meet():
    t = np.arange(60) / 60
    rotvec = np.zeros((60, 24, 3))
    rotvec[:, 18, 1] = np.sin(5 * t)
    clip = MotionClip("c", "train", 60.0, rotvec, np.stack([np.sin(4 * t), 0 * t, 0 * t], 1))
    fine = np.linspace(0.4, 0.5, 201)
    local, pelvis = sequence.smooth_motion(clip, 0.4, 0.5)(fine)
    angle = rotations.log(local[:, 18])[:, 1]
    assert np.abs(angle - np.sin(5 * fine)).max() < 1e-4 and np.abs(pelvis[:, 0] - np.sin(4 * fine)).max() < 1e-5
    jerk = np.abs(np.diff(angle, 2)) / (fine[1] - fine[0]) ** 2
    assert jerk.max() < 26, "no kinks: the true second derivative is at most 25"


def test_manifest_tells_tampering_and_finished_work_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "load_training_clips", lambda split, *_: [walker(split)])
    work = dataset.jobs(tmp_path, 2, 7, replace(SMALL, width=80, height=64))
    dataset.write_manifest(tmp_path, dataset.make(work))
    entries = json.loads((tmp_path / "manifest.json").read_text())["sequences"]
    assert [e["name"] for e in entries] == ["train_00007", "train_00008"] and entries[0]["clip"].startswith("walker")
    assert dataset.verify(tmp_path) == []
    stamp = (tmp_path / "train_00007" / "gt.npz").stat().st_mtime_ns
    dataset.make(work)
    assert (tmp_path / "train_00007" / "gt.npz").stat().st_mtime_ns == stamp
    (tmp_path / "train_00008" / "blur_001.png").write_bytes(b"other")
    assert dataset.verify(tmp_path) == ["train_00008/blur_001.png"]


def test_held_out_motions_never_enter_a_training_set(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(dataset, "load_training_clips", lambda split, *_: asked.append(split) or [walker(split)])
    job = dataset.jobs(tmp_path, 1, 0, SMALL)[0]
    assert {c.split for c in dataset.chosen_clips(job)} == {"train"} and asked == ["train"]
    with pytest.raises(ValueError, match="no train motion"):
        dataset.chosen_clips(replace(job, clips=("cartwheel",)))
    with pytest.raises(ValueError, match="no clip lasts"):
        sequence.make_sequence(tmp_path / "x", [walker(seconds=0.05)], SMALL, 0)


@pytest.mark.long
def test_the_path_tracer_sees_the_same_motion(tmp_path):
    """Cycles, another renderer with its own camera and motion blur, changes the picture exactly where alpha says."""
    try:
        path_tracer.interpreter()
    except path_tracer.CyclesError as error:
        pytest.skip(str(error))
    traced = replace(SMALL, renderer="cycles", samples=16, sharp=False, shadows=False, width=240, height=180)
    sequence.make_sequence(tmp_path / "c", [walker()], traced, 5)
    found = read_sequence(tmp_path / "c")
    plate = to_linear(found.plate)
    alpha = cv2.imread(str(tmp_path / "c" / "alpha_001.png"), cv2.IMREAD_GRAYSCALE) / 255
    changed = np.abs(to_linear(found[1].image) - plate).max(-1) > 0.04
    assert changed[alpha > 0.9].mean() > 0.7, "the body is where it should be"
    assert changed[cv2.dilate(alpha, np.ones((5, 5))) == 0][:5000].mean() < 0.1, "nothing above it changes"
    assert not list((tmp_path / "c").glob("sharp_*"))


def test_without_the_path_tracer_the_way_out_is_named(monkeypatch):
    monkeypatch.setenv("BLUR_MOTION_BPY_PYTHON", "false")
    with pytest.raises(path_tracer.CyclesError, match="pip install bpy"):
        path_tracer.interpreter()
