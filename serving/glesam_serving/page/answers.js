/**
 * Ask the server for the masks of objects, and keep its answers.
 */
import { drawMask } from "./draw.js";
import { isPrompted } from "./session.js";

/**
 * @typedef {import("./session.js").Segmented} Segmented
 * @typedef {import("./server.js").Mask} Mask
 *
 * @typedef {object} Variant The picture and the model that an object is segmented with
 * @property {number} level 0 clear, 1 to 3 degraded
 * @property {boolean} enhance whether the enhancer runs
 * @property {boolean} multimask whether three candidates are wanted
 */

/** The answers for one picture. */
export class Answers {
  /** @type {Map<string, Mask[]>} */
  #masks = new Map();
  /** The request that runs for an object in a variant. @type {Map<string, {key: string, abort: AbortController}>} */
  #running = new Map();
  /** Layers by colour. @type {WeakMap<Mask, Map<string, HTMLCanvasElement>>} */
  #layers = new WeakMap();

  /** @param {import("./picture.js").Picture} picture */
  constructor(picture) {
    this.picture = picture;
  }

  /**
   * Return the candidates of an object, undefined if they are not known.
   * @param {Segmented} object
   * @param {Variant} variant
   */
  candidates(object, variant) {
    return this.#masks.get(keyOf(object, variant));
  }

  /**
   * Return the mask of an object, undefined if it is not known.
   * @param {Segmented} object
   * @param {Variant} variant
   */
  mask(object, variant) {
    if (object.found) return object.found;
    const masks = this.candidates(object, variant);
    return masks?.[chosenOf(object, masks)];
  }

  /**
   * Return the mask of an object drawn in a colour.
   * @param {Mask} mask
   * @param {string} colour
   */
  layer(mask, colour) {
    const drawn = this.#layers.get(mask) ?? new Map();
    this.#layers.set(mask, drawn);
    let layer = drawn.get(colour);
    if (!layer) {
      layer = drawMask(mask.rle, colour);
      drawn.set(colour, layer);
    }
    return layer;
  }

  /**
   * Ask for the masks of an object, if they are not known and not asked for.
   *
   * The request for earlier prompts of the object is aborted.
   * @param {Segmented} object
   * @param {Variant} variant
   * @returns {Promise<Record<string, number> | null>} seconds of each stage; null if nothing was asked
   */
  async ask(object, variant) {
    const key = keyOf(object, variant);
    if (!isPrompted(object) || this.#masks.has(key)) return null;
    const slot = JSON.stringify([object.id, variant.level, variant.enhance]);
    const before = this.#running.get(slot);
    if (before?.key === key) return null;
    before?.abort.abort();
    const running = { key, abort: new AbortController() };
    this.#running.set(slot, running);
    try {
      const { masks, seconds } = await this.picture.withImage(variant.level, variant.enhance, (image) => {
        running.abort.signal.throwIfAborted();
        return this.picture.server.segment(image, object, variant.multimask, running.abort.signal);
      });
      this.#masks.set(key, masks);
      return seconds;
    } finally {
      if (this.#running.get(slot) === running) this.#running.delete(slot);
    }
  }

  /** Abort all requests. */
  abort() {
    for (const { abort } of this.#running.values()) abort.abort();
  }
}

/**
 * Return the index of the candidate that is chosen: the user's, else the one with the highest score.
 * @param {Pick<Segmented, "choice">} object
 * @param {Mask[]} masks
 */
export function chosenOf(object, masks) {
  if (object.choice !== null && object.choice < masks.length) return object.choice;
  return masks.reduce((best, mask, index) => (mask.predicted_iou > masks[best].predicted_iou ? index : best), 0);
}

/** @param {Segmented} object @param {Variant} variant */
function keyOf(object, { level, enhance, multimask }) {
  return JSON.stringify([object.points, object.box, level, enhance, multimask]);
}
