/**
 * Run a predictor in a worker, so that the page answers while a stage runs. `remote.js` calls it.
 */
import { EngineError, messageOf } from "./errors.js";
import { boxOf, GleSamPredictor, encodeRle, openBundle, selftest } from "./glesam.js";

/**
 * @typedef {import("./predictor.js").Embedding} Embedding
 * @typedef {import("./prompts.js").Prompt} Prompt
 *
 * @typedef {object} OpenOptions
 * @property {string} bundle address of the bundle's folder
 * @property {string} ort address of onnxruntime-web's module
 * @property {import("./manifest.js").StageName[]} stages the graphs to load
 * @property {boolean} [enhance] false never loads the enhancer
 * @property {"wasm" | "webgpu"} [provider]
 * @property {number} [threads] of wasm; 1 where the page is not isolated from other sites
 *
 * @typedef {object} MaskAnswer A mask, in the words of glesam-serve
 * @property {number} predicted_iou
 * @property {number} stability_score
 * @property {number} area in pixels
 * @property {[number, number, number, number]} box x0, y0, x1, y1; the last two are the first outside
 * @property {{size: [number, number], counts: string}} rle
 */

const MAX_IMAGES = 8; // embeddings that are kept
const MAX_THREADS = 4; // more gain little, and each takes memory

// A function with one vector instruction: i32.const 0, i8x16.splat, drop.
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11]);

/** @type {GleSamPredictor | null} */
let predictor = null;
/** @type {Map<string, Embedding>} */
const images = new Map();

/** The calls of `remote.js`. */
const calls = {
  /** @param {OpenOptions} options */
  async open({ bundle: address, ort: engineAddress, stages, enhance = true, provider = "wasm", threads }) {
    await predictor?.engine.release();
    predictor = null;
    images.clear();
    if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
      throw new EngineError("This browser has no WebAssembly SIMD, which the model needs; use a newer browser.");
    }
    if (provider === "webgpu" && !("gpu" in navigator)) throw new EngineError("This browser has no WebGPU; use wasm.");
    const bundle = await openBundle(address, { onProgress: (progress) => postMessage({ progress }) });
    const ort = await import(engineAddress).catch((error) => {
      throw new EngineError(`${engineAddress}: onnxruntime-web cannot be loaded (${messageOf(error)}); export the site again`);
    });
    ort.env.logLevel = "error";
    ort.env.wasm.wasmPaths = new URL("./", engineAddress).href;
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? (threads ?? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1)) : 1;
    predictor = await GleSamPredictor.load(bundle, { ort, enhance, stages, provider });
    if (provider === "webgpu") {
      // Graphics drivers differ, so a GPU has to show on this machine that it computes the right masks.
      const { passed, failures } = await selftest(predictor);
      if (!passed) throw new EngineError(`WebGPU fails the self-test on this machine (${failures.join("; ")}); use wasm.`);
    }
    const { model, stages: graphs } = bundle.manifest;
    const precision = Object.fromEntries(stages.map((stage) => [stage, graphs[stage].precision]));
    const { load } = predictor.timings;
    return { sha256: bundle.sha256, model, precision, engine: predictor.engine.description, seconds: { load: load / 1000 } };
  },

  /** Read an image file, encode it, and keep its embedding. @param {string} key @param {Blob} file @param {boolean} enhance */
  async encode(key, file, enhance) {
    const start = performance.now();
    const image = await pixelsOf(file);
    const read = performance.now() - start;
    await loaded().setImage(image, enhance);
    keep(key, loaded().getEmbedding());
    return { width: image.width, height: image.height, seconds: { read: read / 1000, ...secondsOf("preprocess", "encoder", ...(enhance ? ["enhancer"] : [])) } };
  },

  /** Keep an embedding that a server computed. @param {string} key @param {Embedding} embedding */
  async setEmbedding(key, embedding) {
    loaded().setEmbedding(embedding);
    keep(key, embedding);
  },

  /** Return whether the embedding of an image is kept. @param {string} key */
  async has(key) {
    return images.has(key);
  },

  /** @param {string} key @param {Prompt} prompt @param {boolean} multimask */
  async segment(key, prompt, multimask) {
    const embedding = images.get(key);
    if (!embedding) return null;
    keep(key, embedding);
    loaded().setEmbedding(embedding);
    const { masks, iou_predictions: scores } = await loaded().predict({ ...prompt, multimask_output: multimask });
    /** @type {MaskAnswer[]} */
    const answers = masks[0].map((mask, index) => ({
      predicted_iou: scores.data[index],
      stability_score: mask.stability,
      area: mask.area,
      box: boxOf(mask),
      rle: encodeRle(mask),
    }));
    return { masks: answers, seconds: secondsOf("decoder", "masks") };
  },

  async selftest() {
    return selftest(loaded());
  },
};

/** One call after the other: a predictor holds one image at a time. */
let queue = Promise.resolve();

addEventListener("message", ({ data: { id, call, args } }) => {
  queue = queue.then(async () => {
    try {
      // @ts-expect-error: remote.js has the types of the calls
      postMessage({ id, result: await calls[call](...args) });
    } catch (error) {
      postMessage({ id, error: messageOf(error) });
    }
  });
});

function loaded() {
  if (!predictor) throw new EngineError("no bundle is open; reload the page");
  return predictor;
}

/** Keep an embedding as the latest, and drop the oldest. @param {string} key @param {Embedding} embedding */
function keep(key, embedding) {
  images.delete(key);
  images.set(key, embedding);
  const [oldest] = images.keys();
  if (images.size > MAX_IMAGES) images.delete(oldest);
}

/** @param {...string} steps */
function secondsOf(...steps) {
  return Object.fromEntries(steps.map((step) => [step, loaded().timings[step] / 1000]));
}

/**
 * Return the pixels of an image file, upright, without the browser's colour management.
 * @param {Blob} file
 */
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new EngineError("This browser cannot draw on a canvas; use a newer one.");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
