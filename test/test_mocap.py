"""Motion capture readers: bone directions, left/right, mirroring, glitches, file formats."""

import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from blur_motion_ros.data import mocap


def _cmu():
    try:
        return mocap.mocap_path()
    except mocap.MocapError as error:
        pytest.skip(str(error))


def _degrees(a, b):
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _clip(frames=12, seed=0, fps=60.0):
    rng = np.random.default_rng(seed)
    start, step = rng.normal(0, 0.4, (24, 3)), rng.normal(0, 0.01, (24, 3))
    pelvis = np.array([0.3, 0.9, -0.2]) + np.arange(frames)[:, None] * np.array([0.01, 0.0, 0.02])
    return mocap.MotionClip("made_up", "train", fps, start + np.arange(frames)[:, None, None] * step, pelvis)


def test_limbs_point_exactly_as_the_recording_does():
    """Every limb bone of the retargeted body is parallel to the source's, side by side."""
    bones = {(1, 4): ("LeftUpLeg", "LeftLeg"), (4, 7): ("LeftLeg", "LeftFoot"), (5, 8): ("RightLeg", "RightFoot"),
             (16, 18): ("LeftArm", "LeftForeArm"), (19, 21): ("RightForeArm", "RightHand"),
             (2, 1): ("RightUpLeg", "LeftUpLeg")}
    sources = dict(mocap.cmu_sources(_cmu(), "test"))
    for key in ("test/soccer_1", "test/jumping_1"):
        source = sources[key]
        joints = mocap.retarget(source, mocap._cmu_mapping(), key, "test").joints()
        positions = source.globals()[1]
        index = {n: i for i, n in enumerate(source.names)}
        for (a, b), (c, d) in bones.items():
            error = _degrees(joints[:, b] - joints[:, a], positions[:, index[d]] - positions[:, index[c]])
            assert error.max() < 0.1, f"{key} bone {a}-{b}: {error.max():.2f} degrees"


def test_walkers_walk_forwards_with_knees_bending_back():
    clip = next(c for c in mocap.read_cmu_npz(_cmu(), "test") if c.name == "cmu_walking_1")
    matrices, joints = clip.matrices(), clip.joints()
    facing = matrices[:, 0] @ np.array([0, 0, 1.0])
    velocity = (clip.pelvis[-1] - clip.pelvis[0]) / clip.duration
    assert velocity @ facing.mean(0) > 0.7 * np.linalg.norm(velocity) > 0.5
    left = matrices[:, 0] @ np.array([1.0, 0, 0])
    assert ((joints[:, 1] - joints[:, 2]) * left).sum(-1).min() > 0.1, "left hip must be on the left"
    assert clip.rotvec[:, 4, 0].max() > 0.7 and clip.rotvec[:, 4, 0].min() > -0.3, "knees flex about +x"
    assert 0.7 < joints[:, 15, 1].mean() - joints[:, 10:12, 1].min() < 1.9, "head above feet, in metres"


def test_both_arms_of_one_deepmimic_pose(tmp_path):
    """Arms hang in DeepMimic's rest; a bent right elbow brings only the right hand forward."""
    row = np.zeros(44)
    row[0], row[2] = 1 / 30, 0.85
    for column in (4, 8, 12, 16, 21, 25, 30, 35, 39):
        row[column] = 1.0
    row[29] = np.pi / 2  # right elbow
    row[34] = -np.pi / 2  # left knee
    file = tmp_path / "humanoid3d_made.txt"
    file.write_text('{"Loop": "wrap", "Frames": ' + str([row.tolist()] * 10) + "}")
    (clip,) = mocap.read_deepmimic(file)
    joints = clip.joints()[0]
    assert _degrees(joints[21] - joints[19], np.array([0, 0, 1.0])) < 1, "right forearm forward"
    assert _degrees(joints[20] - joints[18], np.array([0, -1.0, 0])) < 1, "left forearm down"
    assert _degrees(joints[7] - joints[4], np.array([0, 0, -1.0])) < 1, "left shank backward"
    assert _degrees(joints[8] - joints[5], np.array([0, -1.0, 0])) < 1, "right shank down"
    assert clip.split == "train" and "punch" in mocap.HELD_OUT


def test_mirror_is_an_involution_and_reflects_positions():
    clip = _clip()
    twice = clip.mirrored().mirrored()
    assert twice.name == clip.name and np.allclose(twice.rotvec, clip.rotvec) and np.allclose(twice.pelvis, clip.pelvis)
    rest = mocap.NOMINAL_REST
    reflected = clip.joints(rest)[:, mocap.MIRROR] * np.array([-1, 1, 1])
    assert np.allclose(clip.mirrored().joints(rest), reflected, atol=1e-9)
    assert np.allclose(mocap.mirror_pose(clip.rotvec[:, 1:]), clip.mirrored().rotvec[:, 1:])


def test_forward_kinematics_agrees_with_smplx():
    smplx_lbs = pytest.importorskip("smplx.lbs")
    import torch
    clip = _clip()
    rest = np.repeat(mocap.NOMINAL_REST[None], len(clip), 0)
    posed, _ = smplx_lbs.batch_rigid_transform(torch.tensor(clip.matrices()), torch.tensor(rest),
                                               torch.tensor(mocap.PARENTS.copy()), dtype=torch.float64)
    assert np.allclose(clip.joints(), posed.numpy() - posed.numpy()[:, :1] + clip.pelvis[:, None], atol=1e-9)


