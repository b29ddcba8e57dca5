/**
 * Call the server's API. All that the page knows of addresses and of answers is in this file.
 */

/**
 * @typedef {object} Mask One mask, as the server answers it
 * @property {number} predicted_iou
 * @property {number} stability_score
 * @property {[number, number, number, number]} box x0, y0, x1, y1 in pixels; x1 and y1 are the first outside
 * @property {number} area in pixels
 * @property {import("./rle.js").Rle} rle
 *
 * @typedef {object} Encoded An image that the server holds
 * @property {string} image_id
 * @property {number} width
 * @property {number} height
 * @property {boolean} cached whether it was there already
 * @property {Record<string, number>} seconds of each stage
 *
 * @typedef {object} Bundle What the server serves
 * @property {{family: string, preset: string | null, trained: boolean}} model
 * @property {string} [sha256] of manifest.json
 * @property {Record<string, string>} precision of each stage
 * @property {Record<string, string>} engine what runs where, and why
 * @property {{enhance: boolean, degrade: boolean, everything?: boolean, hover?: boolean}} features
 * @property {{pred_iou_thresh: number} | null} everything thresholds of a search that names none; null cannot search
 */

const TRY_AGAIN = 3;

/** An answer that says what is wrong, in one sentence. */
export class ServerError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server that the page came from. */
export class Server {
  #key = sessionStorage.getItem("api-key") ?? "";
  /** @type {Promise<void> | null} */
  #asking = null;

  /** @param {() => Promise<string>} askKey called when the server wants an API key */
  constructor(askKey) {
    this.askKey = askKey;
  }

