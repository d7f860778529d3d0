"""The landmark variant: views and features, streaming, losses, noise model, training that resumes, fusion."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.spatial.transform import Rotation  # noqa: E402

from blur_motion_ros.assets import AssetError, packaged  # noqa: E402
from blur_motion_ros.body import load_body  # noqa: E402
from blur_motion_ros.body.joints import BLAZEPOSE33_MIRROR, SMPL24_MIRROR  # noqa: E402
from blur_motion_ros.camera.camera import Camera  # noqa: E402
from blur_motion_ros.data.mocap import PARENTS, MotionClip, forward  # noqa: E402
from blur_motion_ros.initialiser import vibe  # noqa: E402
from blur_motion_ros.initialiser import vibe_landmarks as vl  # noqa: E402
from blur_motion_ros.initialiser.vibe_filter import PoseFilter  # noqa: E402
from blur_motion_ros.learning import (  # noqa: E402
    export_command,
    vibe_data,
    vibe_losses,
    vibe_motion,
    vibe_noise,
    vibe_train,
)
from blur_motion_ros.types import BodyState, Exposure, Frame, Landmarks, PoseMeasurement  # noqa: E402

TINY = vl.LandmarkSizes(feature=24, hidden=16, layers=1, regressor=24)
CAMERA = Camera(640, 480, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
IMAGE = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def clip(seconds=4.0, name="walk", seed=0):
    """A body that sways and turns: smooth, asymmetric."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 30)) / 30
    wave = np.sin(t[:, None, None] * rng.uniform(1, 6, (24, 3)) + rng.uniform(0, 6, (24, 3)))
    rotvec = 0.25 * wave * (rng.random((24, 3)) < 0.7)
    rotvec[:, 16, 2] -= 1.0
    rotvec[:, 17, 2] += 1.0
    pelvis = np.stack([0.3 * np.sin(t), 0.95 + 0 * t, 0.2 * np.cos(t)], 1)
    return MotionClip(name, "train", 30.0, rotvec, pelvis)


def sequence(seed=0, frames=12):
    settings = vibe_motion.MotionSettings(frames=frames, truncated=0.0)
    return vibe_motion.draw_sequence([clip()], np.random.default_rng(seed), settings)


def recordings(count=6, frames=12, bias=0.0, squash=1.0, jitter=0.0, seed=0):
    """Recordings of a made-up network: world depth squashed, image points shifted by `bias` sizes, white jitter."""
    body, rows = load_body(), []
    rng = np.random.default_rng(seed)
    for i in range(count):
        s = sequence(seed + i, frames)
        local, pelvis = s.at(s.middle)
        points = vibe_noise.landmark_positions(body, local, pelvis, s.betas)
        true = vibe_noise.ideal(points, local[:, 0], 0.5)
        flat = true.flat + bias * np.array([1.0, 0]) + jitter * rng.standard_normal(true.flat.shape)
        rays = np.concatenate([flat * true.size[:, None, None], np.ones(flat.shape[:2] + (1,))], -1) @ true.view
        image = rays[..., :2] / rays[..., 2:] * s.K[[0, 1], [0, 1]] + s.K[:2, 2]
        world = true.world * [1, 1, squash]
        _, joints = forward(local, body.rest_joints(s.betas), PARENTS)
        joints = joints - joints[:, :1] + pelvis[:, None]
        rows.append((image, world, np.ones((frames, 33)), np.ones(frames), s.open, s.close, s.K, local, pelvis, joints,
                     s.betas, np.array("walk", "U48"), np.array(False)))
    return vibe_data.Recordings(*(np.stack([r[k] for r in rows]) for k in range(13)))


