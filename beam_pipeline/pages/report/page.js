
"use strict";
// Sorts and filters the table of cameras. All that it shows stands in the page already: nothing is
// made of text, so that no name can become code.
{
  const table = document.getElementById("fleet");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const filter = document.getElementById("filter");
  const wrong = document.getElementById("wrong");
  const shown = document.getElementById("shown");
  const sentences = new Map();
  for (const item of document.querySelectorAll(".findings li")) {
    const id = item.querySelector("strong").textContent;
    sentences.set(id, (sentences.get(id) ?? "") + item.textContent.toLowerCase());
  }
  const rows = [...body.rows].map((row) => {
    const id = row.cells[0].textContent;
    const values = [...row.cells].map((cell) =>
      cell.classList.contains("n")
        ? Number(cell.dataset.value ?? cell.textContent.replaceAll(",", ""))
        : cell.textContent.trim());
    return { row, values, text: id.toLowerCase() + " " + (sentences.get(id) ?? ""), wrong: sentences.has(id) };
  });
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
    rows.sort((one, other) => {
      const [a, b] = [one.values[column], other.values[column]];
      return sign * (isNumber ? a - b : words.compare(a, b)) || words.compare(one.values[0], other.values[0]);
    });
    body.append(...rows.map((one) => one.row));
  }

  function choose() {
    const asked = filter.value.trim().toLowerCase();
    let number = 0;
    for (const one of rows) {
      const fits = one.text.includes(asked) && (one.wrong || !wrong.checked);
      one.row.hidden = !fits;
      number += fits;
    }
    shown.textContent = `${number.toLocaleString("en")} of ${rows.length.toLocaleString("en")} cameras`;
  }

  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(column)));
  filter.addEventListener("input", choose);
  wrong.addEventListener("change", choose);
  // What was opened stays open; on paper all is.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
  choose();
  // A link in a message names an alert.
  function openNamed() {
    const named = document.getElementById(location.hash.slice(1));
    if (named?.matches("details.alert")) {
      named.open = true;
      named.scrollIntoView();
    }
  }
  addEventListener("hashchange", openNamed);
  openNamed();
}
