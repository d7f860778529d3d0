"""rclpy nodes (thin)."""
