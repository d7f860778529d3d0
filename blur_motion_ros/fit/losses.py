"""The joint loss of Human from Blur (HfB, ICCV 2023), one small torch function per term.

Section titles in the docstrings are those of the paper's method ("Loss terms", "Multiple blurry images"); it gives no
weights, so ours are settings (`fit.settings.LossWeights`, each 0 = off). Images are linear light, [F, S, S, ...] for F
exposures of one window; coefficients are Legendre, [R, K, 3] (metres for the translation row, radians otherwise).
Every loss is a scalar tensor >= 0, differentiable in its floating tensor arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from blur_motion_ros.fit.gaussian_terms import Term
    from blur_motion_ros.fit.priors import PosePrior
    from blur_motion_ros.fit.settings import LossWeights

_EPSILON = 1e-6


# ------------------------------------------------------------------------------------------------ image terms


def form_image(colour: Tensor, alpha: Tensor, exposures: int) -> tuple[Tensor, Tensor]:
    """HfB "Image formation model": sub-frames averaged over each exposure.

    colour [F * N, S, S, 3] premultiplied, alpha [F * N, S, S] -> (mean colour [F, S, S, 3], mean alpha [F, S, S]).
    """
    return colour.unflatten(0, (exposures, -1)).mean(1), alpha.unflatten(0, (exposures, -1)).mean(1)


def composite(colour: Tensor, alpha: Tensor, plate: Tensor) -> Tensor:
    """The formed exposures over the plate [F, S, S, 3]: `mean(F_i S_i) + (1 - alpha) B`."""
    return colour + (1 - alpha[..., None]) * plate


def image_formation(predicted: Tensor, observed: Tensor, known: Tensor | None = None) -> Tensor:
    """HfB "Image formation loss": mean squared difference of images [F, S, S, 3] in linear light.

    known [F, S, S] in [0, 1]: the share in which each pixel counts (all, where None).
    """
    squared = (predicted - observed).square().mean(-1)
    return squared.mean() if known is None else (known * squared).sum() / known.sum().clamp(min=_EPSILON)


def matting(alpha: Tensor, observed: Tensor, known: Tensor | None = None) -> Tensor:
    """HfB "Matting loss": one minus the intersection over union of two soft mattes [F, S, S].

    `1 - sum(min(a, b)) / sum(max(a, b))`, which is least at a = b for every b. (The product form `ab / (a + b - ab)` of
    Shape from Blur is best at a = 1 whatever b, and makes blurred mattes opaque.) Empty against empty is 0.
    """
    weight = torch.ones_like(alpha) if known is None else known
    union = (weight * torch.maximum(alpha, observed)).sum()
    return 1 - (weight * torch.minimum(alpha, observed)).sum().clamp(min=_EPSILON) / union.clamp(min=_EPSILON)


def background(alpha: Tensor, image: Tensor, plate: Tensor, sigma: float) -> Tensor:
    """HfB "Background regularization": the person keeps off pixels that show the background.

    Mean over pixels of alpha times how surely image and plate [F, S, S, 3] are equal, `exp(-|I - B|^2 / (2 sigma^2))`
    with the squared difference averaged over channels; sigma: noise of their difference (linear light).
    """
    same = torch.exp(-0.5 * ((image - plate) / sigma).square().mean(-1))
    return (alpha * same).mean()


def robust_residuals(colour: Tensor, alpha: Tensor, value: Tensor, weight: Tensor, plate: Tensor, cutoff: float
                     ) -> Tensor:
    """What Levenberg-Marquardt minimises of the image (`fit.image_terms.residual`), as a torch function.

    colour [F, S, S, 3] and alpha [F, S, S]: formed exposures; value, weight [F, S, S, 4]: `image_terms.Target`; the sum
    of Geman-McClure losses of the whitened differences, in squared sigmas.
    """
    predicted = torch.cat([colour - alpha[..., None] * plate, alpha[..., None]], -1)
    squared = (weight * (value - predicted)).square()
    return (squared / (1 + squared / cutoff**2)).sum()


# ------------------------------------------------------------------------------------------- surface and shape


def texture_smoothness(colours: Tensor, pairs: Tensor, weights: Tensor, visible: Tensor) -> Tensor:
    """HfB "Surface texture smoothness": sum over neighbours of weight times squared RGB difference.

    colours [n, 3] of texels or vertices; pairs [E, 2] of neighbours, weights [E] (`fit.surface`); visible [n] bool:
    seen in at least one sub-frame; a pair counts where both are. (The paper names no norm; squares keep it the
    quadratic form that the linear solves of `fit.colour` and `fit.texture` have.)
    """
    both = (visible[pairs[:, 0]] & visible[pairs[:, 1]]).to(colours.dtype)
    return (weights * both * (colours[pairs[:, 0]] - colours[pairs[:, 1]]).square().sum(-1)).sum()


def shape_norm(betas: Tensor) -> Tensor:
    """HfB "SMPL shape regularization": squared norm of the shape coefficients [10]."""
    return betas.square().sum()


# ------------------------------------------------------------------------------------------------ pose and motion


def pose_prior(body_pose: Tensor, prior: PosePrior) -> Tensor:
    """HfB "Pose prior loss" (SMPLify-X): energy of a static pose prior, mean over poses [B, 23, 3] (rotation vectors).

    prior: any of `fit.priors` (free mixture, SMPLify's GMM, VPoser): its value, and its own gradient `J^T r`.
    """
    return _Energy.apply(body_pose, prior)


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, body_pose, prior):
        poses = body_pose.detach().cpu().double().numpy().reshape(-1, 23, 3)
        parts = [prior.residual(pose) for pose in poses]
        slope = np.stack([jacobian.T @ r for r, jacobian in parts]) / len(poses)
        ctx.slope = torch.from_numpy(slope).reshape(body_pose.shape).to(body_pose)
        return body_pose.new_tensor(np.mean([0.5 * r @ r for r, _ in parts]))

    @staticmethod
    def backward(ctx, above):
        return above * ctx.slope, None


def polynomial_l1(coefficients: Tensor) -> Tensor:
    """HfB "Polynomial regularization", first part: sum of |c| over the coefficients of order >= 1.

    coefficients [R, K, 3]. Order 0 is the mean pose, not motion (the paper's C has d columns per polynomial too).
    """
    return coefficients[..., 1:, :].abs().sum()


def polynomial_frobenius(coefficients: Tensor) -> Tensor:
    """HfB "Polynomial regularization", second part: Frobenius norm of the coefficients of order >= 1, [R, K, 3]."""
    squared = coefficients[..., 1:, :].square().sum()
    return torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)  # finite slope at rest


def adversarial(network: Callable, rotmats: Tensor, motion: Tensor, duration: Tensor) -> Tensor:
    """HfB "Adversarial short motion prior": binary cross-entropy of the discriminator's verdict against "real".

    network: `learning.short_motion.ShortMotionNet` (or its TorchScript file); rotmats [B, 22, 3, 3],
    motion [B, 2, 23, 3], duration [B] as there. For exposures that stand alone; where frames follow each other,
    continuity replaces it.
    """
    whole = network(rotmats, motion, duration)[0]
    return torch.nn.functional.softplus(-whole).mean()


def evidence(free: Tensor, terms: tuple[Term, ...]) -> Tensor:
    """The terms of the window besides its images (`fit.gaussian_terms`, `fit.dynamics`), free [21, K, 3]: sum of costs.

    Here is HfB's "Multiple blurry images: boundary continuity": inside a window one polynomial is continuous by itself,
    and the last window's pose and velocity (`dynamics.Carry`) continue into it as a Gaussian.
    """
    return _Terms.apply(free, terms)


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, free, terms):
        at = free.detach().cpu().double().numpy()
        slope = np.zeros(at.size)
        for term in terms:
            slope -= 2 * term.normal(at)[1]  # the right-hand side of a Gauss-Newton step is minus half the slope
        ctx.slope = torch.from_numpy(slope).reshape(free.shape).to(free)
        return free.new_tensor(sum(term.cost(at) for term in terms))

    @staticmethod
    def backward(ctx, above):
        return above * ctx.slope, None


# ------------------------------------------------------------------------------------------------------ joint loss


def joint(weights: LossWeights, terms: Mapping[str, Callable[[], Tensor]]) -> tuple[Tensor, dict[str, float]]:
    """HfB "Joint loss": the weighted sum of all terms, and each term's own value (unweighted).

    terms: by the names of `LossWeights`; a term of weight 0 is not evaluated. Raises ValueError when a term that has a
    weight is missing, or when none has.
    """
    total, values = None, {}
    for field in fields(weights):
        weight = getattr(weights, field.name)
        if weight == 0:
            continue
        if field.name not in terms:
            raise ValueError(f"loss weight '{field.name}' is {weight}, but this problem has no such term; set it to 0")
        value = terms[field.name]()
        values[field.name] = float(value.detach())
        total = weight * value if total is None else total + weight * value
    if total is None:
        raise ValueError("every loss weight is 0: there is nothing to minimise")
    return total, values
