"""`python -m ros_standin_node [--split]`: the real node process around the stand-in core."""

import sys

from blur_motion_ros.nodes import entry

if __name__ == "__main__":
    split = "--split" in sys.argv
    if split:
        sys.argv.remove("--split")
    sys.exit(entry.run_node("ros_standin_classes", "FittingStandin" if split else "PipelineStandin"))
