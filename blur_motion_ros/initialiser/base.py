"""What the rest of the package knows of an initialiser."""

from __future__ import annotations

from typing import Protocol

from blur_motion_ros.body.model import BodyModel
from blur_motion_ros.initialiser.settings import InitialiserSettings
from blur_motion_ros.types import Frame, Plate, PoseMeasurement


class Initialiser(Protocol):
    """Measures the pose of one person, frame by frame, in the order of capture."""

    def measure(self, frame: Frame, plate: Plate | None = None, late: bool = False) -> PoseMeasurement | None:
        """The pose at mid-exposure as a Gaussian, or None when nobody is found.

        plate: clean background under the light of this frame; it makes blurred limbs visible (optional).
        late: the frame has waited; take the quick way where there are two.
        """
        ...

    def reset(self) -> None:
        """Forget the person: whom, where, and their shape."""
        ...


def make_initialiser(settings: InitialiserSettings, body: BodyModel) -> Initialiser:
    """The initialiser that the settings ask for (loads the networks, fetching them on first use)."""
    from blur_motion_ros.initialiser.landmark import LandmarkInitialiser

    plain = LandmarkInitialiser(body, settings)
    if settings.kind == "landmarks":
        return plain
    from blur_motion_ros.initialiser.vibe import ImageStream, LandmarkStream, VibeInitialiser

    if settings.kind == "vibe_image" and not settings.network:
        raise ValueError("initialiser.network is empty; vibe_image needs a file made by `blur-motion export vibe`")
    load = LandmarkStream.load if settings.kind == "vibe" else ImageStream.load
    return VibeInitialiser(plain.tracker, load(settings.network or None), body, plain.register, plain.sides,
                           hindsight_network=settings.hindsight_network or None)
