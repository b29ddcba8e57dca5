/**
 * The service worker of a site that `glesam-export web` wrote: it keeps the site for use without a
 * network, and isolates the page from other sites, which wasm threads need, where the host does not.
 *
 * The exporter replaces the two constants. The graphs are not among the files: glesam/download.js
 * keeps them itself, verified.
 */

/** Hash of the files. */
const VERSION = "";
/** @type {string[]} addresses relative to this file */
const FILES = [];

const CACHE = `glesam-site-${VERSION}`;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
const scope = /** @type {any} */ (self); // the types of a service worker and of a page exclude each other

scope.addEventListener("install", (/** @type {any} */ event) => {
  event.waitUntil(install());
});

scope.addEventListener("activate", (/** @type {any} */ event) => {
  event.waitUntil(activate());
});

scope.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(answer(request));
});

async function install() {
  const cache = await caches.open(CACHE);
  // "reload" passes by the browser's own cache, which may hold files of an earlier version.
  await cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" })));
  await scope.skipWaiting();
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith("glesam-site-") && name !== CACHE) await caches.delete(name);
  }
  await scope.clients.claim();
}

/** @param {Request} request */
async function answer(request) {
  const cache = await caches.open(CACHE);
  const found = (await cache.match(request, { ignoreSearch: true })) ?? (await fetch(request));
  if (found.status === 0 || found.redirected) return found;
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
