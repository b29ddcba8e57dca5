"""What a bundle is calibrated and proved on: degraded images, and scenes whose masks are known."""
