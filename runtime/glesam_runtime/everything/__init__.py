"""Everything-mode: a grid of points over the image, and the masks that are good enough."""
