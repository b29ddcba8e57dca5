/**
 * Open a bundle by its address and verify every byte before an engine sees any of them.
 */
import { download, downloadSmall, sha256 } from "./download.js";
import { BundleError } from "./errors.js";
import { STAGES, parseManifest } from "./manifest.js";
import { readSafetensors } from "./safetensors.js";
import { sameShape } from "./tensor.js";

/**
 * @typedef {import("./manifest.js").Manifest} Manifest
 * @typedef {import("./manifest.js").StageName} StageName
 * @typedef {import("./download.js").DownloadOptions} DownloadOptions
 * @typedef {import("./safetensors.js").Stored} Stored
 *
 * @typedef {object} Graph The files of a stage
 * @property {Uint8Array} model
 * @property {{path: string, data: Uint8Array}[]} externalData
 */

const MANIFEST = "manifest.json";
const MAX_MANIFEST = 16 * 2 ** 20; // bytes, as the Python runtime's default
const MAX_GOLDEN = 512 * 2 ** 20;

/** A bundle whose manifest is checked. Its files are downloaded and verified when they are asked for. */
export class Bundle {
  #options;

  /**
   * @param {string} url address of the folder, with a final slash
   * @param {Manifest} manifest
   * @param {string} hash the SHA-256 of manifest.json, which identifies the bundle
   * @param {DownloadOptions} options
   */
  constructor(url, manifest, hash, options) {
    this.url = url;
    this.manifest = manifest;
    this.sha256 = hash;
    this.#options = options;
  }

  /**
   * Return the number of bytes of the files of some stages.
   * @param {readonly StageName[]} stages
   */
  bytesOf(stages) {
    return stages.reduce((sum, name) => {
      const { graph, data } = this.manifest.stages[name];
      return sum + graph.bytes + (data?.bytes ?? 0);
    }, 0);
  }

  /**
   * Download and verify the files of a stage.
   * @param {StageName} stage
   * @returns {Promise<Graph>}
   */
  async graph(stage) {
    const { graph, data } = this.manifest.stages[stage];
    const model = await download(this.url, graph, this.#options);
    // The engine takes external data from this list only, so a graph that names another file fails.
    const externalData = data ? [{ path: data.file, data: await download(this.url, data, this.#options) }] : [];
    return { model, externalData };
  }

  /**
   * Download, verify and read the golden file.
   * @returns {Promise<Map<string, Stored>>}
   */
  async golden() {
    const { golden, stages } = this.manifest;
    const where = this.url + golden.file;
    if (golden.bytes > MAX_GOLDEN) throw new BundleError(`${where}: ${golden.bytes} bytes, more than the limit of ${MAX_GOLDEN}`);
    const tensors = readSafetensors(await download(this.url, golden, this.#options), where);
    const sizes = new Map();
    /** @type {Map<string, (number | string)[]>} */
    const wanted = new Map([["image", ["H", "W", 3]]]);
    for (const stage of /** @type {const} */ (["encoder", "enhancer"])) {
      for (const { name, shape } of stages[stage].outputs) wanted.set(name, [1, ...shape.slice(1)]);
    }
    for (const { name, shape } of [...stages.decoder.inputs, ...stages.decoder.outputs]) {
      if (!wanted.has(name)) wanted.set(name, shape);
    }
    for (const [name, shape] of wanted) {
      const found = tensors.get(name);
      if (!found) throw new BundleError(`${where}: lacks ${name}; export the bundle again`);
      const known = shape.map((side, axis) => {
        if (typeof side === "number") return side;
        if (!sizes.has(side)) sizes.set(side, found.shape[axis]);
        return sizes.get(side);
      });
      if (found.dtype !== (name === "image" ? "U8" : "F32") || !sameShape(found.shape, known)) {
        throw new BundleError(`${where}: ${name} is ${found.dtype} [${found.shape}], but [${known}] is needed; export the bundle again`);
      }
    }
    return tensors;
  }
}

/**
 * Open a bundle: download and check its manifest.
 * @param {string | URL} url address of the bundle's folder, absolute or relative to the page
 * @param {DownloadOptions} [options]
 * @returns {Promise<Bundle>}
 */
export async function openBundle(url, options = {}) {
  const base = new URL(`${String(url).replace(/\/+$/, "")}/`, globalThis.location?.href).href;
  const address = base + MANIFEST;
  const raw = await downloadSmall(address, MAX_MANIFEST, options);
  const manifest = parseManifest(raw, address);
  if (manifest.target.engine !== "onnx") {
    throw new BundleError(`${address}: holds engines for ${manifest.target.engine}, which browsers cannot run; use the ONNX bundle`);
  }
  return new Bundle(base, manifest, await sha256(raw), options);
}

export { STAGES };
