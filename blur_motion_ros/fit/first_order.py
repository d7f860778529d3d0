"""The paper's first-order path: Adam on the joint loss of Human from Blur (HfB, "Optimization"), through a renderer.

Same unknowns, problem and terms as `fit.solver`, and by default the same loss, so that the two can be compared; the
paper's own terms are `FirstOrderSettings.weights` away. Gradients come from a differentiable renderer (`render.make`),
on the CPU or on an NVIDIA GPU. The surface's colours (texels or vertices) and the shape can be free as well, as in the
paper: one joint loss, one descent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from blur_motion_ros import render
from blur_motion_ros.fit import kinematics_torch as kinematics
from blur_motion_ros.fit import losses
from blur_motion_ros.fit.kinematics import FitBody
from blur_motion_ros.fit.kinematics_torch import TorchBody
from blur_motion_ros.fit.settings import FirstOrderSettings, FitSettings
from blur_motion_ros.fit.solver import Problem, Solution
from blur_motion_ros.fit.surface import Surface
from blur_motion_ros.fit.texels import TexelGrid
from blur_motion_ros.motion import rotations_torch
from blur_motion_ros.render.base import Rendered, Renderer, Texels

_CHECK_EVERY = 20  # steps between two looks at whether the loss still falls


@dataclass(frozen=True)
class Shape:
    """A free shape. betas [10]: of the problem's body, where the search starts; vertices [V, 3, 10] and
    joints [24, 3, 10]: metres per unit (`BodyModel.shapedirs`, `BodyModel.joint_basis[..., 1:]`)."""

    betas: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class FirstOrderSolution(Solution):
    """A `Solution` with what else was free: surface and betas [10] (None where they were not), the values of the
    loss's terms at the solution (unweighted), and the weighted loss of every step."""

    surface: Surface | None
    betas: np.ndarray | None
    terms: dict[str, float]
    history: tuple[float, ...]


def solve_first_order(problem: Problem, free: np.ndarray, settings: FirstOrderSettings, iterations: int | None = None,
                      renderer: Renderer | None = None, surface: Surface | None = None, shape: Shape | None = None
                      ) -> FirstOrderSolution:
    """Minimise the joint loss from `free` [21, K, 3] by Adam; at most `iterations` steps (default: the settings').

    renderer: where to draw (default: CPU). surface, shape: colours and betas that are free too, from where they begin;
    without a surface the problem's vertex colours are drawn as they are, and their smoothness is no term. The answer is
    the best motion seen; its `evaluation` is `problem.evaluate` there (same yardstick as `solver.solve`; a texture is
    drawn as the colours that it has at the vertices).
    Raises ValueError for weights without a term (see `losses.joint`), RendererError from the renderer.
    """
    search = _Search(problem, free, settings, renderer or cpu_renderer(), surface, shape)
    best, history = search.run(settings.iterations if iterations is None else iterations)
    solved = search.problem_at(best)
    found = best["free"]
    return FirstOrderSolution(found, solved.evaluate(found), None, len(history), best.get("surface"),
                              best.get("betas"), best["terms"], tuple(history))


def solve_window(problem: Problem, free: np.ndarray, settings: FitSettings, warm: bool,
                 surface: Surface | None = None) -> FirstOrderSolution:
    """`solve_first_order` as `BlurFit` calls it: steps for a warm or a cold start, drawn on `settings.device`."""
    first = settings.first_order
    return solve_first_order(problem, free, first, first.iterations if warm else first.cold_iterations,
                             renderer_for(settings.device), surface)


def start_surface(body: FitBody, settings: FirstOrderSettings, colours: np.ndarray) -> Surface | None:
    """The colours to be solved with the motion, beginning with those of the vertices [V, 3]; None: none (weight 0).

    A body without texture coordinates has its vertices coloured.
    """
    if settings.weights.texture == 0:
        return None
    if settings.texture == "vertices" or body.uv is None:
        return Surface.of_vertices(body, colours)
    return Surface.of_texels(body, TexelGrid.of(body.uv, body.uv_faces, settings.texture_size), colours)


@lru_cache(maxsize=1)
def cpu_renderer() -> Renderer:
    return render.make("cpu")


@lru_cache(maxsize=4)
def renderer_for(device: str) -> Renderer:
    """The renderer of a `fit.device`. Raises RendererError where that device or its package is missing."""
    return cpu_renderer() if device == "cpu" else render.make("nvdiffrast", device)


