/**
 * Resize an image in the two ways that bundles use, with the same bits as the Python runtime.
 *
 * `resizeFixedPoint` is Pillow's filter on bytes. `resizeFloat` is the antialiased filter of SAM 2,
 * whose weights are multiples of 2^-28 and whose result of the first axis is rounded to multiples of
 * 2^-17. So each of its sums is exact in the 53 bits of a number, in any order of addition.
 */

/**
 * @typedef {import("./tensor.js").Pixels} Pixels
 * @typedef {"bilinear" | "bicubic"} Kernel
 *
 * @typedef {object} Taps The weights of each output pixel of an axis
 * @property {number} span number of weights that are stored for an output pixel
 * @property {Int32Array} first the first input pixel of each output pixel
 * @property {Int32Array} count number of weights of each output pixel
 * @property {Int32Array} weights [output pixels, span]
 */

const BITS = 22; // fraction bits of a weight; 8 bits of a pixel and 2 of headroom make 32
const HALF = 1 << (BITS - 1);
const UNITS = 2 ** 28; // the weights of an output pixel of the float filter add up to it
const FRACTIONS = 2 ** 17; // the result of its first axis is rounded to 1 / FRACTIONS
const ROUND = 2 ** 52; // adding and subtracting it rounds a number below it, half to even

