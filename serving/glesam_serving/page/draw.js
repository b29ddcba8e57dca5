/**
 * Draw masks on canvases.
 */
import { maskPixels } from "./rle.js";

/** @typedef {import("./rle.js").Rle} Rle */

const TINT = 115; // alpha of a mask's area, of 255

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