class _Search:
    """One Adam run: the unknown tensors, and the loss as a function of them."""

    def __init__(self, problem: Problem, free: np.ndarray, settings: FirstOrderSettings, renderer: Renderer,
                 surface: Surface | None, shape: Shape | None):
        self.problem, self.settings, self.renderer, self.shape = problem, settings, renderer, shape
        self.surface = surface
        self.active = self._tensor(problem.layout.active[..., None])
        self.start = self._tensor(free) * self.active
        self.root = self._tensor(_whitener(problem, free)) if settings.precondition else None
        self.step = torch.zeros(self.start.numel(), device=renderer.device, requires_grad=True)
        values = problem.colours if surface is None else surface.values
        self.colours = self._tensor(values).requires_grad_(surface is not None)
        self.weights = settings.weights if surface is not None else replace(settings.weights, texture=0.0)
        self.betas = self._tensor(shape.betas).requires_grad_() if shape is not None else None

    # -- the search --------------------------------------------------------------------------------------------------

    def run(self, iterations: int) -> tuple[dict, list[float]]:
        """-> (the best unknowns as arrays, with their terms; the loss of every step)."""
        groups = self._groups()
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        rates = [g["lr"] for g in groups]
        history: list[float] = []
        best: dict = {}
        for i in range(iterations + 1):
            total, terms = losses.joint(self.weights, self.terms())
            value = float(total.detach())
            if not best or value < best["loss"]:
                best = {**self._arrays(), "terms": terms, "loss": value}
            history.append(value)
            if i == iterations or self._settled(history):
                break
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * self._share(i / iterations)
            optimiser.step()
            self._clamp()
        return best, history[1:]

    def _groups(self) -> list[dict]:
        s = self.settings
        groups = [{"params": [self.step], "lr": s.rate}]
        if self.colours.requires_grad:
            groups.append({"params": [self.colours], "lr": s.colour_rate})
        if self.betas is not None:
            groups.append({"params": [self.betas], "lr": s.shape_rate})
        return groups

    def _share(self, progress: float) -> float:
        last = self.settings.decay
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))

    def _settled(self, history: list[float]) -> bool:
        if len(history) < 2 * _CHECK_EVERY or len(history) % _CHECK_EVERY:
            return False
        before, now = min(history[:-_CHECK_EVERY]), min(history[-_CHECK_EVERY:])
        return before - now < self.settings.tolerance * abs(before)

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.colours.requires_grad:
            self.colours.clamp_(0, 1)

    def _arrays(self) -> dict[str, np.ndarray]:
        out = {"free": self._free().detach().cpu().double().numpy()}
        if self.colours.requires_grad:
            out["surface"] = self.surface.painted(self.colours.detach().cpu().numpy().copy())
        if self.betas is not None:
            out["betas"] = self.betas.detach().cpu().double().numpy().copy()
        return out

    def problem_at(self, best: dict) -> Problem:
        """The problem with the colours and the shape that were found."""
        colours, body = self.problem.colours, self.problem.body
        if "surface" in best:
            colours = best["surface"].vertex_colours()
        if "betas" in best:
            change = best["betas"] - self.shape.betas
            body = body.reshaped(body.rest_vertices + self.shape.vertices @ change,
                                 body.rest_joints + self.shape.joints @ change)
        return replace(self.problem, colours=colours, body=body)

    # -- the loss ----------------------------------------------------------------------------------------------------

    def terms(self) -> dict:
        """The terms that this problem has, by the names of `LossWeights`, at the present unknowns."""
        free = self._free()
        coefficients = kinematics.widen(free)
        state = _State(self, coefficients)
        terms = {
            "data": lambda: self.problem.data_weight * losses.robust_residuals(
                *state.formed, self._value, self._weight, self._plate, self.problem.cutoff),
            "evidence": lambda: losses.evidence(free, self._numpy_terms),
            "formation": lambda: losses.image_formation(
                losses.composite(*state.formed, self._plate), self._image, self._known),
            "matting": lambda: losses.matting(state.formed[1], self._value[..., 3], self._known),
            "background": lambda: losses.background(state.formed[1], self._image, self._plate,
                                                    self.settings.background_sigma),
            "pose": lambda: losses.pose_prior(state.mid_poses(), _free_pose_prior()),
            "polynomial_l1": lambda: losses.polynomial_l1(coefficients),
            "polynomial_frobenius": lambda: losses.polynomial_frobenius(coefficients),
        }
        if self.problem.layout.degree >= 2:
            terms["adversarial"] = lambda: losses.adversarial(
                _short_motion_network(str(self.renderer.device)), *state.short_motion())
        if self.colours.requires_grad:
            terms["texture"] = lambda: losses.texture_smoothness(self.colours, *self._neighbours, state.rendered.seen)
        if self.betas is not None:
            terms["shape"] = lambda: losses.shape_norm(self.betas)
        return terms

    def _free(self) -> Tensor:
        step = self.step if self.root is None else self.root @ self.step
        return self.start + self.active * step.view(self.start.shape)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).to(self.renderer.device)

    @cached_property
    def body(self) -> TorchBody:
        return TorchBody.of(self.problem.body, self.renderer.device)

    @cached_property
    def _numpy_terms(self) -> tuple:
        return self.problem.priors + sum(self.problem.evidence, ())

    @cached_property
    def _value(self) -> Tensor:
        return self._tensor(self.problem.target.value)

    @cached_property
    def _weight(self) -> Tensor:
        return self._tensor(self.problem.target.weight)

    @cached_property
    def _plate(self) -> Tensor:
        return self._tensor(self.problem.target.background)

    @cached_property
    def _image(self) -> Tensor:
        return self._value[..., :3] + self._plate

    @cached_property
    def _known(self) -> Tensor:
        """[F, S, S] 1 where the matte says something (sigma below 1, as `types.Observation` has it)."""
        return (self._weight[..., 3] > 1).float()

    @cached_property
    def _neighbours(self) -> tuple[Tensor, Tensor]:
        pairs = torch.from_numpy(self.surface.pairs.astype(np.int64)).to(self.renderer.device)
        return pairs, self._tensor(self.surface.weights)

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """uv, uv_faces and index of the surface's texels; None for vertex colours."""
        if self.surface is None or self.surface.grid is None:
            return None
        return tuple(torch.from_numpy(a).to(self.renderer.device) for a in self.surface.grid.layout)

    def paint(self) -> Tensor | Texels:
        """The present colours, as the renderer takes them."""
        return self.colours if self._layout is None else Texels(self.colours, *self._layout)

    @cached_property
    def reference(self) -> Tensor:
        return self._tensor(self.problem.reference)

    @cached_property
    def intrinsics(self) -> Tensor:
        return self._tensor(self.problem.target.intrinsics)

    @cached_property
    def basis(self) -> Tensor:
        return self._tensor(self.problem.layout.basis)

    @cached_property
    def mid_basis(self) -> Tensor:
        layout = self.problem.layout
        return self._tensor(np.stack([layout.values_at(e.middle) for e in layout.exposures]))

    @cached_property
    def _shape_slopes(self) -> tuple[Tensor, Tensor]:
        return self._tensor(self.shape.vertices), self._tensor(self.shape.joints)

    def rest(self) -> tuple[Tensor | None, Tensor | None]:
        """Rest vertices and joints of the present shape (None, None while the shape is fixed)."""
        if self.betas is None:
            return None, None
        change = self.betas - self._tensor(self.shape.betas)
        vertices, joints = self._shape_slopes
        return self.body.rest_vertices + vertices @ change, self.body.rest_joints + joints @ change


