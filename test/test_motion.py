"""Rotations against scipy; polynomial identities against closed forms."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from blur_motion_ros.motion import polynomials, rotations

RNG = np.random.default_rng(3)


def test_exp_log_quaternion_agree_with_scipy():
    v = np.concatenate([RNG.normal(0, 1.3, (200, 3)), RNG.normal(0, 1e-9, (5, 3)), np.eye(3) * (np.pi - 1e-7)])
    matrices = Rotation.from_rotvec(v).as_matrix()
    assert np.abs(rotations.exp(v) - matrices).max() < 1e-12
    assert np.abs(rotations.exp(rotations.log(matrices)) - matrices).max() < 1e-7
    q, expected = rotations.to_quaternion(matrices), Rotation.from_matrix(matrices).as_quat(canonical=True)
    assert np.abs(q - expected).max() < 1e-7
    assert np.abs(rotations.from_quaternion(-2.5 * q) - matrices).max() < 1e-7


def test_6d_is_the_first_two_columns_interleaved_as_in_vibe():
    r = Rotation.random(10, random_state=1).as_matrix()
    d = rotations.to_6d(r)
    assert np.allclose(d.reshape(10, 3, 2), r[:, :, :2])
    assert np.abs(rotations.from_6d(d * 3.0) - r).max() < 1e-12


def test_right_jacobian_against_finite_differences():
    for v in RNG.normal(0, 1.0, (10, 3)):
        j = rotations.right_jacobian(v)
        for axis in range(3):
            d = np.zeros(3)
            d[axis] = 1e-6
            moved = rotations.log(rotations.exp(v).T @ rotations.exp(v + d)) / 1e-6
            assert np.abs(moved - j[:, axis]).max() < 1e-5
        assert np.abs(rotations.inverse_right_jacobian(v) @ j - np.eye(3)).max() < 1e-10


def test_slerp_is_a_constant_rate_rotation():
    a, b = rotations.exp(np.array([0.2, 0, 0])), rotations.exp(np.array([1.0, 0, 0]))
    assert np.allclose(rotations.log(rotations.slerp(a, b, 0.25)), [0.4, 0, 0])


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rate_is_the_derivative_and_reverse_runs_backwards(degree):
    c = RNG.normal(size=(5, degree + 1, 3))
    start, end = 2.0, 2.07
    t = np.linspace(start, end, 9)
    h = 1e-6
    difference = (polynomials.evaluate(c, t + h, start, end) - polynomials.evaluate(c, t - h, start, end)) / (2 * h)
    assert np.abs(polynomials.rate(c, t, start, end) - difference).max() < 1e-5
    backwards = polynomials.evaluate(polynomials.reverse(c), start + end - t, start, end)
    assert np.abs(backwards - polynomials.evaluate(c, t, start, end)).max() < 1e-12


def test_reversal_in_monomials_is_the_documented_matrix():
    to_monomials = polynomials.monomials_from_legendre(2)
    flip = np.diag([1.0, -1.0, 1.0])
    assert np.allclose(to_monomials @ flip @ np.linalg.inv(to_monomials), [[1, 1, 1], [0, -1, -2], [0, 0, 1]])


def test_shift_keeps_the_curve():
    c = RNG.normal(size=(4, 3, 3))
    moved = np.einsum("ab,jbc->jac", polynomials.shift_matrix((0.0, 0.06), (0.03, 0.1), 2), c)
    t = np.linspace(0.0, 0.1, 7)
    assert np.abs(polynomials.evaluate(moved, t, 0.03, 0.1) - polynomials.evaluate(c, t, 0.0, 0.06)).max() < 1e-10


def test_fit_rotations_recovers_a_polynomial_motion():
    reference = Rotation.random(6, random_state=2).as_matrix()
    c = RNG.normal(0, 0.2, (6, 3, 3))
    t = np.linspace(0, 1, 9)
    samples = reference[None] @ rotations.exp(polynomials.evaluate(c, t, 0, 1))
    again, fitted = polynomials.fit_rotations(samples, t, 0.0, 1.0, 2)
    rebuilt = again[None] @ rotations.exp(polynomials.evaluate(fitted, t, 0, 1))
    angle = np.linalg.norm(rotations.log(np.swapaxes(samples, -1, -2) @ rebuilt), axis=-1)
    assert angle.max() < np.radians(0.5)
