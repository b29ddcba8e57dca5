/**
 * Check the rules of a manifest that connect several fields, such as the shapes of every stage.
 */

/**
 * @typedef {import("./manifest.js").Manifest} Manifest
 * @typedef {import("./manifest.js").FileRef} FileRef
 * @typedef {import("./manifest.js").TensorSpec} TensorSpec
 * @typedef {import("./manifest.js").StageName} StageName
 */

const LATENT_CHANNELS = 256;
/** What differs between families: steps of the image size, and channels of the encoder's further outputs. */
const FAMILIES = { sam: { step: 16, highRes: [] }, sam2: { step: 32, highRes: [32, 64] } };
const MOST_PIXELS = 2 ** 26; // of all images of an encoder's input
const PIXEL_OFFSET = 0.5;
/** @type {Record<string, number>} */
const LABELS = { background: 0, foreground: 1, box_top_left: 2, box_bottom_right: 3, padding: -1 };

/**
 * Return what contradicts the contract, null if nothing does.
 * @param {Manifest & {requires?: string[]}} manifest whose fields have the right types
 * @returns {string | null}
 */
export function checkConsistency(manifest) {
  const { preprocessing: rules, postprocessing: masks, coordinates, target, model } = manifest;
  const step = FAMILIES[model.family].step;
  const size = rules.image_size;
  if (size % step) return `image_size ${size} is not a multiple of ${step}`;
  const images = target.batch === "dynamic" ? 1 : target.batch;
  if (images * size * size > MOST_PIXELS) return `${images} x ${size} x ${size} pixels of input, more than ${MOST_PIXELS} pixels`;
  if ((rules.resize === "square") !== (rules.pad === "none")) return `resize "${rules.resize}" contradicts pad "${rules.pad}"`;
  const problem = checkFirstResize(manifest);
  if (problem) return problem;
  const hasRule = masks.stability !== null && masks.stability !== undefined;
  if ((masks.single_mask === "first_if_stable") !== hasRule) return `single_mask "${masks.single_mask}" contradicts "stability"`;
  if (coordinates.pixel_offset !== PIXEL_OFFSET) return `pixel_offset must be ${PIXEL_OFFSET}`;
  const names = Object.keys(coordinates.labels);
  if (names.length !== Object.keys(LABELS).length || names.some((name) => coordinates.labels[name] !== LABELS[name])) {
    return `labels must be ${Object.entries(LABELS).map(([name, value]) => `${name} ${value}`).join(", ")}`;
  }
  return checkStages(manifest) ?? checkFiles(manifest);
}

/** @param {Manifest} manifest */
function checkFirstResize({ requires, preprocessing: rules }) {
  const isNamed = (requires ?? []).includes("released_input");
  const first = rules.first_resize;
  if (!first) return isNamed ? '"released_input" needs a "first_resize"' : null;
  if (!isNamed) return '"first_resize" needs "released_input" in "requires"';
  if (rules.resize !== "square") return `resize "${rules.resize}" contradicts "first_resize"`;
  return first.size > rules.image_size ? `first_resize ${first.size} is larger than image_size ${rules.image_size}` : null;
}

/** @param {Manifest} manifest */
function checkStages({ stages, preprocessing, target, model }) {
  const known = ["encoder", "enhancer", "decoder"];
  const further = Object.keys(stages).find((name) => !known.includes(name));
  if (further) return `stage "${further}" is unknown`;
  for (const name of /** @type {StageName[]} */ (known)) {
    const stage = stages[name];
    if (!stage) return `stage "${name}" is missing`;
    const wanted = interfaceOf(name, preprocessing.image_size, target.batch, model.family);
    for (const side of /** @type {const} */ (["inputs", "outputs"])) {
      const found = spell(stage[side]);
      if (found !== wanted[side]) return `${name} declares ${found}, the contract says ${wanted[side]}`;
    }
  }
  return null;
}

/** @param {Manifest} manifest */
function checkFiles(manifest) {
  const { target, stages } = manifest;
  const isCompiled = target.engine !== "onnx";
  const hasBuild = target.build !== null && target.build !== undefined;
  if (isCompiled !== hasBuild) return `engine "${target.engine}" contradicts "build"`;
  const stripped = hasBuild && /** @type {any} */ (target.build).stripped === true;
  for (const [name, stage] of Object.entries(stages)) {
    if (isCompiled !== stage.graph.file.endsWith(".engine")) return `"${stage.graph.file}" is not a graph for "${target.engine}"`;
    if (stripped !== Boolean(stage.weights)) return `${name}: "weights" contradicts "build"`;
    const ranges = /** @type {any} */ (stage).profile;
    if (!isCompiled && ranges && Object.keys(ranges).length > 0) return `${name}: only an engine has a "profile"`;
  }
  const files = fileRefs(manifest).map(({ file }) => file);
  const twice = files.find((file, index) => files.indexOf(file) !== index || file === "manifest.json");
  return twice ? `file "${twice}" is named twice` : null;
}

/**
 * Return every file of the bundle except the manifest itself.
 * @param {Manifest} manifest
 * @returns {FileRef[]}
 */
export function fileRefs({ stages, golden }) {
  const refs = Object.values(stages).flatMap(({ graph, weights, data }) => [graph, weights, data]);
  return [...refs.flatMap((ref) => ref ?? []), golden];
}

/**
 * Return the inputs and outputs that the contract fixes for a stage, spelled as messages spell them.
 * @param {StageName} stage @param {number} size @param {number | "dynamic"} batch @param {"sam" | "sam2"} family
 */
function interfaceOf(stage, size, batch, family) {
  const images = batch === "dynamic" ? "N" : batch;
  const latent = size / 16;
  const low = size / 4;
  /** @param {string} name @param {(number | string)[]} shape */
  const spec = (name, ...shape) => ({ name, shape });
  /** @param {number | string} count */
  const highRes = (count) =>
    FAMILIES[family].highRes.map((channels, level) => {
      const side = Math.floor(size / (4 * 2 ** level));
      return spec(`high_res_feats_${level}`, count, channels, side, side);
    });
  if (stage === "encoder") {
    return {
      inputs: spell([spec("image", images, 3, size, size)]),
      outputs: spell([spec("image_embeddings", images, LATENT_CHANNELS, latent, latent), ...highRes(images)]),
    };
  }
  if (stage === "enhancer") {
    return {
      inputs: spell([spec("image_embeddings", images, LATENT_CHANNELS, latent, latent)]),
      outputs: spell([spec("enhanced_embeddings", images, LATENT_CHANNELS, latent, latent)]),
    };
  }
  return {
    inputs: spell([
      spec("image_embeddings", 1, LATENT_CHANNELS, latent, latent), ...highRes(1), spec("point_coords", "B", "P", 2),
      spec("point_labels", "B", "P"), spec("mask_input", "B", 1, low, low), spec("has_mask_input", 1),
    ]),
    outputs: spell([spec("low_res_masks", "B", 4, low, low), spec("iou_predictions", "B", 4)]),
  };
}

/** @param {{name: string, shape: (number | string)[]}[]} specs */
function spell(specs) {
  return specs.map(({ name, shape }) => `${name}[${shape.join(",")}]`).join(", ");
}
