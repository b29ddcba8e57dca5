/**
 * Save masks, the overlay and COCO JSON as files.
 */
import { context2d, drawBinary, newCanvas } from "./draw.js";

/**
 * @typedef {object} Item An object with its mask
 * @property {import("./session.js").Segmented} object
 * @property {import("./server.js").Mask} mask
 * @property {HTMLCanvasElement} layer
 */

/**
 * Save a mask in white on black.
 * @param {Item} item
 * @param {string} stem name of the picture without its suffix
 */
export function saveMask(item, stem) {
  saveCanvas(drawBinary(item.mask.rle), `${stem}_${fileName(item.object.name)}_mask.png`);
}

/**
 * Save the picture with all masks over it.
 * @param {HTMLCanvasElement} picture
 * @param {Item[]} items
 * @param {string} stem
 */
export function saveOverlay(picture, items, stem) {
  const canvas = newCanvas(picture.width, picture.height);
  const context = context2d(canvas);
  context.drawImage(picture, 0, 0);
  for (const { layer } of items) context.drawImage(layer, 0, 0);
  saveCanvas(canvas, `${stem}_overlay.png`);
}

/**
 * Save all objects as COCO annotations. Objects of one name are of one category.
 * @param {string} name file name of the picture
 * @param {{width: number, height: number}} size
 * @param {Item[]} items
 * @param {string} stem
 */
export function saveCoco(name, { width, height }, items, stem) {
  const names = [...new Set(items.map(({ object }) => object.name))];
  const document = {
    images: [{ id: 1, file_name: name, width, height }],
    categories: names.map((category, index) => ({ id: index + 1, name: category })),
    annotations: items.map(({ object, mask }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(object.name) + 1,
      segmentation: mask.rle,
      bbox: [mask.box[0], mask.box[1], mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]],
      area: mask.area,
      iscrowd: 0,
      score: mask.predicted_iou,
    })),
  };
  save(new Blob([JSON.stringify(document)], { type: "application/json" }), `${stem}_coco.json`);
}

/** @param {HTMLCanvasElement} canvas @param {string} name */
function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => {
    if (blob) save(blob, name);
  }, "image/png");
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {string} name */
function fileName(name) {
  return name.trim().replace(/[^\p{L}\p{N}._-]+/gu, "_") || "object";
}
