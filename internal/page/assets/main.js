// What makes the page live. Without it the page is the same as plain HTML, as of when it was loaded.

import {badge, el, href, levels, showAgo, time} from "./dom.js";
import {Live, Store} from "./live.js";
import {Picture} from "./picture.js";

const root = document.body.dataset.root;
const main = document.getElementById("main");
const issuesAtOnce = 50;

// showState says in the header whether what is shown is up to date.
function showState(s) {
  const live = document.getElementById("live"), state = document.getElementById("live-state");
  live.classList.toggle("on", s.on);
  live.classList.toggle("off", !s.on);
  const text = s.on ? "Live" : `Not live: ${s.problem}. What is shown is of`;
  if (state.textContent !== text) state.textContent = text;
  const at = document.getElementById("live-at");
  if (s.on && s.at) at.setAttribute("datetime", s.at);
  at.textContent = `${at.getAttribute("datetime").slice(11, 19)} UTC`;
  if (s.serving) document.getElementById("serving").textContent = s.serving;
}

function overview() {
  const store = new Store();
  const search = document.getElementById("search");
  const asked = new URLSearchParams(location.search);
  let level = levels.includes(asked.get("level")) ? asked.get("level") : "", shownIssues, shownChanges, shownMoves;
  search.value = asked.get("q") || "";
  document.getElementById("search-box").hidden = false;
  const shown = document.getElementById("shown"), counts = document.getElementById("counts");
  const picture = new Picture(store, document.getElementById("picture"), (n, all) => {
    const text = n === 0 ? "Nothing here." : `${n} of ${all} shown`;
    if (shown.textContent !== text) shown.textContent = text;
  });

  const filter = () => {
    const query = new URLSearchParams();
    if (search.value) query.set("q", search.value);
    if (level) query.set("level", level);
    history.replaceState(null, "", query.size ? `?${query}` : "./");
    for (const a of counts.querySelectorAll("a")) {
      if (a.dataset.level === level) a.setAttribute("aria-current", "true");
      else a.removeAttribute("aria-current");
    }
    picture.filter(search.value, level);
  };
  search.addEventListener("input", filter);
  counts.addEventListener("click", (e) => {
    const a = e.target.closest("a[data-level]");
    if (!a || e.ctrlKey || e.metaKey || e.shiftKey) return;
    e.preventDefault();
    level = level === a.dataset.level ? "" : a.dataset.level;
    filter();
  });
  addEventListener("keydown", (e) => {
    if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.altKey && document.activeElement !== search) {
      e.preventDefault();
      search.focus();
    }
    if (e.key === "Escape" && document.activeElement === search && search.value) {
      search.value = "";
      filter();
    }
  });

  const update = () => {
    const numbers = Object.fromEntries(levels.map((l) => [l, 0]));
    for (const g of store.groups.values()) numbers[g.level]++;
    for (const a of counts.querySelectorAll("a")) {
      const n = String(numbers[a.dataset.level]), number = a.querySelector(".number");
      if (number.textContent !== n) number.textContent = n;
    }
    if (shownIssues !== store.issues) showIssues(shownIssues = store.issues);
    if (shownChanges !== store.changes) showTimeline("changes", shownChanges = store.changes, (c) => [c.text], "No condition says since when.");
    if (shownMoves !== store.moves) showTimeline("moves", shownMoves = store.moves, moveText, "None since this controller started.");
    picture.update();
  };
  let due = 0;
  const later = () => { due = due || requestAnimationFrame(() => { due = 0; update(); }); };
  new Live(`${root}events`, "", {
    all: (data) => { store.all(data); document.getElementById("plain").replaceChildren(); later(); document.body.dataset.live = "yes"; },
    delta: (data) => { store.delta(data); later(); },
    state: showState,
  });
  filter();
}

// showIssues lists what needs attention. What has the focus keeps it.
function showIssues(issues) {
  const box = document.getElementById("issues"), focused = box.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const scrolled = box.firstElementChild ? box.firstElementChild.scrollTop : 0;
  if (!issues.length) {
    box.replaceChildren(el("p", {class: "empty"}, "Nothing needs attention."));
    return;
  }
  const list = el("ol", {class: "issues"});
  for (const i of issues.slice(0, issuesAtOnce)) {
    const head = el("div", {class: "issue-head"}, badge(i.level), " ", el("a", {href: href(i.kind, i.name)}, el("span", {class: "kind"}, i.kind), ` ${i.name}`), " ", el("code", {}, i.reason));
    if (i.since) head.append(" ", el("span", {class: "since"}, "since ", time(i.since)));
    list.append(el("li", {class: `issue ${i.level}`}, head, el("p", {}, i.text)));
  }
  box.replaceChildren(list);
  if (issues.length > issuesAtOnce) box.append(el("p", {class: "empty"}, `And ${issues.length - issuesAtOnce} more: the list below has all of them, worst first.`));
  showAgo(list);
  list.scrollTop = scrolled;
  if (focused) for (const a of list.querySelectorAll("a")) if (a.getAttribute("href") === focused) { a.focus({preventScroll: true}); break; }
}

function moveText(m) {
  const ip = el("span", {class: "ip"}, m.ip);
  if (m.from && m.to) return [ip, ` moved from ${m.from} to ${m.to}`];
  return m.to ? [ip, ` is in use on ${m.to}`] : [ip, ` is not in use on ${m.from} any more`];
}

// showTimeline lists what happened, the newest first.
function showTimeline(id, all, text, none) {
  const list = el("ol", {class: "timeline"});
  for (const c of all) {
    list.append(el("li", {class: c.level}, time(c.at), " ", el("span", {class: "what"}, el("span", {class: "kind"}, c.kind), " ", el("b", {}, c.name), " ", el("code", {}, c.reason)), " ", el("span", {class: "text"}, ...text(c))));
  }
  const box = document.getElementById(id), scrolled = box.firstElementChild ? box.firstElementChild.scrollTop : 0;
  box.replaceChildren(all.length ? list : el("p", {class: "empty"}, none));
  showAgo(list);
  list.scrollTop = scrolled;
}

// detail keeps the page of one object up to date: the server makes it again, and this replaces what differs.
function detail() {
  let busy = false, again = false;
  const load = () => {
    if (busy) { again = true; return; }
    busy = true;
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 15000;
    request.onloadend = () => {
      const fresh = request.response && request.response.getElementById("main");
      if (fresh) show(fresh);
      setTimeout(() => { busy = false; if (again) { again = false; load(); } }, 1000);
    };
    request.send();
  };
  const show = (fresh) => {
    const copy = document.importNode(fresh, true);
    showAgo(copy);
    if (copy.textContent === main.textContent) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    main.replaceChildren(...copy.childNodes);
    if (focused) for (const a of main.querySelectorAll("a")) if (a.getAttribute("href") === focused) { a.focus({preventScroll: true}); break; }
  };
  new Live(`${root}events`, document.body.dataset.last, {all: load, delta: load, state: showState});
  document.body.dataset.live = "yes";
}

showAgo(main);
setInterval(() => showAgo(main), 20000);
if (document.getElementById("picture")) overview();
else detail();
