/**
 * Encode masks as COCO does: run lengths down the columns, written in printable characters.
 */

const OFFSET = 48; // added to each group of 6 bits to make it printable
const MORE = 0x20;
const SIGN = 0x10;

/**
 * Return the lengths of the runs of a mask, down its columns. The first run is background.
 * @param {{data: Uint8Array, width: number, height: number}} mask [height * width] in reading order
 * @returns {number[]}
 */
export function countRuns({ data, width, height }) {
  const runs = [];
  let start = 0;
  let current = 0;
  for (let x = 0, position = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width, position++) {
      const value = data[at] ? 1 : 0;
      if (value === current) continue;
      runs.push(position - start);
      start = position;
      current = value;
    }
  }
  runs.push(width * height - start);
  return runs;
}

/**
 * Encode a mask as COCO's compressed RLE, as pycocotools writes it.
 * @param {{data: Uint8Array, width: number, height: number}} mask [height * width] in reading order
 * @returns {{size: [number, number], counts: string}} size is height and width
 */
export function encodeRle(mask) {
  const runs = countRuns(mask);
  let counts = "";
  runs.forEach((run, index) => {
    // From the fourth run on, the number is the difference from the run two before.
    let value = index > 2 ? run - runs[index - 2] : run;
    for (let more = true; more; ) {
      const low = value & 0x1f;
      value >>= 5;
      // A number is complete when only sign bits remain and the group's top bit equals the sign.
      more = low & SIGN ? value !== -1 : value !== 0;
      counts += String.fromCharCode((low | (more ? MORE : 0)) + OFFSET);
    }
  });
  return { size: [mask.height, mask.width], counts };
}
