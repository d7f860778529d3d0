"""First-order path, networks and renderers on this machine's devices: python benchmarks/gpu.py [--quick] [--out FILE].

One Markdown table per part, with the devices' names. The window is made here (the free body, a smooth motion, noise as
background); a row is one choice of sub-frames N, image side, faces and exposures. `lm` and `adam` are ms per *step*, so
that the columns can be compared; a window takes about 4 lm steps or 50 adam steps (a cold start 20 or 120;
docs/first_order.md). Medians; CPU: processor time of one thread; CUDA: wall time, GPU work waited for. Without a GPU
its columns stay empty.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from blur_motion_ros import render, threads
from blur_motion_ros.body import load_body
from blur_motion_ros.fit import image_terms, solver
from blur_motion_ros.fit.dynamics import MotionPrior
from blur_motion_ros.fit.first_order import solve_first_order
from blur_motion_ros.fit.kinematics import FitBody, pose
from blur_motion_ros.fit.layout import WindowLayout
from blur_motion_ros.fit.prior_files import load_motion_statistics
from blur_motion_ros.fit.settings import FirstOrderSettings
from blur_motion_ros.motion import rotations
from blur_motion_ros.render import raster
from blur_motion_ros.render.base import Renderer, RendererError
from blur_motion_ros.types import Exposure

GRID = {"subframes": (4, 8, 16), "size": (64, 128), "lod": ("fit", "display"), "frames": (2, 4)}
QUICK = {"subframes": (4,), "size": (64,), "lod": ("fit",), "frames": (2,)}
STEPS = 12
PERIOD, OPEN = 1 / 30, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one row per part")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    threads.limit()
    lines: list[str] = []

    def say(line: str = "") -> None:
        print(line, flush=True)
        lines.append(line)

    try:
        gpu, reason = render.make("nvdiffrast", "cuda"), ""
    except RendererError as error:
        gpu, reason = None, str(error)
    say(f"CPU: {processor()}. PyTorch {torch.__version__}. GPU: {gpu_name()}.")
    if reason:
        say(f"No CUDA rows for the renderer: {reason}")
    fit_table(say, QUICK if args.quick else GRID, gpu)
    network_table(say, 3 if args.quick else 20)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


# ------------------------------------------------------------------------------------------------------------- fit


def fit_table(say: Callable[[str], None], grid: dict, gpu: Renderer | None) -> None:
    """ms per lm step and per adam step on each device, over the grid."""
    say("\n| N | side px | faces | exposures | lm, cpu | adam, cpu | adam, cuda | render + gradient, cpu "
        "| the same, cuda |\n|---|---|---|---|---|---|---|---|---|")
    cpu = render.make("cpu")
    for subframes, size, lod, frames in itertools.product(*grid.values()):
        problem = window(subframes, size, lod, frames)
        cells = [shown(lm_step(problem)), shown(adam_step(problem, cpu)), shown(gpu and adam_step(problem, gpu))]
        cells += [shown(r and median_ms(drawing(problem, r), STEPS, r.device.type)) for r in (cpu, gpu)]
        say(f"| {subframes} | {size} | {len(problem.body.faces)} | {frames} | " + " | ".join(cells) + " |")


def lm_step(problem: solver.Problem) -> float:
    """ms of one Levenberg-Marquardt step, near the solution."""
    start = np.full((21, problem.layout.degree + 1, 3), 0.01)
    return per_step(lambda count: solver.solve(problem, start, count, tolerance=0.0).iterations, "cpu")


def adam_step(problem: solver.Problem, renderer: Renderer) -> float:
    """ms of one Adam step with everything but the terms' slopes on the renderer's device."""
    start, settings = np.full((21, problem.layout.degree + 1, 3), 0.01), FirstOrderSettings(tolerance=0.0)
    return per_step(lambda count: solve_first_order(problem, start, settings, count, renderer).iterations,
                    renderer.device.type)


def window(subframes: int, size: int, lod: str, frames: int) -> solver.Problem:
    """A window of the free body that turns and swings its limbs, over noise; its own rendering is the target."""
    model = load_body(None, lod)
    body = FitBody.of(model.rest_vertices(), model.rest_joints(), model.weights, model.parents, model.faces)
    rng = np.random.default_rng(0)
    exposures = tuple(Exposure(i * PERIOD, (i + OPEN) * PERIOD) for i in range(frames))
    layout = WindowLayout.of(exposures, subframes, 2)
    reference = rotations.exp(rng.normal(0, 0.1, (24, 3)))
    reference[0] = rotations.exp(np.array([np.pi, 0, 0]))
    k = np.array([[1.6 * size, 0, (size - 1) / 2], [0, 1.6 * size, (size - 1) / 2], [0, 0, 1.0]])
    plate = rng.uniform(0, 1, (frames, size, size, 3)).astype(np.float32)
    workspace = image_terms.Workspace(len(layout.times), size)
    colours = rng.uniform(0.1, 0.9, (len(body.rest_vertices), 3)).astype(np.float32)
    motion = rng.normal(0, 0.05, (21, 3, 3)) * np.array([1, 2, 0.3])[:, None]
    transl = np.array([0, 0.2, 3.0])
    posed = pose(body, reference, transl, solver.widen(motion), layout.basis)
    raster.draw(posed.vertices, body.faces, colours, k, workspace.frames)
    value = image_terms.predict(workspace.frames, frames, plate)
    weight = np.concatenate([np.full(value.shape[:3] + (3,), 1 / 0.06), np.full(value.shape[:3] + (1,), 1 / 0.15)], -1)
    target = image_terms.Target(value, weight.astype(np.float32), plate, k)
    prior = MotionPrior.of(load_motion_statistics(), layout, 3.0, False)
    return solver.Problem(body, layout, reference, transl, target, colours, (prior,), ((),) * frames,
                          0.02 * (64 / size) ** 2, 4.0, workspace)


def drawing(problem: solver.Problem, renderer: Renderer) -> Callable[[], object]:
    """One rendering of all sub-frames and the gradient of a sum of squares, without the body."""
    posed = pose(problem.body, problem.reference, problem.reference_transl, np.zeros((25, 3, 3)), problem.layout.basis)
    vertices, faces, colours = (torch.tensor(a, device=renderer.device) for a in
                                (posed.vertices, problem.body.faces, problem.colours))
    vertices.requires_grad_()
    k = torch.tensor(problem.target.intrinsics, device=renderer.device)

    def once() -> None:
        vertices.grad = None
        rendered = renderer(vertices, faces, colours, k, problem.target.size)
        (rendered.colour.square().sum() + rendered.alpha.square().sum()).backward()

    return once


def per_step(solve: Callable[[int], int], device: str) -> float:
    """ms of one of STEPS steps; `solve` takes how many to make and returns how many it made."""
    solve(2)
    times = []
    for _ in range(3):
        begin = now(device)
        made = solve(STEPS)
        times.append((now(device) - begin) / max(made, 1))
    return 1e3 * float(np.median(times))


# -------------------------------------------------------------------------------------------------------- networks


def network_table(say: Callable[[str], None], rounds: int) -> None:
    """Latency of one live frame: VIBE on images (ResNet-50, streaming state) and the matting network."""
    say("\n| network | input | cpu, ms | cuda, ms |\n|---|---|---|---|")
    for name, shape, make in (("VIBE with ResNet-50, streaming", "224 x 224", streaming_vibe),
                              ("matting network (ours, width 14)", "2 x 512 x 512", matting)):
        cells = [median_ms(make(device), rounds, device) if device == "cpu" or torch.cuda.is_available() else None
                 for device in ("cpu", "cuda")]
        say(f"| {name} | {shape} | " + " | ".join(shown(c) for c in cells) + " |")


def streaming_vibe(device: str) -> Callable[[], object]:
    """One frame after the other through untrained weights (the cost does not depend on them)."""
    from blur_motion_ros.initialiser.vibe_model import ImageVibe, ResNetFeatures, Vibe

    network = ImageVibe(ResNetFeatures(), Vibe()).eval().to(device)
    crop, state = torch.zeros(1, 1, 3, 224, 224, device=device), [None]

    @torch.inference_mode()
    def once() -> None:
        _, state[0] = network(crop, state[0])

    return once


def matting(device: str) -> Callable[[], object]:
    from blur_motion_ros.learning.matting_net import MattingNet

    network = MattingNet().eval().to(device)
    picture = torch.zeros(1, 3, 512, 512, device=device)

    @torch.inference_mode()
    def once() -> None:
        network(picture, picture)

    return once


# ------------------------------------------------------------------------------------------------------------ shared


def now(device: str) -> float:
    """Seconds: of this process on the CPU, or of the wall clock after everything that was asked of the GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def median_ms(once: Callable[[], object], rounds: int, device: str) -> float:
    once()
    once()
    times = []
    for _ in range(rounds):
        begin = now(device)
        once()
        times.append(now(device) - begin)
    return 1e3 * float(np.median(times))


def shown(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.2f}"


def gpu_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
