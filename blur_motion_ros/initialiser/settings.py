"""Settings of the initialiser: person, landmarks, registration."""

from __future__ import annotations

from dataclasses import dataclass, field

from blur_motion_ros.settings import setting
from blur_motion_ros.types import LONG_EXPOSURE


@dataclass(frozen=True)
class PersonSettings:
    """Finding one person and keeping to them (BlazePose)."""

    threads: int = setting(1, "threads of the pose networks", low=1, high=16)
    landmarks: str = setting("auto", "landmark network: full (9 ms), full as trained further on blurred people (blur, "
                             "9 ms; in the package), heavy (27 ms; comes from npm), heavy where it has been fetched "
                             "and blur elsewhere (best), blur and that where exposures are long (auto), or a TFLite "
                             "file of that kind")
    long_exposure: float = setting(LONG_EXPOSURE, "exposure from which auto takes the heavy network", unit="s",
                                   low=0.0, high=10.0)
    select: str = setting("largest", "whom to follow when several people are found: the largest, the one nearest to "
                          "the person followed before, or the one at target_x, target_y",
                          choices=("largest", "nearest", "target"))
    target_x: float = setting(0.0, "image column of the person to follow (select = target)", unit="px", low=0, high=1e5)
    target_y: float = setting(0.0, "image row of the person to follow (select = target)", unit="px", low=0, high=1e5)
    detection_score: float = setting(0.5, "least score of a detection", low=0, high=1)
    presence_score: float = setting(0.5, "least presence score of tracked landmarks", low=0, high=1)
    largest_jump: float = setting(0.5, "largest plausible move of the hip centre in one frame, in body radii "
                                  "(hip to feet or raised hands); farther is taken for another person",
                                  low=0.05, high=5)
    largest_growth: float = setting(1.6, "largest plausible change of apparent body size in one frame, as a factor",
                                    low=1.05, high=5)
    patience: int = setting(30, "frames a lost person is waited for near their last place before anyone else is taken",
                            low=0, high=100000)
    passes: int = setting(1, "runs of the landmark network per frame, each on the region found by the one before "
                          "(8 ms each); the first works on a region predicted from the last frame", low=1, high=4)
    mirrored: int = setting(4, "frames at the start of a track that are also shown to the landmark network in a mirror "
                            "and averaged (8 ms each; 1000000: all frames, for machines that have the time)",
                            low=0, high=1000000)
    mask: bool = setting(True, "compute the person mask (0.5 ms)")


@dataclass(frozen=True)
class RegistrationSettings:
    """Landmarks to a posed body. Sigmas are one standard deviation of a well visible landmark of a sharp person."""

    stature: float = setting(1.70, "expected body height; the distance from the camera scales with it", unit="m",
                             low=0.5, high=2.5)
    stature_sigma: float = setting(0.09, "spread of body heights (0.09: all adults; give a measured height 0.01)",
                                   unit="m", low=0.001, high=0.5)
    pixel_sigma: float = setting(0.025, "landmark noise across the image, on the body", unit="m", low=0.001, high=0.2)
    direction_sigma: float = setting(0.30, "noise of a bone's direction across the image (world landmarks)",
                                     unit="rad", low=0.01, high=2)
    depth_sigma: float = setting(0.35, "noise of a bone's direction in depth (world landmarks)", unit="rad", low=0.01,
                                 high=2)
    blur_sigma: float = setting(0.3, "extra landmark noise along its motion, as a share of the path in the exposure",
                                low=0, high=2)
    outlier: float = setting(3.0, "residual beyond which a landmark or bone loses influence", unit="sigma", low=1,
                             high=100)
    inflation: float = setting(1.5, "factor on the standard deviations that the noise model implies, for what it does "
                               "not know (measured: body differences, lasting errors of the network)", low=0.1, high=20)
    iterations: int = setting(4, "largest number of steps from the pose of the frame before", low=1, high=100)
    cold_iterations: int = setting(20, "largest number of steps without one", low=1, high=200)
    shape_frames: int = setting(30, "frames over which the body's shape is estimated before it is frozen", low=0,
                                high=100000)
    shape_correlation: float = setting(10.0, "frames that tell as much about the shape as one independent frame would",
                                       low=1, high=1000)


@dataclass(frozen=True)
class InitialiserSettings:
    """Landmarks of one person, registered to the body model."""

    kind: str = setting("vibe", "registration of the landmarks alone; fused with the temporal network that reads "
                        "landmarks (vibe); or with the image network of official weights (vibe_image)",
                        choices=("landmarks", "vibe", "vibe_image"))
    network: str = setting("", "TorchScript file of the temporal network; empty: the one that comes with the package")
    hindsight_network: str = setting("", "TorchScript file of the bidirectional network that reads a whole recording "
                                     "(blur-motion fit, kind = vibe); empty: the one that comes with the package")
    hindsight_views: bool = setting(True, "look at every frame of a recording eight more times, cut differently and "
                                    "mirrored (blur-motion fit)")
    hindsight_landmarks: str = setting("blur", "a second landmark network that is asked, in those eight views, which "
                                       "way the person faces: blur, full, heavy, best, or a TFLite file; empty: none")
    person: PersonSettings = field(default_factory=PersonSettings)
    registration: RegistrationSettings = field(default_factory=RegistrationSettings)