def test_resampling_keeps_the_motion():
    clip = _clip(frames=31)
    there = clip.resampled(240.0)
    assert there.fps == 240.0 and there.duration == pytest.approx(clip.duration)
    assert np.allclose(there.joints()[::4], clip.joints(), atol=1e-9)
    turned, pelvis = clip.sample([0.5 / 60])
    half = Rotation.from_rotvec(clip.rotvec[0]) * Rotation.from_rotvec(
        0.5 * (Rotation.from_rotvec(clip.rotvec[0]).inv() * Rotation.from_rotvec(clip.rotvec[1])).as_rotvec())
    assert np.allclose(turned[0], half.as_matrix(), atol=1e-9)
    assert np.allclose(pelvis[0], clip.pelvis[:2].mean(0))


def test_glitches_are_cut():
    clip = _clip(frames=40)
    rotvec = clip.rotvec.copy()
    rotvec[20, 16] += np.array([0, 0, 2.0])  # one frame with the arm elsewhere
    pieces = mocap.cut_glitches(mocap.MotionClip("g", "train", 60.0, rotvec, clip.pelvis))
    assert [len(p) for p in pieces] == [19, 18]
    for piece in pieces:
        assert np.linalg.norm(np.diff(piece.joints(), axis=0), axis=-1).max() * 60 < mocap.GLITCH_SPEED


def test_bvh_reads_channel_order_units_and_hierarchy(tmp_path):
    """Two chains, ZYX channels in degrees, offsets in CMU's inches / 0.45: compared with scipy."""
    side = """JOINT {0}HipJoint {{ OFFSET 0 0 0 CH JOINT {0}UpLeg {{ OFFSET {1} -1.8 0.6 CH JOINT {0}Leg {{
OFFSET {2} -7.1 0 CH JOINT {0}Foot {{ OFFSET {3} -6.8 0 CH End Site {{ OFFSET 0 -1 2 }} }} }} }} }}"""
    header = "HIERARCHY ROOT Hips { OFFSET 0 0 0 RC " + side.format("Left", 1.6, 2.5, 2.4) \
        + side.format("Right", -1.6, -2.5, -2.4) + " }"
    header = header.replace("{", "\n{\n").replace("}", "\n}\n")
    header = header.replace(" CH ", "\nCHANNELS 3 Zrotation Yrotation Xrotation\n")
    header = header.replace(" RC ", "\nCHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation\n")
    header = header.replace("ROOT", "\nROOT").replace("JOINT", "\nJOINT").replace("End", "\nEnd")
    rng = np.random.default_rng(1)
    values = np.concatenate([[3.0, 16.0, -2.0], rng.uniform(-90, 90, 27)])
    file = tmp_path / "a.bvh"
    file.write_text(header + "\nMOTION\nFrames: 2\nFrame Time: .0083333\n" + (" ".join(map(str, values)) + "\n") * 2)
    source = mocap.bvh_source(file)
    unit = 0.0254 / 0.45
    assert source.fps == pytest.approx(120, rel=1e-4)
    assert np.allclose(source.root[0], np.array([3, 16, -2]) * unit)
    expected = Rotation.from_euler("ZYX", values[3:].reshape(9, 3), degrees=True).as_matrix()
    assert np.allclose(source.local[0], expected, atol=1e-9)
    assert list(source.parents) == [-1, 0, 1, 2, 3, 0, 5, 6, 7]
    assert np.allclose(source.offsets[8], np.array([-2.4, -6.8, 0]) * unit)


def test_amass_turns_z_up_to_y_up(tmp_path):
    """A body standing in AMASS (z up, facing -y) stands here, facing +z."""
    poses = np.zeros((10, 156))
    poses[:, :3] = [np.pi / 2, 0, 0]  # y-up body lifted to z up
    file = tmp_path / "walk.npz"
    np.savez(file, poses=poses, trans=np.tile([0.1, 0.2, 0.9], (10, 1)), mocap_framerate=120.0, gender="male")
    (clip,) = mocap.read_amass(file)
    assert np.allclose(clip.matrices()[:, 0], np.eye(3), atol=1e-9)
    assert np.allclose(clip.pelvis[0], [0.1, 0.9, -0.2])
    assert clip.fps == 120.0


def test_3dpw_reads_and_malicious_pickles_are_refused(tmp_path):
    file = tmp_path / "x.pkl"
    poses = np.tile(np.random.default_rng(0).normal(0, 0.1, 72), (10, 1))
    file.write_bytes(pickle.dumps({"poses": [poses, -poses], "trans": [np.zeros((10, 3))] * 2}, protocol=2))
    clips = mocap.read_3dpw(file)
    assert len(clips) == 2 and np.allclose(clips[1].rotvec[:, 1:22], -poses[:, 3:66].reshape(10, 21, 3))

    class Bad:
        def __reduce__(self):
            return print, ("run",)
    file.write_bytes(pickle.dumps({"poses": Bad()}))
    with pytest.raises(mocap.MocapError, match="only numpy arrays"):
        mocap.read_3dpw(file)


def test_bad_files_say_what_is_wrong(tmp_path):
    (tmp_path / "a.txt").write_text("{}")
    np.savez(tmp_path / "b.npz", poses=np.zeros((3, 66)))
    with pytest.raises(mocap.MocapError, match="Frames"):
        mocap.read_deepmimic(tmp_path / "a.txt")
    with pytest.raises(mocap.MocapError, match="mocap_framerate"):
        mocap.read_amass(tmp_path / "b.npz")
    with pytest.raises(mocap.MocapError, match="BLUR_MOTION_MOCAP"):
        mocap.mocap_path(tmp_path / "none.npz")
    with pytest.raises(mocap.MocapError, match="train or test"):
        mocap.load_training_clips("validation")
