"""The fit's compiled code against slow, plain NumPy that says the same thing without a single shortcut."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.polynomial import legendre
from synthetic import capsule_body

from blur_motion_ros.fit import colour, dynamics, image_terms, linear, solver
from blur_motion_ros.fit.dynamics import Carry, MotionPrior
from blur_motion_ros.fit.gaussian_terms import PoseGaussian
from blur_motion_ros.fit.kinematics import pose
from blur_motion_ros.fit.layout import FREE_JOINTS, LIMBS, SLOT_OF_JOINT, WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.stillness import change_by_limb
from blur_motion_ros.motion import polynomials, rotations
from blur_motion_ros.render import raster
from blur_motion_ros.types import Exposure

SIZE = 32
K = np.array([[SIZE * 1.6, 0, SIZE / 2 - 0.5], [0, SIZE * 1.6, SIZE / 2 - 0.5], [0, 0, 1.0]])
TRANSL = np.array([0, 0.15, 3.0])
EXPOSURES = (Exposure(0.0, 0.03), Exposure(1 / 30, 1 / 30 + 0.03))
RNG = np.random.default_rng(20)


@pytest.fixture(scope="module")
def window():
    return make_window(2)


def make_window(degree):
    """A moving capsule body, rendered, and images that differ from it everywhere."""
    rng = np.random.default_rng(21)
    body = capsule_body()
    reference = rotations.exp(rng.normal(0, 0.3, (24, 3)))
    reference[0] = rotations.exp(np.array([np.pi, 0, 0])) @ rotations.exp(np.array([0, 0.4, 0]))
    layout = WindowLayout.of(EXPOSURES, 3, degree)
    free = rng.normal(0, 0.08, (21, degree + 1, 3))
    colours = rng.uniform(0, 1, (len(body.rest_vertices), 3)).astype(np.float32)
    background = rng.uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    value = rng.uniform(-0.5, 1, (2, SIZE, SIZE, 4)).astype(np.float32)
    weight = rng.uniform(0, 12, (2, SIZE, SIZE, 4)).astype(np.float32) * (rng.uniform(size=(2, SIZE, SIZE, 1)) > 0.1)
    target = image_terms.Target(value, weight.astype(np.float32), background, K)
    workspace = image_terms.Workspace(len(layout.times), SIZE)
    prior = MotionPrior.of(load_motion_statistics(), layout, 3.0, False)
    measured = PoseGaussian(reference, TRANSL, rotations.exp(rng.normal(0, 0.1, (24, 3))) @ reference, TRANSL + 0.02,
                            information(rng, 63), layout.values_at(0.02))
    problem = solver.Problem(body, layout, reference, TRANSL, target, colours, (prior,), ((measured,), ()), 0.02, 4.0,
                             workspace)
    return SimpleNamespace(problem=problem, free=free, at=problem.evaluate(free))


def information(rng, n):
    root = rng.normal(size=(n, n))
    return root @ root.T + n * np.eye(n)


def slow_rows(window):
    """d predicted / d coefficients [F, S, S, 4, n]: lines between samples, moved by the surface nearer to us."""
    p, frames = window.problem, window.problem.workspace.frames
    layout, body = p.layout, p.body
    posed = pose(body, p.reference, p.reference_transl, solver.widen(window.free), layout.basis)
    out = np.zeros((len(layout.exposures), SIZE, SIZE, 4, 21, layout.degree + 1, 3))
    for m, basis in enumerate(layout.basis):
        f = m // layout.subframes
        for (y, x), found in moving_surfaces(frames, body, m).items():
            for v, z, gradient in found:
                gradient[:3] -= p.target.background[f, y, x][:, None] * gradient[3]
                point = z * np.linalg.inv(K) @ [x, y, 1]
                flow = np.array([[K[0, 0] / z, 0, -K[0, 0] * point[0] / z**2],
                                 [0, K[1, 1] / z, -K[1, 1] * point[1] / z**2]])
                velocity = np.zeros((3, 21, 3))  # of the surface point, per unit of each slot's parameters
                velocity[:, 0] = np.eye(3)
                for e in range(body.chain_start[v], body.chain_start[v + 1]):
                    slot = body.chain_slot[e]
                    arm = point - posed.joints[m, FREE_JOINTS[slot - 1]]
                    velocity[:, slot] = body.chain_share[e] * np.cross(posed.lever[m, slot].T, arm).T
                change = -np.einsum("cg,ga,asb->csb", gradient, flow, velocity) / layout.subframes
                out[f, y, x] += change[:, :, None] * basis[None, None, :, None]
    return out.reshape(out.shape[:4] + (-1,))


def moving_surfaces(frames, body, m):
    """Of each pixel (y, x): vertex, depth and [4, 2] change of colour and coverage of what moves with each bone."""
    covered = frames.face[m] >= 0
    bones = np.where(covered, body.bone_of_vertices[frames.owner[m]], -1)
    light = np.concatenate([frames.sample[m] * covered[..., None], covered[..., None]], -1).astype(float)
    fine, pixels = len(covered), {}
    step = fine // SIZE
    for y, x, axis in np.ndindex(fine, fine, 2):
        a, b = (y, x), (y + axis, x + 1 - axis)
        if max(b) == fine or not (covered[a] or covered[b]):
            continue
        nearer = bones[a if frames.zbuffer[m][a] <= frames.zbuffer[m][b] else b]
        for sample in (a, b):  # half of the change belongs to the pixel of each
            moved, samples = pixels.setdefault((sample[0] // step, sample[1] // step), ({}, set()))
            moved.setdefault(nearer, np.zeros((4, 2)))[:, axis] += 0.5 * (light[b] - light[a]) / step
            samples |= {a, b}
    return {pixel: list(strongest(frames, m, bones, pixel, step, *found)) for pixel, found in pixels.items()}


def strongest(frames, m, bones, pixel, step, moved, samples):
    """What a pixel keeps: its lowest and its highest bone, and the others as one, each at its farthest sample."""
    seen = sorted({bones[s] for s in samples} - {-1})
    for group in {(seen[0],), (seen[-1],), tuple(seen[1:-1])} - {()}:
        change = sum((moved[bone] for bone in group if bone in moved), np.zeros((4, 2)))
        if np.abs(change).sum() >= 2e-3:
            members = [s for s in samples if bones[s] in group]
            own = [s for s in members if (s[0] // step, s[1] // step) == pixel]
            at = max(own or members, key=lambda s: frames.zbuffer[m][s])
            yield frames.owner[m][at], float(frames.zbuffer[m][at]), change


@pytest.mark.parametrize("degree", [1, 2])
def test_image_normal_equations_equal_the_sum_over_pixels(degree):
    w = make_window(degree)
    p, error = w.problem, w.at.error
    hessian, gradient = image_terms.normal_equations(p.body, w.at.posed, p.workspace, p.layout, p.target, error)
    weighted = slow_rows(w) * (p.target.weight * error.root_weight)[..., None]
    rows = weighted.reshape(2, -1, p.layout.size)
    right = (error.whitened * error.root_weight).reshape(2, -1)
    expected = np.einsum("fri,frj->fij", rows, rows)
    assert np.abs(expected).max() > 100
    assert np.abs(hessian - expected).max() < 1e-5 * np.abs(expected).max()
    slope = np.einsum("fri,fr->fi", rows, right)
    assert np.abs(gradient - slope).max() < 1e-5 * np.abs(slope).max()


def test_workspace_can_be_used_again(window):
    """Nothing of the last linearisation is left in the buffers."""
    p = window.problem
    first = p.normal(window.free, window.at).total()
    far = window.free + RNG.normal(0, 0.2, window.free.shape)
    p.normal(far, p.evaluate(far))
    again = p.normal(window.free, p.evaluate(window.free)).total()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_prediction_and_residual(window):
    p, frames = window.problem, window.problem.workspace.frames
    p.evaluate(window.free)
    n = p.layout.subframes
    for f in range(2):
        alpha = frames.alpha[f * n:f * n + n].astype(float).mean(0)
        light = frames.colour[f * n:f * n + n].astype(float).mean(0) - alpha[..., None] * p.target.background[f]
        assert np.abs(window.at.predicted[f] - np.concatenate([light, alpha[..., None]], -1)).max() < 1e-6
    r = p.target.weight * (p.target.value - window.at.predicted.astype(float))
    assert window.at.error.cost == pytest.approx((r**2 / (1 + r**2 / 16)).sum(), rel=1e-5)
    assert np.allclose(window.at.error.root_weight**2, 1 / (1 + r**2 / 16) ** 2, rtol=1e-4)


def test_rasteriser_equals_every_sample_in_every_triangle(window):
    p, frames = window.problem, window.problem.workspace.frames
    p.evaluate(window.free)
    points = window.at.posed.vertices[0].astype(np.float64)
    pixel = points[:, :2] / points[:, 2:] @ np.diag([K[0, 0], K[1, 1]]) + K[:2, 2]
    corners, depth = 2 * (pixel + 0.5)[p.body.faces] - 0.5, points[p.body.faces, 2]  # supersampled grid
    nearest, drawn = np.full((2 * SIZE, 2 * SIZE), np.inf), np.full((2 * SIZE, 2 * SIZE), -1)
    light, heaviest = np.zeros((2 * SIZE, 2 * SIZE, 3)), np.full((2 * SIZE, 2 * SIZE), -1)
    y, x = np.mgrid[:2 * SIZE, :2 * SIZE]
    for f, (a, b, c) in enumerate(corners):
        area = np.cross(np.append(b - a, 0), np.append(c - a, 0))[2]
        if area >= 0:
            continue
        wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        weights = np.stack([1 - wb - wc, wb, wc], -1)
        z = 1 / (weights @ (1 / depth[f]))
        over = (weights >= 0).all(-1) & (z < nearest)
        nearest[over], drawn[over] = z[over], f
        light[over] = weights[over] @ p.colours[p.body.faces[f]]
        heaviest[over] = p.body.faces[f][weights[over].argmax(-1)]
    differ = frames.face[0] != drawn
    covered = ~differ & (drawn >= 0)
    assert np.abs(frames.sample[0] - light)[covered].max() < 2e-4
    assert (heaviest == frames.owner[0])[covered].mean() > 0.99  # two corners may be as near
    assert (drawn >= 0).sum() > 300
    assert differ.mean() < 1e-3  # a sample on an edge may fall to either side in single precision
    same = ~differ.reshape(SIZE, 2, SIZE, 2).any((1, 3))
    coverage = (drawn >= 0).reshape(SIZE, 2, SIZE, 2).mean((1, 3))
    assert np.abs(frames.alpha[0] - coverage)[same].max() < 1e-6
    assert np.abs(frames.colour[0] - light.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3)))[same].max() < 2e-4
    seen = same & (coverage > 0)
    assert np.abs(frames.depth[0] - nearest.reshape(SIZE, 2, SIZE, 2).min((1, 3)))[seen].max() < 1e-4
    assert (frames.depth[0][coverage == 0] == raster.FAR).all() and (frames.vertex[0][coverage == 0] == -1).all()


def test_pose_gaussian_normal_is_the_chain_rule(window):
    """H = w J' I J, g = -w J' I e with the full Jacobian J of the error in all coefficients, by finite differences."""
    term, free = window.problem.evidence[0][0], window.free

    def error(c):
        value = np.einsum("k,ska->sa", term.basis, c.reshape(free.shape))
        local = term.reference[FREE_JOINTS] @ rotations.exp(value[1:])
        turn = rotations.log(np.swapaxes(term.rotation[FREE_JOINTS], -1, -2) @ local)
        return np.concatenate([term.reference_transl + value[0] - term.transl, turn.reshape(-1)])

    e, h = error(free), 1e-6
    jacobian = np.stack([(error(free.reshape(-1) + d) - error(free.reshape(-1) - d)) / (2 * h)
                         for d in h * np.eye(free.size)], -1)
    squared = e @ term.information @ e
    weight = 1 / (1 + squared / term.cutoff) ** 2
    hessian, gradient = term.normal(free)
    expected = weight * jacobian.T @ term.information @ jacobian
    assert np.abs(hessian - expected).max() < 1e-6 * np.abs(expected).max()
    assert np.allclose(gradient, -weight * jacobian.T @ term.information @ e, rtol=1e-6, atol=1e-5)
    assert term.squared(free) == pytest.approx(squared, rel=1e-12)
    assert term.cost(free) == pytest.approx(squared / (1 + squared / term.cutoff), rel=1e-12)


def test_terms_add_what_their_normal_says(window):
    p, free = window.problem, window.free
    normal = p.normal(free, p.evaluate(free))
    image, slope = image_terms.normal_equations(p.body, window.at.posed, p.workspace, p.layout, p.target,
                                                window.at.error)
    hessian, gradient = p.data_weight * image.sum(0), p.data_weight * slope.sum(0)
    for term in p.priors + p.evidence[0]:
        h, g = term.normal(free)
        hessian, gradient = hessian + h, gradient + g
    total, right = normal.total()
    assert np.allclose(total, hessian, rtol=1e-12, atol=1e-9) and np.allclose(right, gradient, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("tries,tolerance", [(4, 1e-3), (15, 0.0)])
def test_solver_takes_the_steps_of_plain_levenberg_marquardt(window, tries, tolerance):
    """Linearise and draw everything anew before every trial; past convergence, where trials are rejected, too."""
    p, free = window.problem, window.free
    here, damping, rejected = p.evaluate(free), 0.01, 0
    for _ in range(tries):
        hessian, gradient = p.normal(free, p.evaluate(free)).total()
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient).reshape(free.shape)
        there = p.evaluate(free + step)
        if there.cost < here.cost:
            small = here.cost - there.cost < tolerance * here.cost
            free, here, damping = free + step, there, max(damping / 4, 1e-4)
            if small:
                break
        else:
            damping, rejected = 8 * damping, rejected + 1
            if damping > 10:
                break
    found = solver.solve(p, window.free, tries, tolerance=tolerance)
    assert (rejected > 0) == (tolerance == 0)
    assert np.abs(found.free - free).max() < 1e-6
    assert found.evaluation.cost == pytest.approx(here.cost, rel=1e-9)
    drawn = p.workspace.frames.alpha.copy()
    p.evaluate(found.free)
    assert np.array_equal(drawn, p.workspace.frames.alpha)  # the workspace holds the answer, not a rejected trial


def test_a_solver_that_is_late_takes_one_step(window):
    """The same first step, and no other; in time, all of them."""
    one = solver.solve(window.problem, window.free, 1, tolerance=0.0)
    late = solver.solve(window.problem, window.free, 6, tolerance=0.0, until=time.perf_counter() - 1.0)
    early = solver.solve(window.problem, window.free, 6, tolerance=0.0, until=time.perf_counter() + 60.0)
    assert late.iterations == 1 and np.array_equal(late.free, one.free)
    assert early.iterations == 6 and early.evaluation.cost < late.evaluation.cost < window.at.cost


def test_known_drawing_is_not_drawn_again(window):
    p = window.problem
    bare = solver.Problem(p.body, p.layout, p.reference, p.reference_transl, p.target, p.colours, (), ((), ()), 0.02,
                          4.0, p.workspace)
    assert p.evaluate(window.free, bare.evaluate(window.free)).cost == pytest.approx(window.at.cost, rel=1e-12)


def test_what_a_window_hands_on_is_linear_algebra():
    """State covariance and the prior made of it against dense matrices."""
    layout = WindowLayout.of(EXPOSURES, 2, 2)
    rows = np.stack([layout.values_at(0.04), layout.rates_at(0.04)])
    covariance = np.linalg.inv(information(RNG, 189))
    blocks = rotations.right_jacobian(RNG.normal(0, 0.3, (21, 3)))
    map_ = np.einsum("ok,sab,st->osatkb", rows, blocks, np.eye(21)).reshape(126, 189)
    assert np.allclose(dynamics._of_state(covariance, rows, blocks), map_ @ covariance @ map_.T, rtol=1e-9, atol=1e-12)
    state = np.linalg.inv(information(RNG, 126))
    handed = Carry(0.04, np.tile(np.eye(3), (24, 1, 1)), TRANSL, np.zeros((2, 21, 3)), np.zeros((21, 3)), state)
    plain = np.einsum("ok,st,ab->osatkb", rows, np.eye(21), np.eye(3)).reshape(126, 189)
    expected = plain.T @ np.linalg.inv(state) @ plain
    assert np.abs(handed.term(layout).information - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("duration", [0.004, 0.03, 0.0631, 5.0])
def test_motion_scales_are_interpolated_in_the_logarithm_of_time(duration):
    statistics = load_motion_statistics()
    windows = statistics.windows
    inside = np.clip(duration, windows[0], windows[-1])
    slope, bend, slope_nu, _ = dynamics._student(statistics, duration)
    column = [np.interp(np.log(inside), np.log(windows), np.log(c)) for c in statistics.slope_scale[:, 3].T]
    assert np.allclose(slope[3], np.maximum(np.exp(column) * duration / inside, 1e-4), rtol=1e-12)
    column = [np.interp(np.log(inside), np.log(windows), np.log(c)) for c in statistics.bend_scale[:, 7].T]
    assert np.allclose(bend[7], np.maximum(np.exp(column) * (duration / inside) ** 2, 1e-4), rtol=1e-12)
    freedom = np.interp(np.log(inside), np.log(windows), statistics.slope_freedom[:, 5])
    assert slope_nu[5] == pytest.approx(freedom, rel=1e-12)


def test_a_solve_ends_with_the_linearisation_where_it_ended(window):
    """It is that of the last step, seen from where that led: the same to first order."""
    p = window.problem
    best = solver.solve(p, window.free, 20).free
    spread = np.sqrt(np.diag(np.linalg.inv(p.normal(best, p.evaluate(best)).total()[0])))
    off = spread * np.random.default_rng(3).normal(0, 0.5, len(spread))
    found = solver.solve(p, best + off.reshape(best.shape), 1)
    exact, told = p.normal(found.free, p.evaluate(found.free)), found.normal
    widths = [np.sqrt(np.diag(np.linalg.inv(n.total()[0]))) for n in (exact, told)]
    optima = [np.linalg.solve(*n.total()) / spread for n in (exact, told)]
    assert np.sqrt(np.mean((off / spread) ** 2)) > 0.4  # there was something to solve
    assert np.median(np.abs(np.log(widths[1] / widths[0]))) < 0.1
    assert np.sqrt(np.mean((optima[1] - optima[0]) ** 2)) < 0.15


def test_changes_by_limb_are_masked_means(window):
    p = window.problem
    p.evaluate(window.free)
    found = change_by_limb(p.body, p.target, p.workspace.frames, 3)
    joint = p.body.weight_joints[:, 0]
    owner = np.where(SLOT_OF_JOINT[joint] >= 0, joint, p.body.parents[joint])
    image = (p.target.value[..., :3] + p.target.background).astype(float)
    change = np.abs(image[1] - image[0]).mean(-1)
    vertex = p.workspace.frames.vertex
    empty = (vertex < 0).all(0) & (p.target.value[..., 3] < 0.05).all(0)
    assert empty.sum() >= 50
    for limb, joints in enumerate(LIMBS):
        mine = ((vertex >= 0) & np.isin(owner[vertex], joints)).any(0)
        expected = change[mine].mean() / np.median(change[empty]) if mine.sum() >= 12 else np.inf
        assert found[limb] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(found).sum() >= 4


def colour_weights(vertices, faces, face, count):
    """[2 * SIZE^2, count]: what every vertex's colour adds to the pixels of two exposures (three sub-frames each)."""
    fine = face.shape[1] // SIZE
    out = np.zeros((2 * SIZE**2, count))
    for m, y, x in np.argwhere(face >= 0):
        corners = faces[face[m, y, x]]
        homogeneous = vertices[m, corners].astype(np.float64) @ K.T
        at = (homogeneous[:, :2] / homogeneous[:, 2:] + 0.5) * fine - 0.5
        share = np.linalg.solve(np.vstack([at.T, np.ones(3)]), [x, y, 1.0])
        out[(m // 3 * SIZE + y // fine) * SIZE + x // fine, corners] += share / (3 * fine**2)
    return out


def test_colours_equal_sparse_conjugate_gradients(window):
    p = window.problem
    posed, alpha = p.evaluate(window.free).posed, window.at.predicted[..., 3]
    start = RNG.uniform(0, 1, p.colours.shape).astype(np.float32)
    found = colour.solve_colours(p.body, posed.vertices, p.workspace.frames, p.target, alpha, start)
    a = colour_weights(posed.vertices, p.body.faces, p.workspace.frames.face, len(start))
    painted = (a @ p.colours).reshape(2, SIZE, SIZE, 3)
    light = np.stack([p.workspace.frames.colour[:3].mean(0), p.workspace.frames.colour[3:].mean(0)])
    assert np.abs(painted - light).max() < 1e-5  # the map of the colours is the image that was drawn
    agree = np.exp(-0.5 * ((p.target.value[..., 3] - alpha) / 0.25) ** 2).reshape(-1, 1)
    wanted = (p.target.value[..., :3] + alpha[..., None] * p.target.background).reshape(-1, 3)
    keep = 1e-3 * (agree * a * a).sum() / len(start)
    laplacian = colour.graph_laplacian(p.body.edges, np.ones(len(p.body.edges)), len(start)).toarray()
    system = a.T @ (agree * a) + 0.02 * laplacian + keep * np.eye(len(start))
    slow = colour.conjugate_gradient(system, a.T @ (agree * wanted) + keep * start, start, 12)
    assert np.abs(found - start).max() > 0.1
    assert np.abs(found - np.clip(slow, 0, 1)).max() < 1e-4


def test_inverse_and_solve():
    matrix, right = information(RNG, 40), RNG.normal(size=40)
    assert np.allclose(linear.inverse(matrix) @ matrix, np.eye(40), atol=1e-9)
    assert np.allclose(linear.solve(matrix.copy(), right), np.linalg.solve(matrix, right), rtol=1e-9)
    indefinite = matrix - 60 * np.eye(40)
    assert linear.solve(indefinite.copy(), right) is None
    assert np.allclose(linear.inverse(indefinite) @ indefinite, np.eye(40), atol=1e-8)
    kept = matrix.copy()
    linear.inverse(kept)
    assert np.array_equal(kept, matrix)


@pytest.mark.parametrize("degree", [0, 1, 4])
def test_legendre_against_numpy(degree):
    times = np.linspace(-0.1, 0.3, 7)
    x = 2 * (times - 0.02) / 0.2 - 1
    assert np.allclose(polynomials.basis(times, 0.02, 0.22, degree), legendre.legvander(x, degree))
    slopes = np.stack([legendre.legval(x, legendre.legder(c)) * np.ones_like(x) for c in np.eye(degree + 1)], -1)
    assert np.allclose(polynomials.basis_rate(times, 0.02, 0.22, degree), slopes * 2 / 0.2)
