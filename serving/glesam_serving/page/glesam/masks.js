/**
 * Choose among the decoder's masks, upscale them to the size of the image, and encode them.
 *
 * SAM upscales in two bilinear steps and crops the padding between them; SAM 2 upscales in one. Both
 * are linear, so each pixel of an axis is a weighted sum of at most four neighbouring logits.
 */
import { part } from "./tensor.js";

/**
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./image.js").Geometry} Geometry
 * @typedef {import("./manifest.js").Postprocessing} Postprocessing
 *
 * @typedef {object} Axis For each pixel of an axis the logits that it is computed from
 * @property {Int32Array} first index of the first of four logits
 * @property {Float32Array} weights [pixels, 4]
 *
 * @typedef {object} Mask A binary mask
 * @property {Uint8Array} data [height * width] in reading order, 1 on the mask
 * @property {number} width in pixels
 * @property {number} height in pixels
 * @property {number} area number of pixels of the mask
 * @property {number} stability area above threshold + offset, divided by area above threshold - offset
 */

const TAPS = 4;

/**
 * Select one or three of the four masks of each prompt.
 * @param {Tensor} lowRes logits [B, 4, S/4, S/4]
 * @param {Tensor} iou predicted IoU [B, 4]
 * @param {boolean} multimask true returns all masks but the first; false returns the first, or the best of
 *   the others where the first is less stable than the rules require
 * @param {Postprocessing} rules
 * @returns {{lowRes: Tensor, iou: Tensor}} [B, C, S/4, S/4] and [B, C]; C is 3 with `multimask`, else 1
 */
export function choose(lowRes, iou, multimask, rules) {
  const [count, , height, width] = lowRes.shape;
  const size = height * width;
  const kept = multimask ? 3 : 1;
  const logits = new Float32Array(count * kept * size);
  const scores = new Float32Array(count * kept);
  for (let prompt = 0; prompt < count; prompt++) {
    const mask = part(lowRes, prompt).data;
    const score = part(iou, prompt).data;
    const first = multimask ? 1 : single(mask.subarray(0, size), score, rules);
    logits.set(mask.subarray(first * size, (first + kept) * size), prompt * kept * size);
    scores.set(score.subarray(first, first + kept), prompt * kept);
  }
  return {
    lowRes: { data: logits, shape: [count, kept, height, width] },
    iou: { data: scores, shape: [count, kept] },
  };
}

/**
 * Return the index of the mask that answers a prompt alone.
 * @param {Float32Array} logits of the first mask
 * @param {Float32Array} score predicted IoU of the four masks
 * @param {Postprocessing} rules
 */
function single(logits, score, { stability }) {
  if (!stability) return 0;
  let inner = 0, outer = 0;
  for (let at = 0; at < logits.length; at++) {
    if (logits[at] > stability.offset) inner++;
    if (logits[at] > -stability.offset) outer++;
  }
  const steadiness = outer > 0 ? Math.fround(inner / outer) : 1;
  if (steadiness >= Math.fround(stability.threshold)) return 0;
  let best = 1;
  for (let mask = 2; mask < score.length; mask++) if (score[mask] > score[best]) best = mask;
  return best;
}

/**
 * Return logits for the mask prompt of a later call, clipped if the rules have a limit.
 * @param {Tensor} lowRes
 * @param {Postprocessing} rules
 * @returns {Tensor}
 */
export function forMaskInput(lowRes, { low_res_limit: limit }) {
  if (limit === null || limit === undefined) return lowRes;
  return { data: lowRes.data.map((logit) => Math.max(-limit, Math.min(limit, logit))), shape: lowRes.shape };
}

/**
 * Upscale logits to the size of the image.
 * @param {Tensor} lowRes [S/4, S/4]
 * @param {Geometry} geometry
 * @param {Postprocessing} rules
 * @returns {Tensor} [H, W]
 */
export function upscale(lowRes, geometry, rules) {
  const [height, width] = geometry.original;
  const data = new Float32Array(height * width);
  eachRow(lowRes, geometry, rules, (y, row) => data.set(row, y * width));
  return { data, shape: [height, width] };
}

/**
 * Compute a mask and its stability at the size of the image.
 * @param {Tensor} lowRes logits [S/4, S/4]
 * @param {Geometry} geometry
 * @param {Postprocessing} rules
 * @returns {Mask}
 */
