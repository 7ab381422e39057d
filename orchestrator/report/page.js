// Values under the pointer, copying, and the slider over the epochs. The page reads without this.
"use strict";

function showValues(svg) {
  const lines = JSON.parse(svg.dataset.lines), [left, right] = JSON.parse(svg.dataset.box);
  const figure = svg.closest("figure");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = box.width / 400;
    const share = ((event.clientX - box.left) / scale - 52) / 338;
    const x = left + share * (right - left);
    const epochs = lines.flatMap((line) => line.points.map((p) => p[0]));
    if (!epochs.length) return;
    const near = epochs.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
    const found = lines.flatMap((line) =>
      line.points.filter((p) => p[0] === near).map((p) => `${line.name}: ${p[1]}`));
    let shown = figure.querySelector(".values");
    if (!shown) {
      shown = document.createElement("div");
      shown.className = "values";
      figure.append(shown);
    }
    shown.textContent = [`epoch ${near}`, ...found.slice(0, 16)].join("\n");
    const whole = figure.getBoundingClientRect();
    const wanted = event.clientX - whole.left + 14;
    shown.style.left = `${Math.max(0, Math.min(wanted, whole.width - shown.offsetWidth))}px`;
    shown.style.top = `${event.clientY - whole.top + 14}px`;
  });
  svg.addEventListener("pointerleave", () => figure.querySelector(".values")?.remove());
}

function slide(figure) {
  const data = JSON.parse(figure.dataset.over), [least, most] = data.range;
  const input = figure.querySelector("input");
  figure.querySelector(".slider").hidden = data.epochs.length < 2;
  const draw = () => {
    const at = Number(input.value), kept = data.kept[at];
    const chosen = at === data.chosen ? ", whose cell was chosen" : "";
    figure.querySelector(".at").textContent = `epoch ${data.epochs[at]}${chosen}`;
    for (const edge of figure.querySelectorAll("[data-edge]")) {
      edge.classList.toggle("off", !kept[edge.dataset.edge]);
    }
    for (const name of figure.querySelectorAll("[data-name]")) {
      name.textContent = (kept[name.dataset.name] ?? [])
        .map((operation) => operation.split(":").pop()).join(", ");
    }
    for (const square of figure.querySelectorAll("[data-p]")) {
      const [e, k] = square.dataset.p.split(",").map(Number), p = data.p[at][e][k];
      square.setAttribute("fill-opacity", (p - least) / (most - least));
      square.querySelector("title").textContent = `${data.names[k]}: ${p}`;
      square.classList.toggle("on", (kept[e] ?? []).includes(data.names[k]));
    }
  };
  input.addEventListener("input", draw);
}

function copy(button) {
  const text = button.parentElement.querySelector("pre").textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file may not use the clipboard itself
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
  });
}

document.querySelectorAll("svg.curves").forEach(showValues);
document.querySelectorAll("figure.over").forEach(slide);
document.querySelectorAll("button.copy").forEach(copy);
