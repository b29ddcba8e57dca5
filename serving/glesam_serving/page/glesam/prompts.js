/**
 * Check points, boxes and mask prompts, and turn them into the decoder's input tensors.
 */
import { InputError } from "./errors.js";
import { elements, isFinite32 } from "./tensor.js";

/**
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./tensor.js").Tensors} Tensors
 * @typedef {import("./image.js").Geometry} Geometry
 * @typedef {import("./manifest.js").Coordinates} Coordinates
 *
 * @typedef {object} Prompt What `predict` takes, for one prompt or, with a leading axis, for B prompts
 * @property {number[][] | number[][][] | null} [point_coords] [N, 2] or [B, N, 2], (x, y) in pixels of the image
 * @property {number[] | number[][] | null} [point_labels] [N] or [B, N]: 1 object, 0 background, -1 no point
 * @property {number[] | number[][] | null} [box] [4] or [B, 4], x0, y0, x1, y1 in pixels of the image
 * @property {Tensor | null} [mask_input] [1, S/4, S/4] or [B, 1, S/4, S/4], logits of an earlier prediction
 *
 * @typedef {object} PromptBatch B checked prompts, all with the same kinds of input
 * @property {number} size B
 * @property {number[][][]} points [B, N, 2]; N may be 0
 * @property {number[][]} labels [B, N]
 * @property {number[][] | null} boxes [B, 4]
 * @property {Float32Array | null} masks [B, 1, S/4, S/4]
 */

const BOX_CORNERS = [2, 3];
const PADDING = -1;
const MAX_PROMPTS = 10_000; // as the Python runtime's defaults
const MAX_POINTS = 4096;

/**
 * Check one prompt or B prompts against an image.
 *
 * A point may lie on the image's right or lower edge. A box must touch the image and may extend
 * beyond it on each side, by at most the image's width or height.
 * @param {Geometry} geometry
 * @param {Prompt} prompt
 * @returns {PromptBatch}
 */
export function checkPrompts(geometry, { point_coords, point_labels, box, mask_input }) {
  if (Boolean(point_coords) !== Boolean(point_labels)) {
    throw new InputError(point_coords ? "points are given without labels" : "labels are given without points");
  }
  const points = point_coords ? /** @type {number[][][]} */ (batched(point_coords, 2, "points")) : null;
  const labels = point_labels ? /** @type {number[][]} */ (batched(point_labels, 1, "labels")) : null;
  const boxes = box ? /** @type {number[][]} */ (batched(box, 1, "box")) : null;
  /** @type {Map<string, number>} */
  const sizes = new Map();
  if (points && labels) sizes.set("points", checkPoints(points, labels, geometry));
  if (boxes) sizes.set("boxes", checkBoxes(boxes, geometry));
  const mask = mask_input ? checkMask(mask_input, geometry.imageSize / 4) : null;
  if (mask && !(mask.count === 1 && sizes.size > 0)) sizes.set("masks", mask.count);
  if (new Set(sizes.values()).size > 1) {
    throw new InputError(`batch sizes do not match: ${[...sizes].map(([name, count]) => `${count} ${name}`).join(", ")}`);
  }
  const [size] = sizes.values();
  if (size === undefined || (size > 0 && !points?.[0]?.length && !boxes && !mask)) {
    throw new InputError("no prompt: give points, a box or a mask");
  }
  if (size > MAX_PROMPTS) throw new InputError(`${size} prompts, more than the limit of ${MAX_PROMPTS}`);
  let masks = mask?.data ?? null;
  if (mask && mask.count !== size) {
    masks = new Float32Array(size * mask.data.length);
    for (let index = 0; index < size; index++) masks.set(mask.data, index * mask.data.length);
  }
  const empty = Array.from({ length: size }, () => []);
  return { size, points: points ?? empty, labels: labels ?? empty, boxes, masks };
}

/**
 * Return the decoder's four prompt inputs, with tokens in the order of SAM's prompt encoder.
 *
 * The points come first, then the two corners of the box, then a padding point if the prompt has
 * points only or `rules.box` asks for one. A mask alone has no tokens: P is 0.
 * @param {PromptBatch} prompts
 * @param {Geometry} geometry
 * @param {Coordinates} rules
 * @returns {Tensors}
 */
export function promptTensors(prompts, geometry, rules) {
  const [height, width] = geometry.original;
  const scaleX = geometry.resized[1] / width;
  const scaleY = geometry.resized[0] / height;
  const isPadded = prompts.boxes ? rules.box === "two_points_padded" : prompts.points[0]?.length > 0;
  const tokens = (prompts.points[0]?.length ?? 0) + (prompts.boxes ? 2 : 0) + (isPadded ? 1 : 0);
  const coords = new Float32Array(prompts.size * tokens * 2);
  const labels = new Float32Array(prompts.size * tokens);
  let at = 0;
  /** @param {number} x @param {number} y @param {number} label */
  const add = (x, y, label) => {
    coords[2 * at] = x * scaleX;
    coords[2 * at + 1] = y * scaleY;
    labels[at++] = label;
  };
  for (let index = 0; index < prompts.size; index++) {
    prompts.points[index].forEach(([x, y], number) => {
      const label = prompts.labels[index][number];
      add(label === PADDING ? 0 : x, label === PADDING ? 0 : y, label);
    });
    const box = prompts.boxes?.[index];
    if (box) BOX_CORNERS.forEach((label, corner) => add(box[2 * corner], box[2 * corner + 1], label));
    if (isPadded) add(0, 0, PADDING);
  }
  const side = geometry.imageSize / 4;
  return {
    point_coords: { data: coords, shape: [prompts.size, tokens, 2] },
    point_labels: { data: labels, shape: [prompts.size, tokens] },
    mask_input: { data: prompts.masks ?? new Float32Array(prompts.size * side * side), shape: [prompts.size, 1, side, side] },
    has_mask_input: { data: new Float32Array([prompts.masks ? 1 : 0]), shape: [1] },
  };
}

