/**
 * Show the mask under the pointer while it moves. Only the latest position is decoded.
 */
import { chosenOf } from "./answers.js";
import { drawMask } from "./draw.js";

/**
 * @typedef {import("./session.js").Point} Point
 * @typedef {import("./server.js").Mask} Mask
 * @typedef {(point: Point) => Promise<{masks: Mask[], colour: string}>} Decode
 */

/** The preview of the object under the pointer. */
export class Hover {
  /** @type {Decode | null} */
  #decode = null;
  /** @type {[number, number] | null} */
  #wanted = null;
  #isBusy = false;
  #isAway = true;
  #redraw;
  /** The mask to draw. @type {HTMLCanvasElement | null} */
  layer = null;
  /** From the pointer's move to its mask. @type {number | null} */
  milliseconds = null;

  /** @param {() => void} redraw called when the mask has changed */
  constructor(redraw) {
    this.#redraw = redraw;
  }

  /** Show masks by a decoder. @param {Decode} decode */
  start(decode) {
    this.#decode = decode;
  }

  /** Show no more masks. */
  stop() {
    this.#decode = null;
    this.#wanted = null;
    this.layer = null;
    this.milliseconds = null;
  }

  /** @param {[number, number] | null} pixel under the pointer; null when it has left the picture */
  move(pixel) {
    this.#wanted = pixel;
    this.#isAway = pixel === null;
    if (!pixel && this.layer) {
      this.layer = null;
      this.#redraw();
    }
    if (pixel && this.#decode && !this.#isBusy) this.#run();
  }

  async #run() {
    this.#isBusy = true;
    try {
      while (this.#wanted && this.#decode) {
        const decode = this.#decode;
        const [x, y] = this.#wanted;
        this.#wanted = null;
        const start = performance.now();
        const { masks, colour } = await decode([x, y, 1]);
        if (decode !== this.#decode || this.#isAway) continue;
        const object = { choice: null };
        this.layer = drawMask(masks[chosenOf(object, masks)].rle, colour);
        this.milliseconds = performance.now() - start;
        this.#redraw();
      }
    } catch {
      // A click reports the same error; a preview that fails only shows nothing.
      this.layer = null;
    } finally {
      this.#isBusy = false;
    }
  }
}
