"use strict";

// File names and messages are untrusted: insert them as text or properties, never as markup.

const PAGE_SIZE = 60; // cards added at a time: a few screens
const byId = (id) => document.getElementById(id);
const { slices, volumes, uncertainBelow } = JSON.parse(byId("data").textContent);
const tiles = [...document.querySelectorAll(".tile")];
const failedRows = byId("failed").querySelector("tbody");
const details = byId("details");
const help = byId("help");

// A volume is one card with the picture of its key slice. Its area is that of the tumor in this slice.
for (const volume of volumes) {
  volume.frames = volume.frames.map((place) => slices[place]);
  const { thumbnail, overlay, mask_pixels, mask_mm2, accepted_pixels } = volume.frames[volume.key];
  const accepted_mm2 = mask_pixels && mask_mm2 !== null ? (mask_mm2 * accepted_pixels) / mask_pixels : mask_mm2;
  Object.assign(volume, { thumbnail, overlay, mask_pixels: accepted_pixels, mask_mm2: accepted_mm2 });
}
const inVolumes = new Set(volumes.flatMap((volume) => volume.frames));
const items = [...slices.filter((slice) => !inVolumes.has(slice)), ...volumes];

for (const item of [...slices, ...volumes]) {
  item.failed = item.kind === "failed";
  const texts = [item, ...(item.frames ?? [])].flatMap(({ name, file }) => [name, file ?? ""]);
  item.searchText = [...new Set(texts)].join("\n").normalize().toLowerCase();
}

// Areas in mm² and in pixels cannot be compared: sort by pixels if the spacing of any slice is unknown.
const area = items.every((slice) => slice.mask_pixels === null || slice.mask_mm2 !== null) ? "mask_mm2" : "mask_pixels";

const ORDERS = {
  name: ["place", 1],
  "probability-descending": ["probability", -1],
  "probability-ascending": ["probability", 1],
  "area-descending": [area, -1],
  "area-ascending": [area, 1],
};

let shown = []; // slices and volumes that pass the filters, sorted, failed ones last
let openers = []; // buttons of the first of them, as far as the page has been scrolled
let current = 0; // index in `shown` of the selected slice

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function colored(tag, className, kind, ...children) {
  const node = element(tag, { className }, ...children);
  node.dataset.kind = kind; // page.css has a color for each
  return node;
}

// Filters

function currentFilter() {
  const words = byId("search").value.normalize().toLowerCase().split(/\s+/);
  const kinds = new Set(tiles.filter((tile) => pressed(tile) && tile.dataset.kind).map((tile) => tile.dataset.kind));
  const uncertain = tiles.some((tile) => pressed(tile) && !tile.dataset.kind);
  const [min, max] = ["min-probability", "max-probability"].map((id) => byId(id).valueAsNumber); // NaN if empty
  return (slice) =>
    (kinds.size === 0 || kinds.has(slice.kind)) &&
    (!uncertain || slice.uncertain) &&
    (Number.isNaN(min) || (slice.probability !== null && slice.probability >= min)) &&
    (Number.isNaN(max) || (slice.probability !== null && slice.probability <= max)) &&
    words.every((word) => slice.searchText.includes(word));
}

function pressed(tile) {
  return tile.ariaPressed === "true";
}

function compare(a, b) {
  const [key, sign] = ORDERS[byId("order").value];
  return a.failed - b.failed || (a[key] === null) - (b[key] === null) || sign * (a[key] - b[key]) || a.place - b.place;
}

function apply() {
  shown = items.filter(currentFilter()).sort(compare);
  openers = [];
  current = 0;
  byId("gallery").replaceChildren();
  failedRows.replaceChildren();
  byId("gallery").hidden = !shown.some((slice) => !slice.failed);
  byId("failed").hidden = !shown.some((slice) => slice.failed);
  byId("empty").hidden = shown.length > 0;
  byId("shown").textContent = `${count(shown.length)} of ${count(items.length)} shown`;
  for (const button of document.querySelectorAll(".reset")) button.disabled = shown.length === items.length;
  renderUpTo(PAGE_SIZE);
}

function reset() {
  byId("filters").reset();
  for (const tile of tiles) tile.ariaPressed = "false";
  apply();
}

// Gallery: cards are added while scrolling

