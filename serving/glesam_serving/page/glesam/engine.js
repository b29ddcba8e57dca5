/**
 * Run the graphs of a bundle with onnxruntime-web, and chain them.
 */
import { EngineError, messageOf } from "./errors.js";
import { sameShape } from "./tensor.js";

/**
 * @typedef {import("./bundle.js").Bundle} Bundle
 * @typedef {import("./manifest.js").StageName} StageName
 * @typedef {import("./tensor.js").Ort} Ort
 * @typedef {import("./tensor.js").OrtSession} OrtSession
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @typedef {import("./tensor.js").Tensors} Tensors
 */

export const EMBEDDINGS = "image_embeddings";

/** The loaded graphs of a bundle. */
export class Engine {
  #ort;
  /** @type {Map<StageName, OrtSession>} */
  #sessions = new Map();

  /** @param {Ort} ort @param {Bundle} bundle @param {"wasm" | "webgpu"} provider */
  constructor(ort, bundle, provider) {
    this.#ort = ort;
    this.bundle = bundle;
    this.provider = provider;
  }

  /** Return what runs the graphs. */
  get description() {
    const { versions, wasm } = this.#ort.env;
    const threads = this.provider === "wasm" ? Number(wasm?.numThreads ?? 1) : 1;
    return { engine: "onnxruntime-web", version: String(versions?.web ?? ""), provider: this.provider, threads };
  }

  /**
   * Download and load the graph of a stage, unless it is loaded.
   * @param {StageName} stage
   */
  async load(stage) {
    if (this.#sessions.has(stage)) return;
    const { model, externalData } = await this.bundle.graph(stage);
    const options = { executionProviders: [this.provider], graphOptimizationLevel: "all", externalData };
    try {
      this.#sessions.set(stage, await this.#ort.InferenceSession.create(model, options));
    } catch (error) {
      const file = this.bundle.url + this.bundle.manifest.stages[stage].graph.file;
      throw new EngineError(`${file}: onnxruntime-web cannot load it with ${this.provider} (${messageOf(error)})`);
    }
  }

  /**
   * Return whether the graph of a stage is loaded.
   * @param {StageName} stage
   */
  isLoaded(stage) {
    return this.#sessions.has(stage);
  }

  /**
   * Run a stage.
   * @param {StageName} stage
   * @param {Tensors} inputs by name; those that the graph does not have are left out
   * @returns {Promise<Tensors>}
   */
  async run(stage, inputs) {
    const session = this.#sessions.get(stage);
    if (!session) throw new EngineError(`${stage}: not loaded`);
    /** @type {{[name: string]: import("./tensor.js").OrtTensor}} */
    const feeds = {};
    for (const { name } of this.bundle.manifest.stages[stage].inputs) {
      feeds[name] = new this.#ort.Tensor("float32", inputs[name].data, inputs[name].shape);
    }
    let found;
    try {
      found = await session.run(feeds);
    } catch (error) {
      throw new EngineError(`${stage}: onnxruntime-web failed with ${this.provider} (${messageOf(error)})`);
    }
    /** @type {Tensors} */
    const outputs = {};
    for (const { name, shape } of this.bundle.manifest.stages[stage].outputs) {
      const { data, dims } = found[name];
      const wanted = shape.map((side, axis) => (typeof side === "number" ? side : dims[axis]));
      if (!(data instanceof Float32Array) || !sameShape(dims, wanted)) {
        throw new EngineError(`${stage}: ${name} has the shape [${dims}], the contract says [${shape}]; export the bundle again`);
      }
      outputs[name] = { data, shape: [...dims] };
    }
    return outputs;
  }

  /** Free the memory of all graphs. */
  async release() {
    await Promise.all([...this.#sessions.values()].map((session) => session.release()));
    this.#sessions.clear();
  }
}

/**
 * Run the encoder on an image [1, 3, S, S]; return its features.
 * @param {Engine} engine @param {Tensor} image
 */
export function encode(engine, image) {
  return runOnOneImage(engine, "encoder", image);
}

/**
 * Run the enhancer; return the features with z_H in place of z_L, the others unchanged.
 * @param {Engine} engine @param {Tensors} features
 * @returns {Promise<Tensors>}
 */
export async function enhance(engine, features) {
  const { enhanced_embeddings: enhanced } = await runOnOneImage(engine, "enhancer", features[EMBEDDINGS]);
  return { ...features, [EMBEDDINGS]: enhanced };
}

/**
 * Run the decoder on B prompts.
 * @param {Engine} engine
 * @param {Tensors} features of one image
 * @param {Tensors} prompts from `promptTensors`
 * @returns {Promise<{lowRes: Tensor, iou: Tensor}>} logits [B, 4, S/4, S/4] and predicted IoU [B, 4]
 */
export async function decode(engine, features, prompts) {
  const { low_res_masks: lowRes, iou_predictions: iou } = await engine.run("decoder", { ...features, ...prompts });
  if (lowRes.shape[0] !== prompts.point_labels.shape[0]) throw new EngineError(`decoder: returned ${lowRes.shape[0]} prompts; export the bundle again`);
  if (lowRes.data.some(Number.isNaN) || !iou.data.every(Number.isFinite)) {
    throw new EngineError(`decoder on ${engine.provider}: returned NaN or an infinite IoU; run the self-test, or use another bundle`);
  }
  return { lowRes, iou };
}

/**
 * Run a stage of one input on one image; zeros fill up a static batch.
 * @param {Engine} engine @param {StageName} stage @param {Tensor} value
 */
async function runOnOneImage(engine, stage, value) {
  const { manifest } = engine.bundle;
  const [{ name }] = manifest.stages[stage].inputs;
  const { batch } = manifest.target;
  if (batch === 1 || batch === "dynamic") return engine.run(stage, { [name]: value });
  const data = new Float32Array(batch * value.data.length);
  data.set(value.data);
  const outputs = await engine.run(stage, { [name]: { data, shape: [batch, ...value.shape.slice(1)] } });
  return Object.fromEntries(
    Object.entries(outputs).map(([key, { data: all, shape }]) => [
      key,
      { data: all.slice(0, all.length / batch), shape: [1, ...shape.slice(1)] },
    ]),
  );
}
