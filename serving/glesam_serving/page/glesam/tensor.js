/**
 * The arrays that stages exchange, and the part of onnxruntime-web that this library uses.
 */

/**
 * @typedef {object} Tensor A float32 array in C order
 * @property {Float32Array} data
 * @property {readonly number[]} shape
 *
 * @typedef {{[name: string]: Tensor}} Tensors by the names of a graph's inputs or outputs
 *
 * @typedef {object} Pixels An image
 * @property {Uint8Array | Uint8ClampedArray} data RGB or RGBA in reading order; alpha is ignored
 * @property {number} width in pixels
 * @property {number} height in pixels
 */

/**
 * @typedef {object} OrtTensor
 * @property {any} data
 * @property {readonly number[]} dims
 * @property {() => void} [dispose]
 *
 * @typedef {object} OrtSession
 * @property {readonly string[]} inputNames
 * @property {readonly string[]} outputNames
 * @property {(feeds: {[name: string]: OrtTensor}) => Promise<{[name: string]: OrtTensor}>} run
 * @property {() => Promise<void>} release
 *
 * @typedef {object} Ort The module onnxruntime-web
 * @property {{create(model: Uint8Array, options: object): Promise<any>}} InferenceSession
 * @property {new (type: "float32", data: Float32Array, dims: readonly number[]) => any} Tensor
 * @property {any} env
 */

/**
 * Return the number of elements of a shape.
 * @param {readonly number[]} shape
 */
export function elements(shape) {
  return shape.reduce((product, side) => product * side, 1);
}

/**
 * Return the part of a tensor that belongs to one index of its first axis, without a copy.
 * @param {Tensor} tensor
 * @param {number} index
 * @returns {Tensor}
 */
export function part(tensor, index) {
  const shape = tensor.shape.slice(1);
  const size = elements(shape);
  return { data: tensor.data.subarray(index * size, (index + 1) * size), shape };
}

/**
 * Return whether two shapes are equal.
 * @param {readonly (number | string)[]} one
 * @param {readonly (number | string)[]} other
 */
export function sameShape(one, other) {
  return one.length === other.length && one.every((side, axis) => side === other[axis]);
}

/**
 * Return whether all elements are finite.
 * @param {Float32Array} data
 */
export function isFinite32(data) {
  for (let at = 0; at < data.length; at++) if (!Number.isFinite(data[at])) return false;
  return true;
}
