// Series to hide, zoom, tables to sort and filter. The page is complete without it.
"use strict";
const make = (tag, fields = {}) => Object.assign(document.createElement(tag), fields);
const svgPoint = (svg, event) =>
  new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());

for (const figure of document.querySelectorAll("figure[data-name]")) {
  const tools = figure.querySelector(".tools");
  tools.hidden = false;
  for (const button of tools.querySelectorAll("[data-series]")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", shown);
      const own = `[id*=".series-${button.dataset.series}."], [data-series="${button.dataset.series}"]`;
      for (const svg of figure.querySelectorAll("svg"))
        for (const mark of svg.querySelectorAll(own)) mark.style.display = shown ? "" : "none";
    });
  }
  const reset = make("button", { type: "button", textContent: "Reset zoom", hidden: true });
  tools.append(reset);
  for (const svg of figure.querySelectorAll("svg")) {
    const whole = svg.getAttribute("viewBox");
    let start = null, box = null;
    reset.addEventListener("click", () => {
      svg.setAttribute("viewBox", whole);
      reset.hidden = true;
    });
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button) return;
      start = svgPoint(svg, event);
      box = document.createElementNS(svg.namespaceURI, "rect");
      box.setAttribute("class", "zoom");
      svg.append(box);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return;
      const end = svgPoint(svg, event);
      const corner = { x: Math.min(start.x, end.x), y: Math.min(start.y, end.y),
        width: Math.abs(start.x - end.x), height: Math.abs(start.y - end.y) };
      for (const [name, value] of Object.entries(corner)) box.setAttribute(name, value);
    });
    svg.addEventListener("pointerup", () => {
      if (!start) return;
      const [x, y, width, height] =
        ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)));
      if (width > 8 && height > 8) {
        svg.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
        reset.hidden = false;
      }
      box.remove();
      start = null;
    });
  }
}

const value = (cell) => {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
      rows.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
  if (body.rows.length < 12) continue;
  const field = make("input", { type: "search" });
  const label = make("label", { className: "filter", textContent: "Rows with " });
  label.append(field);
  table.parentElement.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

for (const button of document.querySelectorAll("button[data-verdict]")) {
  button.parentElement.hidden = false;
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const claim of document.querySelectorAll(`.claim.${button.dataset.verdict}`))
      claim.hidden = !shown;
  });
}
for (const link of document.querySelectorAll("a[data-rows]"))
  link.addEventListener("click", () => {
    const cells = document.getElementById("every-cell");
    cells.open = true;
    const filter = cells.querySelector("input");
    if (!filter) return;
    filter.value = link.dataset.rows;
    filter.dispatchEvent(new Event("input"));
  });
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) {
    at.hidden = false;
    if (at.tagName === "DETAILS") at.open = true;
  }
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
if (location.hash) open();
