"""The path tracer for test sets: Blender's Cycles on the CPU, headless, with deformation motion blur.

`blur-motion synth --set renderer=cycles` writes what is to be seen as a bundle (`write_bundle`) and runs this file as a
script in a Python that has the package `bpy` (PyPI, CPython 3.11 for bpy 4.2): this one, or the one that
BLUR_MOTION_BPY_PYTHON names. The script needs bpy and numpy alone, so it imports nothing of this package.

World: metres, y up. An exposure is one Cycles frame, open from its start to its end; the mesh follows nine keys.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

KEYS = 9  # instants of the mesh per exposure, first = shutter opens


class CyclesError(RuntimeError):
    """Cycles could not be run. The message names the fix."""


def interpreter() -> str:
    """A Python that can import bpy. CyclesError if there is none."""
    named = os.environ.get("BLUR_MOTION_BPY_PYTHON") or sys.executable
    test = subprocess.run([named, "-c", "import bpy"], capture_output=True, check=False)
    if test.returncode:
        raise CyclesError(f"{named} cannot import bpy; 'pip install bpy==4.2.0' into a Python 3.11 and set"
                          " BLUR_MOTION_BPY_PYTHON to it, or use renderer=fast")
    return named


def write_bundle(path: Path, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> None:
    """What the script needs. arrays: vertices [F, KEYS, V, 3], faces, colours [V, 3] linear albedo, boxes, looks,
    floor_look, K, R, T, sun, sky.  options: width, height, samples, share, open_air, threads,
    seed, sharp."""
    np.savez(path, options=json.dumps(options), **arrays)


def render(bundle: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the script: blurred images [F, H, W, 3], those of the middle instants (the same again where they were not
    asked for), and the plate [H, W, 3], float32 linear light."""
    command = [interpreter(), str(Path(__file__).resolve()), str(bundle), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    count = len(np.load(bundle)["vertices"])
    files = [folder / f"frame_{i:04d}.npy" for i in range(count)] + [folder / "plate.npy"]
    if done.returncode or not all(f.is_file() for f in files):
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise CyclesError(f"Cycles failed: {last}")
    *images, plate = [np.load(f) for f in files]
    sharp = [folder / f"sharp_{i:04d}.npy" for i in range(count)]
    sharps = [np.load(f) for f in sharp] if sharp[0].is_file() else images
    return np.stack(images), np.stack(sharps), plate


# --------------------------------------------------------------------------------- inside the Python with bpy


def _main(bundle: str, folder: str) -> None:
    import bpy

    data = dict(np.load(bundle))
    options = json.loads(str(data.pop("options")))
    _empty_scene(bpy, options)
    _camera(bpy, data, options)
    _lights(bpy, data, options)
    _stage(bpy, data, options)
    body = _body(bpy, data)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    body.hide_render = True
    np.save(out / "plate.npy", _shot(bpy, out, options, motion=False))
    body.hide_render = False
    for i, instants in enumerate(data["vertices"]):
        for key, points in zip(body.data.shape_keys.key_blocks[1:], instants, strict=True):
            key.data.foreach_set("co", np.ascontiguousarray(points, np.float32).ravel())
        body.data.update()
        np.save(out / f"frame_{i:04d}.npy", _shot(bpy, out, options, motion=True))
        if options["sharp"]:
            bpy.context.scene.frame_set(1, subframe=0.5)
            np.save(out / f"sharp_{i:04d}.npy", _shot(bpy, out, options, motion=False))
            bpy.context.scene.frame_set(1)


def _empty_scene(bpy: Any, options: dict) -> None:
    import addon_utils

    bpy.ops.wm.read_factory_settings(use_empty=True)
    addon_utils.enable("cycles", default_set=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = options["samples"]
    scene.cycles.seed = options["seed"] % 2**31
    scene.cycles.use_denoising = True
    scene.cycles.denoiser = "OPENIMAGEDENOISE"
    scene.cycles.max_bounces = 4
    scene.render.threads_mode, scene.render.threads = "FIXED", options["threads"]
    scene.render.resolution_x, scene.render.resolution_y = options["width"], options["height"]
    scene.render.resolution_percentage = 100
    scene.render.motion_blur_shutter = 1.0
    scene.render.motion_blur_position = "START"  # the shutter opens at frame 1 and closes at frame 2
    scene.view_settings.view_transform = "Raw"
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_depth = "32"
    scene.frame_set(1)


def _camera(bpy: Any, data: dict, options: dict) -> None:
    """OpenCV camera (x right, y down, z forward; pixel centres at integers) as Blender's (looks along -z, y up)."""
    from mathutils import Matrix

    K, R, T = data["K"], data["R"], data["T"]
    width, height = options["width"], options["height"]
    lens = bpy.data.cameras.new("camera")
    lens.sensor_fit, lens.sensor_width = "HORIZONTAL", 36.0
    lens.lens = K[0, 0] * 36.0 / width
    lens.shift_x, lens.shift_y = (width / 2 - 0.5 - K[0, 2]) / width, (K[1, 2] - height / 2 + 0.5) / width
    lens.clip_start, lens.clip_end = 0.05, 500.0
    pose = np.eye(4)
    pose[:3, :3] = R.T @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = -R.T @ T
    thing = bpy.data.objects.new("camera", lens)
    thing.matrix_world = Matrix(pose.tolist())
    bpy.context.collection.objects.link(thing)
    bpy.context.scene.camera = thing


def _lights(bpy: Any, data: dict, options: dict) -> None:
    from mathutils import Vector

    lamp = bpy.data.lights.new("sun", "SUN")
    lamp.energy, lamp.angle = np.pi * 1.3 * options["share"], np.radians(3.0)
    thing = bpy.data.objects.new("sun", lamp)
    thing.rotation_euler = Vector((-data["sun"]).tolist()).to_track_quat("-Z", "Y").to_euler()
    bpy.context.collection.objects.link(thing)
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*data["sky"].tolist(), 1.0)
    background.inputs["Strength"].default_value = 1.2 * (1 - options["share"])
    bpy.context.scene.world = world


def _stage(bpy: Any, data: dict, options: dict) -> None:
    """Floor, the far walls of a room (no ceiling, and no wall between camera and body), things standing about."""
    room, floor = data["boxes"][0], data["floor_look"]
    x0, _, z0, x1, top, z1 = room
    _quad(bpy, [(x0, 0, z0), (x0, 0, z1), (x1, 0, z1), (x1, 0, z0)], _material(bpy, floor))
    if not options["open_air"]:
        walls = _material(bpy, data["looks"][0])
        eye = -data["R"].T @ data["T"]
        view = data["R"][2]
        sides = [((-1, 0, 0), [(x0, 0, z0), (x0, 0, z1), (x0, top, z1), (x0, top, z0)]),
                 ((1, 0, 0), [(x1, 0, z0), (x1, 0, z1), (x1, top, z1), (x1, top, z0)]),
                 ((0, 0, -1), [(x0, 0, z0), (x1, 0, z0), (x1, top, z0), (x0, top, z0)]),
                 ((0, 0, 1), [(x0, 0, z1), (x1, 0, z1), (x1, top, z1), (x0, top, z1)])]
        for outward, corners in sides:
            if np.dot(outward, view) > -0.2 and np.dot(np.mean(corners, 0) - eye, view) > 0:
                _quad(bpy, corners, walls)
    for box, look in zip(data["boxes"][1:], data["looks"][1:], strict=True):
        _box(bpy, box, _material(bpy, look))


def _body(bpy: Any, data: dict) -> Any:
    """The mesh with one shape key per instant; key k counts fully at time k / (KEYS - 1) of the shutter."""
    first = data["vertices"][0, 0]
    mesh = bpy.data.meshes.new("body")
    mesh.from_pydata(first.tolist(), [], data["faces"].tolist())
    for polygon in mesh.polygons:
        polygon.use_smooth = True
    attribute = mesh.color_attributes.new("albedo", "FLOAT_COLOR", "POINT")
    rgba = np.concatenate([data["colours"], np.ones((len(first), 1))], 1)
    attribute.data.foreach_set("color", rgba.astype(np.float32).ravel())
    thing = bpy.data.objects.new("body", mesh)
    bpy.context.collection.objects.link(thing)
    mesh.materials.append(_painted(bpy))
    thing.shape_key_add(name="rest", from_mix=False)
    count = data["vertices"].shape[1]
    for k in range(count):
        key = thing.shape_key_add(name=f"key_{k}", from_mix=False)
        for step in (k - 1, k, k + 1):
            key.value = float(step == k)
            key.keyframe_insert("value", frame=1 + step / (count - 1))
    for curve in mesh.shape_keys.animation_data.action.fcurves:
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"
    thing.cycles.use_deform_motion = True
    thing.cycles.motion_steps = 4  # 2^3 steps: one per shape key interval
    return thing


def _painted(bpy: Any) -> Any:
    material = bpy.data.materials.new("painted")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    colour = nodes.new("ShaderNodeVertexColor")
    colour.layer_name = "albedo"
    links.new(colour.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.8
    return material


def _material(bpy: Any, look: np.ndarray) -> Any:
    """Two colours mixed by noise or bricks (looks: see `plates`)."""
    material = bpy.data.materials.new("look")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = 0.75
    place = nodes.new("ShaderNodeTexCoord")
    base, second = (*look[:3].tolist(), 1.0), (*look[3:6].tolist(), 1.0)
    if int(look[6]) in (0, 1, 4):  # planks, tiles, bricks
        texture = nodes.new("ShaderNodeTexBrick")
        texture.inputs["Color1"].default_value, texture.inputs["Color2"].default_value = base, second
        texture.inputs["Mortar"].default_value = tuple(0.5 * c for c in second[:3]) + (1.0,)
        texture.inputs["Scale"].default_value = float(look[7])
        turn = nodes.new("ShaderNodeMapping")
        turn.inputs["Rotation"].default_value = (np.pi / 2, 0, 0)
        links.new(place.outputs["Object"], turn.inputs["Vector"])
        links.new(turn.outputs["Vector"], texture.inputs["Vector"])
        links.new(texture.outputs["Color"], shader.inputs["Base Color"])
        return material
    texture, mix = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeMixRGB")
    texture.inputs["Scale"].default_value, texture.inputs["Detail"].default_value = 1.5 * float(look[7]), 6.0
    mix.inputs["Color1"].default_value, mix.inputs["Color2"].default_value = base, second
    links.new(place.outputs["Object"], texture.inputs["Vector"])
    links.new(texture.outputs["Fac"], mix.inputs["Fac"])
    links.new(mix.outputs["Color"], shader.inputs["Base Color"])
    return material


def _quad(bpy: Any, corners: list, material: Any) -> None:
    _link(bpy, corners, [(0, 1, 2, 3)], material)


def _box(bpy: Any, box: np.ndarray, material: Any) -> None:
    x, y, z = ((box[i], box[i + 3]) for i in range(3))
    corners = [(x[i >> 2], y[(i >> 1) & 1], z[i & 1]) for i in range(8)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    _link(bpy, corners, faces, material)


def _link(bpy: Any, corners: list, faces: list, material: Any) -> None:
    mesh = bpy.data.meshes.new("part")
    mesh.from_pydata([tuple(float(v) for v in c) for c in corners], [], faces)
    mesh.materials.append(material)
    bpy.context.collection.objects.link(bpy.data.objects.new("part", mesh))


def _shot(bpy: Any, out: Path, options: dict, motion: bool) -> np.ndarray:
    """Render frame 1 -> [H, W, 3] float32 linear light."""
    scene = bpy.context.scene
    scene.render.use_motion_blur = motion
    scene.render.filepath = str(out / "shot.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(out / "shot.exr"))
    pixels = np.empty(options["width"] * options["height"] * image.channels, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(options["height"], options["width"], -1)[::-1, :, :3].copy()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