def test_recordings_say_how_sure_their_landmarks_are_of_sides(tmp_path):
    """Files of before do not, and are not."""
    made = recordings(2)
    sure = dataclasses.replace(made, sides_sure=np.array([True, True]))
    sure.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as data:
        np.savez(tmp_path / "b.npz", **{k: v for k, v in data.items() if k != "sides_sure"})
    both = vibe_data.Recordings.load([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert [vibe_data.landmarks_of(both, i, 0).sides_sure for i in range(4)] == [True, True, False, False]
    assert both.select(np.array([0, 3])).sides_sure.tolist() == [True, False]


def landmarks(points, world=None):
    image = CAMERA.project(points)
    box = np.concatenate([image.min(0), image.max(0)])
    return Landmarks(image, points - points[23:25].mean(0) if world is None else world, np.ones(33), 1.0, None,
                     np.zeros((2, 3)), box)


def start(at=(0.0, 0.0, 4.0), turn=None):
    """A registered body standing upright before the camera."""
    local = np.tile(np.eye(3), (24, 1, 1))
    local[0] = np.diag([1.0, -1, -1]) if turn is None else turn @ np.diag([1.0, -1, -1])
    return vl.Start(local, np.zeros(10), np.array(at))


def person(at=(0.0, 0.0, 4.0), seed=0):
    """[33, 3] m: a standing body's landmarks around `at`."""
    body = load_body()
    upright = np.diag([1.0, -1, -1])
    local = np.tile(np.eye(3), (1, 24, 1, 1))
    local[0, 0] = upright
    local[0, 1:] = Rotation.from_rotvec(0.2 * np.random.default_rng(seed).standard_normal((23, 3))).as_matrix()
    return vibe_noise.landmark_positions(body, local, np.array([at]), np.zeros(10))[0]


# views and features

def test_a_view_looks_at_the_ray_without_roll():
    for centre in ([0.3, -0.2], [-0.8, 0.5], [0, 0]):
        r = vl.turn_to(np.array(centre))
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
        ray = r @ [*centre, 1]
        np.testing.assert_allclose(ray[:2], 0, atol=1e-12)
        assert ray[2] > 0 and abs(r[0, 1]) < 1e-12  # image columns stay columns: no roll


def test_features_do_not_depend_on_where_the_person_stands_on_a_circle_about_the_camera():
    """Turning the whole scene about the camera's y axis turns the view with it: same features but for the bearing."""
    turn = Rotation.from_euler("y", 20, degrees=True).as_matrix()
    a = person()
    fa, va = vl.features_of(landmarks(a), CAMERA, 0.0, 0.03, start())
    moved = a @ turn.T
    fb, vb = vl.features_of(landmarks(moved, a - a[23:25].mean(0)), CAMERA, 0.0, 0.03, start(turn @ [0, 0, 4], turn))
    np.testing.assert_allclose(fa[:198], fb[:198], atol=0.02)
    np.testing.assert_allclose(fa[204:], fb[204:], atol=0.03)  # pitch after yaw: equal to first order of the height
    assert va.size == pytest.approx(vb.size, rel=0.01)
    np.testing.assert_allclose(vb.rotation.T @ [0, 0, 1], turn @ va.rotation.T @ [0, 0, 1], atol=0.01)


def test_intrinsics_are_used_up_before_the_network():
    points = person((0.4, 0.1, 3.5))
    other = Camera(1280, 960, np.array([[900.0, 0, 700], [0, 900, 400], [0, 0, 1]]), np.array([-0.1, 0.02, 0, 0, 0]))
    mine = landmarks(points)
    theirs = dataclasses.replace(mine, image=other.project(points))
    a, b = (vl.features_of(m, c, 0.0, 0.03, start())[0] for m, c in ((mine, CAMERA), (theirs, other)))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_weak_perspective_of_a_view_is_metric_and_inverts():
    pelvis, size = np.array([[0.1, -0.2, 4.0]]), np.array([0.15])
    cam = vl.camera_of(pelvis, size)
    assert cam[0, 0] == pytest.approx(1 / 0.6)
    np.testing.assert_allclose(vl.view_translation(cam, size), pelvis)


def test_mirrored_features_are_the_features_of_the_mirrored_scene():
    points = person((0.5, 0.2, 3.0), seed=4)
    flipped = (points * [-1, 1, 1])[list(BLAZEPOSE33_MIRROR)]
    mine = start((0.5, 0.2, 3.0), Rotation.from_euler("yx", [0.5, 0.2]).as_matrix())
    mine.local[16] = Rotation.from_rotvec([0.3, -0.5, -1.0]).as_matrix()
    flip = np.diag([-1.0, 1, 1])
    theirs = vl.Start(flip @ mine.local[list(SMPL24_MIRROR)] @ flip, mine.betas, mine.pelvis * [-1, 1, 1])
    a = vl.features_of(landmarks(points), CAMERA, 0.03, 0.02, mine)[0]
    b = vl.features_of(landmarks(flipped), CAMERA, 0.03, 0.02, theirs)[0]
    np.testing.assert_allclose(vl.mirror_features(a[None])[0], b, atol=1e-5)
    np.testing.assert_allclose(vl.mirror_features(vl.mirror_features(a[None]))[0], a)


def test_mirrored_examples_are_a_consistent_world():
    e = vibe_data.examples_of(recordings(2))
    m = vibe_data.mirrored(e)
    body = load_body()
    for a in (e, m):
        joints = forward(a.rotmat[0].astype(float), body.rest_joints(a.betas[0]), PARENTS)[1]
        joints = joints - joints[:, :1] + a.pelvis[0][:, None]
        flat = joints[..., :2] / joints[..., 2:] / a.size[0][:, None, None]
        seen = a.features[0][:, :66].reshape(-1, 33, 2)
        np.testing.assert_allclose(flat[:, 20], seen[:, 15], atol=0.02)  # left wrist where the landmark is
        assert np.sign(np.linalg.det(a.rotmat)).min() == 1
    np.testing.assert_allclose(m.pelvis[..., 0], -e.pelvis[..., 0])


def test_rolled_examples_are_what_a_turned_camera_sees():
    """Turn the camera about its axis, the person in the middle of the picture: features and truth of that scene."""
    e = vibe_data.examples_of(recordings(1))
    points = person((0.0, 0.0, 4.0), seed=4)
    points[:, :2] -= points[[11, 12, 23, 24], :2].mean(0) / points[[11, 12, 23, 24], 2].mean() * points[:, 2:]
    angle = 0.3
    turn = Rotation.from_euler("z", angle).as_matrix()
    a, va = vl.features_of(landmarks(points), CAMERA, 0.03, 0.02, start((0.1, 0.2, 4.0)))
    b, _ = vl.features_of(landmarks(points @ turn.T), CAMERA, 0.03, 0.02, start(turn @ [0.1, 0.2, 4.0], turn))
    one = dataclasses.replace(e, features=np.tile(a, (1, 2, 1)))
    out = vibe_train.rolled(one, np.array([angle]))
    np.testing.assert_allclose(out.features[0, 0], b, atol=0.01)  # the middle ray is found to a hundredth
    np.testing.assert_allclose(out.view[0, 0].T @ out.pelvis[0, 0], e.view[0, 0].T @ e.pelvis[0, 0], atol=1e-5)
    np.testing.assert_allclose(out.view[0, 0].T @ out.rotmat[0, 0, 0], e.view[0, 0].T @ e.rotmat[0, 0, 0], atol=1e-5)


# network

def small():
    torch.manual_seed(0)
    return vl.LandmarkVibe(vl.LandmarkSizes(feature=32, hidden=24, layers=2, regressor=40)).eval()


def test_streaming_equals_the_batch_and_the_script():
    model = small()
    script = torch.jit.script(model)
    x = torch.randn(1, 9, vl.FEATURES)
    with torch.no_grad():
        whole, _ = model(x)
        state, steps = None, []
        for i in range(9):
            p, state = script(x[:, i:i + 1], state)
            steps.append(p)
    for k, name in enumerate(whole._fields):
        assert (torch.cat([p[k] for p in steps], 1) - whole[k]).abs().max() < 1e-5, name


def test_a_stream_forgets_after_a_gap_and_on_reset():
    stream = vibe.LandmarkStream(small())
    seen = landmarks(person())
    frames = [Frame(IMAGE, Exposure(t, t + 0.02), CAMERA) for t in (0.0, 0.033, 0.066, 5.0)]
    first, _, third, late = (stream.step(f, seen, start()) for f in frames)
    assert np.abs(first.local - third.local).max() > 1e-6
    np.testing.assert_allclose(late.local, first.local, atol=1e-6)
    stream.reset()
    np.testing.assert_allclose(stream.step(frames[1], seen, start()).betas, first.betas, atol=1e-6)


def test_the_landmark_network_needs_a_registration():
    with pytest.raises(ValueError, match="start is missing"):
        vibe.LandmarkStream(small()).step(Frame(IMAGE, Exposure(0, 0.02), CAMERA), landmarks(person()))


def test_an_untrained_correction_of_nothing_returns_the_registration():
    """With zero output layers the network is the identity on its start, in whatever view."""
    model = small()
    for head in (model.vibe.regressor.decpose, model.vibe.regressor.decshape, model.vibe.regressor.deccam):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    at = np.array([1.0, -0.4, 3.5])
    begin = start(at, Rotation.from_euler("yx", [0.7, 0.3]).as_matrix())
    begin.local[18] = Rotation.from_rotvec([0, -1.2, 0]).as_matrix()
    out = vibe.LandmarkStream(model).step(Frame(IMAGE, Exposure(0, 0.02), CAMERA), landmarks(person(at)), begin)
    np.testing.assert_allclose(out.local, begin.local, atol=1e-5)
    np.testing.assert_allclose(out.pelvis, at, atol=1e-4)


def test_stream_output_is_a_body_in_the_camera_frame_with_a_proper_covariance():
    out = vibe.LandmarkStream(small()).step(Frame(IMAGE, Exposure(0, 0.02), CAMERA), landmarks(person((1.2, 0, 4.0))),
                                                start((1.2, 0, 4.0)))
    np.testing.assert_allclose(out.local @ np.swapaxes(out.local, 1, 2), np.tile(np.eye(3), (24, 1, 1)), atol=1e-5)
    assert np.linalg.eigvalsh(out.covariance).min() > 0
    assert out.pelvis[0] / out.pelvis[2] == pytest.approx(0.3, abs=0.2)  # in the direction of the person
    state = vibe.state_of(out, load_body())
    np.testing.assert_allclose(load_body().rest_joints(out.betas)[0] + state.transl, out.pelvis)


# the bidirectional network

def bidirectional(seed=0):
    torch.manual_seed(seed)
    return vl.LandmarkVibe(dataclasses.replace(TINY, bidirectional=True)).eval()


def sights(count=6):
    """Somebody walks past, one frame every 40 ms, arms at their sides."""
    out = []
    for i in range(count):
        at = (-0.5 + 0.2 * i, 0.05 * i, 4.0 - 0.1 * i)
        exposure = Exposure(0.04 * i, 0.042 * i + 0.01)
        out.append(vibe.Sight(exposure, CAMERA, landmarks(person(at)), start(at)))
    return out


def test_a_bidirectional_encoder_sees_the_future_and_whole_sequences_do_not_depend_on_their_batch():
    model = bidirectional()
    x = torch.randn(2, 7, vl.FEATURES, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, -1] += 1
    with torch.inference_mode():
        whole, changed = model(x)[0], model(other)[0]
        script = torch.jit.script(model)(x)[0]
        for k, name in enumerate(whole._fields):
            assert (torch.cat([model(x[i:i + 1])[0][k] for i in range(2)]) - whole[k]).abs().max() < 1e-5, name
            assert (script[k] - whole[k]).abs().max() < 1e-5, name
        assert (whole.rotmat[:, 0] - changed.rotmat[:, 0]).abs().max() > 1e-7
        streaming = small()
        assert torch.equal(streaming(x)[0].rotmat[:, :-1], streaming(other)[0].rotmat[:, :-1])


def test_both_directions_of_a_streaming_encoder_are_the_mean_of_its_two_readings():
    sizes = dataclasses.replace(TINY, layers=2)
    one = vl.LandmarkVibe(sizes).eval()
    two = vl.LandmarkVibe(dataclasses.replace(sizes, bidirectional=True)).eval()
    with torch.no_grad():
        for p in one.parameters():
            p.mul_(3)  # so that directions differ
        two.load_state_dict(vibe_train.both_directions(one.state_dict()))
        x = torch.randn(1, 6, TINY.feature, generator=torch.Generator().manual_seed(2))
        ahead, back = one.vibe.encoder(x)[0], one.vibe.encoder(x.flip(1))[0].flip(1)
        both = two.vibe.encoder(x)[0]
    assert (ahead - back).abs().max() > 1e-2
    assert (both - 0.5 * (ahead + back)).abs().max() < 1e-5


def test_reading_a_mirrored_recording_gives_the_mirrored_answer():
    """The scene and its mirror image are read alike, so mirroring (about the principal point) commutes with reading."""
    flip = np.diag([-1.0, 1, 1])
    reader, seen = vibe.LandmarkReader(bidirectional()), sights()
    order, joints = list(BLAZEPOSE33_MIRROR), list(SMPL24_MIRROR)
    other = []
    for s in seen:
        marks = dataclasses.replace(s.landmarks, image=(s.landmarks.image * [-1, 1] + [640, 0])[order],
                                    world=(s.landmarks.world @ flip)[order], visibility=s.landmarks.visibility[order])
        begin = vl.Start(flip @ s.start.local[joints] @ flip, s.start.betas, flip @ s.start.pelvis)
        other.append(vibe.Sight(s.exposure, s.camera, marks, begin))
    for a, b in zip(reader.read(seen), reader.read(other), strict=True):
        expected = vibe.mirrored(a)
        np.testing.assert_allclose(b.local, expected.local, atol=1e-5)
        np.testing.assert_allclose(b.pelvis, expected.pelvis, atol=1e-5)
        np.testing.assert_allclose(b.covariance, expected.covariance, atol=1e-6)


def test_a_mirrored_answer_has_the_mirrored_errors():
    """Samples of the Gaussian, mirrored as bodies, have the covariance that `mirrored` says."""
    rng, flip, order = np.random.default_rng(0), np.diag([-1.0, 1, 1]), list(SMPL24_MIRROR)
    root = rng.standard_normal((75, 75)) * 1e-3
    out = vibe.StreamOutput(Rotation.random(24, random_state=1).as_matrix(), np.zeros(10), np.array([0.3, 0, 4]),
                            root @ root.T)
    mean = vibe.mirrored(out)
    step = root[:, 0]  # a covariance is a sum of such steps' outer products
    local = out.local @ Rotation.from_rotvec(step[3:].reshape(24, 3)).as_matrix()
    theirs = Rotation.from_matrix(np.swapaxes(mean.local, 1, 2) @ (flip @ local[order] @ flip)).as_rotvec()
    only = vibe.mirrored(dataclasses.replace(out, covariance=np.outer(step, step))).covariance
    moved = np.r_[flip @ step[:3], theirs.ravel()]
    np.testing.assert_allclose(only, np.outer(moved, moved), atol=1e-12)
    np.testing.assert_allclose(vibe.mirrored(mean).covariance, out.covariance, atol=1e-15)


def test_networks_of_the_other_kind_and_garbage_are_refused_by_name(tmp_path):
    vibe_train.export(small(), tmp_path / "stream.ts", {})
    vibe_train.export(bidirectional(), tmp_path / "both.ts", {}, half=True)
    (tmp_path / "garbage.ts").write_bytes(b"no network at all")
    with pytest.raises(ValueError, match="stream.ts: not a bidirectional"):
        vibe.LandmarkReader.load(tmp_path / "stream.ts")
    with pytest.raises(ValueError, match="both.ts: a bidirectional network, which cannot stream"):
        vibe.LandmarkStream.load(tmp_path / "both.ts")
    with pytest.raises(ValueError, match="garbage.ts: not a TorchScript file"):
        vibe.LandmarkReader.load(tmp_path / "garbage.ts")
    with pytest.raises(ValueError, match="nothing.ts: no such file"):
        vibe.LandmarkReader.load(tmp_path / "nothing.ts")


def test_weights_kept_in_half_precision_give_the_same_answers(tmp_path):
    model = bidirectional()
    vibe_train.export(model, tmp_path / "both.ts", {}, half=True)
    kept, whole = vibe.LandmarkReader.load(tmp_path / "both.ts"), vibe.LandmarkReader(model)
    for a, b in zip(kept.read(sights()), whole.read(sights()), strict=True):
        np.testing.assert_allclose(a.local, b.local, atol=2e-3)
        np.testing.assert_allclose(a.pelvis, b.pelvis, rtol=2e-3, atol=2e-3)
    assert next(model.parameters()).dtype == torch.float32  # the run's own weights stay as they are


# losses

def test_skeleton_equals_the_reference_kinematics():
    body = load_body()
    basis = torch.from_numpy(body.joint_basis)
    rng = np.random.default_rng(2)
    local = Rotation.from_rotvec(0.5 * rng.standard_normal((24, 3))).as_matrix()
    betas = rng.standard_normal(10)
    ours = vibe_losses.Skeleton(basis[..., 0], basis[..., 1:]).joints(torch.from_numpy(local), torch.from_numpy(betas))
    _, joints = forward(local[None], body.rest_joints(betas), PARENTS)
    np.testing.assert_allclose(ours.numpy(), joints[0] - joints[0, 0], atol=1e-12)


def perfect(target):
    """A prediction that is the truth."""
    cam = torch.cat([1 / (target.size[..., None] * target.pelvis[..., 2:]), target.pelvis[..., :2]], -1)
    t = target.rotmat.shape[1]
    return vl.LandmarkPrediction(target.rotmat[..., :2].flatten(-2), target.rotmat,
                                 target.shape[:, None].expand(-1, t, -1), cam, torch.zeros(*cam.shape[:2], 75))


def batch(count=2):
    e = vibe_data.examples_of(recordings(count))
    t = torch.from_numpy
    return vibe_losses.Target(t(e.rotmat), t(e.betas), t(e.pelvis), t(e.size), t(e.view), t(e.weight))


def skeleton():
    basis = torch.from_numpy(load_body().joint_basis.astype(np.float32))
    return vibe_losses.Skeleton(basis[..., 0], basis[..., 1:])


def test_losses_are_zero_at_the_truth_and_count_metres():
    target, body = batch(), skeleton()
    terms = vibe_losses.landmark_losses(perfect(target), target, body)
    for name, value in terms.items():
        assert value == pytest.approx(1e-4 if name in ("distance", "velocity", "acceleration") else 0, abs=2e-4), name
    p = perfect(target)
    tall = p._replace(shape=p.shape.clone())
    elbow = target.rotmat.clone()
    elbow[:, :, 18] = elbow[:, :, 18] @ torch.from_numpy(Rotation.from_euler("y", 30, degrees=True).as_matrix()).float()
    bent = vibe_losses.landmark_losses(tall._replace(rotmat=elbow), target, body)
    forearm = np.linalg.norm(load_body().rest_joints()[20] - load_body().rest_joints()[18])
    assert 0 < bent["distance"] < 3 * 2 * np.sin(np.pi / 12) * forearm / 26 * 1.3  # wrist and hand of 26 points
    far = vibe_losses.landmark_losses(p._replace(cam=p.cam / torch.tensor([1.1, 1, 1])), target, body)
    assert far["depth"] == pytest.approx(np.log(1.1), rel=1e-3) and far["distance"] < 1e-3


def test_bone_directions_count_a_reversed_limb_two():
    joints = torch.from_numpy(load_body().joint_basis[..., 0]).float()
    directions = vibe_losses.directions(vibe_losses.with_lsp(joints))
    np.testing.assert_allclose(torch.linalg.norm(directions, dim=-1), 1, atol=1e-3)
    bent = joints.clone()
    bent[20] = 2 * joints[18] - joints[20]  # the left forearm points back along the upper arm
    away = torch.linalg.norm(vibe_losses.directions(vibe_losses.with_lsp(bent)) - directions, dim=-1)
    assert float(away.max()) == pytest.approx(2, abs=1e-3) and int((away > 1e-6).sum()) == 1


def test_likelihood_is_least_at_the_true_spread():
    target = batch()
    p = perfect(target)
    noise = 0.1 * torch.randn(p.rotmat.shape[:3] + (3,), generator=torch.Generator().manual_seed(0))
    from blur_motion_ros.motion.rotations_torch import exp

    p = p._replace(rotmat=p.rotmat @ exp(noise))

    def nll(sigma):
        q = p._replace(log_sigma=torch.full_like(p.log_sigma, float(np.log(sigma))))
        r = vibe_losses.residuals(q, vibe_losses.pelvis_of(q.cam, target.size), target)[..., 3:]
        return float((q.log_sigma[..., 3:] + 0.5 * (r / sigma) ** 2).mean())

    assert nll(0.1) < min(nll(0.08), nll(0.125))


def test_frames_without_a_person_do_not_count():
    target, body = batch(), skeleton()
    weight = torch.ones_like(target.weight)
    weight[:, 5:] = 0
    p = perfect(target)
    wrong = p._replace(rotmat=torch.where(weight[..., None, None, None] > 0, p.rotmat, torch.eye(3)))
    terms = vibe_losses.landmark_losses(wrong, dataclasses.replace(target, weight=weight), body)
    assert terms["distance"] < 1e-3


# noise model

def test_noise_model_recovers_a_known_distortion():
    r = recordings(24, bias=0.1, squash=0.6, jitter=0.02)
    model, truths, weight = vibe_noise.measure(r, load_body())
    assert weight.mean() > 0.9
    numbers = vibe_noise._numbers(r, truths, weight, list(range(len(r))))
    assert numbers["depth"] == pytest.approx(0.6, abs=0.01)
    assert numbers["missing"] == 0 and numbers["swap"] < 0.02
    new = sequence(77)
    local, pelvis = new.at(new.middle)
    truth = vibe_noise.ideal(vibe_noise.landmark_positions(load_body(), local, pelvis, new.betas), local[:, 0], 0.5)
    rays, world, visibility, score = model.play(truth, np.random.default_rng(0))
    fitted = (world[..., 2] * truth.world[..., 2]).sum() / (truth.world[..., 2] ** 2).sum()
    assert fitted == pytest.approx(0.6, abs=0.15)
    assert rays.shape == (12, 33, 2) and visibility.shape == (12, 33) and (score == 1).all()


def test_simulated_sequences_have_the_layout_of_recordings_and_repeat_by_seed():
    r = recordings(12, jitter=0.02)
    model, _, _ = vibe_noise.measure(r, load_body())
    a, b = (vibe_noise.simulate([clip()], load_body(), model, 4, 3, 12) for _ in range(2))
    for f in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name))
        assert getattr(a, f.name).shape[1:] == getattr(r, f.name).shape[1:]
    assert vibe_data.examples_of(a).weight.mean() > 0.8


