// An exported ONNX file in JavaScript, in a browser or in Node.

export async function classifier(ort, model) {
  const session = await ort.InferenceSession.create(model);
  const shape = session.inputMetadata[0].shape.map((size) => (typeof size === "number" ? size : 1)); // a batch of one
  return async (pixels) => {
    const input = new ort.Tensor("float32", Float32Array.from(pixels), shape);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const scores = Array.from(outputs[session.outputNames[0]].data);
    return scores.indexOf(Math.max(...scores));
  };
}
