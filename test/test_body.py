"""The body against smplx and against plain anatomy; its files against what people will feed it."""

import builtins
import hashlib
import json
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from blur_motion_ros.assets import packaged
from blur_motion_ros.body import BodyError, Skeleton, decimate, joints, levels, load_body, mesh, official
from blur_motion_ros.body.model import _vertex_ids, arrays_of, body_of, read_body, save_body, smplx_layer
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import BodyState

LEVELS = ("fit", "display", "full")
J = joints.SMPL24.index
DEVSET = Path(os.environ.get("BLUR_MOTION_DEVSET", Path(__file__).parent.parent.parent / "shared" / "devset"))


def random_pose(rng, *batch, size=0.5):
    return rotations.exp(rng.normal(size=batch + (24, 3)) * size)


def by_chain_of_matrices(skeleton, local, transl):
    """Slow reference: one 4x4 matrix per joint, one vertex at a time."""
    rest, world = skeleton.rest_joints, []
    for j, parent in enumerate(joints.SMPL24_PARENTS):
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = local[j], rest[j] - (rest[parent] if parent >= 0 else 0)
        world.append(step if parent < 0 else world[parent] @ step)
    skin = np.zeros_like(skeleton.rest_vertices)
    for v, point in enumerate(skeleton.rest_vertices):
        for j, weight in enumerate(skeleton.body.weights[v]):
            skin[v] += weight * (world[j] @ np.append(point - rest[j], 1))[:3]
    return skin + transl, np.array([w[:3, 3] for w in world]) + transl


# ---------------------------------------------------------------- against smplx


@pytest.mark.parametrize("lod", LEVELS)
def test_pose_agrees_with_smplx(lod):
    torch = pytest.importorskip("torch")
    body, rng = load_body(lod=lod), np.random.default_rng(1)
    layer = smplx_layer(body, dtype=torch.float64)
    betas, orient, pose, transl = rng.normal(size=10), rng.normal(size=3), rng.normal(size=(23, 3)), rng.normal(size=3)
    out = layer(betas=torch.tensor(betas)[None], global_orient=torch.tensor(orient)[None],
                body_pose=torch.tensor(pose).reshape(1, -1), transl=torch.tensor(transl)[None])
    state = BodyState(orient, pose, betas, transl)
    skeleton = Skeleton.of(body, betas)
    found, _ = skeleton.forward_kinematics(rotations.exp(np.concatenate([orient[None], pose])), transl)
    assert np.abs(skeleton.pose_state(state) - out.vertices[0].detach().numpy()).max() < 1e-6
    assert np.abs(found - out.joints[0, :24].detach().numpy()).max() < 1e-6


def test_pose_blend_shapes_agree_with_smplx():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    arrays = arrays_of(load_body())
    arrays["posedirs"] = rng.normal(size=arrays["posedirs"].shape) * 0.01
    body = body_of(arrays, "with pose blend shapes")
    pose = rng.normal(size=(24, 3)) * 0.7
    out = smplx_layer(body, dtype=torch.float64)(
        global_orient=torch.tensor(pose[:1]), body_pose=torch.tensor(pose[1:]).reshape(1, -1))
    ours = Skeleton.of(body).pose_vertices(rotations.exp(pose))
    assert np.abs(ours - out.vertices[0].detach().numpy()).max() < 1e-6
    plain = Skeleton.of(load_body()).pose_vertices(rotations.exp(pose))
    assert np.abs(ours - plain).max() > 0.01, "the pose blend shapes did nothing"


def test_smplx_extra_points_are_where_their_names_say():
    pytest.importorskip("torch")
    body = load_body(lod="full")
    points = smplx_layer(body)().joints[0, 24:].detach().numpy()
    named = dict(zip(joints.SMPLX_VERTICES21, points, strict=True))
    landmarks = dict(zip(joints.LANDMARKS, body.rest_landmarks(), strict=True))
    for name in ("nose", "left_ear", "right_eye", "left_heel", "right_big_toe", "left_small_toe"):
        assert np.linalg.norm(named[name] - landmarks[name]) < 0.015, name
    assert named["left_index_tip"][0] > landmarks["left_index"][0] + 0.03
    assert named["right_pinky_tip"][0] < landmarks["right_pinky"][0] - 0.03


