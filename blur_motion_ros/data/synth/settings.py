"""Settings of the synthesis."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class SynthSettings:
    """How blurred sequences are made."""

    width: int = setting(640, "image width", unit="px", low=64, high=4096)
    height: int = setting(480, "image height", unit="px", low=64, high=4096)
    fps: float = setting(30.0, "frame rate", unit="Hz", low=1.0, high=1000.0)
    duty: float = setting(0.9, "open share of the frame period", low=0.01, high=1.0)
    frames: int = setting(24, "frames per sequence", low=2, high=100000)
    subframes: int = setting(16, "least number of instants averaged per exposure, a multiple of 8", low=8, high=256)
    step: float = setting(2.0, "longest way of a joint between instants; more instants are drawn if it is longer",
                          unit="px", low=0.2, high=100.0)
    supersample: int = setting(2, "samples per pixel side", low=1, high=4)
    split: str = setting("train", "which motions may be used", choices=("train", "test"))
    candidates: int = setting(4, "random stretches of motion of which the liveliest is filmed", low=1, high=100)
    body: str = setting("free", "body that is drawn: the package's own, or anny's (not the fitted one)",
                        choices=("anny", "free"))
    place: str = setting("any", "background", choices=("any", "room", "yard", "photo"))
    response: str = setting("srgb", "camera response: srgb, linear, or a gamma")
    noise: float = setting(0.01, "sensor noise at mid grey, linear light, one standard deviation", low=0.0, high=0.2)
    quality: int = setting(95, "JPEG quality of the frames; 0 writes PNG", low=0, high=100)
    renderer: str = setting("fast", "fast: rasteriser, for training; cycles: path tracer (needs bpy), for test sets",
                            choices=("fast", "cycles"))
    samples: int = setting(48, "light paths per pixel (cycles)", low=1, high=4096)
    threads: int = setting(1, "threads of the path tracer", low=1, high=256)
    sharp: bool = setting(True, "also write the middle instant of every exposure")
    shadows: bool = setting(True, "cast shadows on the floor")
