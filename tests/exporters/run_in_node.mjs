// Runs ONNX files in onnxruntime-web: [[path, inputs], ...] on stdin, their outputs on stdout.
// An input or output is {name: [type, data, dims]}.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(new URL("../../examples/serving/browser/", import.meta.url))("onnxruntime-web");
const found = [];
for (const [path, inputs] of JSON.parse(readFileSync(0))) {
  const session = await ort.InferenceSession.create(readFileSync(path));
  const feeds = Object.entries(inputs).map(([name, tensor]) => [name, new ort.Tensor(...tensor)]);
  const outputs = Object.entries(await session.run(Object.fromEntries(feeds)));
  found.push(Object.fromEntries(outputs.map(([name, { type, data, dims }]) => [name, [type, Array.from(data), dims]])));
}
console.log(JSON.stringify(found));