# ---------------------------------------------------------------- skeleton


def test_pose_agrees_with_a_slow_reference_and_batches():
    rng = np.random.default_rng(3)
    skeleton = Skeleton.of(load_body(), rng.normal(size=10))
    local, transl = random_pose(rng, 2, 3), rng.normal(size=(2, 3, 3))
    skin = skeleton.pose_vertices(local, transl)
    found, world = skeleton.forward_kinematics(local, transl)
    assert skin.shape == (2, 3, len(skeleton.rest_vertices), 3) and world.shape == (2, 3, 24, 3, 3)
    expected, bones = by_chain_of_matrices(skeleton, local[1, 2], transl[1, 2])
    assert np.abs(skin[1, 2] - expected).max() < 1e-9
    assert np.abs(found[1, 2] - bones).max() < 1e-12


def test_root_turns_about_the_pelvis_and_translation_comes_last():
    skeleton = Skeleton.of(load_body(), np.full(10, 0.5))
    local = np.tile(np.eye(3), (24, 1, 1))
    local[0] = rotations.exp(np.array([0.0, np.pi / 2, 0.0]))
    found, world = skeleton.forward_kinematics(local, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found[0], skeleton.rest_joints[0] + [1, 2, 3], atol=1e-12)
    arm = skeleton.rest_joints[J("left_wrist")] - skeleton.rest_joints[0]
    np.testing.assert_allclose(found[J("left_wrist")] - found[0], [arm[2], arm[1], -arm[0]], atol=1e-9)
    np.testing.assert_allclose(world[J("head")], local[0], atol=1e-12)


def test_compact_weights_pose_like_dense_ones():
    body = load_body()
    skeleton = Skeleton.of(body)
    dense = np.zeros_like(body.weights)
    np.put_along_axis(dense, skeleton.bone_index.astype(int), skeleton.bone_weights, 1)
    assert skeleton.bone_index.shape[1] == 4
    np.testing.assert_allclose(dense, body.weights, atol=1e-12)


def test_bad_shapes_are_named():
    skeleton = Skeleton.of(load_body())
    with pytest.raises(ValueError, match="rotations: expected"):
        skeleton.pose_vertices(np.zeros((24, 3)))
    with pytest.raises(ValueError, match="betas: expected at most 10"):
        load_body().rest_vertices(np.zeros(11))


# ---------------------------------------------------------------- anatomy


def test_axes_and_sides():
    body = load_body()
    rest = dict(zip(joints.SMPL24, body.rest_joints(), strict=True))
    points = dict(zip(joints.LANDMARKS, body.rest_landmarks(), strict=True))
    assert rest["left_wrist"][0] > 0.5 and rest["right_wrist"][0] < -0.5, "left is +x, arms out (T-pose)"
    assert abs(rest["left_wrist"][1] - rest["left_shoulder"][1]) < 0.06, "arms level"
    assert rest["head"][1] > 0.4 and rest["left_ankle"][1] < -0.6, "y is up"
    assert points["nose"][2] > points["left_ear"][2] + 0.05, "the face looks to +z"
    assert points["left_foot_index"][2] > points["left_heel"][2] + 0.15, "toes point to +z"
    assert points["left_index"][2] > points["left_pinky"][2] + 0.03, "palms down, thumbs forward"
    assert points["head_top"][1] > points["nose"][1] + 0.08 > points["jaw"][1] + 0.08
    np.testing.assert_allclose(rest["pelvis"], 0, atol=1e-3)


