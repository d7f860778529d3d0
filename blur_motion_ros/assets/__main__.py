"""`python -m blur_motion_ros.assets`: fetch every asset now, with progress."""

import sys

from blur_motion_ros.assets import AssetError, fetch_all

if __name__ == "__main__":
    try:
        fetch_all()
    except AssetError as e:
        sys.exit(f"error: {e}")
