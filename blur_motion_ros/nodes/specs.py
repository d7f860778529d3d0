"""What runs where: nodes, topics and environment, as plain data shared by the launch file, the console scripts and
the documentation. No ROS import."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "blur_motion_ros"
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


@dataclass(frozen=True)
class NodeSpec:
    """One executable: its name under lib/blur_motion_ros, its node name, and what it is for."""

    executable: str
    name: str
    purpose: str
    remappings: dict[str, str] = field(default_factory=dict)


PIPELINE = NodeSpec("blur-motion-pipeline", "blur_motion", "camera intake and blur fit in one process (default)")
CAMERA = NodeSpec("camera_node", "blur_motion_camera", "checks, converts and times images; captures the clean plate")
FITTING = NodeSpec("fitting_node", "blur_motion", "blur fit of the camera node's frames",
                   {"image": "frame/image", "camera_info": "frame/camera_info", "exposure": "frame/exposure"})
PLAYER = NodeSpec("camera_player", "camera_player", "publishes a video or a sequence folder as a camera would")


def camera_remappings(image_topic: str, info_topic: str = "") -> dict[str, str]:
    """Remappings for a camera; its CameraInfo is a sibling of the image topic unless named."""
    return {"image": image_topic, "camera_info": info_topic or sibling(image_topic, "camera_info")}


def sibling(topic: str, name: str) -> str:
    """`/cam/image_raw`, `camera_info` -> `/cam/camera_info` (ROS convention)."""
    head, slash, _ = topic.rpartition("/")
    return f"{head}{slash}{name}"


def composition(composed: bool, image_topic: str, info_topic: str = "") -> list[NodeSpec]:
    """The nodes of the pipeline with their remappings: one process, or camera and fitting apart."""
    camera = camera_remappings(image_topic, info_topic)
    if composed:
        return [NodeSpec(PIPELINE.executable, PIPELINE.name, PIPELINE.purpose, camera)]
    return [NodeSpec(CAMERA.executable, CAMERA.name, CAMERA.purpose, camera), FITTING]


def shared_file(*parts: str) -> Path:
    """A file of config/, rviz/ or launch/: beside the package in a checkout, under share/ when installed."""
    for parent in Path(__file__).resolve().parents[2:]:
        for base in (parent, parent / "share" / PACKAGE):
            if base.joinpath(*parts).is_file() and (base / "package.xml").is_file():
                return base.joinpath(*parts)
    raise FileNotFoundError(f"{'/'.join(parts)} of {PACKAGE} is missing; reinstall the package")


def environment() -> dict[str, str]:
    """Variables the middleware needs before it starts: shared memory large enough for images (Fast DDS).

    A profile that the user has set already wins.
    """
    if any(name in os.environ for name in _PROFILE_VARIABLES):
        return {}
    # Fast DDS 2 (up to Jazzy) reads the old name, Fast DDS 3 (from Kilted on) the new one.
    old = os.environ.get("ROS_DISTRO", "") in ("humble", "iron", "jazzy")
    return {_PROFILE_VARIABLES[old]: str(shared_file("config", "fastdds.xml"))}
