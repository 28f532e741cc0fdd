// Check that model.onnx computes the reference outputs here: node port/check.mjs [FOLDER OF onnxruntime-web OR -node]
// The part between the lines is what a page or an app needs; npm install onnxruntime-web (or onnxruntime-node).
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const ort = createRequire(import.meta.url)(process.argv[2] ? path.resolve(process.argv[2]) : "onnxruntime-web");
const arrays = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
  bool: Uint8Array, float16: Uint16Array,
};

// an .npy file: 8 bytes of magic and version, the header's length, the header, the numbers
function readTensor([, , type, shape, file]) {
  const bytes = fs.readFileSync(path.join(here, file));
  const data = bytes.subarray(10 + bytes.readUInt16LE(8));
  const numbers = new arrays[type](data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  return new ort.Tensor(type, numbers, shape ? shape.split(",").map(Number) : []);
}

function half(bits) { // the number of a float16
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, part = bits & 1023;
  if (exponent === 31) return part ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : part / 1024 * 2 ** -14);
}

function distance(expected, found) {
  if (String(expected.dims) !== String(found.dims)) return Infinity;
  const number = expected.type === "float16" && expected.data instanceof Uint16Array ? half : Number;
  let worst = 0, largest = 1e-30;
  for (let k = 0; k < expected.data.length; k++) {
    const left = number(expected.data[k]), right = number(found.data[k]);
    if (!Number.isFinite(left)) {
      if (!Object.is(left, right)) return Infinity;
      continue;
    }
    largest = Math.max(largest, Math.abs(left));
    const difference = Math.abs(left - right);
    worst = difference <= worst ? worst : difference;
  }
  return worst / largest;
}

const [first, ...lines] = fs.readFileSync(path.join(here, "reference", "tensors.txt"), "utf8").trim().split("\n");
const tolerance = Number(first.split("\t")[1]);
const rows = lines.filter((line) => !line.startsWith("#")).map((line) => line.split("\t"));
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;

// ----------------------------------------------------------------------------------------------------------------
const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(path.join(here, "model.onnx"))));

async function run(tensors) { // in the order of the model's inputs, and of its outputs
  const found = await session.run(Object.fromEntries(session.inputNames.map((name, k) => [name, tensors[k]])));
  return session.outputNames.map((name) => found[name]);
}
// ----------------------------------------------------------------------------------------------------------------

let worst = 0;
for (const call of new Set(rows.map((row) => row[0]))) {
  const of = (kind) => rows.filter((row) => row[0] === call && row[1] === kind).map(readTensor);
  const found = await run(of("input"));
  of("output").forEach((expected, k) => { worst = Math.max(worst, distance(expected, found[k])); });
}
console.log(`largest difference ${worst.toPrecision(2)} of the largest number; allowed are ${tolerance}`);
process.exit(worst <= tolerance ? 0 : 1);