function renderUpTo(length) {
  while (openers.length < Math.min(length, shown.length)) {
    const slice = shown[openers.length];
    const opener = slice.failed ? failedRow(slice) : card(slice);
    opener.dataset.place = openers.length;
    opener.tabIndex = openers.length === current ? 0 : -1; // Tab stops once in the gallery; arrow keys move within it
    openers.push(opener);
  }
  scrolled.unobserve(byId("end")); // observing it again reports it again if the end is still visible
  if (openers.length < shown.length) scrolled.observe(byId("end"));
}

function card(slice) {
  const cut = slice.name.lastIndexOf("/") + 1;
  const opener = element(
    "button",
    { type: "button", className: "card open", title: slice.name },
    thumbnail(slice, slice.uncertain ? element("span", { className: "badge" }, "uncertain") : null),
    element("span", { className: "name" }, element("bdi", {}, slice.name.slice(cut))),
    cut ? element("span", { className: "folder" }, element("bdi", {}, slice.name.slice(0, cut))) : null,
    slice.frames ? element("span", { className: "folder" }, `volume of ${count(slice.slices)} slices`) : null,
    verdict(slice, "span", 2),
  );
  byId("gallery").append(element("li", {}, opener));
  return opener;
}

function thumbnail(slice, badge) {
  const image = slice.thumbnail
    ? element("img", { src: slice.thumbnail, alt: "", decoding: "async" })
    : slice.overlay && element("span", { className: "missing" }, "see the overlay file");
  return element("span", { className: "picture" }, image, badge);
}

function verdict(slice, tag, digits, ...more) {
  const number = element("span", { className: "number" }, slice.probability === null ? "" : slice.probability.toFixed(digits));
  const swatch = slice.probability === null ? null : element("span", { className: "swatch" });
  return colored(tag, "verdict", slice.kind, swatch, slice.kind, number, ...more);
}

function failedRow(slice) {
  const opener = element("button", { type: "button", className: "open" }, element("bdi", {}, slice.name));
  const cells = [slice.problem, slice.fix].map((text) => element("td", {}, element("bdi", {}, text ?? "")));
  failedRows.append(element("tr", {}, element("td", {}, opener), ...cells));
  return opener;
}

const scrolled = new IntersectionObserver(
  (entries) => entries.at(-1).isIntersecting && renderUpTo(openers.length + PAGE_SIZE),
  { rootMargin: "1500px" },
);

// Details

function open(place) {
  move(place);
  if (shown.length && !details.open) details.showModal();
  byId("slider")?.focus(); // the dialog has moved the focus to its heading
}

/** Selects the slice at that index, or the nearest one. */
function move(place) {
  if (!shown.length) return;
  openers[current].tabIndex = -1;
  current = Math.max(0, Math.min(place, shown.length - 1));
  renderUpTo(current + 1);
  openers[current].tabIndex = 0;
  fill(shown[current]);
  if (!details.open) openers[current].focus();
}

function fill(slice) {
  byId("details-name").replaceChildren(element("bdi", {}, slice.name));
  byId("details-place").textContent = `${count(current + 1)} of ${count(shown.length)}`;
  const facts = element("div", {}, ...(slice.failed ? [] : [verdict(slice, "p", 3, uncertainty(slice)), bars(slice)]), slice.frames ? volumeProperties(slice) : properties(slice));
  const picture = slice.frames ? film(slice) : slice.failed ? null : element("div", {}, thumbnail(slice, null), links(slice));
  byId("details-body").className = picture ? "" : "failed";
  byId("details-body").replaceChildren(...[picture, facts].filter((child) => child !== null));
  byId("slider")?.focus();
}

function links(slice) {
  const files = [[slice.overlay, "Open the overlay"], [slice.mask, "Open the mask"], [slice.map, "Open the probability map"]];
  return element("p", { className: "links" }, ...files.map(([path, text]) => link(path, text)));
}

/** The slices of a volume, one at a time. The arrow keys move its slider. */
function film(volume) {
  const picture = element("div", {});
  const caption = element("p", { className: "number" });
  const slider = element("input", { type: "range", id: "slider", min: 0, max: volume.frames.length - 1, ariaLabel: "Slice of the volume" });
  const files = element("div", {});
  const show = () => {
    const slice = volume.frames[slider.valueAsNumber];
    caption.textContent = `slice ${count(slice.index + 1)} of ${count(volume.slices)} (index ${slice.index}): ${content(slice, volume)}`;
    slider.ariaValueText = caption.textContent;
    picture.replaceChildren(slice.overlay ? thumbnail(slice, null) : element("span", { className: "picture" }, element("span", { className: "missing" }, "no overlay")));
    files.replaceChildren(links(slice));
  };
  slider.value = volume.key;
  slider.addEventListener("input", show);
  show();
  return element("div", {}, picture, caption, slider, files);
}

