/**
 * Answer the page's calls with the model in the browser. It has the calls of `Server`.
 *
 * With a server, the server encodes pictures and this class downloads their embeddings.
 */
import { RemotePredictor } from "./glesam/remote.js";
import { ServerError } from "./server.js";

/**
 * @typedef {import("./server.js").Encoded} Encoded
 * @typedef {import("./server.js").Mask} Mask
 * @typedef {import("./session.js").Segmented} Segmented
 */

const GONE = 404;

/** A model that runs in this browser, at least its decoder. */
export class LocalModel {
  #site;
  #provider;
  #server;
  #predictor;
  /** @type {Promise<import("./glesam/remote.js").Opened> | null} */
  #opening = null;
  /** @type {{key: string, answer: ReturnType<RemotePredictor["segment"]>} | null} */
  #latest = null;
  #count = 0;

  /**
   * @param {import("./ways.js").Site} site
   * @param {"wasm" | "webgpu"} provider
   * @param {import("./server.js").Server | null} server that encodes; null encodes here
   * @param {(progress: import("./glesam/download.js").Progress) => void} onProgress
   */
  constructor(site, provider, server, onProgress) {
    this.#site = site;
    this.#provider = provider;
    this.#server = server;
    this.#predictor = new RemotePredictor(onProgress);
  }

  /**
   * Load the model; return what `Server.bundle` returns.
   * @returns {Promise<import("./server.js").Bundle>}
   */
  async bundle() {
    const { model, engine, precision, sha256 } = await this.#open();
    const threads = engine.threads === 1 ? "1 thread" : `${engine.threads} threads`;
    const device = engine.provider === "webgpu" ? "WebGPU in this browser" : `this browser, ${threads}`;
    const local = { engine: engine.engine, version: engine.version, device };
    const features = { enhance: true, degrade: false, everything: false, hover: true };
    if (!this.#server) return { model, engine: local, precision, features, everything: null };
    const remote = await this.#server.bundle();
    if (remote.sha256 !== sha256) {
      throw new Error(`The site holds the bundle ${sha256.slice(0, 12)} and the server runs ${String(remote.sha256).slice(0, 12)}; export the site from the server's bundle.`);
    }
    return {
      model,
      engine: { ...local, encoder: `${remote.engine.engine} on the server's ${remote.engine.device}` },
      precision: { ...remote.precision, ...precision },
      features: { ...features, enhance: remote.features.enhance, degrade: remote.features.degrade },
      everything: null,
    };
  }

  /** Return the sample picture. */
  async sample() {
    if (this.#server) return this.#server.sample();
    const answer = await fetch("sample.jpg");
    if (!answer.ok) throw new Error(`sample.jpg: the server answered ${answer.status}; export the site again.`);
    return answer.blob();
  }

  /**
   * Encode a picture.
   * @param {Blob} picture
   * @param {boolean} enhance
   * @returns {Promise<Encoded>}
   */
  async encode(picture, enhance) {
    await this.#open();
    if (!this.#server) {
      const key = `picture-${this.#count++}`;
      const { width, height, seconds } = await this.#predictor.encode(key, picture, enhance);
      return { image_id: key, width, height, cached: false, seconds };
    }
    const encoded = await this.#server.encode(picture, enhance);
    const start = performance.now();
    await this.#predictor.setEmbedding(encoded.image_id, await this.#server.embedding(encoded.image_id));
    const embedding = (performance.now() - start) / 1000;
    return { ...encoded, seconds: { ...encoded.seconds, embedding } };
  }

  /** @param {string} image @param {number} level */
  degrade(image, level) {
    if (!this.#server) throw new Error("Pictures are degraded on the server only.");
    return this.#server.degrade(image, level);
  }

  /**
   * Segment one object.
   * @param {string} image
   * @param {Pick<Segmented, "points" | "box">} object
   * @param {boolean} multimask
   * @param {AbortSignal} [signal]
   * @returns {Promise<{masks: Mask[], seconds: Record<string, number>}>}
   */
  async segment(image, object, multimask, signal) {
    const prompt = {
      point_coords: object.points.length ? object.points.map(([x, y]) => [x, y]) : null,
      point_labels: object.points.length ? object.points.map(([, , label]) => label) : null,
      box: object.box ? [...object.box] : null,
    };
    const answer = await this.#segmentOnce(image, prompt, multimask);
    signal?.throwIfAborted();
    if (!answer) throw new ServerError(GONE, "The picture was dropped from the browser's memory; open it again.");
    return answer;
  }

  /**
   * Segment, or return the latest answer: a click asks again for the mask under the pointer.
   * @param {string} image
   * @param {import("./glesam/prompts.js").Prompt} prompt
   * @param {boolean} multimask
   */
  #segmentOnce(image, prompt, multimask) {
    const key = JSON.stringify([image, prompt, multimask]);
    if (this.#latest?.key !== key) {
      const latest = { key, answer: this.#predictor.segment(image, prompt, multimask) };
      this.#latest = latest;
      const forget = () => {
        if (this.#latest === latest) this.#latest = null;
      };
      latest.answer.then((answer) => answer ?? forget(), forget);
    }
    return this.#latest.answer;
  }

  /** @returns {Promise<Mask[]>} */
  async everything() {
    throw new Error("Everything is searched on the server only.");
  }

  /** Compare the model with its golden file. */
  async selftest() {
    await this.#open();
    return this.#predictor.selftest();
  }

  /** Free the model's memory. */
  close() {
    this.#predictor.close();
  }

  #open() {
    this.#opening ??= this.#start();
    return this.#opening;
  }

  async #start() {
    const { bundle, engines, stages } = this.#site;
    const at = (/** @type {string} */ address) => new URL(address, document.baseURI).href;
    if (!bundle) throw new Error("This site holds no bundle; export it again.");
    return this.#predictor.open({
      bundle: at(bundle),
      ort: at(engines[this.#provider]),
      stages: this.#server ? ["decoder"] : stages,
      provider: this.#provider,
    });
  }
}
