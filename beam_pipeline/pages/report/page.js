
"use strict";
// Sorts the table of cameras, and filters all sections by camera and time. All that it shows stands
// in the page already: nothing is made of text, so that no name can become code.
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en");
  const table = one("fleet");
  const heads = [...table.tHead.rows[0].cells];
  const sentences = new Map();
  for (const item of all(".findings li")) {
    const id = item.dataset.id;
    sentences.set(id, (sentences.get(id) ?? "") + item.textContent.toLowerCase());
  }
  const valueOf = (cell) => cell.classList.contains("n")
    ? Number(cell.dataset.value ?? cell.textContent.replaceAll(",", ""))
    : cell.textContent.trim();
  const windows = new Map();
  for (const camera of all("details.camera")) {
    windows.set(camera.dataset.id, all("tr[data-n]", camera).map((row) => ({
      from: Date.parse(row.dataset.from), counts: row.dataset.n.split(",").map(Number),
    })));
  }
  const rows = [...table.tBodies[0].rows].map((row) => ({
    row, id: row.dataset.id, cells: [...row.cells],
    before: [...row.cells].map((cell) => [cell.textContent, cell.dataset.value]),
  }));
  const words = new Intl.Collator("en", { numeric: true });

  function sort(column) {
    const isNumber = heads[column].classList.contains("n");
    const before = heads[column].getAttribute("aria-sort");
    // Numbers begin with the largest, words with the first; what is wrong comes before what is not.
    const firstDown = isNumber || column === heads.length - 1;
    const down = before === null ? firstDown : before === "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    rows.sort((first, other) => {
      const [a, b] = [first, other].map((each) => valueOf(each.cells[column]));
      return sign * (isNumber ? a - b : words.compare(a, b)) || words.compare(first.id, other.id);
    });
    table.tBodies[0].append(...rows.map((each) => each.row));
  }

  // The filter. What says a camera (data-id) or a time (data-from, data-to) is seen if both fit; what
  // is within something that is not seen is not seen either.
  const [filter, wrong, from, until, shown] = ["filter", "wrong", "from", "until", "shown"].map(one);
  const dated = all("[data-id], [data-from]");
  const columns = all(".heat thead tr:last-child th").map((head, index) => [head, index])
    .filter(([head]) => head.dataset.from !== undefined);
  const totals = new Map(all("[data-total]").map((tile) => [tile.dataset.total, [tile, tile.textContent]]));
  const time = (input, otherwise) => input?.value ? Date.parse(input.value + "Z") : otherwise;

  function choose() {
    const asked = filter.value.trim().toLowerCase();
    const [first, last] = [time(from, -Infinity), time(until, Infinity)];
    const isTimed = first !== -Infinity || last !== Infinity;
    const isFiltered = isTimed || asked !== "" || wrong.checked;
    const fitsId = (id) => `${id.toLowerCase()} ${sentences.get(id) ?? ""}`.includes(asked)
      && (sentences.has(id) || !wrong.checked);
    const fits = (element) => {
      const { id, from: begin, to: end, begins } = element.dataset;
      if (id !== undefined && !fitsId(id)) return false;
      if (begin === undefined || !isTimed) return true;
      return Date.parse(begin) < last && Date.parse(begins === undefined ? end ?? begin : begin) >= first;
    };
    for (const element of dated) element.hidden = !fits(element);
    for (const item of all("#invalid li:not([data-id])")) item.hidden = isFiltered && item.dataset.from === undefined;
    for (const [head, index] of columns) {
      for (const row of all(".heat tbody tr")) row.cells[index].hidden = head.hidden;
    }
    for (const day of all(".heat thead th[scope=colgroup]")) day.parentElement.hidden = isTimed;
    for (const group of all("[data-group]")) group.hidden = all("li", group).every((item) => item.hidden);
    for (const section of all("main > section")) {
      const none = section.querySelector(".none");
      const items = all("[data-id]", section).filter((item) => !item.parentElement.closest("[data-id]"));
      if (none) none.hidden = !isFiltered || items.some((item) => !item.hidden);
    }
    for (const note of all(".timed")) note.hidden = !isTimed;
    for (const note of all(".whole")) note.hidden = !isFiltered;
    count(isTimed, isFiltered, first, last);
  }

  function count(isTimed, isFiltered, first, last) {
    const sums = { cameras: 0, images: 0, threat_images: 0, invalid: 0, late: 0 };
    for (const { row, id, cells, before } of rows) {
      cells.forEach((cell, column) => {
        if (column > 0 && column < 8) [cell.textContent, cell.dataset.value] = [before[column][0], before[column][1] ?? valueOfText(before[column][0])];
      });
      if (isTimed) {
        const n = [0, 0, 0, 0];
        for (const each of windows.get(id) ?? []) {
          if (each.from >= first && each.from < last) each.counts.forEach((value, k) => { n[k] += value; });
        }
        const share = n[0] ? n[1] / n[0] : -1;
        const texts = [number(n[0]), number(n[1]), n[0] ? `${Math.round(100 * share)} %` : "–", number(n[2]), number(n[3]), "–", "–"];
        const values = [n[0], n[1], share, n[2], n[3], -1, -1];
        texts.forEach((text, k) => { [cells[k + 1].textContent, cells[k + 1].dataset.value] = [text, values[k]]; });
      }
      if (row.hidden) continue;
      sums.cameras += 1;
      sums.images += valueOf(cells[1]);
      sums.threat_images += valueOf(cells[2]);
      sums.invalid += valueOf(cells[6]);
      sums.late += valueOf(cells[7]);
    }
    shown.textContent = `${number(sums.cameras)} of ${number(rows.length)} cameras`;
    const incidents = all("#alerts .incidents > li").filter((item) => !item.hidden);
    const unknown = { alerts: "–", suppressed: "–" };
    if (isTimed) Object.assign(unknown, { invalid: "–", late: "–" });
    sums.incidents = incidents.length;
    sums.findings = all(".findings li").filter((item) => !item.hidden).length;
    for (const [name, [tile, whole]] of totals) {
      tile.textContent = isFiltered ? unknown[name] ?? number(sums[name]) : whole;
    }
  }

  const valueOfText = (text) => text === "–" ? -1 : Number(text.replaceAll(",", ""));
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(column)));
  document.querySelector("form.filters").addEventListener("submit", (event) => event.preventDefault());
  for (const input of [filter, from, until]) input?.addEventListener("input", choose);
  wrong.addEventListener("change", choose);
  // What was opened stays open; on paper all is.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
  choose();
  // A link in a message names an alert, and one in a table a camera.
  function openNamed() {
    const named = one(location.hash.slice(1));
    if (!named?.matches(".alert, .others li, .camera")) return;
    for (let at = named; at; at = at.parentElement) if (at.matches("details")) at.open = true;
    named.scrollIntoView();
  }
  addEventListener("hashchange", openNamed);
  openNamed();
}
