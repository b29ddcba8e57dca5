"""Measure how well segmenters do on clear and degraded images, by one protocol for all of them.

from glesam_evaluation.datasets import open_dataset
from glesam_evaluation.protocol import evaluate
from glesam_evaluation.results import Results, markdown
from glesam_evaluation.segmenters import bundle_segmenters

rows = evaluate(bundle_segmenters(open_bundle("bundle")), open_dataset("scenes:100"))
print(markdown(Results("my model", "scenes:100", 0, tuple(rows))))

The package does not need torch. Any object with `set_image` and `segment` can be evaluated.
"""
