// node node.mjs digits.onnx digits.json: what each image shows, where the JSON is a list of images, lists of pixels.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { classifier } from "./classify.mjs";

const [model, images] = process.argv.slice(2).map((path) => readFileSync(path));
const classify = await classifier(ort, model);
for (const image of JSON.parse(images)) console.log(await classify(image));
