"""Settings of the ROS side: topics' quality of service, what is published, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from blur_motion_ros.settings import setting


@dataclass(frozen=True)
class RosSettings:
    """How the nodes talk to the graph. Topic names are ordinary ROS names: remap them."""

    reliability: str = setting("best_effort", "quality of service of the image subscription; a reliable subscriber "
                               "never hears a best-effort publisher", choices=("best_effort", "reliable"))
    queue_depth: int = setting(2, "images kept by the middleware before the node takes them", unit="messages",
                               low=1, high=100)
    calibration: str = setting("", "calibration file used instead of CameraInfo (camera_info .yaml, meta.json, .toml); "
                               "empty: wait for CameraInfo")
    body_id: str = setting("b0", "identifier of the tracked body in topic and frame names (REP-155; a letter first)")
    output_frame: str = setting("", "frame id written into outputs; empty: the camera's own frame id")
    publish_skeleton: bool = setting(True, "publish the speed-coloured skeleton markers (only while someone "
                                     "subscribes)", dynamic=True)
    publish_mesh: bool = setting(True, "publish the body mesh marker (only while someone subscribes)", dynamic=True)
    mesh_colours: bool = setting(True, "paint the mesh marker with the person's colours as fitted; false: plain blue",
                                 dynamic=True)
    publish_cloud: bool = setting(True, "publish the predicted body at 'now' as a point cloud (only while someone "
                                  "subscribes)", dynamic=True)
    publish_tf: bool = setting(False, "broadcast body_<id> and joint frames (needs tf2_msgs)")
    mesh_lod: str = setting("display", "level of detail of the published mesh", choices=("fit", "display", "full"))
    max_colour_speed: float = setting(6.0, "joint speed drawn in the last colour of the map", unit="m/s", low=0.1,
                                      high=30.0, dynamic=True)
    diagnostics_period: float = setting(1.0, "time between diagnostics messages", unit="s", low=0.1, high=60.0)
    stale_after: float = setting(1.0, "no image for this long is reported as a stale camera", unit="s", low=0.1,
                                 high=60.0, dynamic=True)
    camera_info_timeout: float = setting(2.0, "images without a CameraInfo for this long are reported", unit="s",
                                         low=0.1, high=60.0)
    hurry_after: float = setting(0.6, "a fit that has taken this share of the time between images takes only the steps "
                                 "that it must: a rougher estimate instead of a dropped image (0: never hurry)",
                                 low=0.0, high=10.0)
    warm_up: bool = setting(True, "compile and load everything before the first image")
