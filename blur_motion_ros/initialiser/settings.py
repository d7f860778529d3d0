"""Settings of the initialiser: person, landmarks, registration."""

from __future__ import annotations

from dataclasses import dataclass, field

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class PersonSettings:
    """Finding one person and keeping to them (BlazePose)."""

    threads: int = setting(1, "threads of the pose networks", low=1, high=16)
    select: str = setting("largest", "whom to follow when several people are found: the largest, the one nearest to "
                          "the person followed before, or the one nearest to target_x, target_y",
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
    mask: bool = setting(True, "compute the person mask (0.5 ms)")


@dataclass(frozen=True)
class InitialiserSettings:
    """Landmarks of one person, registered to the body model."""

    person: PersonSettings = field(default_factory=PersonSettings)
