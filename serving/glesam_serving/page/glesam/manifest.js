/**
 * Read and check manifest.json, which is the contract between exporter and runtimes.
 *
 * Unknown fields are ignored, so that the contract can grow. An unknown name in `requires` is refused.
 */
import { BundleError } from "./errors.js";
import { checkConsistency } from "./manifest_rules.js";

/**
 * @typedef {"encoder" | "enhancer" | "decoder"} StageName
 *
 * @typedef {object} FileRef A file beside the manifest
 * @property {string} file
 * @property {number} bytes
 * @property {string} sha256 in hex digits
 *
 * @typedef {object} TensorSpec An input or output of a graph
 * @property {string} name
 * @property {(number | string)[]} shape a capital letter is a dynamic axis
 *
 * @typedef {object} Stage
 * @property {FileRef} graph
 * @property {"fp32" | "fp16" | "bf16" | "int8" | "fp8"} precision
 * @property {TensorSpec[]} inputs
 * @property {TensorSpec[]} outputs
 * @property {FileRef | null} [data] external weights
 * @property {FileRef | null} [weights] the graph with the weights of a stripped engine
 *
 * @typedef {object} Preprocessing
 * @property {number} image_size S
 * @property {"longest_side" | "square"} resize
 * @property {"pillow_bilinear" | "float_bilinear"} kernel
 * @property {[number, number, number]} mean
 * @property {[number, number, number]} std
 * @property {"right_bottom" | "none"} pad
 * @property {{size: number, kernel: "pillow_bicubic"}} [first_resize]
 *
 * @typedef {object} Postprocessing
 * @property {"bilinear" | "bilinear_direct"} upscale
 * @property {number} mask_threshold
 * @property {number} stability_offset
 * @property {"first" | "first_if_stable"} single_mask
 * @property {{offset: number, threshold: number} | null} [stability]
 * @property {number | null} [low_res_limit]
 *
 * @typedef {object} Coordinates
 * @property {number} pixel_offset
 * @property {Record<string, number>} labels
 * @property {"two_points" | "two_points_padded"} box
 *
 * @typedef {object} Manifest
 * @property {string[]} [requires]
 * @property {{family: "sam" | "sam2", preset: string, trained: boolean}} model
 * @property {Record<StageName, Stage>} stages
 * @property {Preprocessing} preprocessing
 * @property {Postprocessing} postprocessing
 * @property {Coordinates} coordinates
 * @property {{engine: "onnx" | "tensorrt" | "tensorrt-rtx", batch: number | "dynamic", build?: object | null}} target
 * @property {FileRef} golden
 */

/** @type {readonly StageName[]} */
export const STAGES = ["encoder", "enhancer", "decoder"];

const FORMAT = "glesam-bundle";
const VERSION = 1;
const KNOWN_FEATURES = ["released_input"];

/**
 * A check of a value: it returns what is wanted if the value does not fit, otherwise null.
 * @typedef {(value: unknown, path: string) => string | null} Check
 */

/** @param {string} wanted @param {(value: any) => boolean} fits @returns {Check} */
const of = (wanted, fits) => (value, path) => (fits(value) ? null : `"${path}" must be ${wanted}`);
/** @param {(string | number)[]} values */
const one = (...values) => of(values.map((value) => JSON.stringify(value)).join(" or "), (value) => values.includes(value));
/** @param {number} low @param {number} [high] */
const number = (low, high = Infinity) =>
  of(`a number of at least ${low}`, (value) => typeof value === "number" && value >= low && value <= high);
/** @param {number} low */
const whole = (low) => of(`a whole number of at least ${low}`, (value) => Number.isSafeInteger(value) && value >= low);
/** @param {RegExp} pattern */
const matching = (pattern) => of(`a text like ${pattern.source}`, (value) => typeof value === "string" && pattern.test(value));
const text = of("a text", (value) => typeof value === "string");
const truth = of("true or false", (value) => typeof value === "boolean");
const positive = of("a number above 0", (value) => typeof value === "number" && value > 0);
const share = of("a number above 0 and below 1", (value) => typeof value === "number" && value > 0 && value < 1);
const bounded = number(-1e6, 1e6);
const scale = number(1e-6, 1e6);
const sha256 = matching(/^[0-9a-f]{64}$/);
const fileName = matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/);
/** @type {Check} */
const dimension = of("a whole number above 0 or a capital letter", (value) =>
  typeof value === "string" ? /^[A-Z]$/.test(value) : Number.isSafeInteger(value) && value >= 1,
);
/** @param {Check} check @returns {Check} */
const orNull = (check) => (value, path) => (value === null ? null : check(value, path));

/** @param {Check} check @param {number} [length] @returns {Check} */
const list = (check, length) => (value, path) => {
  if (!Array.isArray(value)) return `"${path}" must be a list`;
  if (length !== undefined && value.length !== length) return `"${path}" must have ${length} elements`;
  return first(value.map((each, index) => check(each, `${path}[${index}]`)));
};

