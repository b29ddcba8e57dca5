"""Quantize a float bundle to INT8 or FP8 with explicit Q/DQ nodes.

manifest, comparison = calibrate(bundle, folder, data, Recipe("int8"), talk)   # calibrator

`calibrator` calls the other modules in this order: calibration_set (which images, at which level),
activations (statistics of what flows into each layer), quantize (the graphs), yardstick (how far
the result lies from the float bundle).
"""
