"""Random motions, cameras and pictures that the landmark encoder learns from."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from blur_motion_ros import light  # noqa: E402
from blur_motion_ros.body import load_body  # noqa: E402
from blur_motion_ros.data.mocap import PARENTS, MotionClip, forward  # noqa: E402
from blur_motion_ros.learning import vibe_motion, vibe_scene  # noqa: E402


@pytest.fixture(scope="module")
def puppet():
    return vibe_scene.Puppet.of(load_body(lod="full"))


def raising_clip():
    """The left arm swings, the rest stands, facing +z."""
    t = np.arange(120) / 60
    rotvec = np.zeros((120, 24, 3))
    rotvec[:, 17, 2] = 1.2
    rotvec[:, 16, 2] = -1.2 + 1.5 * np.sin(2 * t)
    return MotionClip("raise", "train", 60.0, rotvec, np.tile([0, 0.95, 0.0], (120, 1)))


def test_skinning_moves_vertices_with_their_joints(puppet):
    rng = np.random.default_rng(0)
    from scipy.spatial.transform import Rotation

    local = Rotation.from_rotvec(0.4 * rng.standard_normal((2 * 24, 3))).as_matrix().reshape(2, 24, 3, 3)
    rest, joints = puppet.shaped(rng.standard_normal(10))
    pelvis = np.array([[0, 0, 3.0], [1, 0, 3]])
    vertices = puppet.pose(rest, joints, local, pelvis)
    turned, positions = forward(local, joints.astype(float), PARENTS)
    positions = positions + (pelvis - positions[:, 0])[:, None]
    for j in (15, 7, 20):  # rigid parts: vertices that hang on one joint alone
        rigid = np.flatnonzero(puppet.weights[:, j] > 0.999)[:50]
        expected = positions[:, j, None] + (rest[rigid] - joints[j]) @ np.swapaxes(turned[:, j], 1, 2)
        assert len(rigid) > 5
        np.testing.assert_allclose(vertices[:, rigid], expected, atol=1e-4)


def test_camera_is_level_right_handed_and_sees_the_body():
    settings = vibe_motion.MotionSettings(frames=8, truncated=0.0)
    for seed in range(10):
        s = vibe_motion.draw_sequence([raising_clip()], np.random.default_rng(seed), settings)
        assert np.linalg.det(s.camera_from_world) == pytest.approx(1)
        assert s.camera_from_world[1, 1] < -0.5  # the world's up is the image's up (y down)
        local, pelvis = s.at(s.middle)
        _, joints = forward(local, load_body().rest_joints(s.betas), PARENTS)
        joints = joints - joints[:, :1] + pelvis[:, None]
        uv = joints @ s.K.T
        uv = uv[..., :2] / uv[..., 2:]
        assert joints[..., 2].min() > 0.5
        assert (uv > -30).all() and (uv < [670, 510]).all()
        assert (uv[:, 15, 1] < uv[:, 7, 1]).all()  # head above ankle


def test_plain_sequences_play_the_recording_itself():
    clip = raising_clip()
    settings = vibe_motion.MotionSettings(frames=8)
    s = vibe_motion.draw_sequence([clip], np.random.default_rng(3), settings, plain=True)
    local, _ = s.at(s.middle)
    expected, _ = clip.sample(s.motion.start + s.middle)
    np.testing.assert_allclose(local[:, 1:], expected[:, 1:], atol=1e-9)


def test_sequences_repeat_by_seed_and_differ_between_seeds():
    settings = vibe_motion.MotionSettings(frames=8)
    a, b, c = (vibe_motion.draw_sequence([raising_clip()], np.random.default_rng(k), settings).at(np.arange(3.0) / 30)
               for k in (1, 1, 2))
    np.testing.assert_array_equal(a[0], b[0])
    assert np.abs(a[1] - c[1]).max() > 1e-3


def test_random_clips_are_smooth_rotations_and_repeat():
    a, b = (vibe_motion.random_clips(6, 5) for _ in range(2))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.rotvec, y.rotvec)
        joints = x.joints()
        assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * x.fps < 25  # m/s
    assert a[0].rotvec[:, 4, 0].min() > -0.1  # knees do not bend forwards


def test_share_of_invented_clips_is_as_set_and_none_in_plain_sequences():
    def names(share, plain=False):
        settings = vibe_motion.MotionSettings(frames=4, invented=share, splice=0.0)
        return [vibe_motion.draw_sequence([raising_clip()], np.random.default_rng(k), settings, plain).name
                for k in range(60)]

    assert names(1.0) == ["random"] * 60
    assert 15 <= names(0.5).count("random") <= 45
    assert "random" not in names(0.0) + names(1.0, plain=True)


def test_places_repeat_by_seed_and_show_something():
    settings = vibe_motion.MotionSettings(frames=4)
    for seed in range(4):
        s = vibe_motion.draw_sequence([raising_clip()], np.random.default_rng(seed), settings)
        a, b = (vibe_scene.draw_place(np.random.default_rng(seed), s) for _ in range(2))
        np.testing.assert_array_equal(a, b)
        assert a.shape == (480, 640, 3) and 0 <= a.min() and a.max() <= 1 and a.std() > 0.005


def test_film_blurs_what_moves_and_leaves_the_plate_alone(puppet):
    rng = np.random.default_rng(0)
    settings = vibe_motion.MotionSettings(frames=4, truncated=0.0, perturb=0.0, splice=0.0)
    s = vibe_motion.draw_sequence([raising_clip()], rng, settings, plain=True)
    plate = np.full((480, 640, 3), 0.2, np.float32)
    studio = vibe_scene.Studio(puppet, s, rng, plate)
    frame = studio.film(1)
    assert frame.shape == (480, 640, 3) and frame.dtype == np.uint8
    local, pelvis = s.at(s.middle)
    _, joints = forward(local, puppet.shaped(s.betas)[1].astype(float), PARENTS)
    joints = (joints - joints[:, :1] + pelvis[:, None])[1] @ s.K.T
    x, y = (joints[:, :2] / joints[:, 2:])[9].astype(int)  # the chest
    difference = np.abs(light.to_linear(frame) - plate).max(-1)
    assert difference[y, x] > 0.02
    uv = joints[:, :2] / joints[:, 2:]
    outside = np.ones((480, 640), bool)
    low, high = uv.min(0).astype(int) - 60, uv.max(0).astype(int) + 60
    outside[max(low[1], 0):high[1], max(low[0], 0):high[0]] = False
    assert difference[outside].mean() < 0.02


def test_plates_and_clothes_are_colours(puppet):
    rng = np.random.default_rng(1)
    for _ in range(4):
        plate = vibe_scene.draw_plate(rng, [np.full((300, 500, 3), 90, np.uint8)])
        assert plate.shape == (480, 640, 3) and plate.min() >= 0 and plate.max() <= 1.3
        dress = vibe_scene.draw_dress(puppet, rng)
        assert dress.colour.shape == puppet.template.shape and (dress.colour > 0).all() and (dress.colour < 1).all()
        assert 0 <= dress.puff.min() and dress.puff.max() < 0.06