def test_body_is_its_own_mirror_image():
    body, flip = load_body(lod="full"), np.array([-1.0, 1.0, 1.0])
    for betas in (np.zeros(10), np.linspace(-1, 1, 10)):
        rest = body.rest_joints(betas)
        np.testing.assert_allclose(rest[list(joints.SMPL24_MIRROR)] * flip, rest, atol=2e-3)
        points = body.rest_landmarks(betas)
        np.testing.assert_allclose(points[list(joints.mirror(joints.LANDMARKS))] * flip, points, atol=2e-3)


def test_elbows_and_knees_bend_the_human_way():
    skeleton = Skeleton.of(load_body())
    pose = np.zeros((24, 3))
    pose[J("left_elbow")], pose[J("right_elbow")] = (0, -1.5, 0), (0, 1.5, 0)
    pose[J("left_knee")], pose[J("right_hip")] = (1.5, 0, 0), (-1.5, 0, 0)
    at = dict(zip(joints.LANDMARKS, skeleton.pose_landmarks(rotations.exp(pose)), strict=True))
    assert at["left_wrist"][2] > at["left_elbow"][2] + 0.15 and at["right_wrist"][2] > at["right_elbow"][2] + 0.15
    assert at["left_ankle"][2] < at["left_knee"][2] - 0.3, "a bent knee takes the foot back"
    assert at["right_knee"][2] > at["right_hip"][2] + 0.3, "a bent hip takes the knee forward"


def test_statures_are_those_of_adults():
    body, rng = load_body(), np.random.default_rng(4)
    statures = np.array([body.stature(b) for b in rng.normal(size=(400, 10))])
    assert abs(body.stature() - 1.70) < 0.03, body.stature()
    assert abs(statures.std() - 0.092) < 0.02, statures.std()
    rest = body.rest_joints()
    thigh, shank = (np.linalg.norm(rest[J(a)] - rest[J(b)]) / 1.70
                    for a, b in (("left_hip", "left_knee"), ("left_knee", "left_ankle")))
    assert 0.22 < thigh < 0.26 and 0.22 < shank < 0.26, (thigh, shank)  # 0.245 and 0.246 in anthropometric tables


def test_first_beta_is_stature_and_positive_is_taller():
    body = load_body()
    up = np.eye(10)[0]
    assert body.stature(up) - body.stature(-up) > 0.1


def test_skin_is_closed_and_faces_outwards():
    for lod in LEVELS:
        body = load_body(lod=lod)
        assert len(body.v_template) - len(body.edges) + len(body.faces) == 2, "Euler: one closed surface"
        v = body.v_template[body.faces]
        litres = 1000 * np.einsum("fi,fi->f", v[:, 0], np.cross(v[:, 1], v[:, 2])).sum() / 6
        assert 50 < litres < 90, f"{lod}: {litres:.1f} l"


# ---------------------------------------------------------------- levels of detail


@pytest.mark.parametrize("lod", ("fit", "display"))
def test_levels_keep_joints_landmarks_and_surface(lod):
    full, body, rng = load_body(lod="full"), load_body(lod=lod), np.random.default_rng(5)
    assert len(body.faces) == levels.LEVEL_FACES[lod]
    for betas in (np.zeros(10), rng.normal(size=10) * 1.5):
        skin = body.rest_vertices(betas)
        assert np.abs(body.j_regressor @ skin - full.rest_joints(betas)).max() < 1e-5, "regressor and full body"
        assert np.abs(body.landmark_regressor @ skin - full.rest_landmarks(betas)).max() < 1e-5
        np.testing.assert_array_equal(body.rest_joints(betas), full.rest_joints(betas))
        _, _, off = decimate.closest_on_mesh(full.rest_vertices(betas), skin, body.faces)
        limit = {"fit": 0.007, "display": 0.004}[lod]
        assert np.quantile(off, 0.95) < limit, f"{lod}: 95 % of the skin within {1000 * np.quantile(off, 0.95):.1f} mm"