# training

def trainer(out, steps, prior="attention", sizes=TINY):
    settings = vibe_train.TrainSettings(steps=steps, batch=3, prior=prior, prior_steps=2, checkpoint=2, sizes=sizes)
    motion = vibe_data.clip_windows([clip()], vibe_train.WINDOW, 25.0, 8)
    return vibe_train.Trainer(settings, vibe_data.examples_of(recordings(4, 18)), motion, skeleton(), out)


@pytest.mark.parametrize("prior", vibe_train.PRIORS)
def test_training_is_deterministic_and_resumes_where_it_stopped(tmp_path, prior):
    whole = trainer(tmp_path / "a", 4, prior)
    losses = [t["loss"] for t in whole.run()]
    part = trainer(tmp_path / "b", 4, prior)
    run = part.run()
    first = [next(run)["loss"] for _ in range(2)]
    part.save()
    again = trainer(tmp_path / "b", 4, prior)
    assert again.resume() and again.step == 2
    rest = [t["loss"] for t in again.run()]
    np.testing.assert_allclose(first + rest, losses, rtol=1e-5)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_run_starts_from_the_weights_of_another(tmp_path):
    first = trainer(tmp_path / "a", 2)
    list(first.run())
    second = trainer(tmp_path / "b", 2)
    second.start_from(tmp_path / "a" / "checkpoint.pt")
    assert second.step == 0
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    vibe_train.export(first.model, tmp_path / "first.ts", {})
    third = trainer(tmp_path / "c", 2)
    third.start_from(tmp_path / "first.ts")
    x = torch.randn(1, 3, vl.FEATURES)
    with torch.no_grad():
        np.testing.assert_array_equal(third.model.eval()(x)[0].rotmat, first.model.eval()(x)[0].rotmat)
    with pytest.raises(ValueError, match="--init"):
        second.start_from(tmp_path / "nothing.pt")


