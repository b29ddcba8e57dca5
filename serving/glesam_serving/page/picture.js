/**
 * Keep a picture in its qualities (clear, degraded) and the ids of its embeddings on the server.
 */
import { ServerError } from "./server.js";

/**
 * @typedef {import("./server.js").Encoded} Encoded
 *
 * @typedef {object} Quality The picture clear or degraded
 * @property {Blob} blob the file
 * @property {ImageBitmap} bitmap
 * @property {Map<boolean, Promise<Encoded>>} encoded by whether the enhancer runs
 */

export const LEVELS = ["clear", "LQ-1", "LQ-2", "LQ-3"];
const GONE = 404;

/** A picture that is open. */
export class Picture {
  /** Index of the quality that is shown, into LEVELS. */
  level = 0;
  /** @type {Map<number, Promise<Quality>>} */
  #qualities = new Map();

  /**
   * @param {import("./server.js").Server | import("./local.js").LocalModel} server
   * @param {string} name of the file
   * @param {Blob} blob
   * @param {ImageBitmap} bitmap
   */
  constructor(server, name, blob, bitmap) {
    this.server = server;
    this.name = name;
    this.bitmap = bitmap;
    this.#qualities.set(0, Promise.resolve({ blob, bitmap, encoded: new Map() }));
  }

  /** The name of the file without its suffix. */
  get stem() {
    return this.name.replace(/\.[^.]*$/, "") || "picture";
  }

  /**
   * Return the picture in a quality; have the server degrade it the first time.
   * @param {number} level
   * @returns {Promise<Quality>}
   */
  quality(level) {
    let quality = this.#qualities.get(level);
    if (!quality) {
      quality = this.#degrade(level);
      this.#qualities.set(level, quality);
      quality.catch(() => this.#qualities.delete(level));
    }
    return quality;
  }

  /**
   * Encode the picture the first time.
   * @param {number} level
   * @param {boolean} enhance
   * @returns {Promise<Encoded>}
   */
  async encode(level, enhance) {
    const { blob, encoded } = await this.quality(level);
    let answer = encoded.get(enhance);
    if (!answer) {
      answer = this.server.encode(blob, enhance);
      encoded.set(enhance, answer);
      answer.catch(() => encoded.delete(enhance));
    }
    return answer;
  }

  /**
   * Do work on an embedding. The picture is sent again if the server has dropped it from its cache.
   * @template T
   * @param {number} level
   * @param {boolean} enhance
   * @param {(image: string) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async withImage(level, enhance, work) {
    const { image_id } = await this.encode(level, enhance);
    try {
      return await work(image_id);
    } catch (error) {
      if (!(error instanceof ServerError) || error.status !== GONE) throw error;
      (await this.quality(level)).encoded.delete(enhance);
      return work((await this.encode(level, enhance)).image_id);
    }
  }

  /** @param {number} level @returns {Promise<Quality>} */
  async #degrade(level) {
    const blob = await this.withImage(0, true, (image) => this.server.degrade(image, level));
    return { blob, bitmap: await createImageBitmap(blob), encoded: new Map() };
  }
}

/**
 * Read a picture as the browser shows it.
 * @param {Blob} blob
 * @param {string} name
 */
export async function readPicture(blob, name) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name}: this browser cannot read the picture; open a JPEG, PNG or WebP.`);
  }
}
