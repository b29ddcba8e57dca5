/**
 * Predict masks with the words of segment_anything's SamPredictor.
 *
 * An image is encoded and enhanced once and can then be prompted many times.
 */
import { decode, EMBEDDINGS, encode, Engine, enhance } from "./engine.js";
import { InputError } from "./errors.js";
import { preprocess } from "./image.js";
import { binarize, choose, forMaskInput, upscale } from "./masks.js";
import { checkPrompts, promptTensors, split } from "./prompts.js";
import { isFinite32, part, sameShape } from "./tensor.js";

/**
 * @typedef {import("./bundle.js").Bundle} Bundle
 * @typedef {import("./manifest.js").StageName} StageName
 * @typedef {import("./tensor.js").Ort} Ort
 * @typedef {import("./tensor.js").Pixels} Pixels
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./tensor.js").Tensors} Tensors
 * @typedef {import("./image.js").Geometry} Geometry
 * @typedef {import("./masks.js").Mask} Mask
 * @typedef {import("./prompts.js").Prompt} Prompt
 *
 * @typedef {object} Embedding The features of one image, and what is needed to use them again
 * @property {Tensors} features by the names of the encoder's outputs
 * @property {Geometry} geometry
 * @property {string} bundle_sha256 the bundle that computed them
 * @property {boolean} enhanced whether the enhancer ran
 *
 * @typedef {object} Prediction C masks for each of B prompts; C is 3 with `multimask_output`, else 1
 * @property {Mask[][]} masks [B][C], at the size of the image
 * @property {Tensor[][] | null} logits [B][C] of [H, W] with `return_logits`, otherwise null
 * @property {Tensor} iou_predictions [B, C]
 * @property {Tensor} low_res_masks logits [B, C, S/4, S/4], which a later call takes as `mask_input`
 */

const PROMPT_BATCH = 8; // prompts of a decoder call, as the Python runtime's default on a CPU

/** A predictor that holds one image at a time. Its calls must not overlap. */
export class GleSamPredictor {
  /** @type {Embedding | null} */
  #image = null;
  /** Latest milliseconds of each step: load, preprocess, encoder, enhancer, decoder, masks. @type {Record<string, number>} */
  timings = {};

  /** @param {Engine} engine @param {boolean} enhances whether images are enhanced */
  constructor(engine, enhances) {
    this.engine = engine;
    this.bundle = engine.bundle;
    this.enhance = enhances;
  }