def test_a_bidirectional_run_starts_from_a_streaming_network_and_can_be_exported(tmp_path):
    first = trainer(tmp_path / "a", 2, "none")
    list(first.run())
    sizes = dataclasses.replace(TINY, bidirectional=True)
    both = trainer(tmp_path / "b", 2, "none", sizes)
    both.start_from(tmp_path / "a" / "checkpoint.pt")
    for name, w in vibe_train.both_directions(first.model.state_dict()).items():
        assert torch.equal(both.model.state_dict()[name], w), name
    list(both.run())
    assert export_command.export_run(tmp_path / "b", tmp_path / "both.ts") == 0
    assert torch.jit.load(str(tmp_path / "both.ts")).state_dict()["vibe.encoder.linear.weight"].dtype == torch.float16
    again = trainer(tmp_path / "c", 2, "none", sizes)
    again.start_from(tmp_path / "both.ts")
    torch.testing.assert_close(again.model.state_dict(), both.model.state_dict(), rtol=1e-3, atol=1e-4)


def test_a_blend_lies_between_the_weights_it_is_made_of(tmp_path):
    first = trainer(tmp_path / "a", 2)
    list(first.run())
    second = trainer(tmp_path / "b", 2)
    second.start_from(tmp_path / "a" / "checkpoint.pt")
    list(second.run())
    before = {k: v.clone() for k, v in second.model.state_dict().items()}
    second.blend_with(tmp_path / "a" / "checkpoint.pt", 0.25)
    for k, v in second.model.state_dict().items():
        torch.testing.assert_close(v, 0.25 * before[k] + 0.75 * first.model.state_dict()[k])