export function binarize(lowRes, geometry, rules) {
  const [height, width] = geometry.original;
  const data = new Uint8Array(height * width);
  const threshold = rules.mask_threshold;
  const high = threshold + rules.stability_offset;
  const low = threshold - rules.stability_offset;
  let area = 0, inner = 0, outer = 0;
  eachRow(lowRes, geometry, rules, (y, row) => {
    const start = y * width;
    for (let x = 0; x < width; x++) {
      const logit = row[x];
      if (!(logit > low)) continue;
      outer++;
      if (logit > high) inner++;
      if (logit > threshold) {
        area++;
        data[start + x] = 1;
      }
    }
  });
  return { data, width, height, area, stability: inner / Math.max(outer, 1) };
}

/**
 * Compute the logits of the image row by row.
 * @param {Tensor} lowRes
 * @param {Geometry} geometry
 * @param {Postprocessing} rules
 * @param {(y: number, row: Float32Array) => void} take called with each row, whose array is used again
 */
function eachRow(lowRes, geometry, rules, take) {
  const side = lowRes.shape[1];
  const [height, width] = geometry.original;
  const direct = rules.upscale === "bilinear_direct";
  const down = axisOf(side, direct ? null : [geometry.imageSize, geometry.resized[0]], height);
  const across = axisOf(side, direct ? null : [geometry.imageSize, geometry.resized[1]], width);
  const wide = new Float32Array(side * width);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < width; x++) {
      const from = y * side + across.first[x];
      let sum = 0;
      for (let i = 0; i < TAPS; i++) {
        const weight = across.weights[x * TAPS + i];
        if (weight !== 0) sum += weight * lowRes.data[from + i];
      }
      wide[y * width + x] = sum;
    }
  }
  const row = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    row.fill(0);
    for (let i = 0; i < TAPS; i++) {
      const weight = down.weights[y * TAPS + i];
      if (weight === 0) continue;
      const from = (down.first[y] + i) * width;
      for (let x = 0; x < width; x++) row[x] += weight * wide[from + x];
    }
    take(y, row);
  }
}

/**
 * Return how each pixel of an axis is computed from logits.
 * @param {number} side number of logits
 * @param {[number, number] | null} between the size after the first of two steps and what the crop leaves
 *   of it; null for a single step
 * @param {number} size number of pixels
 * @returns {Axis}
 */
function axisOf(side, between, size) {
  const axis = { first: new Int32Array(size), weights: new Float32Array(size * TAPS) };
  const sums = new Float64Array(TAPS);
  for (let at = 0; at < size; at++) {
    const outer = lerp(between ? between[1] : side, size, at);
    const steps = between ? [lerp(side, between[0], outer.left), lerp(side, between[0], outer.right)] : [];
    const first = between ? steps[0].left : outer.left;
    sums.fill(0);
    if (between) {
      [1 - outer.weight, outer.weight].forEach((share, index) => {
        const { left, right, weight } = steps[index];
        if (share === 0) return;
        sums[left - first] += share * (1 - weight);
        sums[right - first] += share * weight;
      });
    } else {
      sums[0] = 1 - outer.weight;
      sums[outer.right - first] += outer.weight;
    }
    axis.first[at] = first;
    axis.weights.set(sums, at * TAPS);
  }
  return axis;
}

/**
 * Return the two neighbours of a pixel in bilinear resizing, and the weight of the right one.
 *
 * Pixel centres are at half pixels, and positions beyond the edges are clamped.
 * @param {number} sizeIn @param {number} sizeOut @param {number} at
 */
function lerp(sizeIn, sizeOut, at) {
  const centre = Math.max((at + 0.5) * (sizeIn / sizeOut) - 0.5, 0);
  const left = Math.min(Math.floor(centre), sizeIn - 1);
  return { left, right: Math.min(left + 1, sizeIn - 1), weight: centre - left };
}

/**
 * Return the tight box of a mask: x0, y0, x1, y1, the last two the first outside; zeros for an empty mask.
 * @param {Mask} mask
 * @returns {[number, number, number, number]}
 */
export function boxOf({ data, width, height }) {
  let x0 = width, y0 = height, x1 = 0, y1 = 0;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!data[at]) continue;
      if (x < x0) x0 = x;
      if (x >= x1) x1 = x + 1;
      if (y < y0) y0 = y;
      y1 = y + 1;
    }
  }
  return x1 === 0 ? [0, 0, 0, 0] : [x0, y0, x1, y1];
}
