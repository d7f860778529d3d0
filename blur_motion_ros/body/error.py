"""What goes wrong with body files."""


class BodyError(ValueError):
    """A body file is missing, unreadable or not in SMPL format. The message names the file, the key and the fix."""