def test_training_learns(tmp_path):
    t = trainer(tmp_path, 60, "none")
    losses = [x["distance"] for x in t.run()]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_resuming_with_other_settings_is_refused(tmp_path):
    t = trainer(tmp_path, 2)
    list(t.run())
    other = trainer(tmp_path, 5)
    with pytest.raises(ValueError, match="other settings .steps."):
        other.resume()


def test_discriminator_data_are_body_poses_of_real_motion():
    windows = vibe_data.clip_windows([clip()], 16, 25.0, 8)
    assert windows.shape[1:] == (16, 69) and windows.dtype == np.float32
    np.testing.assert_allclose(windows[0, 0], clip().resampled(25.0).rotvec[0, 1:].ravel(), atol=1e-5)


# fusion

def measurement(spread):
    state = BodyState(np.zeros(3), np.zeros((23, 3)), np.zeros(10), np.array([0.0, 0, 4]))
    return PoseMeasurement(0.0, state, np.eye(75) * spread**2, None, 1.0)


def output(spread):
    local = Rotation.from_rotvec(np.tile([0.2, 0, 0], (24, 1))).as_matrix()
    pelvis = load_body().rest_joints()[0] + [0.1, 0, 4.2]
    return vibe.StreamOutput(local, np.zeros(10), pelvis, np.eye(75) * spread**2)


