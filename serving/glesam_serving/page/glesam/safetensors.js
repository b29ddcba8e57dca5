/**
 * Read safetensors files: the golden file of a bundle.
 */
import { BundleError } from "./errors.js";
import { elements } from "./tensor.js";

/**
 * @typedef {object} Stored A tensor of the file
 * @property {"F32" | "U8"} dtype
 * @property {readonly number[]} shape
 * @property {Float32Array | Uint8Array} data
 */

const MAX_HEADER = 2 ** 20; // bytes; a golden file's header has 1 KB
const BYTES = { F32: 4, U8: 1 };

/**
 * Return the tensors of a file by their names.
 * @param {Uint8Array} raw
 * @param {string} where the address of the file, for messages
 * @returns {Map<string, Stored>}
 */
export function readSafetensors(raw, where) {
  /** @param {string} what */
  const refuse = (what) => new BundleError(`${where}: ${what}; export the bundle again`);
  if (raw.length < 8) throw refuse("not a safetensors file");
  const length = Number(new DataView(raw.buffer, raw.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER || length > raw.length - 8) throw refuse("not a safetensors file");
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw.subarray(8, 8 + length)));
  } catch {
    throw refuse("its header is not JSON");
  }
  if (typeof header !== "object" || header === null) throw refuse("its header is not an object");
  const body = raw.subarray(8 + length);
  const tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = /** @type {any} */ (entry) ?? {};
    if (dtype !== "F32" && dtype !== "U8") throw refuse(`${name} is ${dtype}, which no golden tensor is`);
    const isShape = Array.isArray(shape) && shape.every((side) => Number.isSafeInteger(side) && side >= 1);
    const isRange = Array.isArray(offsets) && offsets.length === 2 && offsets.every((at) => Number.isSafeInteger(at) && at >= 0);
    if (!isShape || !isRange) throw refuse(`${name} has no shape or no place`);
    const [start, stop] = offsets;
    if (stop > body.length || stop - start !== elements(shape) * BYTES[/** @type {"F32" | "U8"} */ (dtype)]) {
      throw refuse(`${name} does not lie within the file`);
    }
    const bytes = new Uint8Array(body.subarray(start, stop)); // a copy, because a Float32Array must start at a multiple of 4
    tensors.set(name, { dtype, shape, data: dtype === "F32" ? new Float32Array(bytes.buffer) : bytes });
  }
  return tensors;
}
