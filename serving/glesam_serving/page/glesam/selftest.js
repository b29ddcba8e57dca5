/**
 * Compare this browser's results with the reference results in a bundle, stage by stage.
 */
import { decode, EMBEDDINGS, encode, enhance } from "./engine.js";
import { preprocess } from "./image.js";
import { binarize } from "./masks.js";
import { part } from "./tensor.js";

/**
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./tensor.js").Tensors} Tensors
 *
 * @typedef {object} Gate Limits of a precision; null is only reported
 * @property {number | null} stage_relative_l2
 * @property {number | null} mask_iou_mean
 * @property {number | null} mask_iou_worst
 *
 * @typedef {object} OutputError The error of one output of a stage, whose input comes from the golden file
 * @property {string} stage
 * @property {string} output
 * @property {number} relative_l2
 * @property {number} max_abs
 *
 * @typedef {object} SelftestResult
 * @property {{engine: string, version: string, provider: string, threads: number}} engine
 * @property {OutputError[]} errors
 * @property {number} mask_iou_mean IoU of the masks of the whole chain, at the image's own size
 * @property {number} mask_iou_worst
 * @property {Gate} gate
 * @property {string[]} failures one line for each figure outside its limit
 * @property {boolean} passed
 */

/** @type {Record<string, Gate>} The limits of the Python runtime, from the finest to the coarsest precision */
const GATES = {
  fp32: { stage_relative_l2: 1e-4, mask_iou_mean: 0.9999, mask_iou_worst: 0.999 },
  bf16: { stage_relative_l2: 2e-2, mask_iou_mean: 0.995, mask_iou_worst: 0.98 },
  fp16: { stage_relative_l2: 2e-2, mask_iou_mean: 0.995, mask_iou_worst: 0.98 },
  fp8: { stage_relative_l2: null, mask_iou_mean: 0.98, mask_iou_worst: 0.95 },
  int8: { stage_relative_l2: null, mask_iou_mean: 0.98, mask_iou_worst: 0.95 },
};

/**
 * Run the golden image and prompts, and compare the results with the golden tensors.
 *
 * With the decoder alone, the masks come from the golden embedding instead of the whole chain.
 * @param {import("./predictor.js").GleSamPredictor} predictor with all three stages or the decoder loaded
 * @returns {Promise<SelftestResult>}
 */
export async function selftest(predictor) {
  const { engine, bundle } = predictor;
  const { manifest } = bundle;
  const stored = await bundle.golden();
  /** @param {string} name @returns {Tensor} */
  const golden = (name) => /** @type {any} */ (stored.get(name));
  /** @param {readonly string[]} names @returns {Tensors} */
  const tensors = (names) => Object.fromEntries(names.map((name) => [name, golden(name)]));
  const [height, width] = golden("image").shape;
  const image = { data: /** @type {any} */ (golden("image").data), width, height };
  const { tensor, geometry } = preprocess(image, manifest.preprocessing);
  const prompts = tensors(["point_coords", "point_labels", "mask_input", "has_mask_input"]);
  const names = manifest.stages.encoder.outputs.map(({ name }) => name);
  const given = tensors(names);

  const isWhole = engine.isLoaded("encoder") && engine.isLoaded("enhancer");
  const reference = { ...given, [EMBEDDINGS]: golden("enhanced_embeddings") };
  const encoded = isWhole ? await encode(engine, tensor) : given;
  const enhanced = isWhole ? await enhance(engine, given) : reference;
  const { lowRes, iou } = await decode(engine, reference, prompts);
  /** @param {string} stage @param {string} output @param {Tensor} actual @returns {OutputError} */
  const compare = (stage, output, actual) => ({
    stage,
    output,
    relative_l2: relativeL2(actual.data, golden(output).data),
    max_abs: maxAbs(actual.data, golden(output).data),
  });
  const errors = [
    ...(isWhole ? names.map((name) => compare("encoder", name, encoded[name])) : []),
    ...(isWhole ? [compare("enhancer", "enhanced_embeddings", enhanced[EMBEDDINGS])] : []),
    compare("decoder", "low_res_masks", lowRes),
    compare("decoder", "iou_predictions", iou),
  ];

  const whole = isWhole ? await decode(engine, await enhance(engine, encoded), prompts) : { lowRes };
  const ious = [];
  for (let prompt = 0; prompt < whole.lowRes.shape[0]; prompt++) {
    for (let mask = 0; mask < whole.lowRes.shape[1]; mask++) {
      const [found, wanted] = [whole.lowRes, golden("low_res_masks")].map((logits) =>
        binarize(part(part(logits, prompt), mask), geometry, manifest.postprocessing),
      );
      ious.push(maskIou(found.data, wanted.data));
    }
  }
  const mean = ious.reduce((sum, each) => sum + each, 0) / ious.length;
  const worst = Math.min(...ious);
  const gate = gateOf(manifest);
  const failures = errors
    .filter(({ relative_l2: error }) => gate.stage_relative_l2 !== null && !(error <= gate.stage_relative_l2))
    .map(({ stage, output, relative_l2: error }) => `${stage} ${output}: relative L2 ${error.toPrecision(3)} exceeds ${gate.stage_relative_l2}`);
  for (const [word, value, limit] of /** @type {const} */ ([["mean", mean, gate.mask_iou_mean], ["worst", worst, gate.mask_iou_worst]])) {
    if (limit !== null && !(value >= limit)) failures.push(`${word} mask IoU ${value.toFixed(5)} is below ${limit}`);
  }
  return {
    engine: engine.description, errors, mask_iou_mean: mean, mask_iou_worst: worst, gate, failures, passed: failures.length === 0,
  };
}

/**
 * Return the limits of the coarsest stage, whose error is in every mask.
 * @param {import("./manifest.js").Manifest} manifest
 * @returns {Gate}
 */
function gateOf({ stages, model }) {
  const order = Object.keys(GATES);
  const coarsest = Object.values(stages).map(({ precision }) => precision).sort((one, other) => order.indexOf(other) - order.indexOf(one))[0];
  const gate = GATES[coarsest];
  // With random weights the logits are noise around zero, and rounding flips their signs.
  return model.trained || coarsest === "fp32" ? gate : { ...gate, mask_iou_mean: null, mask_iou_worst: null };
}

/** @param {Float32Array} actual @param {Float32Array} expected */
function relativeL2(actual, expected) {
  let distance = 0, norm = 0;
  for (let at = 0; at < expected.length; at++) {
    distance += (actual[at] - expected[at]) ** 2;
    norm += expected[at] ** 2;
  }
  if (!Number.isFinite(distance)) return Infinity;
  if (norm === 0) return distance === 0 ? 0 : Infinity;
  return Math.sqrt(distance / norm);
}

/** @param {Float32Array} actual @param {Float32Array} expected */
function maxAbs(actual, expected) {
  let largest = 0;
  for (let at = 0; at < expected.length; at++) {
    const difference = Math.abs(actual[at] - expected[at]);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}

/** @param {Uint8Array} one @param {Uint8Array} other */
function maskIou(one, other) {
  let union = 0, both = 0;
  for (let at = 0; at < one.length; at++) {
    union += one[at] | other[at];
    both += one[at] & other[at];
  }
  return union ? both / union : 1;
}
