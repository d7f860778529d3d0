"""Every term of the joint loss against an answer worked out by hand, or against finite differences."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from blur_motion_ros.fit import colour, image_terms, losses
from blur_motion_ros.fit.dynamics import Carry, MotionPrior
from blur_motion_ros.fit.gaussian_terms import CoefficientPrior, PoseGaussian
from blur_motion_ros.fit.layout import WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics, load_pose_prior
from blur_motion_ros.fit.priors import DIMENSIONS, MixturePrior
from blur_motion_ros.fit.settings import LossWeights
from blur_motion_ros.fit.short_motion import ShortMotionPrior
from blur_motion_ros.fit.texels import TexelGrid, neighbour_pairs
from blur_motion_ros.learning.short_motion import ShortMotionNet
from blur_motion_ros.motion import rotations
from blur_motion_ros.types import Exposure

LAYOUT = WindowLayout.of((Exposure(0.0, 0.03), Exposure(1 / 30, 1 / 30 + 0.03)), 4, 2)


def slope(function, x, direction, h):
    """Central difference of a scalar function of an array."""
    return (float(function(x + h * direction)) - float(function(x - h * direction))) / (2 * h)


def assert_gradient(function, x, h=1e-5, rel=1e-4, seed=0):
    """`function` of a float64 tensor: its autograd gradient against central differences in three directions."""
    x = torch.tensor(np.asarray(x, np.float64), requires_grad=True)
    function(x).backward()
    rng = np.random.default_rng(seed)
    for _ in range(3):
        direction = torch.tensor(rng.normal(size=tuple(x.shape)))
        expected = slope(lambda v: function(v).detach(), x.detach(), direction, h)
        assert float((x.grad * direction).sum()) == pytest.approx(expected, rel=rel, abs=1e-9)


# --------------------------------------------------------------------------------------------------------- image


def test_image_is_the_mean_of_subframes_over_the_plate():
    """A square that covers a pixel during three of four sub-frames shows a quarter of the plate there."""
    alpha = torch.zeros(8, 2, 2)
    alpha[:3, 0, 0] = 1
    alpha[4:, 1, 1] = 1
    colour = alpha[..., None] * torch.tensor([0.8, 0.4, 0.2])
    plate = torch.full((2, 2, 2, 3), 0.1)
    mean_colour, mean_alpha = losses.form_image(colour, alpha, 2)
    image = losses.composite(mean_colour, mean_alpha, plate)
    assert mean_alpha[0, 0, 0] == 0.75 and mean_alpha[1, 0, 0] == 0 and mean_alpha[1, 1, 1] == 1
    assert torch.allclose(image[0, 0, 0], 0.75 * torch.tensor([0.8, 0.4, 0.2]) + 0.025)
    assert torch.allclose(image[0, 1, 1], torch.tensor(0.1)) and torch.allclose(image[1, 1, 1], colour[4, 1, 1])


def test_image_formation_is_the_mean_squared_error():
    a, b = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3)
    b[0, 0, 0] = torch.tensor([0.3, 0.0, 0.6])
    assert float(losses.image_formation(a, b)) == pytest.approx((0.09 + 0.36) / 12)
    known = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert float(losses.image_formation(a, b, known)) == pytest.approx((0.09 + 0.36) / 6)
    assert float(losses.image_formation(a, b, 1 - known)) == 0
    assert_gradient(lambda x: losses.image_formation(x, b.double()), np.random.default_rng(0).uniform(size=b.shape))


def test_matting_is_least_at_a_fractional_matte_itself():
    """The pitfall of the product form: at an observed 0.5 it prefers 1; the min-max form prefers 0.5."""
    observed = torch.full((1, 3, 3), 0.5)
    values = torch.linspace(0.05, 1, 20)
    ours = [float(losses.matting(torch.full_like(observed, v), observed)) for v in values]
    product = [1 - float(v * 0.5 / (v + 0.5 - v * 0.5)) for v in values]
    assert float(values[int(np.argmin(ours))]) == pytest.approx(0.5) and min(ours) == pytest.approx(0, abs=1e-6)
    assert float(values[int(np.argmin(product))]) == 1.0
    half = torch.tensor([[[1.0, 1, 0, 0]]])
    shifted = torch.tensor([[[0.0, 1, 1, 0]]])
    assert float(losses.matting(half, shifted)) == pytest.approx(1 - 1 / 3)
    assert float(losses.matting(half, shifted, shifted)) == pytest.approx(0.5)  # what is not known does not count
    assert float(losses.matting(0 * half, 0 * half)) == 0
    rng = np.random.default_rng(1)
    target = torch.tensor(rng.uniform(size=(2, 4, 4)))
    assert_gradient(lambda x: losses.matting(x, target), rng.uniform(size=(2, 4, 4)))


def test_background_counts_the_person_only_where_the_plate_shows():
    plate = torch.zeros(1, 1, 3, 3)
    image = plate.clone()
    image[0, 0, 1] = 0.02  # one sigma in every channel
    image[0, 0, 2] = 0.5
    alpha = torch.tensor([[[0.2, 0.5, 1.0]]], requires_grad=True)
    value = losses.background(alpha, image, plate, 0.02)
    value.backward()
    assert float(value.detach()) == pytest.approx((0.2 + 0.5 * np.exp(-0.5)) / 3)
    assert np.allclose(alpha.grad.numpy(), np.array([1, np.exp(-0.5), 0]) / 3, atol=1e-6)


def test_robust_residuals_are_those_of_the_second_order_solver():
    rng = np.random.default_rng(2)
    colour, alpha = rng.uniform(size=(2, 5, 5, 3)).astype(np.float32), rng.uniform(size=(2, 5, 5)).astype(np.float32)
    value, plate = rng.normal(size=(2, 5, 5, 4)).astype(np.float32), rng.uniform(size=(2, 5, 5, 3)).astype(np.float32)
    weight = rng.uniform(0, 9, (2, 5, 5, 4)).astype(np.float32)
    target = image_terms.Target(value, weight, plate, np.eye(3))
    predicted = np.concatenate([colour - alpha[..., None] * plate, alpha[..., None]], -1)
    expected = image_terms.residual(target, predicted, 4.0).cost
    tensors = [torch.tensor(a) for a in (colour, alpha, value, weight, plate)]
    assert float(losses.robust_residuals(*tensors, 4.0)) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------- surface and shape


def test_texture_smoothness_over_visible_eight_neighbours():
    """One white texel in the middle of black ones, all of one chart: 4 neighbours beside it, 4 at the corners."""
    corners, faces = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])
    grid = TexelGrid.of(corners, faces, 5)
    pairs, weights = (torch.tensor(a) for a in neighbour_pairs(grid, np.ones(25, bool)))
    texture, seen = torch.zeros(25, 3), torch.ones(25, dtype=torch.bool)
    texture[12] = 1
    assert float(losses.texture_smoothness(texture, pairs.long(), weights, seen)) == pytest.approx(3 * (4 + 4 / 2))
    seen[:10] = False  # the rows above
    assert float(losses.texture_smoothness(texture, pairs.long(), weights, seen)) == pytest.approx(3 * (3 + 2 / 2))
    seen[12] = False
    assert float(losses.texture_smoothness(texture, pairs.long(), weights, seen)) == 0
    slow, mask = np.random.default_rng(3).uniform(size=(25, 3)), np.random.default_rng(4).uniform(size=25) < 0.7
    expected = 0.0
    for a in range(25):
        for b in range(a):
            (i, j), (k, m) = grid.at[a], grid.at[b]
            if max(abs(i - k), abs(j - m)) == 1 and mask[a] and mask[b]:
                expected += ((slow[a] - slow[b]) ** 2).sum() / ((i - k) ** 2 + (j - m) ** 2)
    got = losses.texture_smoothness(torch.tensor(slow), pairs.long(), weights.double(), torch.tensor(mask))
    assert float(got) == pytest.approx(expected)
    kept, share = neighbour_pairs(grid, mask)
    quadratic = sum(slow[:, c] @ colour.graph_laplacian(kept, share, 25) @ slow[:, c] for c in range(3))
    assert float(got) == pytest.approx(quadratic), "the form that the linear solves have"
    assert_gradient(lambda x: losses.texture_smoothness(x, pairs.long(), weights.double(), torch.tensor(mask)), slow)


def test_texture_smoothness_on_a_mesh():
    colours = torch.tensor([[0.0, 0, 0], [0.3, 0.6, 0.0], [1, 1, 1]])
    edges, ones = torch.tensor([[0, 1], [1, 2]]), torch.ones(2)
    seen = torch.tensor([True, True, False])
    assert float(losses.texture_smoothness(colours, edges, ones, seen)) == pytest.approx(0.09 + 0.36)
    seen[2] = True
    assert float(losses.texture_smoothness(colours, edges, ones, seen)) == pytest.approx(0.45 + 0.49 + 0.16 + 1)


def test_shape_norm():
    betas = torch.tensor([3.0, -4.0] + [0.0] * 8, requires_grad=True)
    losses.shape_norm(betas).backward()
    assert float(losses.shape_norm(betas)) == 25 and betas.grad[1] == -8


# -------------------------------------------------------------------------------------------------- pose and motion


def test_pose_prior_is_the_negative_log_density_of_a_gaussian():
    mean = np.random.default_rng(5).normal(0, 0.2, DIMENSIONS)
    prior = MixturePrior.from_covariances(mean[None], 0.09 * np.eye(DIMENSIONS)[None], np.ones(1))
    poses = np.stack([mean, mean + 0.1]).reshape(2, 23, 3)
    expected = -norm.logpdf(poses.reshape(2, -1), mean, 0.3).sum(1) + norm.logpdf(mean, mean, 0.3).sum()
    assert float(losses.pose_prior(torch.tensor(poses), prior)) == pytest.approx(expected.mean(), abs=1e-9)
    assert_gradient(lambda x: losses.pose_prior(x, prior), poses)
    free = load_pose_prior()
    assert_gradient(lambda x: losses.pose_prior(x, free), np.random.default_rng(6).normal(0, 0.3, (2, 23, 3)), rel=1e-3)


def test_polynomial_terms_leave_the_mean_pose_alone():
    coefficients = torch.zeros(25, 3, 3)
    coefficients[:, 0] = 7.0
    coefficients[4, 1, 0], coefficients[9, 2, 1] = -3.0, 4.0
    coefficients.requires_grad_()
    assert float(losses.polynomial_l1(coefficients)) == 7 and float(losses.polynomial_frobenius(coefficients)) == 5
    losses.polynomial_frobenius(coefficients).backward()
    assert float(coefficients.grad[4, 1, 0]) == pytest.approx(-0.6) and coefficients.grad[:, 0].abs().max() == 0
    still = torch.zeros(25, 3, 3, requires_grad=True)
    losses.polynomial_frobenius(still).backward()
    assert float(losses.polynomial_frobenius(still)) == 0 and torch.isfinite(still.grad).all()


def test_adversarial_term_is_the_cross_entropy_of_the_verdict():
    def verdict(logit):
        return lambda rotmats, motion, duration: (logit + 0 * motion.sum((1, 2, 3)), None)

    inputs = torch.eye(3).expand(2, 22, 3, 3), torch.zeros(2, 2, 23, 3), torch.full((2,), 0.06)
    for logit in (-3.0, 0.0, 2.5):
        expected = torch.nn.functional.binary_cross_entropy(torch.sigmoid(torch.tensor(logit)), torch.tensor(1.0))
        assert float(losses.adversarial(verdict(logit), *inputs)) == pytest.approx(float(expected), rel=1e-5)


def test_adversarial_term_through_the_shipped_and_a_fresh_network():
    """The shipped discriminator prefers rest to flailing joints; gradients reach the motion."""
    shipped = ShortMotionPrior().network
    upright = torch.eye(3).expand(1, 22, 3, 3).clone()
    upright[:, 0] = torch.tensor(rotations.exp(np.array([np.pi, 0, 0])), dtype=torch.float32)
    duration = torch.tensor([2 / 30])
    wild = torch.randn(1, 2, 23, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    flailing = losses.adversarial(shipped, upright, wild, duration)
    assert float(losses.adversarial(shipped, upright, 0 * wild, duration)) < float(flailing)
    flailing.backward()
    assert wild.grad.abs().max() > 0
    torch.manual_seed(0)
    fresh = ShortMotionNet(torch.full((2, 23, 3), 0.3), 32).double().eval()
    assert_gradient(lambda x: losses.adversarial(fresh, upright.double(), x, duration.double()),
                    0.1 * wild.detach().numpy())


def test_evidence_is_the_sum_of_the_terms_and_their_slopes():
    """Motion prior, measured pose, coefficient prior and the last window's state: the residuals of the solver."""
    rng = np.random.default_rng(7)
    free, reference = rng.normal(0, 0.1, (21, 3, 3)), rotations.exp(rng.normal(0, 0.3, (24, 3)))
    root = rng.normal(size=(63, 63))
    state = rng.normal(size=(126, 126))
    terms = (MotionPrior.of(load_motion_statistics(), LAYOUT, 3.0, False),
             PoseGaussian(reference, np.zeros(3), reference @ rotations.exp(rng.normal(0, 0.2, (24, 3))), np.ones(3),
                          root @ root.T, LAYOUT.values_at(0.015)),
             CoefficientPrior(rng.normal(size=free.shape), rng.uniform(1, 5, free.shape)),
             Carry(0.02, reference, np.zeros(3), rng.normal(size=(2, 21, 3)), np.zeros((21, 3)),
                   state @ state.T + np.eye(126)).term(LAYOUT))
    total = float(losses.evidence(torch.tensor(free), terms))
    assert total == pytest.approx(sum(term.cost(free) for term in terms))
    for term in terms:
        assert_gradient(lambda x, t=term: losses.evidence(x, (t,)), free, rel=1e-3)


