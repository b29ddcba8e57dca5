"""Measures everything that a GPU can tell in one run of a few minutes.

`pack` collects what the GPU machine needs, `start` unpacks it there, `run` runs the parts of a
`plan`, and `page` makes the tables of docs/gpu.md from the JSON that comes back.
"""
