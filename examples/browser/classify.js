// A file of `model-compression export` in the browser: ONNX Runtime computes, the file says what its numbers mean.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const KEY = "model_compression";

// The network in an .onnx file (Uint8Array): a session, and what the file says of itself.
export async function load(bytes) {
  const known = metadata(bytes);
  if (known.image_shape[0] !== 3) throw new Error(`it takes images of ${known.image_shape[0]} channels, not of 3`);
  return { known, session: await ort.InferenceSession.create(bytes) };
}

// [{name, probability}] of what a canvas shows, the most likely first.
export async function classify({ known, session }, canvas) {
  const input = pixels(canvas, known);
  const answer = await session.run({ [session.inputNames[0]]: input });
  const logits = Array.from(answer[session.outputNames[0]].data, Number);
  const largest = Math.max(...logits);
  const raised = logits.map((logit) => Math.exp(logit - largest));
  const sum = raised.reduce((total, value) => total + value, 0);
  return raised
    .map((value, number) => ({ name: known.class_names[number], probability: value / sum }))
    .sort((one, other) => other.probability - one.probability);
}

// Draws an image as the network takes it: cropped, padded or squashed to its size as the file says; from the middle.
export function draw(image, canvas, known) {
  const [, height, width] = known.image_shape;
  [canvas.width, canvas.height] = [width, height];
  const { fit = "crop", crop_share: share = 1 } = known;
  const scales = [width / image.width / share, height / image.height / share];
  const scale = fit === "pad" ? Math.min(...scales) : Math.max(...scales);
  const [wide, high] = fit === "squash" ? [width / share, height / share] : [image.width * scale, image.height * scale];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "rgb(127, 127, 127)";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = wide !== image.width || high !== image.height;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (width - wide) / 2, (height - high) / 2, wide, high);
}

// The canvas as (1, 3, H, W): bytes, or, for a file without preprocessing inside, what the network itself takes.
function pixels(canvas, known) {
  const [, height, width] = known.image_shape;
  const { data } = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height); // RGBA
  const inside = known.preprocessing_inside;
  const order = !inside && known.channel_order === "bgr" ? [2, 1, 0] : [0, 1, 2];
  const area = height * width;
  const values = new (inside ? Uint8Array : Float32Array)(3 * area);
  order.forEach((source, channel) => {
    for (let place = 0; place < area; place++) {
      const value = data[4 * place + source];
      values[channel * area + place] = inside ? value : (value / 255 - known.mean[channel]) / known.std[channel];
    }
  });
  return new ort.Tensor(inside ? "uint8" : "float32", values, [1, 3, height, width]);
}

// What the file says of itself: ModelProto.metadata_props, field 14 of onnx.proto, which ONNX Runtime does not show here.
function metadata(bytes) {
  try {
    const reader = protobuf.Reader.create(bytes);
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag >>> 3 !== 14) {
        reader.skipType(tag & 7);
        continue;
      }
      const end = reader.uint32() + reader.pos;
      const entry = {};
      while (reader.pos < end) entry[reader.uint32() >>> 3] = reader.string(); // 1: key, 2: value
      if (entry[1] === KEY) return JSON.parse(entry[2]);
    }
  } catch {
    // not an ONNX file at all
  }
  throw new Error("this is no .onnx file that `model-compression export` has written");
}
