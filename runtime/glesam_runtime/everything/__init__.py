"""Segment everything: a grid of points over the image, and the good masks among the answers."""