@pytest.mark.parametrize("lod", LEVELS)
def test_texture_layout_gives_every_face_its_own_place(lod):
    body = load_body(lod=lod)
    a, b, c = (body.uv[body.uv_faces[:, k]] for k in range(3))
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert (area > 0).all(), f"{(area <= 0).sum()} faces are mirrored or empty in the texture"
    assert 0.5 < area.sum() < 1 and body.uv.min() >= 0 and body.uv.max() <= 1
    pairs = np.unique(np.stack([body.uv_faces.ravel(), body.faces.ravel()], 1), axis=0)
    assert len(pairs) == len(body.uv), "a texture coordinate belongs to one vertex"


def test_decimation_of_a_sphere_keeps_its_volume():
    vertices, faces = sphere(24)
    small = decimate.decimate(vertices, faces, 300)
    lifted = decimate.Lift(vertices, faces, small)(vertices)
    def volume(v, f):
        return np.einsum("fi,fi->f", v[f[:, 0]], np.cross(v[f[:, 1]], v[f[:, 2]])).sum() / 6

    assert len(small.faces) == 300 and len(small.kept) == 152
    inscribed, fitted = volume(vertices[small.kept], small.faces), volume(lifted, small.faces)
    true = volume(vertices, faces)
    assert abs(fitted - true) < 0.6 * (true - inscribed), "kept vertices lie inside; the refit must undo the shrinkage"


def sphere(n):
    """A closed sphere with 2 n (n - 1) faces, normals outwards."""
    rows = [np.array([[0, 1, 0]])]
    for i in range(1, n):
        t, p = np.pi * i / n, 2 * np.pi * np.arange(n) / n
        rows.append(np.stack([np.sin(t) * np.sin(p), np.full(n, np.cos(t)), np.sin(t) * np.cos(p)], 1))
    vertices = np.concatenate(rows + [np.array([[0, -1, 0]])])
    def ring(i, k):
        return 1 + i * n + k % n

    faces = [(0, ring(0, k), ring(0, k + 1)) for k in range(n)]
    for i in range(n - 2):
        for k in range(n):
            here, down = (ring(i, k), ring(i, k + 1)), (ring(i + 1, k), ring(i + 1, k + 1))
            faces += [(here[0], down[0], down[1]), (here[0], down[1], here[1])]
    faces += [(len(vertices) - 1, ring(n - 2, k + 1), ring(n - 2, k)) for k in range(n)]
    return vertices, np.array(faces)


def test_normals_and_areas_of_a_sphere():
    vertices, faces = sphere(40)
    assert np.abs(mesh.vertex_normals(vertices, faces) - vertices).max() < 0.05
    assert abs(mesh.vertex_areas(vertices, faces).sum() - 4 * np.pi) < 0.1


# ---------------------------------------------------------------- files


def official_arrays(body):
    """Our full body under the official file's names, types and quirks."""
    arrays = arrays_of(body)
    rng = np.random.default_rng(6)
    shapes = np.concatenate([arrays["shapedirs"], rng.normal(size=arrays["shapedirs"].shape[:2] + (290,)) * 1e-4], 2)
    tree = arrays["kintree_table"].astype(np.uint32)  # the root's parent is 2**32 - 1
    return {"v_template": arrays["v_template"], "shapedirs": shapes[..., :20], "posedirs": arrays["posedirs"],
            "J_regressor": arrays["J_regressor"], "weights": arrays["weights"], "kintree_table": tree,
            "f": arrays["f"].astype(np.uint32), "bs_type": "lrotmin", "bs_style": "lbs"}


@pytest.fixture(scope="module")
def small():
    """The body at its display level posing as a full official file: 2002 vertices keep the tests quick."""
    return load_body(lod="display")


