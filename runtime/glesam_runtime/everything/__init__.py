"""Segment everything in an image: prompt a grid of points, and keep the good masks."""
