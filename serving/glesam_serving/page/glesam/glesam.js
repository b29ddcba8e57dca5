/**
 * Run a GleSAM bundle in a browser or in Node: `openBundle`, `GleSamPredictor`, `selftest`.
 *
 *     import * as ort from "./ort/ort.wasm.min.mjs";
 *     import { GleSamPredictor, openBundle } from "./glesam/glesam.js";
 *
 *     const bundle = await openBundle("bundle/");
 *     const predictor = await GleSamPredictor.load(bundle, { ort });
 *     await predictor.setImage(imageData);
 *     const { masks } = await predictor.predict({ point_coords: [[245, 300]], point_labels: [1] });
 */
export { Bundle, openBundle } from "./bundle.js";
export { BundleError, EngineError, InputError } from "./errors.js";
export { preprocess } from "./image.js";
export { binarize, boxOf, upscale } from "./masks.js";
export { GleSamPredictor } from "./predictor.js";
export { encodeRle } from "./rle.js";
export { selftest } from "./selftest.js";