/** @type {{[kernel in Kernel]: {width: number, at: (x: number) => number}}} */
const KERNELS = {
  bilinear: { width: 1, at: (x) => (x < 1 ? 1 - x : 0) },
  bicubic: {
    width: 2,
    at: (x) => {
      const a = -0.5;
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

/**
 * Resize with a filter of Pillow.
 *
 * The result is rounded between the axes, so their order matters: the width comes first, or the
 * height if it loses more than twice as many pixels as the width.
 * @param {Pixels} image
 * @param {number} height of the result in pixels
 * @param {number} width of the result in pixels
 * @param {Kernel} kernel
 * @returns {Pixels} RGB
 */
export function resizeFixedPoint(image, height, width, kernel) {
  const lostHeight = image.height - height;
  const lostWidth = image.width - width;
  if (lostHeight > 0 && lostHeight > 2 * lostWidth) {
    return resizeWidth(resizeHeight(image, height, kernel), width, kernel);
  }
  return resizeHeight(resizeWidth(image, width, kernel), height, kernel);
}

/**
 * Resize with an antialiased bilinear filter whose result is not rounded to whole numbers.
 * @param {Pixels} image
 * @param {number} height of the result in pixels
 * @param {number} width of the result in pixels
 * @returns {Float32Array} [height, width, 3], 0 to 255
 */
export function resizeFloat(image, height, width) {
  const channels = channelsOf(image);
  const across = floatTaps(image.width, width);
  const down = floatTaps(image.height, height);
  const resized = new Float32Array(height * width * 3);
  /** Rows that are resized to the new width, by their number, in units of 1 / FRACTIONS. @type {Map<number, Int32Array>} */
  const rows = new Map();
  /** @param {number} y */
  const row = (y) => {
    let made = rows.get(y);
    if (!made) {
      made = new Int32Array(width * 3);
      const start = y * image.width * channels;
      for (let x = 0, to = 0; x < width; x++, to += 3) {
        let r = 0, g = 0, b = 0;
        let from = start + across.first[x] * channels;
        const base = x * across.span;
        for (let i = 0; i < across.count[x]; i++, from += channels) {
          const weight = across.weights[base + i];
          r += weight * image.data[from];
          g += weight * image.data[from + 1];
          b += weight * image.data[from + 2];
        }
        made[to] = rounded(r / (UNITS / FRACTIONS));
        made[to + 1] = rounded(g / (UNITS / FRACTIONS));
        made[to + 2] = rounded(b / (UNITS / FRACTIONS));
      }
      rows.set(y, made);
    }
    return made;
  };
  const sums = new Float64Array(width * 3);
  for (let y = 0; y < height; y++) {
    for (const old of rows.keys()) if (old < down.first[y]) rows.delete(old);
    sums.fill(0);
    for (let i = 0; i < down.count[y]; i++) {
      const weight = down.weights[y * down.span + i];
      const from = row(down.first[y] + i);
      for (let x = 0; x < sums.length; x++) sums[x] += weight * from[x];
    }
    const start = y * width * 3;
    for (let x = 0; x < sums.length; x++) resized[start + x] = sums[x] / (UNITS * FRACTIONS);
  }
  return resized;
}

/** Round half to even. @param {number} value 0 or more, and below 2^51 */
function rounded(value) {
  return value + ROUND - ROUND;
}

/** @param {Pixels} image */
function channelsOf(image) {
  return image.data.length / (image.width * image.height);
}

/**
 * Return Pillow's weights in units of 2^-22.
 *
 * The filter lies around the centre of the output pixel. Its unit of width is one output pixel, but
 * at least one input pixel. The part beyond the image is cut off, and the rest is divided by its sum
 * and rounded half away from zero.
 * @param {number} sizeIn @param {number} sizeOut @param {Kernel} kernel
 * @returns {Taps}
 */
function fixedTaps(sizeIn, sizeOut, kernel) {
  const { width, at } = KERNELS[kernel];
  const scale = sizeIn / sizeOut;
  const unit = Math.max(scale, 1);
  const reach = width * unit;
  const taps = emptyTaps(sizeOut, Math.ceil(reach) * 2 + 1);
  const exact = new Float64Array(taps.span);
  for (let out = 0; out < sizeOut; out++) {
    const centre = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const count = Math.min(sizeIn, Math.trunc(centre + reach + 0.5)) - first;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      exact[i] = at(Math.abs((i + first - centre + 0.5) * (1 / unit)));
      sum += exact[i];
    }
    for (let i = 0; i < count; i++) {
      const weight = sum === 0 ? exact[i] : exact[i] / sum;
      taps.weights[out * taps.span + i] = Math.trunc((weight < 0 ? -0.5 : 0.5) + weight * 2 ** BITS);
    }
    taps.first[out] = first;
    taps.count[out] = count;
  }
  return taps;
}

/**
 * Return the float filter's weights in units of 2^-28. What rounding leaves over is added to the
 * first of the largest weights.
 * @param {number} sizeIn @param {number} sizeOut
 * @returns {Taps}
 */
function floatTaps(sizeIn, sizeOut) {
  const scale = sizeIn / sizeOut;
  const reach = Math.max(scale, 1);
  const taps = emptyTaps(sizeOut, Math.ceil(reach) * 2 + 2);
  const exact = new Float64Array(taps.span);
  for (let out = 0; out < sizeOut; out++) {
    const centre = (out + 0.5) * scale;
    const first = Math.trunc(Math.max(centre - reach, 0));
    const count = Math.min(Math.ceil(centre + reach), sizeIn) - first;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      exact[i] = Math.max(1 - Math.abs(first + i + 0.5 - centre) / reach, 0);
      sum += exact[i];
    }
    const base = out * taps.span;
    let left = UNITS;
    let largest = 0;
    for (let i = 0; i < count; i++) {
      taps.weights[base + i] = rounded((exact[i] / sum) * UNITS);
      left -= taps.weights[base + i];
      if (taps.weights[base + i] > taps.weights[base + largest]) largest = i;
    }
    taps.weights[base + largest] += left;
    taps.first[out] = first;
    taps.count[out] = count;
  }
  return taps;
}

/** @param {number} size @param {number} span @returns {Taps} */
function emptyTaps(size, span) {
  return { span, first: new Int32Array(size), count: new Int32Array(size), weights: new Int32Array(size * span) };
}

/** @param {Pixels} image @param {number} width @param {Kernel} kernel @returns {Pixels} */
function resizeWidth(image, width, kernel) {
  if (width === image.width) return image;
  const channels = channelsOf(image);
  const { span, first, count, weights } = fixedTaps(image.width, width, kernel);
  // A clamped array clamps, and rounds only fractions, which a shift does not leave.
  const data = new Uint8ClampedArray(image.height * width * 3);
  for (let y = 0, to = 0; y < image.height; y++) {
    const start = y * image.width * channels;
    for (let x = 0; x < width; x++, to += 3) {
      let r = HALF, g = HALF, b = HALF;
      let from = start + first[x] * channels;
      const base = x * span;
      for (let i = 0; i < count[x]; i++, from += channels) {
        const weight = weights[base + i];
        r += weight * image.data[from];
        g += weight * image.data[from + 1];
        b += weight * image.data[from + 2];
      }
      data[to] = r >> BITS;
      data[to + 1] = g >> BITS;
      data[to + 2] = b >> BITS;
    }
  }
  return { data, width, height: image.height };
}

/** @param {Pixels} image @param {number} height @param {Kernel} kernel @returns {Pixels} */
function resizeHeight(image, height, kernel) {
  if (height === image.height) return image;
  const channels = channelsOf(image);
  const { span, first, count, weights } = fixedTaps(image.height, height, kernel);
  const row = image.width * channels;
  const data = new Uint8ClampedArray(height * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    for (let i = 0; i < count[y]; i++) {
      const weight = weights[y * span + i];
      const from = (first[y] + i) * row;
      for (let x = 0; x < row; x++) sums[x] += weight * image.data[from + x];
    }
    for (let x = 0; x < row; x++) data[y * row + x] = sums[x] >> BITS;
  }
  return { data, width: image.width, height };
}