@pytest.mark.parametrize("mine, theirs, share", [(0.1, 0.1, 0.5), (1e-4, 0.1, 0.0), (0.1, 1e-4, 1.0)])
def test_fusion_lies_between_by_information(mine, theirs, share):
    fused = vibe.fuse(measurement(mine), output(theirs), load_body(), trust=1.0, place_trust=1.0)
    np.testing.assert_allclose(fused.state.body_pose[:, 0], 0.2 * share, atol=1e-4)
    np.testing.assert_allclose(fused.state.transl, [0.1 * share, 0, 4 + 0.2 * share], atol=1e-4)
    assert np.linalg.eigvalsh(fused.covariance).min() > 0


# the filter

def turning(rate, count=60, jitter=0.0, seed=0):
    """Times, and states whose left elbow turns at `rate` rad/s while the body walks at 1 m/s."""
    rng = np.random.default_rng(seed)
    times = np.arange(count) / 30
    states = []
    for t in times:
        pose = np.zeros((23, 3))
        pose[17, 1] = rate * t
        pose += jitter * rng.standard_normal((23, 3))
        states.append(BodyState(np.array([np.pi, 0, 0]), pose, np.zeros(10), np.array([t, 0, 4.0])))
    return times, states


def test_filter_does_not_lag_behind_a_constant_velocity():
    times, states = turning(-1.0, 40)
    run = PoseFilter()
    out = [run(s, t) for s, t in zip(states, times, strict=True)]
    assert out[0].body_pose[17, 1] == 0
    assert out[-1].body_pose[17, 1] == pytest.approx(states[-1].body_pose[17, 1], abs=1e-3)
    np.testing.assert_allclose(out[-1].transl, states[-1].transl, atol=1e-3)
    np.testing.assert_allclose(np.abs(out[-1].global_orient), [np.pi, 0, 0], atol=1e-6)


