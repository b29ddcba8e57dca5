/**
 * Download files with progress, verify their SHA-256, and keep them in the browser's cache.
 *
 * A download that breaks off goes on where it stopped, if the server answers range requests.
 */
import { BundleError, EngineError, messageOf } from "./errors.js";

/**
 * @typedef {import("./manifest.js").FileRef} FileRef
 *
 * @typedef {object} Progress
 * @property {string} file
 * @property {number} received bytes of the file
 * @property {number} bytes of the whole file
 * @property {boolean} cached whether it came from the browser's cache
 *
 * @typedef {object} DownloadOptions
 * @property {(progress: Progress) => void} [onProgress] called as bytes arrive
 * @property {typeof fetch} [fetch] another function to get files with
 * @property {string | null} [cache] name of the browser's cache; null keeps nothing. Default: glesam-bundles
 * @property {AbortSignal} [signal]
 */

const ATTEMPTS = 4;
const PAUSE = 500; // milliseconds before the second attempt; it doubles
export const CACHE = "glesam-bundles";

/**
 * Return the bytes of a file that match the manifest.
 * @param {string} base address of the bundle, with a final slash
 * @param {FileRef} ref
 * @param {DownloadOptions} options
 * @returns {Promise<Uint8Array>}
 */
export async function download(base, ref, options) {
  const address = new URL(ref.file, base).href;
  const key = `${address}?sha256=${ref.sha256}`;
  const cache = await openCache(options);
  const kept = await cache?.match(key);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (bytes.length === ref.bytes && (await sha256(bytes)) === ref.sha256) {
      options.onProgress?.({ file: ref.file, received: bytes.length, bytes: ref.bytes, cached: true });
      return bytes;
    }
    await cache?.delete(key);
  }
  const bytes = await receive(address, ref, options);
  if ((await sha256(bytes)) !== ref.sha256) {
    throw new BundleError(`${address}: altered, its sha256 is not the manifest's; reload the page, or export the bundle again`);
  }
  try {
    await cache?.put(key, new Response(bytes));
  } catch {
    // The browser's quota is used up: the next visit downloads the file again.
  }
  return bytes;
}

/**
 * Download a small file whose size and hash nothing declares.
 * @param {string} address
 * @param {number} most bytes
 * @param {DownloadOptions} options
 */
export async function downloadSmall(address, most, options) {
  const answer = await ask(address, {}, options);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (bytes.length > most) throw new BundleError(`${address}: ${bytes.length} bytes, more than the limit of ${most}`);
  return bytes;
}

/**
 * Return the SHA-256 of bytes in hex digits.
 * @param {Uint8Array} bytes
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new EngineError("The browser verifies files on https pages and on localhost only; open the page at such an address.");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {DownloadOptions} options @returns {Promise<Cache | null>} */
async function openCache({ cache = CACHE }) {
  if (cache === null || typeof caches === "undefined") return null;
  try {
    return await caches.open(cache);
  } catch {
    return null; // private windows of some browsers have none
  }
}

/** @param {string} address @param {FileRef} ref @param {DownloadOptions} options */
async function receive(address, ref, options) {
  let bytes;
  try {
    bytes = new Uint8Array(ref.bytes);
  } catch {
    throw new EngineError(`${address}: this browser has no memory for ${ref.bytes >> 20} MiB; close other pages or use a smaller bundle`);
  }
  let received = 0;
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await ask(address, received ? { Range: `bytes=${received}-` } : {}, options);
      if (received && answer.status !== 206) received = 0; // the server sends the file from its start
      for await (const piece of piecesOf(answer)) {
        if (received + piece.length > ref.bytes) throw wrongSize(address, ref, "more");
        bytes.set(piece, received);
        received += piece.length;
        options.onProgress?.({ file: ref.file, received, bytes: ref.bytes, cached: false });
      }
      if (received < ref.bytes) throw wrongSize(address, ref, `${received}`);
      return bytes;
    } catch (error) {
      const isFinal = error instanceof BundleError && !(error instanceof BrokenOff);
      if (isFinal || options.signal?.aborted || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE * 2 ** (attempt - 1)));
    }
  }
}

/** A download that may go on. */
class BrokenOff extends BundleError {}

/** @param {string} address @param {FileRef} ref @param {string} found */
function wrongSize(address, ref, found) {
  const text = `${address}: ${found} bytes, the manifest says ${ref.bytes}; reload the page, or copy the bundle again`;
  return found === "more" ? new BundleError(text) : new BrokenOff(text);
}

/** @param {string} address @param {Record<string, string>} headers @param {DownloadOptions} options */
async function ask(address, headers, options) {
  let answer;
  try {
    answer = await (options.fetch ?? fetch)(address, { headers, signal: options.signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new BrokenOff(`${address}: cannot be downloaded (${messageOf(error)}); check the connection and reload the page`);
  }
  if (answer.status === 404) throw new BundleError(`${address}: missing from the bundle; copy or export the bundle again`);
  if (!answer.ok) throw new BrokenOff(`${address}: the server answered ${answer.status}; reload the page`);
  return answer;
}

/** @param {Response} answer @returns {AsyncGenerator<Uint8Array>} */
async function* piecesOf(answer) {
  if (!answer.body) return;
  const reader = answer.body.getReader();
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw new BrokenOff(`${answer.url}: the download broke off (${messageOf(error)}); check the connection and reload the page`);
    }
    if (piece.done) return;
    yield piece.value;
  }
}
