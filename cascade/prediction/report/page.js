"use strict";

// Names and messages come from users' files: they become text and properties here, never markup.

const AT_ONCE = 60; // cards made at a time: a few screens
const byId = (id) => document.getElementById(id);
const { slices, uncertainBelow } = JSON.parse(byId("data").textContent);
const tiles = [...document.querySelectorAll(".tile")];
const failedRows = byId("failed").querySelector("tbody");
const details = byId("details");
const help = byId("help");

for (const slice of slices) {
  slice.failed = slice.kind === "failed";
  slice.sought = slice.name.normalize().toLowerCase();
}

// Square millimetres and pixels do not compare: one file without spacing, and pixels it is.
const area = slices.every((slice) => slice.mask_pixels === null || slice.mask_mm2 !== null) ? "mask_mm2" : "mask_pixels";

const ORDERS = { name: ["place", 1], likely: ["probability", -1], unlikely: ["probability", 1], large: [area, -1], small: [area, 1] };

let shown = []; // the slices that pass the filters, in order, failed ones last
let openers = []; // the buttons of the first of them, as many as were scrolled to
let current = 0; // place in `shown` of the one that keys go on from

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function marked(tag, className, kind, ...children) {
  const made = element(tag, { className }, ...children);
  made.dataset.kind = kind;
  return made;
}

// Filters

function passes() {
  const words = byId("search").value.normalize().toLowerCase().split(/\s+/);
  const kinds = new Set(tiles.filter((tile) => pressed(tile) && tile.dataset.kind).map((tile) => tile.dataset.kind));
  const uncertain = tiles.some((tile) => pressed(tile) && !tile.dataset.kind);
  const [least, most] = ["least", "most"].map((id) => byId(id).valueAsNumber); // NaN where empty
  return (slice) =>
    (kinds.size === 0 || kinds.has(slice.kind)) &&
    (!uncertain || slice.uncertain) &&
    (Number.isNaN(least) || (slice.probability !== null && slice.probability >= least)) &&
    (Number.isNaN(most) || (slice.probability !== null && slice.probability <= most)) &&
    words.every((word) => slice.sought.includes(word));
}

function pressed(tile) {
  return tile.ariaPressed === "true";
}

function inOrder(a, b) {
  const [key, sign] = ORDERS[byId("order").value];
  return a.failed - b.failed || (a[key] === null) - (b[key] === null) || sign * (a[key] - b[key]) || a.place - b.place;
}

function apply() {
  shown = slices.filter(passes()).sort(inOrder);
  openers = [];
  current = 0;
  byId("gallery").replaceChildren();
  failedRows.replaceChildren();
  byId("gallery").hidden = !shown.some((slice) => !slice.failed);
  byId("failed").hidden = !shown.some((slice) => slice.failed);
  byId("empty").hidden = shown.length > 0;
  byId("shown").textContent = `${count(shown.length)} of ${count(slices.length)} shown`;
  for (const button of document.querySelectorAll(".reset")) button.disabled = shown.length === slices.length;
  grow(AT_ONCE);
}

function reset() {
  byId("filters").reset();
  for (const tile of tiles) tile.ariaPressed = "false";
  apply();
}

// Gallery: made as far as it is scrolled to

function grow(length) {
  while (openers.length < Math.min(length, shown.length)) {
    const slice = shown[openers.length];
    const opener = slice.failed ? failedRow(slice) : card(slice);
    opener.dataset.place = openers.length;
    opener.tabIndex = openers.length === current ? 0 : -1; // one stop for Tab, arrows within
    openers.push(opener);
  }
  scrolled.unobserve(byId("end")); // observed anew it tells again, should the end still be in sight
  if (openers.length < shown.length) scrolled.observe(byId("end"));
}

function card(slice) {
  const cut = slice.name.lastIndexOf("/") + 1;
  const opener = element(
    "button",
    { type: "button", className: "card open", title: slice.name },
    picture(slice, slice.uncertain ? element("span", { className: "badge" }, "uncertain") : null),
    element("span", { className: "name" }, element("bdi", {}, slice.name.slice(cut))),
    cut ? element("span", { className: "folder" }, element("bdi", {}, slice.name.slice(0, cut))) : null,
    found(slice, "span", 2),
  );
  byId("gallery").append(element("li", {}, opener));
  return opener;
}

function picture(slice, badge) {
  const image = slice.picture
    ? element("img", { src: slice.picture, alt: "", decoding: "async" })
    : slice.overlay && element("span", { className: "missing" }, "picture not in this page");
  return element("span", { className: "picture" }, image, badge);
}

function found(slice, tag, digits, ...more) {
  const number = element("span", { className: "number" }, slice.probability === null ? "" : slice.probability.toFixed(digits));
  const swatch = slice.probability === null ? null : element("span", { className: "swatch" });
  return marked(tag, "found", slice.kind, swatch, slice.kind, number, ...more);
}

