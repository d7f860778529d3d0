"""The first-order path against Levenberg-Marquardt, and its free colours and shape against the truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from blurred import EXPOSURES, SIZE, TRANSL, K, Scene
from plain_nvdiffrast import PlainOperations

from blur_motion_ros.fit import image_terms, solver
from blur_motion_ros.fit import kinematics_torch as kinematics
from blur_motion_ros.fit.first_order import Shape, _Search, renderer_for, solve_first_order
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.fit.layout import WindowLayout
from blur_motion_ros.fit.settings import FirstOrderSettings, FitSettings, LossWeights
from blur_motion_ros.fit.surface import Surface
from blur_motion_ros.fit.window import BlurFit
from blur_motion_ros.motion import rotations
from blur_motion_ros.render.base import RendererError
from blur_motion_ros.render.nvdiffrast import NvdiffrastRenderer
from blur_motion_ros.types import BodyState, Observation, PoseMeasurement


@pytest.fixture(scope="module")
def scene():
    return Scene()


def test_torch_body_is_the_numpy_body(scene):
    rng = np.random.default_rng(1)
    coefficients = rng.normal(0, 0.2, (25, 3, 3))
    expected = pose(scene.body, scene.reference, TRANSL, coefficients, scene.layout.basis)
    body = kinematics.TorchBody.of(scene.body)
    reference, moving, basis, transl = (torch.tensor(a, dtype=torch.float32) for a in
                                        (scene.reference, coefficients, scene.layout.basis, TRANSL))
    local, value = kinematics.local_rotations(reference, moving, basis)
    vertices, joints = kinematics.pose(body, local, transl + value)
    assert np.abs(vertices.numpy() - expected.vertices).max() < 1e-5
    assert np.abs(joints.numpy() - expected.joints).max() < 1e-5
    free = torch.tensor(rng.normal(size=(21, 3, 3)))
    assert np.array_equal(kinematics.widen(free).numpy(), solver.widen(free.numpy()))


def test_adam_and_levenberg_marquardt_reach_the_same_minimum(scene):
    """From 80 mm away: costs within 3 %, the two motions within 4 mm on average, both much nearer to the truth."""
    problem = scene.problem()
    start = np.zeros((21, 3, 3))
    start[:, 0] = np.random.default_rng(3).normal(0, 0.02, (21, 3))
    second = solver.solve(problem, start, 40, tolerance=1e-6)
    first = solve_first_order(problem, start, FirstOrderSettings(tolerance=0.0), 100)
    apart = np.linalg.norm(scene.joints(first.free) - scene.joints(second.free), axis=-1) * 1e3
    error = [np.linalg.norm(scene.joints(f) - scene.joints(scene.truth), axis=-1).mean() * 1e3
             for f in (start, second.free, first.free)]
    assert first.evaluation.cost == pytest.approx(second.evaluation.cost, rel=0.03)
    assert apart.mean() < 4 and apart.max() < 20, (apart.mean(), apart.max())
    assert error[0] > 60 and max(error[1:]) < 20, error
    # The loss of the terms is the solver's own cost, and the evaluation is of the answer, not of the last step.
    assert sum(first.terms.values()) == pytest.approx(first.evaluation.cost, rel=1e-3)
    assert problem.evaluate(first.free).cost == pytest.approx(first.evaluation.cost, rel=1e-9)
    assert min(first.history) <= first.history[0] / 2 and 40 <= first.iterations <= 100


def test_the_papers_own_loss_leads_to_the_motion_too(scene):
    """Image formation, matting, background, pose and polynomial terms instead of robust residuals."""
    start = np.zeros((21, 3, 3))
    start[:, 0] = np.random.default_rng(3).normal(0, 0.02, (21, 3))
    problem = scene.problem()
    found = solve_first_order(problem, start, FirstOrderSettings.paper(), 80)
    assert set(found.terms) == {"evidence", "formation", "matting", "pose", "polynomial_l1", "polynomial_frobenius",
                                "background"}
    assert found.terms["matting"] < 0.15
    error = [np.linalg.norm(scene.joints(f) - scene.joints(scene.truth), axis=-1).mean() for f in (start, found.free)]
    assert error[1] < 0.35 * error[0], error


def test_adversarial_term_enters_for_degree_two(scene):
    weights = LossWeights(data=1.0, adversarial=0.1)
    found = solve_first_order(scene.problem(), scene.truth, FirstOrderSettings(weights=weights), 3)
    assert np.isfinite(found.terms["adversarial"]) and found.terms["adversarial"] > 0


def test_free_colours_are_found(scene):
    """From grey, at the true motion: what is seen gets its colour."""
    grey = scene.problem(colours=np.full_like(scene.colours, 0.4))
    weights = LossWeights(data=0.0, evidence=1.0, formation=1e5)
    settings = FirstOrderSettings(rate=1e-4, colour_rate=0.05, weights=weights)
    start = Surface.of_vertices(scene.body, grey.colours)
    found = solve_first_order(grey, scene.truth, settings, 80, surface=start)
    seen = np.unique(grey.workspace.frames.vertex)
    seen = seen[seen >= 0]
    before, after = (np.abs(c[seen] - scene.colours[seen]).mean() for c in (grey.colours, found.surface.values))
    assert after < 0.35 * before, (before, after)
    assert found.terms["formation"] < 0.1 * np.mean((grey.evaluate(scene.truth).predicted[..., :3]
                                                     - scene.value[..., :3]) ** 2)
    assert found.surface.values.min() >= 0 and found.surface.values.max() <= 1


def test_free_shape_is_found(scene):
    """The body's girth as its one shape parameter: from thin, the blurred images say how thick it is."""
    axis = np.zeros((len(scene.body.rest_vertices), 3, 10))
    grown = scene.body.reshaped(scene.body.rest_vertices, scene.body.rest_joints, 0.02)
    axis[:, :, 0] = grown.rest_vertices - scene.body.rest_vertices
    thick = Scene.render(scene, grown)
    target = replace(scene.problem().target, value=thick)
    shape = Shape(np.zeros(10), axis, np.zeros((24, 3, 10)))
    found = solve_first_order(scene.problem(target=target), scene.truth, FirstOrderSettings(shape_rate=0.1), 60,
                              shape=shape)
    assert found.betas[0] == pytest.approx(1.0, abs=0.25)
    assert np.abs(found.betas[1:]).max() < 1e-6  # nothing depends on them
    assert found.evaluation.cost < 0.7 * scene.problem(target=target).evaluate(scene.truth).cost


