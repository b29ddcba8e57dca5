/**
 * Call the predictor in `worker.js`.
 */
import { EngineError } from "./errors.js";

/**
 * @typedef {import("./worker.js").OpenOptions} OpenOptions
 * @typedef {import("./worker.js").MaskAnswer} MaskAnswer
 * @typedef {import("./download.js").Progress} Progress
 *
 * @typedef {object} Opened What a worker has loaded
 * @property {string} sha256 of the bundle
 * @property {import("./manifest.js").Manifest["model"]} model
 * @property {Record<string, string>} precision of each loaded stage
 * @property {import("./selftest.js").SelftestResult["engine"]} engine
 * @property {Record<string, number>} seconds
 */

/** A predictor in a worker. */
export class RemotePredictor {
  #worker;
  #next = 1;
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();

  /** @param {(progress: Progress) => void} [onProgress] called as files of the bundle arrive */
  constructor(onProgress) {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => {
      if (data.progress) return onProgress?.(data.progress);
      const call = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if (data.error === undefined) call?.resolve(data.result);
      else call?.reject(new EngineError(data.error));
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      const error = new EngineError(`The model's worker failed (${event.message || "it could not start"}); reload the page.`);
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
  }

  /** @param {OpenOptions} options @returns {Promise<Opened>} */
  open(options) {
    return this.#call("open", options);
  }

  /**
   * Read and encode an image file, and keep its embedding under a key.
   * @param {string} key @param {Blob} file @param {boolean} enhance
   * @returns {Promise<{width: number, height: number, seconds: Record<string, number>}>}
   */
  encode(key, file, enhance) {
    return this.#call("encode", key, file, enhance);
  }

  /** @param {string} key @param {import("./predictor.js").Embedding} embedding @returns {Promise<void>} */
  setEmbedding(key, embedding) {
    return this.#call("setEmbedding", key, embedding);
  }

  /** @param {string} key @returns {Promise<boolean>} whether the embedding is kept */
  has(key) {
    return this.#call("has", key);
  }

  /**
   * Segment one object of an image.
   * @param {string} key @param {import("./prompts.js").Prompt} prompt @param {boolean} multimask
   * @returns {Promise<{masks: MaskAnswer[], seconds: Record<string, number>} | null>} null if the image is not kept
   */
  segment(key, prompt, multimask) {
    return this.#call("segment", key, prompt, multimask);
  }

  /** Compare with the golden file. @returns {Promise<import("./selftest.js").SelftestResult>} */
  selftest() {
    return this.#call("selftest");
  }

  /** End the worker and free its memory. */
  close() {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new DOMException("the worker was closed", "AbortError"));
    this.#waiting.clear();
  }

  /** @param {string} call @param {...unknown} args @returns {Promise<any>} */
  #call(call, ...args) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, args });
    });
  }
}