def test_npz_by_official_names(tmp_path, small):
    np.savez(tmp_path / "smpl.npz", **official_arrays(small))
    body = load_body(tmp_path / "smpl.npz", lod="full")
    np.testing.assert_allclose(body.rest_joints(np.ones(10)), small.rest_joints(np.ones(10)), atol=1e-5)
    assert body.shapedirs.shape[2] == 10 and body.uv is None and body.posedirs is None


def chumpy_pickle(arrays, path):
    """A pickle like the official one: chumpy objects around arrays, a scipy sparse regressor, protocol 2."""
    from scipy.sparse import csc_matrix

    def make(module, name):
        kind = type(name, (), {"__module__": module})
        sys.modules.setdefault(module, types.ModuleType(module))
        setattr(sys.modules[module], name, kind)
        return kind

    ch, select = make("chumpy.ch", "Ch"), make("chumpy.reordering", "Select")
    sys.modules.setdefault("chumpy", types.ModuleType("chumpy"))
    template, shapes, whole = ch(), select(), ch()
    template.__dict__.update(x=arrays["v_template"], _dirty_vars=set(), _itr=None)
    whole.x = arrays["shapedirs"]
    picked = arrays["shapedirs"][..., :10]
    index = np.arange(arrays["shapedirs"].size).reshape(arrays["shapedirs"].shape)[..., :10].ravel()
    shapes.__dict__.update(a=whole, idxs=index, preferred_shape=picked.shape)
    content = {**arrays, "v_template": template, "shapedirs": shapes, "J_regressor": csc_matrix(arrays["J_regressor"]),
               "J_regressor_prior": csc_matrix(arrays["J_regressor"]), "vert_sym_idxs": np.arange(5)}
    path.write_bytes(pickle.dumps(content, protocol=2))
    for name in [m for m in sys.modules if m.split(".")[0] == "chumpy"]:
        del sys.modules[name]


def test_pickle_with_chumpy_objects_but_no_chumpy(tmp_path, small):
    arrays = official_arrays(small)
    chumpy_pickle(arrays, tmp_path / "model.pkl")
    assert "chumpy" not in sys.modules
    body = read_body(tmp_path / "model.pkl")
    np.testing.assert_allclose(body.v_template, arrays["v_template"])
    np.testing.assert_allclose(body.shapedirs, arrays["shapedirs"][..., :10])
    np.testing.assert_allclose(body.j_regressor, arrays["J_regressor"])
    np.testing.assert_array_equal(body.faces, small.faces)


def test_levels_of_a_file_are_made_once(tmp_path, small, monkeypatch):
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(tmp_path / "cache"))
    arrays = official_arrays(small)
    arrays["posedirs"] = np.zeros(arrays["posedirs"].shape)
    arrays["posedirs"][:, 1, 5] = 0.01 * small.v_template[:, 1]
    np.savez(tmp_path / "smpl.npz", **arrays)
    body = load_body(tmp_path / "smpl.npz")
    assert len(body.faces) == 1500 and body.source.endswith("smpl.npz")
    np.testing.assert_allclose(body.rest_joints(), small.rest_joints(), atol=1e-5)
    np.testing.assert_allclose(body.posedirs[:, 1, 5], 0.01 * body.v_template[:, 1], atol=1e-6)
    made = list((tmp_path / "cache").iterdir())
    assert len(made) == 1
    again = load_body(tmp_path / "smpl.npz")
    np.testing.assert_allclose(again.v_template, body.v_template, atol=1e-6)
    made[0].write_bytes(made[0].read_bytes()[:1000])  # a crash while writing must not stick
    np.testing.assert_allclose(load_body(tmp_path / "smpl.npz").v_template, body.v_template, atol=1e-6)


def test_landmarks_of_a_mesh_without_them_are_near(small):
    arrays = official_arrays(small)
    body = body_of({k: v for k, v in arrays.items() if not isinstance(v, str)}, "bare")
    off = np.linalg.norm(body.rest_landmarks() - small.rest_landmarks(), axis=1)
    worst = joints.LANDMARKS[int(off.argmax())]
    assert off.max() < 0.04, f"{worst} is {1000 * off.max():.0f} mm off"


