/**
 * Decode COCO's compressed run lengths, and compare masks. Knows no DOM.
 *
 * Runs go down the columns of the picture and alternate between background and mask.
 */

/**
 * @typedef {object} Rle
 * @property {[number, number]} size height and width in pixels
 * @property {string} counts run lengths in COCO's compressed format
 */

const OFFSET = 48;
const MORE = 0x20;
const SIGN = 0x10;

/**
 * Return the run lengths of a mask.
 * @param {Rle} rle
 * @returns {number[]} lengths in pixels; the first run is background
 */
export function runLengths(rle) {
  const runs = [];
  let at = 0;
  while (at < rle.counts.length) {
    let value = 0;
    let bits = 0;
    let group;
    do {
      group = rle.counts.charCodeAt(at++) - OFFSET;
      value |= (group & 0x1f) << bits;
      bits += 5;
    } while (group & MORE);
    if (group & SIGN && bits < 32) value |= -1 << bits;
    // From the fourth run on, the number is the difference from the run two before.
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/**
 * Return a mask's pixels in reading order.
 * @param {Rle} rle
 * @returns {Uint8Array} [height * width], 1 on the mask
 */
export function maskPixels(rle) {
  const [height, width] = rle.size;
  const pixels = new Uint8Array(height * width);
  let start = 0;
  runLengths(rle).forEach((length, index) => {
    if (index % 2 === 1) {
      let row = start % height;
      let target = row * width + (start - row) / height;
      for (let left = length; left > 0; left--) {
        pixels[target] = 1;
        target += width;
        if (++row === height) {
          row = 0;
          target += 1 - height * width;
        }
      }
    }
    start += length;
  });
  return pixels;
}

/**
 * Return the intersection of two masks over their union, 1 if both are empty.
 * @param {Rle} one
 * @param {Rle} other a mask of the same size
 */
export function iou(one, other) {
  const runs = [runLengths(one), runLengths(other)];
  const next = [0, 0];
  const left = [0, 0];
  let union = 0;
  let both = 0;
  for (let start = 0, end = one.size[0] * one.size[1]; start < end; ) {
    for (const side of [0, 1]) {
      while (left[side] === 0 && next[side] < runs[side].length) left[side] = runs[side][next[side]++];
      // A side whose runs have ended stays as it is up to the end.
      if (left[side] === 0) left[side] = end - start;
    }
    const step = Math.min(left[0], left[1]);
    // The first run is background, so an even count of runs begun means mask.
    const isOn = next.map((count) => count % 2 === 0);
    if (isOn[0] || isOn[1]) union += step;
    if (isOn[0] && isOn[1]) both += step;
    left[0] -= step;
    left[1] -= step;
    start += step;
  }
  return union === 0 ? 1 : both / union;
}