def test_filter_takes_out_jitter_and_forgets_after_a_gap():
    times, states = turning(0.0, 200, jitter=0.1)
    run = PoseFilter()
    out = np.array([run(s, t).body_pose for s, t in zip(states, times, strict=True)])
    raw = np.array([s.body_pose for s in states])
    assert np.diff(out, 2, axis=0).std() < 0.55 * np.diff(raw, 2, axis=0).std()
    assert out[20:].std() < 0.85 * raw[20:].std()
    late = run(states[3], 100.0)
    np.testing.assert_allclose(late.body_pose, states[3].body_pose, atol=1e-12)


# the packaged network

def network(name=vibe.LANDMARK_NETWORK):
    try:
        return packaged(name)
    except AssetError:
        pytest.skip("no trained landmark network is packaged")


@pytest.mark.parametrize("name", [vibe.LANDMARK_NETWORK, vibe.HINDSIGHT_NETWORK])
def test_packaged_network_is_the_one_described_and_small(name):
    path = network(name)
    card = json.loads(path.with_suffix(".json").read_text())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
    assert path.stat().st_size <= 8_000_000
    assert {"seed", "command", "cpu_seconds", "held_out"} <= set(card)


def test_packaged_bidirectional_network_needs_no_package(tmp_path):
    code = f"""
import torch
m = torch.jit.load({str(network(vibe.HINDSIGHT_NETWORK))!r}).float()
with torch.inference_mode():
    p, _ = m(torch.zeros(2, 5, {vl.FEATURES}))
print(tuple(p.rotmat.shape), p.rotmat.dtype)
"""
    out = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True,
                         capture_output=True, text=True)
    assert out.stdout.strip() == "(2, 5, 24, 3, 3) torch.float32"