  /**
   * Return the public part of the manifest, and what the server can do.
   * @returns {Promise<Bundle>}
   */
  async bundle() {
    return (await this.#send("v1/bundle")).json();
  }

  /** Return the sample picture. */
  async sample() {
    return (await this.#send("v1/sample")).blob();
  }

  /**
   * Upload a picture and have it encoded.
   * @param {Blob} picture
   * @param {boolean} enhance
   * @param {AbortSignal} [signal]
   * @returns {Promise<Encoded>}
   */
  async encode(picture, enhance, signal) {
    const headers = { "Content-Type": picture.type || "application/octet-stream" };
    return (await this.#send(`v1/images?enhance=${enhance}`, { method: "POST", body: picture, headers, signal })).json();
  }

  /**
   * Download the embedding of an encoded picture.
   * @param {string} image
   * @returns {Promise<import("./glesam/predictor.js").Embedding>}
   */
  async embedding(image) {
    /** @type {import("./glesam/tensor.js").Tensors} */
    const features = {};
    let answer = await this.#send(`v1/images/${image}/embedding`);
    const { headers } = answer;
    /** @param {string} name @param {string} separator */
    const numbers = (name, separator) => (headers.get(name) ?? "").split(separator).map(Number);
    for (const name of (headers.get("X-GleSAM-Names") ?? "image_embeddings").split(",")) {
      if (name !== "image_embeddings") answer = await this.#send(`v1/images/${image}/embedding?name=${name}`);
      const shape = (answer.headers.get("X-GleSAM-Shape") ?? "").split(",").map(Number);
      features[name] = { data: new Float32Array(await answer.arrayBuffer()), shape };
    }
    const [width, height] = numbers("X-GleSAM-Image-Size", "x");
    const [resizedWidth, resizedHeight] = numbers("X-GleSAM-Resized-Size", "x");
    const imageSize = 16 * features.image_embeddings.shape[3];
    return {
      features,
      geometry: { imageSize, resized: [resizedHeight, resizedWidth], original: [height, width] },
      bundle_sha256: headers.get("X-GleSAM-Bundle-SHA256") ?? "",
      enhanced: headers.get("X-GleSAM-Enhanced") === "true",
    };
  }

  /**
   * Return a degraded copy of a picture.
   * @param {string} image
   * @param {number} level 1 to 3
   */
  async degrade(image, level) {
    return (await this.#post(`v1/images/${image}/degrade`, { level })).blob();
  }

  /**
   * Segment one object.
   * @param {string} image
   * @param {Pick<import("./session.js").Segmented, "points" | "box">} object
   * @param {boolean} multimask
   * @param {AbortSignal} [signal]
   * @returns {Promise<{masks: Mask[], seconds: Record<string, number>}>}
   */
  async segment(image, object, multimask, signal) {
    const prompt = {
      ...(object.points.length && {
        points: object.points.map(([x, y]) => [x, y]),
        labels: object.points.map(([, , label]) => label),
      }),
      ...(object.box && { box: object.box }),
    };
    return (await this.#post(`v1/images/${image}/segment`, { prompts: [prompt], multimask }, signal)).json();
  }

  /**
   * Find everything in a picture.
   * @param {string} image
   * @param {number} least score that a mask needs, 0 to 1; for its stability the bundle's own threshold holds
   * @param {(share: number) => void} onProgress called with the share that is done, 0 to 1
   * @param {AbortSignal} signal
   * @returns {Promise<Mask[]>}
   */
  async everything(image, least, onProgress, signal) {
    const answer = await this.#post(`v1/images/${image}/everything`, { pred_iou_thresh: least }, signal);
    /** @type {Mask[]} */
    const masks = [];
    let isDone = false;
    for await (const line of linesOf(answer)) {
      const { progress, mask, done, error } = JSON.parse(line);
      if (error) throw new ServerError(error.status, error.detail);
      if (progress !== undefined) onProgress(progress);
      if (mask) masks.push(mask);
      if (done) isDone = true;
    }
    if (!isDone) throw new ServerError(0, "The server ended the search early; try again.");
    return masks;
  }

  /** @param {string} path @param {object} body @param {AbortSignal} [signal] */
  #post(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.#send(path, { method: "POST", body: JSON.stringify(body), headers, signal });
  }

  /** Ask for the key once, however many requests want it. */
  #newKey() {
    this.#asking ??= this.askKey().then((key) => {
      this.#key = key.trim();
      sessionStorage.setItem("api-key", this.#key);
      this.#asking = null;
    });
    return this.#asking;
  }

  /**
   * Send a request; ask for the API key, or wait, where the server says so.
   * @param {string} path
   * @param {RequestInit & {headers?: Record<string, string>}} [request]
   * @returns {Promise<Response>}
   */
  async #send(path, request = {}) {
    for (let attempt = 1; ; attempt++) {
      /** @type {Record<string, string>} */
      const key = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
      let answer;
      try {
        answer = await fetch(path, { ...request, headers: { ...request.headers, ...key } });
      } catch (error) {
        if (error instanceof DOMException) throw error; // aborted by the page itself
        throw new ServerError(0, "The server does not answer; check that glesam-serve runs.");
      }
      if (answer.ok) return answer;
      if (answer.status === 401 && attempt < TRY_AGAIN) {
        await this.#newKey();
        if (!this.#key) throw new ServerError(401, await problem(answer));
      } else if (answer.status === 429 && attempt < TRY_AGAIN) {
        const seconds = Number(answer.headers.get("Retry-After")) || 1;
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      } else {
        throw new ServerError(answer.status, await problem(answer));
      }
    }
  }
}

/**
 * Yield the lines of an answer as they arrive.
 * @param {Response} answer
 * @returns {AsyncGenerator<string>}
 */
async function* linesOf(answer) {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    yield* lines.filter((line) => line !== "");
  }
  if (rest !== "") yield rest;
}

/**
 * Return the sentence of an answer that reports an error.
 * @param {Response} answer
 */
async function problem(answer) {
  try {
    const { detail, title } = await answer.json();
    return String(detail ?? title);
  } catch {
    return `The server answered ${answer.status} ${answer.statusText}.`;
  }
}
