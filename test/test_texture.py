"""Surface texture: layouts, the linear map from texels to blurred pixels, the solution, and the files it comes in.

The scene is a body whose colour is a smooth function of the point on its skin in the T-pose. Images are made here by
casting rays at the posed triangles: no UV, no texel and no code of the solver takes part.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from blur_motion_ros import fit_command
from blur_motion_ros.body import BodyError, load_body
from blur_motion_ros.body.model import arrays_of
from blur_motion_ros.body.obj import read_obj, write_obj
from blur_motion_ros.body.texture_layout import atlas, textured, with_layout
from blur_motion_ros.camera.camera import Camera, Crop
from blur_motion_ros.fit import texture, texture_files
from blur_motion_ros.fit.image_terms import Target
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.settings import FitSettings
from blur_motion_ros.fit.texels import TexelGrid, seam_pairs
from blur_motion_ros.light import to_codes
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import raster
from blur_motion_ros.types import BodyState, Exposure, Frame, Matte, MotionEstimate, Status

SIZE, TEXELS = 96, 96
BACKGROUND = np.array([0.15, 0.35, 0.2], np.float32)
CAMERA = Camera(SIZE, SIZE, np.array([[150.0, 0, 47.5], [0, 150.0, 47.5], [0, 0, 1]]), np.zeros(0))


def skin_colour(points: np.ndarray) -> np.ndarray:
    """Linear light [..., 3] of points [..., 3] m of the T-pose: stripes 25 cm wide, and left differs from right."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([0.5 + 0.3 * np.sin(12 * y), 0.45 + 0.3 * np.sin(6 * x + 1.0), 0.5 + 0.25 * np.cos(8 * y + 9 * z)],
                    -1)


@pytest.fixture(scope="module")
def model():
    return load_body(lod="fit")


@pytest.fixture(scope="module")
def body(model) -> FitBody:
    return FitBody.of(model.rest_vertices(), model.rest_joints(), model.weights, model.parents, model.faces)


@pytest.fixture(scope="module")
def grid(model) -> TexelGrid:
    return TexelGrid.of(model.uv, model.uv_faces, TEXELS)


def motion(turn: float, open_: float) -> MotionEstimate:
    """A body seen from `turn` rad that shifts by 8 cm, turns and swings an arm during one exposure of 0.03 s."""
    upright = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, turn, 0]))
    pose = np.zeros((23, 3))
    pose[15], pose[16] = [0, 0, -0.9], [0, 0, 0.9]
    exposure = Exposure(open_, open_ + 0.03)
    coefficients = np.zeros((25, 3, 3))
    coefficients[0, 1] = [0.04, 0.01, 0.02]
    coefficients[1, 1] = [0, 0.1, 0]
    coefficients[17, 1] = [0.3, 0.2, 0.1]
    state = BodyState(rotations.log(upright), pose, np.zeros(10), np.array([0, 0.1, 3.2]))
    return MotionEstimate(exposure.open, exposure.close, (exposure,), state, coefficients, np.zeros(0, np.int64), None,
                          Status.OK, 0.3, 1.0)


def posed(body: FitBody, estimate: MotionEstimate, count: int) -> np.ndarray:
    from blur_motion_ros.trajectory import pose_at

    exposure = estimate.exposures[0]
    cells = (np.arange(count) + 0.5) / count
    return pose_at(estimate, body, exposure.open + cells * exposure.duration).vertices


