"""Intrinsics, distortion, crops, and the exposure interval of an image.

camera.py: `Camera`, `Crop`.  load.py: cameras from CameraInfo values and files.  sampling.py: crops of images.
exposure.py: stamps -> `Exposure`, `ClockJump`.  settings.py: `CameraSettings`.
"""