function failedRow(slice) {
  const opener = element("button", { type: "button", className: "open" }, element("bdi", {}, slice.name));
  const told = [slice.problem, slice.fix].map((text) => element("td", {}, element("bdi", {}, text ?? "")));
  failedRows.append(element("tr", {}, element("td", {}, opener), ...told));
  return opener;
}

const scrolled = new IntersectionObserver(
  (entries) => entries.at(-1).isIntersecting && grow(openers.length + AT_ONCE),
  { rootMargin: "1500px" },
);

// Details

function open(place) {
  move(place);
  if (shown.length && !details.open) details.showModal();
}

/** Makes the slice of that place, or the nearest there is, the current one. */
function move(place) {
  if (!shown.length) return;
  openers[current].tabIndex = -1;
  current = Math.max(0, Math.min(place, shown.length - 1));
  grow(current + 1);
  openers[current].tabIndex = 0;
  fill(shown[current]);
  if (!details.open) openers[current].focus();
}

function fill(slice) {
  byId("details-name").replaceChildren(element("bdi", {}, slice.name));
  byId("details-place").textContent = `${count(current + 1)} of ${count(shown.length)}`;
  const facts = element("div", {}, ...(slice.failed ? [] : [found(slice, "p", 3, uncertainty(slice)), bars(slice)]), values(slice));
  const links = element("p", { className: "links" }, link(slice.overlay, "overlay, full size"), link(slice.mask, "mask"));
  byId("details-body").className = slice.failed ? "failed" : "";
  byId("details-body").replaceChildren(...(slice.failed ? [] : [element("div", {}, picture(slice, null), links)]), facts);
}

function uncertainty(slice) {
  return slice.uncertain ? element("span", { className: "badge" }, `uncertain: less than ${uncertainBelow.toFixed(2)}`) : null;
}

function bars(slice) {
  const rows = Object.entries(slice.probabilities).map(([kind, probability]) => {
    const bar = element("i", {});
    bar.style.width = `${100 * probability}%`;
    const track = element("span", { className: "track" }, bar);
    return marked("div", "", kind, element("dt", {}, kind), element("dd", {}, track, element("span", { className: "number" }, probability.toFixed(3))));
  });
  return element("dl", { className: "bars" }, ...rows);
}

function values(slice) {
  const { box } = slice;
  const told = {
    problem: slice.problem,
    fix: slice.fix,
    area: slice.mask_pixels === null ? null : [`${count(slice.mask_pixels)} px`, slice.mask_mm2 === null ? "mm² unknown" : `${count(slice.mask_mm2)} mm²`].join(", "),
    box: box && `x ${box.left} to ${box.right}, y ${box.top} to ${box.bottom} px`,
    latency: slice.latency_ms === null ? null : `${slice.latency_ms} ms`,
    input: slice.input,
    file: slice.file,
    slice: slice.index === null ? null : String(slice.index),
    notes: slice.notes.join("\n"),
  };
  const rows = Object.entries(told).filter(([, text]) => text);
  return element("dl", { className: "values" }, ...rows.map(([term, text]) => element("div", {}, element("dt", {}, term), element("dd", { className: term }, text))));
}

function link(href, text) {
  return href && element("a", { href, target: "_blank", rel: "noopener" }, text);
}

function count(number) {
  return number.toLocaleString("en");
}

// Events

function columns() {
  const first = openers.findIndex((opener) => opener.offsetTop > openers[0].offsetTop || !opener.matches(".card"));
  return openers[current].matches(".card") && first > 0 ? first : 1;
}

function pressedKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "Enter" || event.target.matches("select")) return;
    event.preventDefault(); // else it goes on to press what is moved to
    move(0);
    return;
  }
  const rows = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
  if (event.key === "?") help.showModal();
  else if (event.key === "/" && !details.open) byId("search").select();
  else if (step && shown.length) move(document.activeElement.matches(".open") || details.open ? current + step : current);
  else if (rows && event.target.matches(".open")) move(current + rows * columns());
  else return;
  event.preventDefault();
}

for (const tile of tiles) {
  tile.addEventListener("click", () => {
    tile.ariaPressed = String(!pressed(tile));
    apply();
  });
}
for (const button of document.querySelectorAll(".reset")) button.addEventListener("click", reset);
for (const dialog of [details, help]) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // on the backdrop
}
byId("filters").addEventListener("input", apply);
byId("previous").addEventListener("click", () => move(current - 1));
byId("next").addEventListener("click", () => move(current + 1));
byId("ask").addEventListener("click", () => help.showModal());
document.querySelector("main").addEventListener("click", (event) => {
  const opener = event.target.closest(".open");
  if (opener) open(Number(opener.dataset.place));
});
details.addEventListener("close", () => openers[current].focus());
document.addEventListener("keydown", pressedKey);
window.addEventListener("beforeprint", () => grow(shown.length));
apply();