def test_landmarks_by_the_official_vertex_numbers():
    """A cloud of 6890 points with ours at the places where smplx says the official mesh has them."""
    full = load_body(lod="full")
    rest, points = full.rest_joints(), dict(zip(joints.LANDMARKS, full.rest_landmarks(), strict=True))
    tips = _vertex_ids(full)
    for letter, side in (("l", "left"), ("r", "right")):
        points |= {f"{side}_{f}_tip": full.v_template[tips[letter + f]] for f in ("thumb", "index", "middle", "pinky")}
    template = full.v_template[np.linspace(0, len(full.v_template) - 1, 6890).astype(int)].copy()
    for name, vertex in official.SMPL_VERTICES.items():
        template[vertex] = points[name]
    equations = np.vstack([template.T, np.ones(6890)])
    regressor = np.linalg.lstsq(equations, np.vstack([rest.T, np.ones(24)]), rcond=None)[0].T
    found = official.landmark_regressor(template, regressor) @ template
    off = np.linalg.norm(found - full.rest_landmarks(), axis=1)
    worst = joints.LANDMARKS[int(off.argmax())]
    assert off.max() < 0.03, f"{worst} is {1000 * off.max():.0f} mm off"


def test_save_and_read_back_is_the_same_body(tmp_path, small):
    for name in ("a.npz", "b.npz"):
        save_body(tmp_path / name, small)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes(), "files must be reproducible"
    again = arrays_of(read_body(tmp_path / "a.npz"))
    for key, value in arrays_of(small).items():
        if value.dtype.kind == "U":
            assert (again[key] == value).all()
        else:
            np.testing.assert_allclose(again[key], value, atol=1e-6, err_msg=key)


class Evil:
    def __reduce__(self):
        return exec, ("import builtins; builtins.body_file_ran = True",)


def broken(change):
    def write(path, arrays):
        change(arrays)
        np.savez(path, **arrays)
    return write


def put(key, value):
    return broken(lambda a: a.__setitem__(key, value(a[key])))


@pytest.mark.parametrize(("name", "write", "message"), [
    ("a.npz", lambda p, a: p.write_bytes(b""), "not an npz"),
    ("a.npz", lambda p, a: p.write_bytes(b"PK\x03\x04" + bytes(100)), "cannot be read"),
    ("a.npz", lambda p, a: p.write_bytes(os.urandom(5000)), "not an npz"),
    ("a.pkl", lambda p, a: p.write_bytes(b"<!DOCTYPE html><html>sign in</html>"), "not a readable SMPL file"),
    ("a.pkl", lambda p, a: p.write_bytes(pickle.dumps([1, 2])), "holds a list"),
    ("a.pkl", lambda p, a: p.write_bytes(pickle.dumps({"v_template": Evil()})), "not allowed in a body file"),
    ("a.npz", broken(lambda a: a.pop("weights")), "key 'weights' is missing"),
    ("a.npz", broken(lambda a: a.clear()), "key 'v_template' is missing"),
    ("a.npz", put("v_template", lambda v: v[:, :2]), "'v_template' has shape"),
    ("a.npz", put("v_template", lambda v: v * np.nan), "'v_template' contains NaN"),
    ("a.npz", put("v_template", lambda v: np.array(["x"])), "'v_template' holds"),
    ("a.npz", put("shapedirs", lambda v: v[..., :4]), "4 shape directions"),
    ("a.npz", put("J_regressor", lambda v: v[:22]), "'J_regressor' has shape"),
    ("a.npz", put("f", lambda v: v + 1), "'f' has indices outside"),
    ("a.npz", put("f", lambda v: v * 1.0), "'f' holds float64"),
    ("a.npz", put("weights", lambda v: v * 0.5), "rows that sum to one"),
    ("a.npz", put("kintree_table", lambda v: v[:, ::-1]), "not the 24-joint SMPL skeleton"),
])
def test_bad_files_say_what_is_wrong(tmp_path, small, name, write, message):
    write(tmp_path / name, official_arrays(small))
    with pytest.raises(BodyError, match=message) as error:
        load_body(tmp_path / name, lod="full")
    assert name in str(error.value) and "\n" not in str(error.value)
    assert not hasattr(builtins, "body_file_ran"), "loading a body ran code"


