"""Segment pictures that are larger than what the encoder sees, in tiles that overlap."""
