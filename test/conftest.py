"""One thread per library in the tests, as in the product (see `blur_motion_ros.threads`)."""

from blur_motion_ros import threads

threads.limit()