def test_the_gpu_backend_serves_the_first_order_path(scene):
    """nvdiffrast's backend with plain loops for its kernels (which pass no gradient to vertices): colours are found."""
    operations = PlainOperations()
    renderer = NvdiffrastRenderer("cpu", supersample=1, operations=operations)
    layout = WindowLayout.of(EXPOSURES, 1, 2)
    problem = scene.problem(layout=layout, workspace=image_terms.Workspace(2, SIZE),
                            colours=np.full_like(scene.colours, 0.4))
    settings = FirstOrderSettings(colour_rate=0.1, weights=LossWeights(data=0.0, formation=1e5))
    start = Surface.of_vertices(scene.body, problem.colours)
    found = solve_first_order(problem, scene.truth, settings, 4, renderer, start)
    assert found.terms["formation"] < 0.6 * found.history[0] / 1e5
    assert operations.calls == 5 and operations.hashes == 1


class Shapes:
    """`nvdiffrast.torch` on PyTorch's meta device: shapes, devices and the graph, no numbers."""

    def RasterizeCudaContext(self, device=None):
        return device

    def antialias_construct_topology_hash(self, tri):
        return tri.device

    def rasterize(self, context, pos, tri, resolution, ranges=None, grad_db=True):
        assert pos.device == tri.device == context
        return torch.zeros(len(pos), *resolution, 4, device=pos.device) + 0 * pos.sum(), None

    def interpolate(self, attr, rast, tri):
        return torch.zeros(rast.shape[:3] + attr.shape[-1:], device=rast.device) + 0 * (attr.sum() + rast.sum()), None

    def antialias(self, color, rast, pos, tri, topology_hash=None, pos_gradient_boost=1.0):
        assert topology_hash == tri.device
        return color + 0 * pos.sum()


def test_everything_stays_on_the_renderers_device(scene):
    """On another device than the CPU (meta mixes with it as little as cuda does): losses and gradients are there."""
    renderer = NvdiffrastRenderer("meta", operations=Shapes())
    shape = Shape(np.zeros(10), np.zeros((len(scene.colours), 3, 10)), np.zeros((24, 3, 10)))
    surface = Surface.of_vertices(scene.body, scene.colours)
    search = _Search(scene.problem(), scene.truth, FirstOrderSettings(), renderer, surface, shape)
    terms = search.terms()
    names = ("data", "formation", "matting", "background", "polynomial_l1", "polynomial_frobenius", "shape",
             "texture")
    total = sum(terms[name]() for name in names)
    total.backward()
    for tensor in (total, search.step.grad, search.betas.grad, search.colours.grad):
        assert tensor.device.type == "meta"


def test_weights_without_a_term_and_devices_that_are_not_there(scene, monkeypatch):
    settings = FirstOrderSettings(weights=LossWeights(shape=1.0))
    with pytest.raises(ValueError, match="'shape' is 1.0, but this problem has no such term"):
        solve_first_order(scene.problem(), scene.truth, settings, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RendererError, match="fit.device=cpu"):
        renderer_for("cuda")


def test_blur_fit_takes_the_solver_from_its_settings(scene):
    """`fit.solver=adam` through the sliding window: the same motion as lm, by another way."""
    from blur_motion_ros.camera.camera import Crop

    local = rotations.log(scene.reference @ rotations.exp(solver.widen(scene.truth)[1:, 0]))
    state = BodyState(local[0], local[1:], np.zeros(10), TRANSL)
    covariance = np.diag(np.r_[np.full(3, 0.03**2), np.full(72, 0.1**2)])
    measurement = PoseMeasurement(0.5 * (EXPOSURES[0].open + EXPOSURES[1].close), state, covariance, None, 0.0)
    sigma = np.full((SIZE, SIZE), 0.1, np.float32)
    observations = tuple(
        Observation(e, Crop(K, SIZE), v[..., :3] + p, p, v[..., 3], sigma, measurement if i else None)
        for i, (e, v, p) in enumerate(zip(EXPOSURES, scene.value, scene.plate, strict=True)))
    estimates = {}
    for kind in ("lm", "adam"):
        first = FirstOrderSettings(cold_iterations=150)
        fit = BlurFit(FitSettings(inflation=0.0, solver=kind, first_order=first, cold_iterations=20), scene.body,
                      np.zeros(10))
        fit._colours = scene.colours.copy()
        estimates[kind] = fit.update(observations)
    lm, adam = estimates["lm"], estimates["adam"]
    assert np.isfinite(adam.covariance).all() and adam.status == lm.status
    assert adam.rms == pytest.approx(lm.rms, rel=0.1)
    elbow = 1 + 18
    assert adam.coefficients[elbow, 1] @ lm.coefficients[elbow, 1] > 0
    assert not np.array_equal(adam.coefficients, lm.coefficients)
