"""`python -m ros_standin_node [--split]`: the real node process around the stand-in core (see ros_standin)."""

import sys

from blur_motion_ros.nodes import entry

if __name__ == "__main__":
    split = "--split" in sys.argv
    if split:
        sys.argv.remove("--split")
    import ros_standin

    from blur_motion_ros.nodes import engine

    engine.PipelineEngine = ros_standin.Standin
    sys.exit(entry.fitting() if split else entry.pipeline())