/**
 * Split prompts in order into batches of at most `most`.
 * @param {PromptBatch} prompts
 * @param {number} most
 * @returns {PromptBatch[]}
 */
export function split(prompts, most) {
  const mask = prompts.masks ? prompts.masks.length / prompts.size : 0;
  const parts = [];
  for (let start = 0; start < prompts.size; start += most) {
    const stop = Math.min(prompts.size, start + most);
    parts.push({
      size: stop - start,
      points: prompts.points.slice(start, stop),
      labels: prompts.labels.slice(start, stop),
      boxes: prompts.boxes?.slice(start, stop) ?? null,
      masks: prompts.masks?.subarray(start * mask, stop * mask) ?? null,
    });
  }
  return parts;
}

/**
 * Return a value of one prompt, which has `axes` axes, or of B prompts with the axis B.
 *
 * An empty list holds no points of one prompt, or no boxes.
 * @param {any} value @param {number} axes @param {string} name
 */
function batched(value, axes, name) {
  if (!Array.isArray(value)) throw new InputError(`${name}: not an array of numbers`);
  if (value.length === 0) return name === "points" || name === "labels" ? [[]] : [];
  let depth = 0;
  for (let each = value; Array.isArray(each); each = each[0]) depth++;
  // The points of each prompt may be an empty list.
  if (depth !== axes && depth !== axes + 1 && !(name === "points" && depth === axes)) {
    throw new InputError(`${name}: ${depth} axes; use ${axes} for one prompt or ${axes + 1} for a batch`);
  }
  return depth === axes ? [value] : value;
}

/** @param {number[][][]} points @param {number[][]} labels @param {Geometry} geometry */
function checkPoints(points, labels, { original: [height, width] }) {
  const count = points[0].length;
  if (count > MAX_POINTS) throw new InputError(`points: ${count} in one prompt, more than the limit of ${MAX_POINTS}`);
  if (labels.length !== points.length || labels.some((each) => each.length !== count) || points.some((each) => each.length !== count)) {
    throw new InputError("labels: their shape does not match the points");
  }
  points.forEach((each, index) =>
    each.forEach((point, number) => {
      const label = labels[index][number];
      if (![1, 0, PADDING].includes(label)) {
        throw new InputError(`label ${label} of point ${point}: must be 1 (object), 0 (background) or -1 (no point)`);
      }
      if (!Array.isArray(point) || point.length !== 2) throw new InputError("points: shape [N, 2] or [B, N, 2] is needed");
      if (label === PADDING) return;
      const [x, y] = point;
      if (!Number.isFinite(x) || !Number.isFinite(y)) throw new InputError("points: holds NaN or infinity");
      if (x < 0 || x > width || y < 0 || y > height) {
        throw new InputError(`point ${x},${y} lies outside the image of ${width} x ${height} pixels`);
      }
    }),
  );
  return points.length;
}

/** @param {number[][]} boxes @param {Geometry} geometry */
function checkBoxes(boxes, { original: [height, width] }) {
  for (const box of boxes) {
    if (box.length !== 4) throw new InputError("box: shape [4] or [B, 4] is needed: x0, y0, x1, y1");
    if (!box.every(Number.isFinite)) throw new InputError("box: holds NaN or infinity");
    const [left, right] = [Math.min(box[0], box[2]), Math.max(box[0], box[2])];
    const [top, bottom] = [Math.min(box[1], box[3]), Math.max(box[1], box[3])];
    const size = `the image of ${width} x ${height} pixels`;
    if (right < 0 || bottom < 0 || left > width || top > height) throw new InputError(`box ${box} lies outside ${size}`);
    if (left < -width || top < -height || right > 2 * width || bottom > 2 * height) {
      throw new InputError(`box ${box} extends too far beyond ${size}`);
    }
  }
  return boxes.length;
}

/** @param {Tensor} mask @param {number} side */
function checkMask({ data, shape }, side) {
  const full = shape.length === 3 ? [1, ...shape] : [...shape];
  const fits = full.length === 4 && full[1] === 1 && full[2] === side && full[3] === side && data.length === elements(full);
  if (!fits) {
    throw new InputError(
      `mask prompt: shape [${shape}], but [1, ${side}, ${side}] or [B, 1, ${side}, ${side}] is needed: low_res_masks of an earlier prediction`,
    );
  }
  if (!isFinite32(data)) {
    throw new InputError("mask prompt: holds NaN or infinity, from which the decoder computes NaN everywhere; clip the logits, for example to -32 ... 32");
  }
  return { data, count: full[0] };
}
