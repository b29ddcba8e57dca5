/**
 * Run cases that a test has written: run_cases.mjs MODULES FOLDER.
 *
 * FOLDER holds cases.json and tensors.safetensors. Each case names its kind and its tensors by its index;
 * its result goes to INDEX.bin (raw numbers), or into results.json.
 */
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [modules, folder] = process.argv.slice(2);
const load = (name) => import(new URL(name, pathToFileURL(modules + "/")));
const { preprocess, geometryOf } = await load("image.js");
const { binarize, boxOf, choose, forMaskInput, upscale } = await load("masks.js");
const { parseManifest } = await load("manifest.js");
const { checkPrompts, promptTensors } = await load("prompts.js");
const { countRuns, encodeRle } = await load("rle.js");
const { readSafetensors } = await load("safetensors.js");

const cases = JSON.parse(await readFile(`${folder}/cases.json`, "utf8"));
const tensors = readSafetensors(await readFile(`${folder}/tensors.safetensors`), "tensors.safetensors");

/** What each kind of case computes: bytes for INDEX.bin, or anything else for results.json. */
const kinds = {
  preprocess: ({ rules }, { data, shape: [height, width] }) => preprocess({ data, width, height }, rules).tensor.data,
  upscale: ({ rules, geometry }, logits) => upscale(logits, geometry, rules).data,
  masks({ rules, geometry }, logits) {
    const mask = binarize(logits, geometry, rules);
    return { area: mask.area, stability: mask.stability, box: boxOf(mask), rle: encodeRle(mask) };
  },
  rle({}, { data, shape: [height, width] }) {
    const mask = { data, width, height };
    return { rle: encodeRle(mask), runs: countRuns(mask) };
  },
  choose({ rules, iou, multimask }, lowRes) {
    const made = choose(lowRes, { data: new Float32Array(iou.flat()), shape: [iou.length, 4] }, multimask, rules);
    return { logits: [...forMaskInput(made.lowRes, rules).data], iou: [...made.iou.data], shape: made.lowRes.shape };
  },
  prompts({ prompt, rules, height, width, size, resize }) {
    const geometry = geometryOf(height, width, { image_size: size, resize });
    const made = promptTensors(checkPrompts(geometry, prompt), geometry, rules);
    return Object.fromEntries(["point_coords", "point_labels"].map((name) => [name, [made[name].shape, [...made[name].data]]]));
  },
  manifest({ bytes }) {
    const manifest = parseManifest(Uint8Array.from(Buffer.from(bytes, "base64")), "manifest.json");
    return { engine: manifest.target.engine };
  },
};

const results = [];
for (const [index, each] of cases.entries()) {
  const tensor = tensors.get(String(index));
  try {
    const result = kinds[each.kind](each, tensor);
    if (ArrayBuffer.isView(result)) await writeFile(`${folder}/${index}.bin`, result);
    results.push(ArrayBuffer.isView(result) ? null : result);
  } catch (error) {
    results.push({ error: error.name, message: error.message });
  }
}
await writeFile(`${folder}/results.json`, JSON.stringify(results));
