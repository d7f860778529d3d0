"""Is a texture worth it: python benchmarks/texture.py SEQUENCE... [--picture JPG]. Predicts frames it did not use.

Colours are solved from every other exposure and the others are predicted: PSNR (dB, linear light) of what the body
adds to the image, over pixels where rendered and observed coverage agree. Ways of colouring: one colour for all, one
per vertex (of the same mesh), texels. CPU s: equations and solution of the texture of all exposures.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from scipy import sparse

from blur_motion_ros import config, threads
from blur_motion_ros.body import load_body
from blur_motion_ros.camera.camera import Crop
from blur_motion_ros.camera.sampling import crop_map
from blur_motion_ros.data import sequence
from blur_motion_ros.fit import colour, texture, texture_files
from blur_motion_ros.fit.texels import TexelGrid
from blur_motion_ros.light import to_codes
from blur_motion_ros.matting import make_matter
from blur_motion_ros.offline import fit_recording
from blur_motion_ros.render import raster

SMOOTHNESS = (0.01, 0.03, 0.1, 0.3, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", metavar="SEQUENCE", nargs="+")
    parser.add_argument("--picture", metavar="JPG", help="frame, rendered, sharp, turned a quarter and half, texture")
    args = parser.parse_args()
    threads.limit()
    print("| sequence | one colour | per vertex | " + " | ".join(f"texels, {s:g}" for s in SMOOTHNESS)
          + " | seen | CPU s |\n" + "|---" * (len(SMOOTHNESS) + 5) + "|")
    rows = []
    for folder in args.sequence:
        recording, estimates, settings = fitted(folder)
        body = texture_files.TexturedBody.of(load_body(lod="display"), settings.fit.inflation)
        report(recording, estimates, settings, body)
        if args.picture:
            rows.append(picture(recording, estimates, settings, body))
    if rows:
        sequence.write_image(args.picture, np.vstack(rows), 68)


def fitted(folder: str):
    """The recording, its motion with two exposures of hindsight, and the settings."""
    recording, settings = sequence.read(folder), config.Settings()
    estimates, _ = fit_recording(recording, settings)
    return recording, estimates, settings


def report(recording, estimates, settings, body) -> None:
    """One row of the table."""
    start, matter = time.process_time(), make_matter(settings.matting)
    grid = TexelGrid.of(body.model.uv, body.model.uv_faces, settings.fit.texture_size)
    made, _ = texture_files.texture_of(recording, estimates, body, recording.plate, matter, settings.fit)
    cpu = time.process_time() - start
    skin = made.origin != texture.OUTSIDE
    views = [texture_files.exposure_view(grid, body, estimates[i], recording[i], recording.plate, matter,
                                         2 * settings.fit.subframes, recording.response)
             for i in texture_files.chosen(estimates, settings.fit.texture_frames)]
    known, asked = views[::2], views[1::2]
    corner = vertices_of_texels(grid, body)
    numbers = [quality(asked, one_colour(known)), quality(asked, per_vertex(known, corner, body))]
    for smooth in SMOOTHNESS:
        texels, seen = texture.solve_texels(grid, known, smooth)
        texels, _ = texture.fill_unseen(grid, body.model.v_template, body.model.faces, texels, seen)
        numbers.append(quality(asked, texels))
    print(f"| {recording.name} | " + " | ".join(f"{n:.2f}" for n in numbers)
          + f" | {np.mean(made.origin[skin] == texture.SEEN):.0%} | {cpu:.1f} |", flush=True)


def quality(views, texels: np.ndarray) -> float:
    """Weighted PSNR, dB, of predicted light; the weights do not know the colours."""
    error = sum((v.weight[:, None] * (v.rows @ texels - v.light) ** 2).sum() for v in views)
    return float(-10 * np.log10(error / (3 * sum(v.weight.sum() for v in views))))


def one_colour(views) -> np.ndarray:
    share = [np.asarray(v.rows.sum(1)).ravel() for v in views]
    mean = sum((v.weight * s) @ v.light for v, s in zip(views, share, strict=True)) / sum(
        (v.weight * s) @ s for v, s in zip(views, share, strict=True))
    return np.tile(mean, (views[0].rows.shape[1], 1))


def vertices_of_texels(grid: TexelGrid, body):
    """[n, V] sparse: texels as mixtures of vertex colours."""
    rows = np.repeat(np.arange(len(grid.at)), 3)
    columns = body.model.faces[grid.face].ravel()
    return sparse.csr_matrix((grid.bary.ravel(), (rows, columns)), (len(grid.at), len(body.model.v_template)))


def per_vertex(views, corner, body) -> np.ndarray:
    """Colours per vertex from the same equations, smoothed as the online path does, as texels."""
    count = corner.shape[1]
    maps = [v.rows @ corner for v in views]
    system = sum(m.T @ m.multiply(v.weight[:, None]).tocsr() for m, v in zip(maps, views, strict=True))
    laplacian = colour.graph_laplacian(body.mean.edges, np.ones(len(body.mean.edges)), count)
    system = system + 0.02 * laplacian + 1e-3 * np.mean(system.diagonal()) * sparse.identity(count)
    right = sum(m.T @ (v.weight[:, None] * v.light) for m, v in zip(maps, views, strict=True))
    return corner @ np.clip(colour.conjugate_gradient(system.tocsr(), right, np.full((count, 3), 0.2), 100), 0, 1)


def picture(recording, estimates, settings, body, size: int = 220) -> np.ndarray:
    """Blurred frame | rendered with the texture | its middle instant | turned a quarter | turned half | texture."""
    made, middle = texture_files.texture_of(recording, estimates, body, recording.plate, make_matter(settings.matting),
                                            settings.fit)
    frame, estimate, grid = recording[middle], estimates[middle], TexelGrid.of(body.model.uv, body.model.uv_faces,
                                                                               settings.fit.texture_size)
    texels = made.image[tuple(grid.at.T)]
    times = frame.exposure.open + (np.arange(16) + 0.5) / 16 * frame.exposure.duration
    vertices, still = body.vertices(estimate, times), body.vertices(estimate, np.array([frame.exposure.middle]))
    crop = Crop.holding(frame.camera, vertices, 1.15, size)
    view = crop_map(frame.camera, crop)
    image, behind = view.sample(frame.image), view.sample(recording.plate)
    out = [image, drawn(grid, body, vertices, crop, texels, behind), drawn(grid, body, still, crop, texels, behind)]
    for angle in (-np.pi / 2, np.pi):
        turned = around(still, angle)
        crop = Crop.holding(frame.camera, turned, 1.15, size)
        out.append(drawn(grid, body, turned, crop, texels, np.full((size, size, 3), 0.6, np.float32)))
    flat = cv2.resize(to_codes(made.image), (size, size), interpolation=cv2.INTER_AREA)
    return np.hstack([*map(to_codes, out), flat])


def around(vertices: np.ndarray, angle: float) -> np.ndarray:
    """Turned about the vertical through their middle."""
    middle, c, s = vertices.mean((0, 1)), np.cos(angle), np.sin(angle)
    return ((vertices - middle) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + middle).astype(np.float32)


def drawn(grid, body, vertices, crop, texels, behind) -> np.ndarray:
    """Linear picture [S, S, 3] of the textured body, averaged over vertices [M, V, 3]."""
    frames = raster.SubFrames.allocate(len(vertices), crop.size)
    raster.draw(vertices, body.mean.faces, np.zeros(vertices.shape[1:], np.float32), crop.K, frames)
    rows = texture.texel_matrix(grid, body.mean, vertices, frames, crop.K, 1)
    alpha = frames.alpha.mean(0)[..., None]
    return (rows @ texels).reshape(behind.shape) + (1 - alpha) * behind


if __name__ == "__main__":
    main()
