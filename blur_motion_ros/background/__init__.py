"""Frame buffer and clean plate."""
