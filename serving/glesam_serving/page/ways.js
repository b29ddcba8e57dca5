/**
 * The ways in which the page can run a model: on the server, in the browser, or half and half.
 *
 * A site of `glesam-export web` says in site.json what it holds. Without one, the server runs everything.
 */
import { find } from "./elements.js";
import { LocalModel } from "./local.js";

/**
 * @typedef {"browser" | "split" | "server"} Way
 *
 * @typedef {object} Site What site.json says
 * @property {boolean} server whether glesam-serve serves the page
 * @property {string | null} bundle address of the bundle's folder
 * @property {Record<string, string>} engines addresses of onnxruntime-web's modules by provider
 * @property {import("./glesam/manifest.js").StageName[]} stages the graphs that the site holds
 * @property {string} [service_worker]
 * @property {string} [note] what the site cannot do, in one sentence
 */

const PATIENCE = 10_000; // milliseconds that the page waits for its service worker

/** @type {Record<Way, string>} */
const WAYS = {
  browser: "All in the browser",
  split: "Server encodes, browser decodes",
  server: "All on the server",
};

/** @returns {Promise<Site>} */
export async function readSite() {
  const meta = document.querySelector("meta[name=glesam-site]");
  if (!meta) return { server: true, bundle: null, engines: {}, stages: [] };
  const answer = await fetch(meta.getAttribute("content") ?? "site.json");
  if (!answer.ok) throw new Error(`site.json: the server answered ${answer.status}; export the site again.`);
  return answer.json();
}

/**
 * Return the ways that a site allows, the preferred one first.
 * @param {Site} site
 * @returns {Way[]}
 */
export function waysOf({ server, bundle, stages }) {
  /** @type {Way[]} */
  const ways = [];
  if (bundle && stages.includes("encoder")) ways.push("browser");
  if (bundle && server) ways.push("split");
  if (server) ways.push("server");
  return ways;
}

/**
 * Install the site's service worker, which isolates the page and keeps it for use without a network.
 *
 * Threads need an isolated page. If the host does not isolate it, the page is loaded once more under
 * the service worker, which adds the headers.
 * @param {Site} site
 * @returns {Promise<boolean>} whether the page is about to be loaded again
 */
export async function installServiceWorker({ service_worker: address }) {
  if (!address || !("serviceWorker" in navigator)) return false;
  try {
    await navigator.serviceWorker.register(address, { type: "module" });
    // It is never ready if one of its files cannot be downloaded.
    const late = new Promise((resolve) => setTimeout(resolve, PATIENCE, null));
    if (!(await Promise.race([navigator.serviceWorker.ready, late]))) return false;
  } catch {
    return false; // the browser forbids it, for example in a private window: the page works without it
  }
  if (window.crossOriginIsolated || sessionStorage.getItem("isolating")) return false;
  sessionStorage.setItem("isolating", "yes");
  location.reload();
  return true;
}

/**
 * Return the model that runs in a way.
 * @param {Way} way
 * @param {Site} site
 * @param {import("./server.js").Server} server
 * @returns {import("./server.js").Server | LocalModel}
 */
export function modelOf(way, site, server) {
  if (way === "server") return server;
  const wanted = new URLSearchParams(location.search).get("engine") ?? "wasm";
  const provider = wanted === "webgpu" && site.engines.webgpu ? "webgpu" : "wasm";
  return new LocalModel(site, provider, way === "split" ? server : null, ({ file, received, bytes, cached }) => {
    const percent = Math.floor((100 * received) / Math.max(1, bytes));
    const words = cached ? `${file} from the browser's cache` : `Downloading ${file}: ${percent} %`;
    find("status").textContent = words;
  });
}

/**
 * Fill the list of the ways.
 * @param {readonly Way[]} ways
 * @param {Site} site
 */
export function showWays(ways, site) {
  find("way").replaceChildren(...ways.map((way) => new Option(WAYS[way], way)));
  find("way-bar").hidden = site.bundle === null;
}

/**
 * Say which model runs, where and in which precision, and hide what it cannot do.
 * @param {Way} way
 * @param {import("./server.js").Bundle} described
 */
export function showModel(way, { model, engine, precision, features }) {
  find("everything").hidden = find("least-bar").hidden = features.everything === false;
  find("selftest").hidden = way !== "browser";
  find("bundle").textContent = [model.preset ?? model.family, engine.engine, engine.device].filter(Boolean).join(" · ");
  find("bundle").hidden = false;
  const stages = Object.entries(precision).map(([stage, kind]) => `${stage} ${kind}`).join(", ");
  const encoder = engine.encoder ? `; the encoder by ${engine.encoder}` : "";
  find("engine").textContent = `${WAYS[way]}: ${engine.engine} ${engine.version ?? ""} on ${engine.device}${encoder}: ${stages}`;
}
