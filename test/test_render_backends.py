"""Differentiable renderers held to each other, to DEODR, and to finite differences of a finely sampled rendering."""

import sys

import cv2
import numpy as np
import pytest
import torch
from plain_nvdiffrast import PlainOperations
from synthetic import capsule_body

from blur_motion_ros import render
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import nvdiffrast, raster
from blur_motion_ros.render.base import RendererError
from blur_motion_ros.render.raster_torch import RasterRenderer

SIZE = 64
K = np.array([[SIZE * 1.6, 3.0, SIZE / 2 - 4.5], [0, SIZE * 1.5, SIZE / 2 + 1.5], [0, 0, 1.0]])  # nothing symmetric


class Scene:
    """Two postures of the capsule body, one shaded colour per bone."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.body = capsule_body()
        local = rotations.exp(rng.normal(0, 0.25, (24, 3)))
        local[0] = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, 0.4, 0]))
        coefficients = np.zeros((25, 2, 3))
        coefficients[:, 1] = rng.normal(0, 0.15, (25, 3)) * np.array([0.3] + [1] * 24)[:, None]
        basis = np.array([[1.0, -1.0], [1.0, 1.0]])
        self.vertices = pose(self.body, local, np.array([0, 0.15, 3.0]), coefficients, basis).vertices
        bones = rng.uniform(0.05, 0.9, (len(self.body.rest_vertices) // 80, 1, 3))
        shade = 0.8 + 0.2 * np.sin(9 * self.body.rest_vertices)
        self.colours = (np.repeat(bones, 80, 1).reshape(-1, 3) * shade).astype(np.float32)

    def tensors(self, device="cpu"):
        return [torch.tensor(a, device=device) for a in (self.vertices, self.body.faces, self.colours, K)]

    def drawn(self, vertices=None, supersample=2):
        """[M, S, S, 4] colour and alpha as the numba rasteriser draws them, and its buffers."""
        vertices = self.vertices if vertices is None else vertices.astype(np.float32)
        frames = raster.SubFrames.allocate(len(vertices), SIZE, supersample)
        raster.draw(vertices, self.body.faces, self.colours, K, frames)
        return np.concatenate([frames.colour, frames.alpha[..., None]], -1), frames


@pytest.fixture(scope="module")
def scene():
    return Scene()


def stacked(rendered):
    return torch.cat([rendered.colour, rendered.alpha[..., None]], -1)


def smooth_weights(seed):
    """[2, S, S, 4] a smooth random functional of the image, as a loss of low-passed images would be."""
    rng = np.random.default_rng(seed)
    return np.stack([cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE, 4)).astype(np.float32), (0, 0), 4)
                     for _ in range(2)])


# ----------------------------------------------------------------------------------------------------- CPU, forward


def test_cpu_backend_is_the_rasteriser(scene):
    rendered = render.make("cpu")(*scene.tensors(), SIZE)
    expected, frames = scene.drawn()
    assert np.array_equal(stacked(rendered).numpy(), expected)
    assert np.array_equal(rendered.vertex.numpy(), frames.vertex)
    covered = frames.alpha > 0
    assert np.array_equal(rendered.face.numpy() >= 0, covered)
    corners = scene.body.faces[rendered.face.numpy()[covered]]
    assert (corners == frames.vertex[covered][:, None]).any(1).all()  # the vertex is a corner of the face
    assert 0.02 < covered.mean() < 0.6


def deodr_image(scene, fine):
    """[M, S, S, 4] by DEODR without edge overdraw at `fine` samples per pixel and axis, averaged."""
    deodr = pytest.importorskip("deodr.differentiable_renderer")
    size, out = SIZE * fine, []
    faces = np.ascontiguousarray(scene.body.faces, np.uint32)
    count = len(scene.colours)
    for v in scene.vertices.astype(np.float64):
        image = v @ K.T
        points = (image[:, :2] / image[:, 2:] + 0.5) * fine - 0.5
        empty = np.zeros((count, 2))
        drawing = deodr.Scene2DBase(
            faces=faces, faces_uv=faces, ij=points, depths=v[:, 2].copy(), textured=np.zeros(len(faces), bool),
            uv=empty, shade=np.zeros(count), colors=np.c_[scene.colours, np.ones(count)].astype(np.float64),
            shaded=np.zeros(len(faces), bool), edgeflags=np.zeros((len(faces), 3), bool), height=size, width=size,
            nb_colors=4, texture=np.zeros((0, 0, 4)), background_color=np.zeros(4), backface_culling=True,
            clockwise=False, strict_edge=True, perspective_correct=True, integer_pixel_centers=True)
        picture, depth = np.empty((size, size, 4)), np.empty((size, size))
        deodr.renderScene(drawing, 0.0, picture, depth)
        out.append(picture.reshape(SIZE, fine, SIZE, fine, 4).mean((1, 3)))
    return np.stack(out)


def test_cpu_backend_against_deodr(scene):
    """An independent rasteriser: the same samples are covered by the same triangles; its colours are interpolated with
    perspective, ours without, which differs by less than 0.01 on triangles this small."""
    for fine in (2, 8):
        rendered = RasterRenderer(supersample=fine)(*scene.tensors(), SIZE)
        difference = np.abs(stacked(rendered).numpy() - deodr_image(scene, fine)).max((0, 1, 2))
        assert difference[3] < 1e-5 and difference[:3].max() < 0.01, (fine, difference)


# ---------------------------------------------------------------------------------------------------- CPU, gradient


def test_gradient_of_colours_is_exact(scene):
    vertices, faces, colours, k = scene.tensors()
    colours.requires_grad_()
    weights = torch.tensor(smooth_weights(1))
    (stacked(render.make("cpu")(vertices, faces, colours, k, SIZE)) * weights).sum().backward()
    direction = np.random.default_rng(2).normal(size=scene.colours.shape).astype(np.float32)

    def value(step):
        moved = torch.tensor(scene.colours + step * direction)
        return float((stacked(RasterRenderer()(vertices, faces, moved, k, SIZE)).double() * weights).sum())

    expected = (value(0.5) - value(-0.5))  # linear: any step will do
    assert float((colours.grad.numpy() * direction).sum()) == pytest.approx(expected, rel=1e-3)


def directions(vertices):
    """Named motions [M, V, 3] of the whole body: along the axes, and turns about its centre."""
    centre = vertices.mean((0, 1))
    for i, name in enumerate("xyz"):
        along = np.zeros_like(vertices)
        along[..., i] = 1
        yield "along " + name, along
    for i, name in enumerate("xyz"):
        yield "about " + name, np.cross(np.eye(3)[i], vertices - centre)
    for seed in range(2):
        wave = np.random.default_rng(seed).normal(0, 1, (2, 3, 3))
        yield f"bending {seed}", np.sin(2 * vertices @ wave[0]) @ wave[1] / 3


def test_gradient_of_vertices_against_finite_differences(scene):
    """Against central differences of 64 samples per pixel, over eight motions and eight losses: the error is under 12 %
    of the derivatives' root mean square, of alpha alone too, and the gain is right within 5 %. Turns out of the image
    plane are worst (a contour slides over a surface that turns under it), but even they point the right way."""
    vertices, faces, colours, k = scene.tensors()
    vertices.requires_grad_()
    steps = list(directions(scene.vertices.astype(np.float64)))
    h = 0.01
    slopes = [(scene.drawn(scene.vertices + h * d, 8)[0].astype(np.float64)
               - scene.drawn(scene.vertices - h * d, 8)[0]) / (2 * h) for _, d in steps]
    for channels in (slice(0, 4), slice(3, 4)):
        expected, found = [], []
        for seed in range(8):
            weights = np.zeros((2, SIZE, SIZE, 4), np.float32)
            weights[..., channels] = smooth_weights(seed)[..., channels]
            vertices.grad = None
            (stacked(render.make("cpu")(vertices, faces, colours, k, SIZE)) * torch.tensor(weights)).sum().backward()
            expected.append([(s * weights).sum() for s in slopes])
            found.append([(vertices.grad.numpy() * d).sum() for _, d in steps])
        expected, found = np.array(expected), np.array(found)
        names = [name for name, _ in steps]
        error = dict(zip(names, np.sqrt(((found - expected) ** 2).mean(0) / (expected**2).mean(0)), strict=True))
        cosine = (found * expected).sum(0) / np.sqrt((found**2).sum(0) * (expected**2).sum(0))
        gain = (found * expected).sum() / (expected**2).sum()
        assert np.sqrt(((found - expected) ** 2).sum() / (expected**2).sum()) < 0.12, error
        assert max(error["along x"], error["along y"], error["about z"]) < 0.12, error
        assert gain == pytest.approx(1, abs=0.05)
        assert cosine.min() > 0.8, dict(zip(names, cosine, strict=True))


def test_a_limb_behind_another_takes_no_gradient_from_it():
    """Depth edge: a far square half covered by a near one. Only the near one moves their common edge."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    far, near = square * 0.8 + [0, 0, 3.0], square * 0.3 + [-0.35, 0, 2.0]
    vertices = torch.tensor(np.concatenate([far, near])[None].astype(np.float32), requires_grad=True)
    faces = torch.tensor([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]], dtype=torch.int32)
    colours = torch.tensor(np.repeat([[0.2], [0.9]], 4, 0).repeat(3, 1).astype(np.float32))
    k = torch.tensor([[80.0, 0, 31.5], [0, 80.0, 31.5], [0, 0, 1]])
    rendered = render.make("cpu")(vertices, faces, colours, k, SIZE)
    edge = 31.5 + 80 * (-0.05) / 2
    columns = torch.arange(SIZE)[None, None, :, None]
    (rendered.colour * ((columns - edge).abs() < 4)).sum().backward()
    to_far, to_near = vertices.grad[0, :4, 0].sum(), vertices.grad[0, 4:, 0].sum()
    rows = 0.6 / 2 * 80  # height of the near square in pixels
    assert float(to_near) == pytest.approx(3 * 0.7 * rows * 80 / 2, rel=0.1)  # channels x contrast x edge x px per m
    assert abs(float(to_far)) < 0.02 * float(to_near)