def test_packaged_bidirectional_network_places_a_standing_person():
    """As below, every frame of a short recording; its distance is coarse (docs/vibe.md, Limits)."""
    seen = [vibe.Sight(Exposure(i / 30, i / 30 + 0.01), CAMERA, landmarks(person((0.3, 0.1, 4.0))),
                       start((0.3, 0.1, 4.0))) for i in range(15)]
    for out in vibe.LandmarkReader.load(network(vibe.HINDSIGHT_NETWORK)).read(seen):
        np.testing.assert_allclose(out.pelvis[:2] / out.pelvis[2], [0.075, 0.025], atol=0.005)
        assert out.pelvis[2] == pytest.approx(4.0, rel=0.2)
        assert out.local[0, 1, 1] < -0.9
        assert out.local[0, 2, 2] < -0.7


def test_packaged_network_takes_under_three_milliseconds_and_no_package(tmp_path):
    code = f"""
import time, torch
torch.set_num_threads(1)
m, x, s, times = torch.jit.load({str(network())!r}), torch.zeros(1, 1, {vl.FEATURES}), None, []
with torch.inference_mode():
    for i in range(40):
        began = time.process_time()
        p, s = m(x, s)
        times.append(time.process_time() - began)
print(sorted(times)[20])
"""
    out = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True,
                         capture_output=True, text=True)
    assert float(out.stdout) < 0.003


def test_packaged_network_places_a_standing_person():
    """Noise-free landmarks of a body 4 m away: distance, facing and upright within what the network promises."""
    stream = vibe.LandmarkStream.load(network())
    points = person((0.3, 0.1, 4.0))
    for i in range(15):
        frame = Frame(IMAGE, Exposure(i / 30, i / 30 + 0.01), CAMERA, i)
        out = stream.step(frame, landmarks(points), start((0.3, 0.1, 4.0)))
    assert np.linalg.norm(out.pelvis - [0.3, 0.1, 4.0]) < 0.6
    assert out.local[0, 1, 1] < -0.9  # the body's up is the camera's -y
    assert out.local[0, 2, 2] < -0.7  # facing the camera
