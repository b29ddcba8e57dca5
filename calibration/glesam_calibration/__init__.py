"""Post-training quantization: a float bundle to one with explicit Q/DQ.

plan = make_plan(bundle, images, samples=64, seed=0)      # images: which images, at which level
statistics = observe(bundle, plan, state)                 # observe: what flows into each layer
write_quantized(bundle, statistics, recipe, folder)       # quantize: the graphs
report = compare(bundle, quantized, cases)                # accuracy: what it costs
"""