def test_continuity_is_zero_where_the_last_window_ended():
    """The boundary residual vanishes for the motion that goes on, and grows with the jump in pose and in velocity."""
    reference, velocity = rotations.exp(np.random.default_rng(8).normal(0, 0.3, (24, 3))), np.zeros((21, 3))
    velocity[0] = [1.0, 0, 0]
    carry = Carry(0.015, reference, np.zeros(3), np.stack([np.zeros((21, 3)), velocity]), velocity, 0.01 * np.eye(126))
    going_on = torch.tensor(carry.start(LAYOUT, 1.0))
    terms = (carry.term(LAYOUT),)
    assert float(losses.evidence(going_on, terms)) == pytest.approx(0, abs=1e-9)
    jump = going_on.clone()
    jump[0, 0, 1] += 0.2  # m: two sigmas of the pose
    assert float(losses.evidence(jump, terms)) == pytest.approx(4)
    reversed_ = going_on * torch.tensor([1.0, -1.0, 1.0])[None, :, None]
    assert float(losses.evidence(reversed_, terms)) > 300  # 2 m/s of change at 0.1 m/s


# -------------------------------------------------------------------------------------------------------- joint loss


def test_joint_loss_is_the_weighted_sum_of_what_has_a_weight():
    x = torch.tensor(2.0, requires_grad=True)
    weights = LossWeights(data=0.5, evidence=0.0, matting=3.0)

    def forbidden():
        raise AssertionError("a term of weight 0 was evaluated")

    total, values = losses.joint(weights, {"data": lambda: x**2, "matting": lambda: x, "evidence": forbidden})
    total.backward()
    assert float(total) == 8 and values == {"data": 4.0, "matting": 2.0} and float(x.grad) == 5
    with pytest.raises(ValueError, match="'matting' is 3.0, but this problem has no such term"):
        losses.joint(weights, {"data": lambda: x})
    with pytest.raises(ValueError, match="every loss weight is 0"):
        losses.joint(LossWeights(data=0.0, evidence=0.0), {})
