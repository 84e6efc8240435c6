// The page: two files in, classes with their probabilities out.
import { classify, draw, load } from "./classify.js";

const SHOWN = 5;
const [state, answer, canvas, list] = ["#state", "#answer", "canvas", "ol"].map((name) => document.querySelector(name));
let model = null;
let image = null;

function row({ name, probability }) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = name;
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.append(document.createElement("i"));
  bar.firstChild.style.width = `${100 * probability}%`;
  const figure = document.createElement("output");
  figure.value = `${(100 * probability).toFixed(1)} %`;
  figure.dataset.probability = probability;
  item.append(label, bar, figure);
  return item;
}

async function answerAnew() {
  answer.hidden = true;
  if (!model || !image) return;
  draw(image, canvas, model.known);
  const begun = performance.now();
  const classes = await classify(model, canvas);
  const { length } = classes;
  list.replaceChildren(...classes.slice(0, SHOWN).map(row));
  state.textContent = `${length} classes, ${(performance.now() - begun).toFixed(1)} ms in this browser`;
  answer.hidden = false;
}

// What a chosen file becomes, or why it cannot.
function takes(id, read) {
  document.getElementById(id).addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    try {
      await read(file);
      state.textContent = model ? "Now a picture." : "Now a network.";
      await answerAnew();
    } catch (error) {
      answer.hidden = true;
      state.textContent = `${file.name}: ${error.message}`;
    }
  });
}

takes("model", async (file) => {
  model = null;
  state.textContent = "Loading …";
  model = await load(new Uint8Array(await file.arrayBuffer()));
});
takes("picture", async (file) => {
  image = null;
  image = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("this is no picture that the browser can read");
  });
});