def test_missing_file_and_unknown_level():
    with pytest.raises(BodyError, match="does not exist"):
        load_body("nowhere/SMPL_NEUTRAL.pkl")
    with pytest.raises(BodyError, match="unknown level of detail 'tiny'"):
        load_body(lod="tiny")


def test_shared_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        load_body().v_template[0] = 0


def test_packaged_files_are_the_documented_ones():
    listed = json.loads(packaged("body.json").read_text())["files"]
    assert set(listed) == {f"body_{lod}.npz" for lod in LEVELS}
    for name, entry in listed.items():
        assert hashlib.sha256(packaged(name).read_bytes()).hexdigest() == entry["sha256"], name


# ---------------------------------------------------------------- joint tables


def test_tables_are_trees_and_mirrors_are_involutions():
    assert all(parent < j for j, parent in enumerate(joints.SMPL24_PARENTS))
    for names in (joints.SMPL24, joints.LSP14, joints.BLAZEPOSE33, joints.SPIN49, joints.LANDMARKS):
        flip = joints.mirror(names)
        assert len(set(names)) == len(names) and [flip[i] for i in flip] == list(range(len(names)))
        assert all(joints.side(names[i]) != joints.side(n) for i, n in zip(flip, names, strict=True) if joints.side(n))
    assert joints.SMPL24_MIRROR[J("left_wrist")] == J("right_wrist")
    assert joints.descendants(J("left_elbow")) == (J("left_elbow"), J("left_wrist"), J("left_hand"))


def test_spin49_points_come_from_the_right_side():
    sources = joints.SMPL24 + joints.SMPLX_VERTICES21 + joints.EXTRA9
    for name, index in zip(joints.SPIN49, joints.SPIN49_FROM_54, strict=True):
        assert joints.side(name) == joints.side(sources[index]), (name, sources[index])
        plain = name.removeprefix("op_")
        if plain in joints.SMPL24 and plain not in ("left_hip", "right_hip"):
            assert sources[index] == plain


def test_lsp14_of_joints_and_landmarks():
    skeleton = Skeleton.of(load_body())
    local = random_pose(np.random.default_rng(7), size=0.3)
    found, _ = skeleton.forward_kinematics(local)
    points = joints.lsp14(found)
    for i, name in enumerate(joints.LSP14[:12]):
        np.testing.assert_array_equal(points[i], found[J(name)])
    np.testing.assert_allclose(points[12], 0.5 * (found[J("left_shoulder")] + found[J("right_shoulder")]))
    blazepose = joints.lsp14(skeleton.pose_landmarks(local)[:33])
    assert np.linalg.norm(blazepose - points, axis=1)[:13].max() < 1e-6
    assert np.linalg.norm(blazepose[13] - points[13]) < 0.05
    with pytest.raises(ValueError, match="24 or 33"):
        joints.lsp14(np.zeros((14, 3)))


@pytest.mark.parametrize("name", ["b04_run", "b05_dance", "b08_walk"])
def test_lsp14_matches_the_development_sequences(name):
    if not (DEVSET / name / "gt.npz").is_file():
        pytest.skip("development sequences not found; set BLUR_MOTION_DEVSET")
    truth = np.load(DEVSET / name / "gt.npz")
    off = np.linalg.norm(joints.lsp14(truth["joints_smpl24"]) - truth["joints"], axis=-1).mean((0, 1))
    assert off[:13].max() < 1e-5 and off[13] < 0.01, off
