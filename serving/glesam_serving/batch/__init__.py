"""Segment many images on a Ray cluster."""
