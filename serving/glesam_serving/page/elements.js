/**
 * Find the elements of the page by their ids, with their types.
 */

/** @param {string} id @returns {HTMLElement} */
export const find = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id @returns {HTMLInputElement} */
export const input = (id) => /** @type {HTMLInputElement} */ (find(id));
/** @param {string} id @returns {HTMLButtonElement} */
export const button = (id) => /** @type {HTMLButtonElement} */ (find(id));
/** @param {string} id @returns {HTMLTableElement} */
export const table = (id) => /** @type {HTMLTableElement} */ (find(id));
/** @param {string} id @returns {HTMLCanvasElement} */
export const canvas = (id) => /** @type {HTMLCanvasElement} */ (find(id));

export const progress = /** @type {HTMLProgressElement} */ (find("progress"));
