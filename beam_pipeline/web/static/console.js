"use strict";
// Keys, marks without a new page, and new incidents while the page is open. All of it works without
// this script too: marks are forms, and a reload shows what is new. Nothing is made of text: what is
// put into the page is parsed from pages of this server, whose policy runs no other script.
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const cards = () => all("#incidents > .card");
  const say = (text) => { const line = one("#said"); if (line) line.textContent = text; };

  // Keys
  const selected = () => document.activeElement?.closest?.(".card");
  function step(by) {
    const list = cards();
    if (!list.length) return;
    const at = list.indexOf(selected());
    const next = list[at < 0 ? 0 : Math.min(Math.max(at + by, 0), list.length - 1)];
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
  const marks = { r: "right", f: "false", u: "unsure" };
  addEventListener("keydown", (event) => {
    const inField = event.target.closest?.("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || inField) return;
    if (event.key === "j" || event.key === "k") {
      event.preventDefault();
      step(event.key === "j" ? 1 : -1);
    } else if (event.key in marks) {
      const place = selected() ?? one(".page-of-image");
      const button = place && one(`.say button.${marks[event.key]}`, place);
      if (button) { event.preventDefault(); button.click(); }
    } else if (event.key === "Enter" && event.target.matches?.(".card")) {
      one("h2 a", event.target)?.click();
    }
  });

  // Marks
  addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.id !== "marking") return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Console": "1" } });
      const { said } = await answer.json();
      say(said);
      if (answer.ok) {
        const mark = body.get("say").split(" ")[0];
        one("#silence")?.toggleAttribute("hidden", mark !== "false");
        await renew();
      }
    } catch {
      say("The mark was not saved: the console can't be reached. Try again.");
    }
  });

  // New incidents
  const list = one("#incidents");
  async function renew() {
    if (!list) return;
    const answer = await fetch(`/alerts/list${location.search}`);
    if (!answer.ok) return;
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    const before = new Map(cards().map((card) => [card.id, card]));
    const at = selected()?.id;
    const label = document.activeElement?.dataset?.key;
    const fresh = [];
    const next = all("#incidents > .card", parsed).map((card) => {
      const old = before.get(card.id);
      if (!old) { fresh.push(card); card.classList.add("fresh"); return document.adoptNode(card); }
      if (old.outerHTML.replace(" fresh", "") === card.outerHTML) return old;
      return document.adoptNode(card);
    });
    if (next.length !== list.children.length || next.some((card, k) => card !== list.children[k])) {
      list.replaceChildren(...next);
    }
    one("#none")?.toggleAttribute("hidden", next.length > 0);
    if (at && !list.contains(document.activeElement)) {
      const card = document.getElementById(at);
      (label && card ? one(`[data-key="${CSS.escape(label)}"]`, card) : null ?? card)?.focus({ preventScroll: true });
    }
    if (fresh.length && before.size) {
      say(fresh.length === 1 ? `New: ${one("h2", fresh[0]).textContent.trim()}` : `${fresh.length} new incidents`);
    }
  }

  // One stream of events for a page; the server sends a number that grows with every change.
  const { version, live } = document.body.dataset;
  if (live !== undefined) {
    let shown = Number(version);
    let waiting = null;
    const events = new EventSource("/live");
    events.addEventListener("state", (event) => {
      const state = JSON.parse(event.data);
      const notice = one("#stale");
      notice.hidden = state.stale === null;
      if (state.stale !== null) one("span", notice).textContent = state.stale;
      if (state.version === shown) return;
      shown = state.version;
      // Clients ask at different moments.
      waiting ??= setTimeout(() => { waiting = null; renew(); }, 50 + Math.random() * 400);
    });
    addEventListener("pagehide", () => events.close());
  }

  // The box of what was missed, drawn on the image
  const draw = one("#draw");
  const field = one("#bbox");
  if (draw && field) {
    const shot = one(".figure .shot");
    const box = one("rect.drawn", shot);
    let from = null;
    const place = (event) => {
      const { left, top, width, height } = shot.getBoundingClientRect();
      const part = (value) => Math.min(Math.max(value, 0), 1);
      return [part((event.clientX - left) / width), part((event.clientY - top) / height)];
    };
    const show = (a, b) => {
      const [x, y] = [Math.min(a[0], b[0]), Math.min(a[1], b[1])];
      const [w, h] = [Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])];
      [["x", x], ["y", y], ["width", w], ["height", h]].forEach(([name, value]) => box.setAttribute(name, 100 * value));
      field.value = w > 0.002 && h > 0.002 ? [x, y, w, h].map((value) => value.toFixed(4)).join(",") : "";
    };
    draw.hidden = false;
    draw.addEventListener("click", () => {
      const on = shot.classList.toggle("drawing");
      draw.setAttribute("aria-pressed", String(on));
      if (on) shot.scrollIntoView({ block: "nearest" });
    });
    shot.addEventListener("pointerdown", (event) => {
      if (!shot.classList.contains("drawing")) return;
      event.preventDefault();
      shot.setPointerCapture(event.pointerId);
      from = place(event);
      show(from, from);
    });
    shot.addEventListener("pointermove", (event) => { if (from) show(from, place(event)); });
    shot.addEventListener("pointerup", (event) => { if (from) show(from, place(event)); from = null; });
  }
}
