"""Sub-frame rendering and image formation."""