  /**
   * Load the graphs of a bundle.
   * @param {Bundle} bundle
   * @param {object} options
   * @param {Ort} options.ort the module onnxruntime-web
   * @param {boolean} [options.enhance] false runs plain SAM: the enhancer is neither loaded nor run
   * @param {readonly StageName[]} [options.stages] the graphs to load; ["decoder"] serves embeddings from elsewhere
   * @param {"wasm" | "webgpu"} [options.provider]
   */
  static async load(bundle, { ort, enhance: enhances = true, stages, provider = "wasm" }) {
    const engine = new Engine(ort, bundle, provider);
    const predictor = new GleSamPredictor(engine, enhances);
    await predictor.#timed("load", async () => {
      for (const stage of stages ?? /** @type {const} */ (["encoder", "enhancer", "decoder"])) {
        if (stage !== "enhancer" || enhances) await engine.load(stage);
      }
    });
    return predictor;
  }

  /** Return whether an image is set. */
  get isImageSet() {
    return this.#image !== null;
  }

  /** Return the sizes of the image before and after resizing. */
  get geometry() {
    return this.#embedding().geometry;
  }

  /**
   * Encode and enhance an image. The previous image stays set if this fails.
   * @param {Pixels} image such as the ImageData of a canvas
   * @param {boolean} [enhanced] false leaves the enhancer out for this image
   */
  async setImage(image, enhanced = this.enhance) {
    const { tensor, geometry } = await this.#timed("preprocess", async () => preprocess(image, this.bundle.manifest.preprocessing));
    let features = await this.#timed("encoder", () => encode(this.engine, tensor));
    if (enhanced) features = await this.#timed("enhancer", () => enhance(this.engine, features));
    this.#image = { features, geometry, bundle_sha256: this.bundle.sha256, enhanced };
  }

  /** Return the image's embedding, for `setEmbedding`. */
  getEmbedding() {
    return this.#embedding();
  }

  /**
   * Set an image by its embedding: neither the encoder nor the enhancer runs.
   * @param {Embedding} embedding of the same bundle, from `getEmbedding` or from glesam-serve
   */
  setEmbedding(embedding) {
    if (embedding.bundle_sha256 !== this.bundle.sha256) {
      throw new InputError(
        `embedding: computed by the bundle ${embedding.bundle_sha256.slice(0, 12)}, but this predictor runs ${this.bundle.sha256.slice(0, 12)}; set the image instead`,
      );
    }
    for (const { name, shape } of this.bundle.manifest.stages.encoder.outputs) {
      const found = embedding.features[name];
      const wanted = [1, ...shape.slice(1)];
      if (!found || !sameShape(found.shape, wanted)) throw new InputError(`embedding: ${name} is not [${wanted}]; set the image instead`);
      if (!isFinite32(found.data)) throw new InputError(`embedding: ${name} holds NaN or infinity`);
    }
    this.#image = embedding;
  }

  /** Return the image's embeddings [1, 256, S/16, S/16], enhanced if the enhancer ran. */
  getImageEmbedding() {
    return this.#embedding().features[EMBEDDINGS];
  }

  /** Forget the image. */
  resetImage() {
    this.#image = null;
  }

  /**
   * Predict masks for one prompt, or for B prompts at once.
   * @param {Prompt & {multimask_output?: boolean, return_logits?: boolean}} prompt `multimask_output` is true by
   *   default, as in segment_anything
   * @returns {Promise<Prediction>}
   */
  async predict({ multimask_output: multimask = true, return_logits: returnLogits = false, ...prompt }) {
    const { features, geometry } = this.#embedding();
    const { postprocessing: rules, coordinates, preprocessing } = this.bundle.manifest;
    const prompts = checkPrompts(geometry, prompt);
    const chosen = await this.#timed("decoder", async () => {
      const parts = [];
      for (const each of split(prompts, PROMPT_BATCH)) {
        const { lowRes, iou } = await decode(this.engine, features, promptTensors(each, geometry, coordinates));
        parts.push(choose(lowRes, iou, multimask, rules));
      }
      return parts;
    });
    const side = preprocessing.image_size / 4;
    const count = multimask ? 3 : 1;
    const lowRes = joined(chosen.map((each) => each.lowRes), [prompts.size, count, side, side]);
    const iou = joined(chosen.map((each) => each.iou), [prompts.size, count]);
    /** @template T @param {(logits: Tensor) => T} make @returns {T[][]} */
    const each = (make) =>
      Array.from({ length: prompts.size }, (_, index) =>
        Array.from({ length: count }, (__, mask) => make(part(part(lowRes, index), mask))),
      );
    return this.#timed("masks", async () => ({
      masks: each((logits) => binarize(logits, geometry, rules)),
      logits: returnLogits ? each((logits) => upscale(logits, geometry, rules)) : null,
      iou_predictions: iou,
      low_res_masks: forMaskInput(lowRes, rules),
    }));
  }

  /** @returns {Embedding} */
  #embedding() {
    if (!this.#image) throw new InputError("no image is set; call setImage first");
    return this.#image;
  }

  /** @template T @param {string} step @param {() => Promise<T>} work @returns {Promise<T>} */
  async #timed(step, work) {
    const start = performance.now();
    const result = await work();
    this.timings[step] = performance.now() - start;
    return result;
  }
}

/** @param {Tensor[]} parts @param {number[]} shape @returns {Tensor} */
function joined(parts, shape) {
  if (parts.length === 1) return parts[0];
  const data = new Float32Array(shape.reduce((product, side) => product * side, 1));
  let at = 0;
  for (const { data: each } of parts) {
    data.set(each, at);
    at += each.length;
  }
  return { data, shape };
}