/** @param {Record<string, Check>} fields @param {Record<string, Check>} [optional] @returns {Check} */
const record = (fields, optional = {}) => (value, path) => {
  if (!isRecord(value)) return `"${path}" must be an object`;
  const prefix = path === "" ? "" : `${path}.`;
  return first([
    ...Object.entries(fields).map(([name, check]) =>
      name in value ? check(value[name], prefix + name) : `"${prefix}${name}" is missing`,
    ),
    ...Object.entries(optional).map(([name, check]) => (name in value ? check(value[name], prefix + name) : null)),
  ]);
};

/** @param {Check} check @returns {Check} */
const mapOf = (check) => (value, path) =>
  isRecord(value) ? first(Object.entries(value).map(([name, each]) => check(each, `${path}.${name}`))) : `"${path}" must be an object`;

/** @param {(string | null)[]} found */
const first = (found) => found.find((each) => each !== null) ?? null;

const fileRef = record({ file: fileName, bytes: whole(0), sha256 });
const tensorSpec = record({ name: text, dtype: one("float32"), shape: list(dimension) });
const stage = record(
  { graph: fileRef, precision: one("fp32", "fp16", "bf16", "int8", "fp8"), inputs: list(tensorSpec), outputs: list(tensorSpec) },
  { data: orNull(fileRef), weights: orNull(fileRef), islands: list(text) },
);
const gate = record({
  stage_relative_l2: orNull(number(-Infinity)), mask_iou_mean: orNull(number(-Infinity)), mask_iou_worst: orNull(number(-Infinity)),
});
const manifestCheck = record(
  {
    model: record({
      family: one("sam", "sam2"), preset: text, unet: text, trained: truth, gamma: positive, timestep: whole(0), alpha_bar: share,
    }),
    stages: mapOf(stage),
    preprocessing: record(
      {
        image_size: whole(16), resize: one("longest_side", "square"), kernel: one("pillow_bilinear", "float_bilinear"),
        channel_order: one("RGB"), mean: list(bounded, 3), std: list(scale, 3), pad: one("right_bottom", "none"),
      },
      { first_resize: record({ size: whole(1), kernel: one("pillow_bicubic") }) },
    ),
    postprocessing: record(
      {
        upscale: one("bilinear", "bilinear_direct"), mask_threshold: bounded, stability_offset: scale,
        single_mask: one("first", "first_if_stable"),
      },
      { stability: orNull(record({ offset: scale, threshold: number(0, 1) })), low_res_limit: orNull(scale) },
    ),
    coordinates: record({
      order: one("xy"), space: one("resized_pixels"), pixel_offset: number(-Infinity), labels: mapOf(number(-Infinity)),
      box: one("two_points", "two_points_padded"),
    }),
    target: record({
      engine: one("onnx", "tensorrt", "tensorrt-rtx"), opset: whole(-Infinity),
      batch: of('a whole number above 0 or "dynamic"', (value) => value === "dynamic" || (Number.isSafeInteger(value) && value >= 1)),
    }),
    provenance: record({
      sources: list(record({ role: text, file: text, sha256 })), weights: text, tools: mapOf(text),
    }),
    parity: orNull(record({ backend: text, gate, passed: truth, images: list(of("an object", isRecord)) })),
    golden: fileRef,
  },
  { everything: record({ pred_iou_thresh: number(0, 1), stability_score_thresh: number(0, 1), stability_score_offset: number(0) }) },
);

/**
 * Read and check a manifest.
 * @param {Uint8Array} raw the bytes of manifest.json
 * @param {string} where its address, for messages
 * @returns {Manifest}
 */
export function parseManifest(raw, where) {
  let value;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch (error) {
    throw new BundleError(`${where}: not a bundle manifest (${error instanceof Error ? error.message : error}); export the bundle again`);
  }
  if (!isRecord(value) || value.format !== FORMAT) throw new BundleError(`${where}: "format" is not "${FORMAT}": not a bundle`);
  if (value.version !== VERSION) {
    const remedy = Number(value.version) > VERSION ? "use a newer version of this page" : "export the checkpoint again";
    throw new BundleError(`${where}: manifest version ${JSON.stringify(value.version)}, this page reads ${VERSION}; ${remedy}`);
  }
  const requires = "requires" in value ? value.requires : [];
  const wrong = list(text)(requires, "requires");
  if (wrong) throw new BundleError(`${where}: ${wrong}; export the bundle again`);
  const unknown = /** @type {string[]} */ (requires).filter((name) => !KNOWN_FEATURES.includes(name));
  if (unknown.length > 0) {
    const names = unknown.map((name) => JSON.stringify(name)).join(", ");
    throw new BundleError(`${where}: requires ${names}, which this page does not support; use a newer version of this page`);
  }
  const problem = manifestCheck(value, "") ?? checkConsistency(/** @type {any} */ (value));
  if (problem) throw new BundleError(`${where}: ${problem}; export the bundle again`);
  return /** @type {any} */ (value);
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
