/**
 * Turn an image into the encoder's input tensor, with the same bits as the Python runtime.
 */
import { InputError } from "./errors.js";
import { resizeFixedPoint, resizeFloat } from "./resample.js";

/**
 * @typedef {import("./tensor.js").Pixels} Pixels
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./manifest.js").Preprocessing} Preprocessing
 *
 * @typedef {object} Geometry The position of an image in the encoder's square input; sizes are [height, width]
 * @property {number} imageSize S, the side of the square in pixels
 * @property {[number, number]} resized the part of the square that the image fills, from its top left corner
 * @property {[number, number]} original the size of the image before resizing
 */

const MEGAPIXEL = 2 ** 20;
const MAX_MEGAPIXELS = 512; // as the Python runtime's default
const MAX_SIDE = 2 ** 24;

/**
 * Refuse an image whose size or data cannot be used.
 * @param {Pixels} image
 */
export function checkImage(image) {
  const { data, width, height } = image;
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw new InputError(`image: ${width} x ${height} pixels, but it needs at least 1 x 1`);
  }
  if (width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_MEGAPIXELS * MEGAPIXEL) {
    throw new InputError(
      `image: ${width} x ${height} pixels, more than the limit of ${MAX_MEGAPIXELS} megapixels; use a smaller version`,
    );
  }
  const isBytes = data instanceof Uint8Array || data instanceof Uint8ClampedArray;
  if (!isBytes || ![3, 4].includes(data.length / (width * height))) {
    throw new InputError(
      `image: data must be a Uint8Array of RGB or RGBA for ${width} x ${height} pixels; getImageData() of a canvas returns such an image`,
    );
  }
}

/**
 * Return the position of an image in the encoder's input.
 * @param {number} height of the image in pixels
 * @param {number} width
 * @param {{image_size: number, resize: "longest_side" | "square"}} rules
 * @returns {Geometry}
 */
export function geometryOf(height, width, { image_size: size, resize }) {
  const scale = size / Math.max(height, width);
  /** @param {number} side */
  const scaled = (side) => Math.max(1, Math.floor(side * scale + 0.5));
  /** @type {[number, number]} */
  const resized = resize === "square" ? [size, size] : [scaled(height), scaled(width)];
  return { imageSize: size, resized, original: [height, width] };
}

/**
 * Resize, normalise and pad an image as the manifest says.
 * @param {Pixels} image
 * @param {Preprocessing} rules
 * @returns {{tensor: Tensor, geometry: Geometry}} the tensor is [1, 3, S, S]
 */
export function preprocess(image, rules) {
  checkImage(image);
  const size = rules.image_size;
  const geometry = geometryOf(image.height, image.width, rules);
  const [height, width] = geometry.resized;
  const first = rules.first_resize;
  const start = first ? resizeFixedPoint(image, first.size, first.size, "bicubic") : image;
  let values, channels;
  if (rules.kernel === "float_bilinear") {
    values = resizeFloat(start, height, width);
    channels = 3;
  } else {
    values = resizeFixedPoint(start, height, width, "bilinear").data;
    channels = values.length / (height * width);
  }
  const data = new Float32Array(3 * size * size);
  for (let channel = 0; channel < 3; channel++) {
    // float32 arithmetic: each step is rounded, as in Python.
    const mean = Math.fround(rules.mean[channel]);
    const std = Math.fround(rules.std[channel]);
    for (let y = 0; y < height; y++) {
      let to = (channel * size + y) * size;
      let from = y * width * channels + channel;
      for (let x = 0; x < width; x++, to++, from += channels) data[to] = Math.fround(values[from] - mean) / std;
    }
  }
  return { tensor: { data, shape: [1, 3, size, size] }, geometry };
}
