/**
 * Decode COCO's compressed run lengths, and draw masks from them.
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
const TINT = 115; // alpha of a mask's area, of 255

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
 * Draw a mask into a canvas of its own, tinted, with a solid contour of one pixel.
 * @param {Rle} rle
 * @param {string} colour "#rrggbb"
 * @returns {HTMLCanvasElement} a canvas of the picture's size, transparent outside the mask
 */
export function drawMask(rle, colour) {
  const [height, width] = rle.size;
  const pixels = maskPixels(rle);
  const canvas = newCanvas(width, height);
  const context = context2d(canvas);
  const image = context.createImageData(width, height);
  const tint = colourWord(colour, TINT);
  const solid = colourWord(colour, 255);
  const words = new Uint32Array(image.data.buffer);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!pixels[at]) continue;
      const inside =
        x > 0 && y > 0 && x < width - 1 && y < height - 1 &&
        pixels[at - 1] && pixels[at + 1] && pixels[at - width] && pixels[at + width];
      words[at] = inside ? tint : solid;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Draw a mask in white on black, as glesam-run writes it.
 * @param {Rle} rle
 * @returns {HTMLCanvasElement}
 */
export function drawBinary(rle) {
  const [height, width] = rle.size;
  const canvas = newCanvas(width, height);
  const context = context2d(canvas);
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const white = colourWord("#ffffff", 255);
  const black = colourWord("#000000", 255);
  maskPixels(rle).forEach((on, at) => {
    words[at] = on ? white : black;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Return a new canvas.
 * @param {number} width in pixels
 * @param {number} height in pixels
 */
export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/**
 * Return the drawing context of a canvas.
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function context2d(canvas) {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas; use a newer one.");
  return context;
}

/**
 * Return a colour as the machine word that ImageData holds: R, G, B, A in the order of bytes.
 * @param {string} colour "#rrggbb"
 * @param {number} alpha 0 to 255
 */
function colourWord(colour, alpha) {
  const rgb = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return new Uint32Array(new Uint8Array([...rgb, alpha]).buffer)[0];
}