class _State:
    """One evaluation: what the terms share is computed when the first of them asks for it."""

    def __init__(self, search: _Search, coefficients: Tensor):
        self._search, self._coefficients = search, coefficients

    @cached_property
    def rendered(self) -> Rendered:
        s = self._search
        local, value = kinematics.local_rotations(s.reference, self._coefficients, s.basis)
        transl = s._tensor(s.problem.reference_transl) + value
        vertices, _ = kinematics.pose(s.body, local, transl, *s.rest())
        return s.renderer(vertices, s.body.faces, s.paint(), s.intrinsics, s.problem.target.size)

    @cached_property
    def formed(self) -> tuple[Tensor, Tensor]:
        """Mean premultiplied colour [F, S, S, 3] and alpha [F, S, S] of each exposure."""
        return losses.form_image(self.rendered.colour, self.rendered.alpha, len(self._search.problem.layout.exposures))

    def mid_poses(self) -> Tensor:
        """Body poses [F, 23, 3] (rotation vectors) at the middle of each exposure."""
        s = self._search
        local, _ = kinematics.local_rotations(s.reference, self._coefficients, s.mid_basis)
        return rotations_torch.log(local[:, 1:])

    def short_motion(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the short-motion networks: rotations [1, 22, 3, 3], motion [1, 2, 23, 3], duration [1]."""
        s, c = self._search, self._coefficients
        local = s.reference[:22] @ rotations_torch.exp(c[1:23, 0])
        moving = c[:23, 1:3].transpose(0, 1)
        motion = torch.cat([moving[:, :1] @ local[0], moving[:, 1:]], 1)
        duration = s.problem.layout.end - s.problem.layout.start
        return local[None], motion[None], c.new_tensor([duration])


def _whitener(problem: Problem, free: np.ndarray) -> np.ndarray:
    """[n, n] matrix that maps the priors' sigmas to coefficients: inverse root of their Gauss-Newton matrix at `free`.

    Priors and measurements bind combinations of coefficients (a pose at one instant, a velocity): along the
    coefficients' own axes Adam crawls. What no prior holds steps as if known to 1 (m or rad).
    """
    matrix = np.eye(free.size)
    for term in problem.priors + sum(problem.evidence, ()):
        matrix += term.normal(free)[0]
    return solve_triangular(np.linalg.cholesky(matrix), np.eye(free.size), lower=True).T


@lru_cache(maxsize=1)
def _free_pose_prior():
    from blur_motion_ros.fit.prior_files import load_pose_prior

    return load_pose_prior()


@lru_cache(maxsize=1)
def _short_motion_network(device: str):
    from blur_motion_ros.fit.short_motion import load_network

    return load_network(device=device)