# -------------------------------------------------------------------------------------------------- interface, errors


def test_wrong_inputs_are_named(scene):
    vertices, faces, colours, k = scene.tensors()
    renderer = render.make("cpu")
    for bad, text in (((vertices[0], faces, colours, k), "vertices has shape"),
                      ((vertices.double(), faces, colours, k), "vertices is torch.float64"),
                      ((vertices, faces.long(), colours, k), "faces is torch.int64"),
                      ((vertices, faces, colours[:5], k), "colours has shape"),
                      ((vertices, faces, colours, k[:2]), "intrinsics has shape")):
        with pytest.raises(RendererError, match=text):
            renderer(*bad, SIZE)


def test_what_cannot_run_says_how_to_fix_it(monkeypatch):
    with pytest.raises(RendererError, match="choose one of cpu, nvdiffrast"):
        render.make("opengl")
    with pytest.raises(RendererError, match="use the cpu renderer"):
        render.make("nvdiffrast", "cpu")
    with pytest.raises(RendererError, match="kind='nvdiffrast'"):
        render.make("cpu", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RendererError, match="fit.device=cpu"):
        render.make("nvdiffrast", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", None)
    with pytest.raises(RendererError, match="pip install diffrp-nvdiffrast"):
        render.make("nvdiffrast", "cuda")
    assert "pip install" in nvdiffrast.unavailable()


# ------------------------------------------------------------------------------------- nvdiffrast, without its kernels


def test_nvdiffrast_backend_up_to_its_kernels(scene):
    """Projection, row order, half pixels, sample averages and visibility, with plain loops in place of the kernels."""
    operations = PlainOperations()
    renderer = nvdiffrast.NvdiffrastRenderer("cpu", operations=operations)
    tensors = scene.tensors()
    rendered = renderer(*tensors, SIZE)
    expected, frames = scene.drawn()
    difference = np.abs(stacked(rendered).numpy() - expected)
    assert difference.mean() < 5e-4 and (difference[..., 3] > 1e-3).mean() < 2e-3
    covered = (frames.alpha > 0) & (rendered.alpha.numpy() > 0)
    assert (rendered.vertex.numpy()[covered] == frames.vertex[covered]).mean() > 0.9
    assert (rendered.vertex.numpy()[frames.alpha == 0] == -1).mean() > 0.999
    assert operations.calls == 1  # all sub-frames at once
    renderer(*tensors, SIZE // 2)
    assert operations.hashes == 1  # the same faces, the same topology


def test_clip_space_keeps_the_depth_order():
    points = torch.tensor([[[0.0, 0, 0.1], [0, 0, 1.0], [0, 0, 3.0], [0, 0, 100.0]]])
    clip = nvdiffrast.to_clip(points, torch.tensor(K), SIZE)
    depth = clip[0, :, 2] / clip[0, :, 3]
    assert float(depth[0]) == pytest.approx(-1, abs=1e-5) and float(depth[-1]) == pytest.approx(1, abs=1e-5)
    assert (depth.diff() > 0).all()


# ----------------------------------------------------------------------------------------------------- nvdiffrast, GPU


@pytest.fixture(scope="module")
def gpu():
    reason = nvdiffrast.unavailable("cuda")
    if reason:
        pytest.skip(reason)
    return render.make("nvdiffrast", "cuda")


def test_gpu_image_agrees_with_the_cpu(scene, gpu):
    """Antialiasing shifts edges by fractions of a sample: 0.004 on average, 0.3 at single silhouette pixels."""
    rendered = gpu(*scene.tensors("cuda"), SIZE)
    fine, _ = scene.drawn(supersample=8)
    difference = np.abs(stacked(rendered).cpu().numpy() - fine)
    assert difference.mean() < 4e-3 and difference.max() < 0.5, (difference.mean(), difference.max())
    _, frames = scene.drawn()
    inside = frames.alpha == 1
    assert (rendered.vertex.cpu().numpy()[inside] == frames.vertex[inside]).mean() > 0.9


def test_gpu_gradient_agrees_with_the_cpu(scene, gpu):
    weights, gradients = torch.tensor(smooth_weights(3)), []
    for renderer in (render.make("cpu"), gpu):
        vertices, faces, colours, k = scene.tensors(renderer.device)
        vertices.requires_grad_()
        colours.requires_grad_()
        (stacked(renderer(vertices, faces, colours, k, SIZE)) * weights.to(renderer.device)).sum().backward()
        gradients.append((vertices.grad.cpu().numpy(), colours.grad.cpu().numpy()))
    (cpu_vertices, cpu_colours), (gpu_vertices, gpu_colours) = gradients
    assert np.abs(gpu_colours - cpu_colours).sum() < 0.05 * np.abs(cpu_colours).sum()
    along = [[(g * d).sum() for _, d in directions(scene.vertices.astype(np.float64))]
             for g in (cpu_vertices, gpu_vertices)]
    assert np.linalg.norm(np.subtract(*along)) < 0.2 * np.linalg.norm(along[0]), along
