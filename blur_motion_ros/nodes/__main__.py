"""`python -m blur_motion_ros.nodes pipeline|camera|fitting|player [--ros-args ...]`."""

import sys

from blur_motion_ros.nodes import entry

if __name__ == "__main__":
    nodes = {"pipeline": entry.pipeline, "camera": entry.camera, "fitting": entry.fitting, "player": entry.player}
    if len(sys.argv) < 2 or sys.argv[1] not in nodes:
        sys.exit(f"usage: python -m blur_motion_ros.nodes {'|'.join(nodes)} [--ros-args ...]")
    sys.exit(nodes[sys.argv.pop(1)]())
