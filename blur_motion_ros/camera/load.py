"""Cameras from ROS CameraInfo values and from calibration files, every value checked.

`load_camera(path)` reads ROS camera_info YAML, a sequence's meta.json, and the Caliscope/Sports2D
calibration TOML. No ROS import: a node hands the plain values of its message to `camera_from_info`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blur_motion_ros.camera.camera import Camera, checked_camera

# ROS distortion_model -> (our model, coefficients allowed by that name)
_ROS_MODELS = {
    "plumb_bob": ("pinhole", (0, 4, 5)),
    "rational_polynomial": ("pinhole", (8, 12, 14)),
    "thin_prism": ("pinhole", (12,)),
    "equidistant": ("fisheye", (4,)),
    "fisheye": ("fisheye", (4,)),
    "": ("pinhole", (0, 4, 5, 8, 12, 14)),
}


def camera_from_info(width: int, height: int, K: object, D: object = (), distortion_model: str = "plumb_bob",
                     frame_id: str = "", binning: tuple[int, int] = (1, 1),
                     roi: tuple[int, int, int, int] = (0, 0, 0, 0), source: str = "CameraInfo") -> Camera:
    """Camera of the images that come with a sensor_msgs/CameraInfo of these values.

    K: 9 values or [3, 3].  D: coefficients.  binning: (x, y), 0 means 1.  roi: x_offset, y_offset, width,
    height in full-resolution pixels, zero width = whole image.  ValueError names the field and the fix.
    """
    name = str(distortion_model).strip().lower()
    if name not in _ROS_MODELS:
        known = ", ".join(m for m in _ROS_MODELS if m)
        raise ValueError(f"{source}: distortion_model is '{distortion_model}'; known: {known}")
    model, counts = _ROS_MODELS[name]
    d = list(D)
    if name == "plumb_bob" and len(d) == 8:  # written by some drivers for the rational model
        counts = counts + (8,)
    if len(d) not in counts:
        raise ValueError(f"{source}: D has {len(d)} values; distortion_model '{name}' takes"
                         f" {' or '.join(map(str, counts))}")
    camera = checked_camera(width, height, K, d, frame_id=frame_id or "camera_optical_frame", model=model,
                            source=source)
    return _binned(camera, binning, roi, source)


def load_camera(path: str | Path, frame_id: str = "") -> Camera:
    """Camera from a .yaml/.yml (ROS camera_info), .json (sequence meta) or .toml (calibration) file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"camera file {path} does not exist; give a camera_info .yaml, meta.json or calibration .toml")
    readers = {".yaml": _from_yaml, ".yml": _from_yaml, ".json": _from_json, ".toml": _from_toml}
    if path.suffix.lower() not in readers:
        raise ValueError(f"camera file {path.name} has suffix '{path.suffix}'; known: {', '.join(readers)}")
    return readers[path.suffix.lower()](path, frame_id)


def camera_from_meta(meta: dict[str, Any], frame_id: str = "", source: str = "meta.json") -> Camera:
    """Camera from a sequence's meta: width, height, K [3, 3], dist (optional)."""
    get = _getter(meta, source)
    return checked_camera(get("width"), get("height"), get("K"), meta.get("dist", ()),
                          frame_id=frame_id or "camera_optical_frame", source=source)


def _binned(camera: Camera, binning: tuple[int, int], roi: tuple[int, int, int, int], source: str) -> Camera:
    x, y, w, h = (int(v) for v in roi)
    if w > 0 and h > 0:
        if x + w > camera.width or y + h > camera.height:
            raise ValueError(f"{source}: roi {x}, {y}, {w} x {h} leaves the {camera.width} x {camera.height} image")
        camera = camera.window(x, y, w, h)
    bx, by = (max(int(b), 1) for b in binning)
    if (bx, by) == (1, 1):
        return camera
    return camera.scaled(camera.width // bx, camera.height // by)


def _from_yaml(path: Path, frame_id: str) -> Camera:
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not a ROS camera_info YAML ({error.__class__.__name__});"
                         " write one with camera_calibration") from None
    get = _getter(data, path.name)
    matrix = _getter(get("camera_matrix"), f"{path.name}: camera_matrix")
    dist = data.get("distortion_coefficients") or {"data": []}
    dist = _getter(dist, f"{path.name}: distortion_coefficients")
    return camera_from_info(get("image_width"), get("image_height"), matrix("data"), dist("data"),
                            data.get("distortion_model", ""), frame_id, source=path.name)


def _from_json(path: Path, frame_id: str) -> Camera:
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not valid JSON (line {error.lineno})") from None
    return camera_from_meta(data, frame_id, path.name)


def _from_toml(path: Path, frame_id: str) -> Camera:
    data = _read_toml(path)
    tables = [v for v in data.values() if isinstance(v, dict) and "matrix" in v]
    if len(tables) != 1:
        raise ValueError(f"{path.name} holds {len(tables)} cameras with a 'matrix'; it must hold exactly one")
    get = _getter(tables[0], path.name)
    size = get("size")
    if len(size) != 2:
        raise ValueError(f"{path.name}: size has {len(size)} values; it must hold width, height")
    model = "fisheye" if tables[0].get("fisheye") else "pinhole"
    return checked_camera(size[0], size[1], get("matrix"), tables[0].get("distortions", ()),
                          frame_id=frame_id or "camera_optical_frame", model=model, source=path.name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise ValueError(f"reading {path.name} on Python 3.10 needs the package 'tomli'; install it,"
                             " or write the calibration as a camera_info YAML") from None
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from None


def _getter(data: Any, source: str):
    if not isinstance(data, dict):
        raise ValueError(f"{source} must hold named fields, found {type(data).__name__}")

    def get(key: str) -> Any:
        if key not in data:
            raise ValueError(f"{source}: field '{key}' is missing; present: {', '.join(map(str, data)) or 'none'}")
        return data[key]

    return get