def photograph(body: FitBody, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blurred image [S, S, 3] over BACKGROUND and alpha [S, S]: a ray per sample meets the plane of its triangle."""
    frames = raster.SubFrames.allocate(len(vertices), SIZE, 3)
    raster.draw(vertices, body.faces, np.zeros((len(body.rest_vertices), 3), np.float32), CAMERA.K, frames)
    fine = frames.face.shape[1]
    ratio = fine // SIZE
    image = np.broadcast_to(BACKGROUND, frames.face.shape + (3,)).astype(np.float64)
    m, y, x = np.nonzero(frames.face >= 0)
    corners = body.faces[frames.face[m, y, x]]
    pixel = (np.stack([x, y], 1) + 0.5) / ratio - 0.5
    rays = np.concatenate([(pixel - CAMERA.K[:2, 2]) / CAMERA.K[0, 0], np.ones((len(m), 1))], 1)
    share = np.linalg.solve(np.swapaxes(vertices[m[:, None], corners].astype(float), 1, 2), rays[..., None])[..., 0]
    share /= share.sum(1, keepdims=True)
    image[m, y, x] = skin_colour(np.einsum("nk,nkx->nx", share, body.rest_vertices[corners]))
    mean = image.mean(0).reshape(SIZE, ratio, SIZE, ratio, 3).mean((1, 3))
    alpha = (frames.face >= 0).mean(0).reshape(SIZE, ratio, SIZE, ratio).mean((1, 3))
    return mean, alpha


def target_of(image: np.ndarray, alpha: np.ndarray) -> Target:
    behind = np.broadcast_to(BACKGROUND, image.shape).astype(np.float32)
    value = np.concatenate([image - behind, alpha[..., None]], -1).astype(np.float32)[None]
    return Target(value, np.ones_like(value), behind[None], CAMERA.K)


@pytest.fixture(scope="module")
def scene(body):
    """Six exposures from all sides: motions, and targets from 15 sub-frames."""
    motions = [motion(turn, 0.1 * i) for i, turn in enumerate(np.arange(6) * np.pi / 3)]
    return motions, [target_of(*photograph(body, posed(body, e, 15))) for e in motions]


def views_of(grid, body, motions, targets, **options):
    return [texture.draw_view(grid, body, posed(body, e, 8), t, **options)
            for e, t in zip(motions, targets, strict=True)]


# ---------------------------------------------------------------- the solution


def test_known_texture_comes_back_from_blurred_frames(grid, body, scene):
    result = texture.solve_texture(grid, body, views_of(grid, body, *scene), smooth=0.02)
    truth = skin_colour(grid.points_of(body.rest_vertices, body.faces))
    got, origin = result.image[tuple(grid.at.T)], result.origin[tuple(grid.at.T)]
    seen = origin == texture.SEEN
    error = np.abs(got - truth)[seen]
    assert seen[grid.inside].mean() > 0.7, f"{seen[grid.inside].mean():.0%} of the skin seen from six sides"
    assert error.mean() < 0.03 and np.quantile(error, 0.95) < 0.1, f"{error.mean():.4f}, {np.quantile(error, .95):.4f}"
    spread = np.abs(truth - truth[seen].mean(0))[seen].mean()
    assert error.mean() < 0.2 * spread, "much closer than one colour for all"
    assert (result.origin[grid.index < 0] == texture.OUTSIDE).all()
    model_uv = result.vertex_colours(body.faces, grid.uv, grid.uv_faces)
    assert np.abs(model_uv - skin_colour(body.rest_vertices)).mean() < 0.06


def test_frames_out_of_register_do_little_harm(grid, body, scene):
    """One of three views of the same side is shifted by 4 px: weights keep it from spoiling the texture."""
    motions = [motion(0.1 * i, 0.1 * i) for i in range(3)]
    pictures = [photograph(body, posed(body, e, 15)) for e in motions]
    pictures[1] = tuple(np.roll(p, 4, axis=1) for p in pictures[1])
    targets = [target_of(*p) for p in pictures]
    truth = skin_colour(grid.points_of(body.rest_vertices, body.faces))

    def error(slip: float, cutoff: float) -> float:
        views = views_of(grid, body, motions, targets, slip=slip)
        texels, seen = texture.solve_texels(grid, views, smooth=0.02, cutoff=cutoff)
        return float(np.abs(texels - truth)[seen].mean())

    trusting, edges, outliers = error(0.0, 1e6), error(texture.SLIP, 1e6), error(0.0, 0.1)
    said = f"trusting {trusting:.4f}, silhouettes weighted {edges:.4f}, outliers weighted {outliers:.4f}"
    assert edges < 0.9 * trusting and outliers < 0.95 * trusting, said
    assert error(texture.SLIP, 0.24) < 0.85 * trusting


def test_blurred_image_is_linear_in_the_texels(grid, body):
    vertices = posed(body, motion(0.4, 0.0), 5)
    frames = raster.SubFrames.allocate(5, SIZE)
    ones = np.ones((len(body.rest_vertices), 3), np.float32)
    raster.draw(vertices, body.faces, ones, CAMERA.K, frames)
    matrix = texture.texel_matrix(grid, body, vertices, frames, CAMERA.K, 1)
    alpha = frames.alpha.mean(0).reshape(-1)
    np.testing.assert_allclose(matrix @ np.ones(len(grid.at)), alpha, atol=2e-5, err_msg="one grey: its coverage")
    assert matrix.data.min() >= 0
    image, _ = photograph(body, vertices)
    truth = skin_colour(grid.points_of(body.rest_vertices, body.faces))
    made = matrix @ truth + (1 - alpha[:, None]) * BACKGROUND
    sure = alpha > 0.999
    assert np.abs(made - image.reshape(-1, 3))[sure].mean() < 0.01, "the true texels give the photograph"


def test_texture_lies_on_a_slanted_surface_in_perspective(model):
    """A board that runs away from the camera, one metre to four, with a ramp of light along it."""
    board = np.array([[-0.8, -0.3, 1.0], [-0.8, 0.3, 1.0], [0.8, 0.3, 4.0], [0.8, -0.3, 4.0]])
    faces, weights = np.array([[0, 1, 2], [0, 2, 3]]), np.eye(24)[[0] * 4]
    body = FitBody.of(board, model.rest_joints(), weights, model.parents, faces)
    uv = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.9], [0.9, 0.1]])
    grid = TexelGrid.of(uv, faces, 128)
    frames = raster.SubFrames.allocate(1, SIZE, 1)
    raster.draw(board[None].astype(np.float32), body.faces, np.zeros((4, 3), np.float32), CAMERA.K, frames)
    matrix = texture.texel_matrix(grid, body, board[None].astype(np.float32), frames, CAMERA.K, 1)
    ramp = (grid.at[:, 1] + 0.5) / 128
    got = (matrix @ ramp).reshape(SIZE, SIZE)[48]
    rays = (np.arange(SIZE) - CAMERA.K[0, 2]) / CAMERA.K[0, 0]
    x = (rays * (1.0 + 3.0 * 0.5)) / (1.0 - rays * 3.0 / 1.6)  # where the ray meets z = 1 + 3 (x + 0.8) / 1.6
    covered = frames.alpha[0, 48] > 0
    assert covered.sum() > 40
    np.testing.assert_allclose(got[covered], (0.1 + 0.8 * (x + 0.8) / 1.6)[covered], atol=2e-3)


def test_two_exposures_in_one_call_are_the_two_alone(grid, body):
    pieces = [posed(body, motion(t, 0.0), 3) for t in (0.0, 1.0)]

    def matrix(vertices, count):
        frames = raster.SubFrames.allocate(len(vertices), SIZE)
        raster.draw(vertices, body.faces, np.zeros_like(body.rest_vertices), CAMERA.K, frames)
        return texture.texel_matrix(grid, body, vertices, frames, CAMERA.K, count)

    both = matrix(np.concatenate(pieces), 2)
    for i, piece in enumerate(pieces):
        alone = matrix(piece, 1)
        assert abs(both[i * SIZE**2:(i + 1) * SIZE**2] - alone).max() < 1e-6


def test_unseen_skin_is_copied_from_the_other_side_or_continued(grid, body):
    points = grid.points_of(body.rest_vertices, body.faces)
    symmetric = skin_colour(np.abs(points) * [1, 0, 0] + points * [0, 1, 1])
    seen = points[:, 0] > 0.0
    texels = np.where(seen[:, None], symmetric, 9.0)
    filled, origin = texture.fill_unseen(grid, body.rest_vertices, body.faces, texels, seen)
    mirrored = origin == texture.MIRRORED
    assert mirrored[~seen].mean() > 0.9 and (origin[seen] == texture.SEEN).all()
    np.testing.assert_array_equal(filled[seen], symmetric[seen])
    assert np.abs(filled - symmetric)[mirrored].mean() < 0.03
    hole = np.abs(points[:, 1] - 0.25) < 0.08  # a belt: neither side of it was seen
    slope = np.repeat(0.5 + points[:, 1:2], 3, axis=1)
    texels = np.where(hole[:, None], 9.0, slope)
    filled, origin = texture.fill_unseen(grid, body.rest_vertices, body.faces, texels, ~hole)
    middle = (np.abs(points[:, 1] - 0.25) < 0.04) & (np.abs(points[:, 0]) < 0.1)
    assert (origin[middle] == texture.FILLED).all() and middle.sum() > 20
    assert np.abs(filled - slope)[middle].mean() < 0.02, "a slope goes on across the belt"


# ---------------------------------------------------------------- layouts


def overlap(uv: np.ndarray, uv_faces: np.ndarray, size: int = 400) -> float:
    """Share of covered texel centres that lie strictly inside more than one face (shared borders do not count)."""
    count = np.zeros((size, size), int)
    for corners in uv[uv_faces] * size - 0.5:
        low, high = np.ceil(corners.min(0)).astype(int), np.floor(corners.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        inside = np.ones(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
            inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 1e-6
        count[y[inside], x[inside]] += 1
    return float((count > 1).sum() / (count > 0).sum())


@pytest.mark.parametrize("lod", ("fit", "display"))
def test_layouts_are_charts_that_do_not_overlap(lod):
    model = load_body(lod=lod)
    generated = atlas(model.v_template, model.faces, model.weights.argmax(1))
    for uv, uv_faces in ((model.uv, model.uv_faces), generated):
        assert uv.min() >= 0 and uv.max() <= 1 and uv_faces.shape == model.faces.shape
        a, b, c = (uv[uv_faces[:, k]] for k in range(3))
        assert ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0).all(), "no face turned or empty"
        assert overlap(uv, uv_faces) < 2e-3
        owners = np.unique(np.stack([uv_faces.ravel(), model.faces.ravel()], 1), axis=0)
        assert len(owners) == len(uv), "a texture coordinate belongs to one vertex"
        assert len(np.unique(TexelGrid.of(uv, uv_faces, 256).face)) > 0.95 * len(model.faces)
    again = atlas(model.v_template, model.faces, model.weights.argmax(1))
    np.testing.assert_array_equal(generated[0], again[0])
    stretch = np.linalg.norm(model.v_template[model.faces[:, 1]] - model.v_template[model.faces[:, 0]], axis=1) / (
        np.linalg.norm(generated[0][generated[1][:, 1]] - generated[0][generated[1][:, 0]], axis=1))
    assert np.quantile(stretch, 0.99) < 5 * np.quantile(stretch, 0.01), "one scale, squeezed to a fifth at most"


def test_seams_join_what_touches_on_the_body(grid, body):
    points = grid.points_of(body.rest_vertices, body.faces)
    pairs = seam_pairs(grid, points)
    assert len(pairs) > 100 and len(np.unique(grid.chart[pairs], axis=0)) > 5
    assert np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1).max() < 0.05


def test_layout_of_an_obj_fits_whatever_the_order_of_its_faces(model, tmp_path):
    rng = np.random.default_rng(3)
    order, turn = rng.permutation(len(model.faces)), rng.integers(3, size=(len(model.faces), 1))
    corners = (np.arange(3) + turn) % 3
    faces = np.take_along_axis(model.faces, corners, 1)[order]
    uv_faces = np.take_along_axis(model.uv_faces, corners, 1)[order]
    write_obj(tmp_path / "uv.obj", model.v_template, faces, model.uv, uv_faces)
    plain = {k: v for k, v in arrays_of(model).items() if k not in ("vt", "ft")}
    np.savez(tmp_path / "smpl.npz", **plain)
    bare = load_body(tmp_path / "smpl.npz", "full")
    assert bare.uv is None and textured(bare).uv_faces.shape == model.faces.shape
    laid = load_body(tmp_path / "smpl.npz", "full", tmp_path / "uv.obj")
    np.testing.assert_allclose(laid.uv[laid.uv_faces], model.uv[model.uv_faces], atol=1e-6)
    with pytest.raises(BodyError, match="does not exist"):
        load_body(tmp_path / "smpl.npz", "full", tmp_path / "other.obj")


def test_levels_of_an_official_mesh_keep_its_layout(model, tmp_path, monkeypatch):
    monkeypatch.setenv("BLUR_MOTION_ASSETS", str(tmp_path))
    monkeypatch.setattr("blur_motion_ros.body.levels.LEVEL_FACES", {"fit": 1200})
    write_obj(tmp_path / "uv.obj", model.v_template, model.faces, model.uv, model.uv_faces)
    np.savez(tmp_path / "smpl.npz", **{k: v for k, v in arrays_of(model).items() if k not in ("vt", "ft")})
    small = load_body(tmp_path / "smpl.npz", "fit", tmp_path / "uv.obj")
    assert len(small.faces) == 1200 and overlap(small.uv, small.uv_faces) < 1e-3
    assert cKDTree(model.uv).query(small.uv)[0].max() < 2e-6, "coordinates of the layout (six decimals), no others"


@pytest.mark.parametrize("text, words", [("v 0 0 0\nf 1 1 1\n", "line 2"), ("v 0 0 0\nvt 0 0\n", "0 faces"),
                                         ("v 0 0 0\nvt 0 0\nf 1/1 2/1 1/1\n", "not there"),
                                         ("v 0 0 x\n", "line 1"), ("f 1/1 1/1 1/1 1/1\n", "line 1")])
def test_broken_layouts_are_refused_by_name(tmp_path, text, words):
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(BodyError, match=words):
        read_obj(tmp_path / "a.obj")


def test_layout_of_another_mesh_is_refused(model, tmp_path):
    write_obj(tmp_path / "a.obj", model.v_template, model.faces[:, ::-1], model.uv, model.uv_faces[:, ::-1])
    with pytest.raises(BodyError, match="not those of the body"):
        with_layout(model, tmp_path / "a.obj")
    write_obj(tmp_path / "b.obj", model.v_template, model.faces[:-1], model.uv, model.uv_faces[:-1])
    with pytest.raises(BodyError, match="1499 faces"):
        with_layout(model, tmp_path / "b.obj")


# ---------------------------------------------------------------- recordings and files


class Frames(list):
    """What `texture_of` needs of a sequence."""

    response = "srgb"


def pictures_of(body: FitBody, motions: list[MotionEstimate]) -> list[Frame]:
    images = [photograph(body, posed(body, e, 15))[0] for e in motions]
    return [Frame(to_codes(image), e.exposures[0], CAMERA, i)
            for i, (image, e) in enumerate(zip(images, motions, strict=True))]


class DifferenceAtAll:
    """A matter that calls everything that is not the plate the person."""

    def matte(self, image, plate, plate_sigma=None, person_mask=None) -> Matte:
        alpha = np.clip(np.abs(image - plate).max(-1) / 0.1, 0, 1).astype(np.float32)
        return Matte(alpha, np.full(alpha.shape, 0.1, np.float32))


def test_recording_to_files_and_back(model, body, tmp_path):
    motions = [motion(turn, 0.1 * i) for i, turn in enumerate((0.0, 0.7, -0.7))]
    lost = dataclasses.replace(motions[0], status=Status.LOST, coefficients=np.full((25, 3, 3), np.nan))
    estimates = [motions[0], lost, *motions[1:]]
    recording = Frames(pictures_of(body, [motions[0], *motions]))
    plate = np.broadcast_to(to_codes(BACKGROUND), (SIZE, SIZE, 3)).copy()
    rig = texture_files.TexturedBody.of(model)
    result, middle = texture_files.texture_of(recording, estimates, rig, plate, DifferenceAtAll(),
                                              dataclasses.replace(FitSettings(), texture_size=64))
    assert middle == 2, "the middle of the usable exposures"
    front = TexelGrid.of(model.uv, model.uv_faces, 64)
    points = front.points_of(model.v_template, model.faces)
    at = tuple(front.at.T)
    seen = (result.origin[at] == texture.SEEN) & (points[:, 1] > -0.3)
    error = np.abs(result.image[at] - skin_colour(points))[seen]
    assert seen.sum() > 300 and error.mean() < 0.08, f"{error.mean():.3f} over {seen.sum()} texels"

    vertices = rig.vertices(estimates[2], np.array([0.1]))[0]
    texture_files.write_texture(tmp_path, result, rig, vertices)
    back = texture_files.read_texture(tmp_path)
    np.testing.assert_array_equal(to_codes(back.image), to_codes(result.image))
    np.testing.assert_array_equal(back.origin, result.origin)
    picture = cv2.imread(str(tmp_path / "texture.png"))[..., ::-1]
    np.testing.assert_array_equal(picture, to_codes(result.image))
    points, faces, uv, uv_faces = read_obj(tmp_path / "body.obj")
    np.testing.assert_allclose(points * [1, -1, -1], vertices, atol=1e-6)
    assert points[:, 1].argmax() == vertices[:, 1].argmin(), "y is up in the file, down in the camera"
    np.testing.assert_array_equal(faces, model.faces)
    np.testing.assert_allclose(uv[uv_faces], model.uv[model.uv_faces], atol=1e-6)
    column, row = (uv * [1, -1] + [0, 1]).T * 63.99  # v = 1 is the image's first row, everywhere outside this package
    seen = (back.origin[row.astype(int), column.astype(int)] == texture.SEEN)
    owner = np.zeros(len(uv), int)
    owner[uv_faces] = faces
    truth = skin_colour(model.v_template[owner])
    error = np.abs(back.image[row.astype(int), column.astype(int)] - truth)[seen].mean()
    assert seen.sum() > 100 and error < 0.1, f"{error:.3f} at {seen.sum()} texture coordinates"
    material = (tmp_path / "body.mtl").read_text()
    assert "mtllib body.mtl" in (tmp_path / "body.obj").read_text() and "map_Kd texture.png" in material
    trimesh = pytest.importorskip("trimesh")
    loaded = trimesh.load(tmp_path / "body.obj", process=False)
    assert loaded.visual.material.image.size == (64, 64) and len(loaded.faces) == len(model.faces)


def test_nobody_to_colour_is_said(model):
    lost = dataclasses.replace(motion(0, 0), status=Status.LOST)
    with pytest.raises(ValueError, match="not found in any exposure"):
        texture_files.texture_of([None], [lost], texture_files.TexturedBody.of(model), None, None, FitSettings())
    poor = dataclasses.replace(motion(0, 0), status=Status.POOR_FIT)
    assert texture_files.chosen([lost, poor], 5) == [1], "a poor fit is better than none"
    assert texture_files.chosen([poor] * 2 + [motion(0, 0)] * 9, 3) == [2, 6, 10]


def test_motion_file_gives_the_estimates_back(body, tmp_path):
    from blur_motion_ros.trajectory import sample

    estimates = [motion(0.3, 0.0), dataclasses.replace(motion(0.5, 0.1), status=Status.LOW_BLUR)]
    trajectories = [sample(dataclasses.replace(e, free=np.arange(0), covariance=None), body,
                           np.linspace(e.start, e.end, 4)) for e in estimates]
    fit_command.save(tmp_path / "m.npz", estimates, trajectories)
    for own, back in zip(estimates, fit_command.load(tmp_path / "m.npz"), strict=True):
        np.testing.assert_allclose(posed(body, back, 4), posed(body, own, 4), atol=1e-6)
        assert back.status == own.status and back.exposures[-1] == own.exposures[-1]


def test_crop_holds_the_points_it_was_made_for():
    points = np.array([[[-0.3, 0.2, 3.0], [0.4, -0.5, 2.5]], [[0.1, 0.6, 3.5], [0.0, 0.0, 3.0]]])
    crop = Crop.holding(CAMERA, points, 1.25, 64)
    pixels = crop.project(points)
    span = np.ptp(pixels.reshape(-1, 2), axis=0).max()
    assert span == pytest.approx(64 / 1.25) and pixels.min() > 0 and pixels.max() < 63


def test_display_mesh_takes_the_colours_of_the_fitted_mesh(model):
    from blur_motion_ros.body.skin import Skin

    display = load_body(lod="display")
    got = Skin("", "display").coloured(model, skin_colour(model.v_template).astype(np.float32))
    assert np.abs(got - skin_colour(display.v_template)).mean() < 0.03 and got.shape == display.v_template.shape
    own = skin_colour(model.v_template)
    assert Skin("", "fit").coloured(model, own) is own
