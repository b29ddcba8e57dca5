/**
 * The errors of this library. Each message is one sentence: what is wrong, where, and what to do.
 */

/** The bundle is incomplete, altered, too new, or cannot be downloaded. */
export class BundleError extends Error {
  name = "BundleError";
}

/** An image or a prompt cannot be used. */
export class InputError extends Error {
  name = "InputError";
}

/** The engine is missing, failed, or lacks something of this browser. */
export class EngineError extends Error {
  name = "EngineError";
}

/**
 * Return the message of anything that was thrown.
 * @param {unknown} error
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
