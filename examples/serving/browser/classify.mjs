// An exported ONNX file in JavaScript, in a browser or in Node.

export async function classifier(ort, model) {
  const session = await ort.InferenceSession.create(model);
  return async (pixels) => {
    const input = new ort.Tensor("float32", Float32Array.from(pixels), [1, pixels.length]);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const scores = Array.from(outputs[session.outputNames[0]].data);
    return scores.indexOf(Math.max(...scores));
  };
}