function content(slice, volume) {
  if (slice.failed) return slice.problem;
  if (!slice.accepted_pixels) return slice.mask_pixels ? `${slice.kind}, which the volume does not support` : "no tumor";
  const rest = slice.accepted_pixels < slice.mask_pixels ? "; the volume does not support all outlines" : "";
  return `tumor${rest}${slice.kind === volume.kind ? "" : `; this slice alone: ${slice.kind}`}`;
}

function volumeProperties(volume) {
  return definitions({
    problem: volume.problem,
    "suggested fix": volume.fix,
    volume: volume.probability === null ? null : volume.volume_ml === null ? "spacing unknown" : milliliters(volume),
    diameters: diameters(volume),
    slices: volume.tumor_slices ? `tumor in ${count(volume.tumor_slices)} of ${count(volume.slices)}` : count(volume.slices),
    "key slice": volume.probability === null ? null : `index ${volume.frames[volume.key].index}`,
    notes: volume.notes.join("\n"),
  });
}

function milliliters({ volume_ml }) {
  return volume_ml === null ? null : `${volume_ml.toFixed(1)} ml`;
}

function diameters({ longest_mm, perpendicular_mm }) {
  return longest_mm === null ? null : `${longest_mm.toFixed(1)} x ${perpendicular_mm.toFixed(1)} mm`;
}

function uncertainty(slice) {
  return slice.uncertain ? element("span", { className: "badge" }, `uncertain: below ${uncertainBelow.toFixed(2)}`) : null;
}

function bars(slice) {
  const rows = Object.entries(slice.probabilities).map(([kind, probability]) => {
    const bar = element("i", {});
    bar.style.width = `${100 * probability}%`;
    const track = element("span", { className: "track" }, bar);
    return colored("div", "", kind, element("dt", {}, kind), element("dd", {}, track, element("span", { className: "number" }, probability.toFixed(3))));
  });
  return element("dl", { className: "bars" }, ...rows);
}

function properties(slice) {
  const { box } = slice;
  return definitions({
    problem: slice.problem,
    "suggested fix": slice.fix,
    area: slice.mask_pixels === null ? null : [`${count(slice.mask_pixels)} px`, slice.mask_mm2 === null ? "pixel spacing unknown" : `${count(slice.mask_mm2)} mm²`].join(", "),
    volume: slice.probability === null ? null : milliliters(slice),
    diameters: diameters(slice),
    box: box && `x ${box.left} to ${box.right}, y ${box.top} to ${box.bottom} px`,
    latency: slice.latency_ms === null ? null : `${slice.latency_ms} ms`,
    input: slice.input,
    file: slice.file,
    "slice index": slice.index === null ? null : String(slice.index),
    notes: slice.notes.join("\n"),
  });
}

function definitions(values) {
  const rows = Object.entries(values).filter(([, text]) => text);
  return element("dl", { className: "values" }, ...rows.map(([term, text]) => element("div", {}, element("dt", {}, term), element("dd", { className: term === "problem" ? "problem" : "" }, text))));
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
  if (event.target.matches("input, select") && !(event.target.id === "slider" && "jk?".includes(event.key))) {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "Enter" || details.open || event.target.matches("select")) return;
    event.preventDefault(); // otherwise it would also activate the card that gets the focus
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
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // click on the backdrop
}
byId("filters").addEventListener("input", apply);
byId("previous").addEventListener("click", () => move(current - 1));
byId("next").addEventListener("click", () => move(current + 1));
byId("show-help").addEventListener("click", () => help.showModal());
document.querySelector("main").addEventListener("click", (event) => {
  const opener = event.target.closest(".open");
  if (opener) open(Number(opener.dataset.place));
});
details.addEventListener("close", () => openers[current].focus());
document.addEventListener("keydown", pressedKey);
window.addEventListener("beforeprint", () => renderUpTo(shown.length));
apply();
