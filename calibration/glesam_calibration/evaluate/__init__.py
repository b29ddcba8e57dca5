"""How well segmenters do on images of every quality, by one protocol for all of them.

rows = evaluate(bundle_segmenters(open_bundle("bundle")), open_dataset("scenes:100"))
print(markdown(Results("my model", "scenes:100", 0, tuple(rows))))

Free of torch: anything with `set_image` and `segment` can be evaluated.
"""

from glesam_calibration.evaluate.conditions import CONDITIONS, parse_conditions
from glesam_calibration.evaluate.metrics import dice, iou, pixel_accuracy
from glesam_calibration.evaluate.plot import draw
from glesam_calibration.evaluate.prompt_kinds import parse_prompt_kinds
from glesam_calibration.evaluate.protocol import Plan, Row, Segmenter, evaluate
from glesam_calibration.evaluate.report import describe_model, markdown
from glesam_calibration.evaluate.results import Mean, Results, read_results
from glesam_calibration.evaluate.segmenters import (
    BundleStages,
    SharedEncoder,
    StagedSegmenter,
    Stages,
    bundle_segmenters,
    with_and_without,
)

__all__ = [
    "CONDITIONS",
    "BundleStages",
    "Mean",
    "Plan",
    "Results",
    "Row",
    "Segmenter",
    "SharedEncoder",
    "StagedSegmenter",
    "Stages",
    "bundle_segmenters",
    "describe_model",
    "dice",
    "draw",
    "evaluate",
    "iou",
    "markdown",
    "parse_conditions",
    "parse_prompt_kinds",
    "pixel_accuracy",
    "read_results",
    "with_and_without",
]
