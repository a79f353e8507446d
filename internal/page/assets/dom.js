// Helpers for elements. Values become text nodes and attributes, never HTML.

export const levels = ["conflict", "failed", "unknown", "degraded", "ok", "none"];
export const labels = {conflict: "Conflict", failed: "Failed", unknown: "Unknown", degraded: "Degraded", ok: "In order", none: "No egress IPs"};
export const symbols = {conflict: "≠", failed: "✕", unknown: "?", degraded: "!", ok: "✓", none: "–"};

// el makes an element with attributes and children, which are elements or text.
export function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== false) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== ""));
  return e;
}

const folders = {namespace: "namespaces/", EgressIP: "egressips/", host: "hosts/"};

// href is the address of a page, relative to the overview.
export function href(kind, name) { return folders[kind] + encodeURIComponent(name); }

export function badge(level) {
  return el("span", {class: `badge ${level}`}, el("span", {"aria-hidden": "true"}, symbols[level]), el("span", {class: "word"}, ` ${labels[level]}`));
}

export function time(at) { return el("time", {datetime: at}, ago(at)); }

// ago says how long ago something was.
export function ago(at, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(at)) / 1000);
  if (!(seconds >= 0)) return at;
  for (const [unit, long] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const n = Math.floor(seconds / long);
    if (n >= 1) return `${n} ${unit}${n === 1 ? "" : "s"} ago`;
  }
  return seconds < 10 ? "just now" : `${seconds} seconds ago`;
}

// showAgo writes all times below an element as how long ago they were; the time itself is their title.
export function showAgo(root) {
  for (const t of root.querySelectorAll("time[datetime]")) {
    const at = t.getAttribute("datetime");
    t.title = at;
    const text = ago(at);
    if (t.textContent !== text) t.textContent = text;
  }
}
