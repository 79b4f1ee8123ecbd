// Draws a zone or a mask on the image. The form works without this script too: the corners are the
// numbers in its field, which this script keeps as they are drawn.
{
  const one = (selector) => document.querySelector(selector);
  const [surface, form, numbers] = [one("#drawing.drawing"), one("#area"), one("#numbers")];
  const MOST = 100;
  const say = (text) => { one("#said").textContent = text; };

  // The names of the areas, each at the topmost of its corners
  for (const area of document.querySelectorAll("#drawing polygon[data-name]")) {
    const points = area.getAttribute("points").split(" ").map((point) => point.split(",").map(Number));
    const [x, y] = points.reduce((top, point) => (point[1] < top[1] ? point : top));
    const name = document.createElement("span");
    name.className = `area-name ${area.getAttribute("class")}`;
    name.textContent = area.dataset.name;
    name.style.left = `${100 * Math.min(x, 0.8)}%`;
    name.style.top = `${100 * Math.min(y, 0.92)}%`;
    one("#drawing").append(name);
  }

  if (surface && form) {
    let corners = [];
    let chosen = -1;
    const group = one("#corners");
    const rounded = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1e4) / 1e4;
    const percent = (value) => `${Math.round(100 * value)} %`;
    const words = ([x, y], at) => `corner ${at + 1}, ${percent(x)} from the left, ${percent(y)} from the top`;

    function read() {
      const parts = numbers.value.split(/[\s,;[\]()]+/).filter(Boolean);
      const values = parts.map(Number);
      if (values.length % 2 || values.some((value) => !(value >= 0 && value <= 1))) return false;
      corners = [];
      for (let at = 0; at < values.length; at += 2) corners.push([values[at], values[at + 1]]);
      return true;
    }

    function show() {
      one("#drawn").setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
      while (group.children.length > corners.length) group.lastChild.remove();
      corners.forEach(([x, y], at) => {
        let handle = group.children[at];
        if (!handle) {
          handle = document.createElement("button");
          handle.type = "button";
          handle.addEventListener("focus", () => choose(at));
          group.append(handle);
        }
        handle.className = at === chosen ? "corner chosen" : "corner";
        handle.style.left = `${100 * x}%`;
        handle.style.top = `${100 * y}%`;
        handle.setAttribute("aria-label", words([x, y], at));
      });
      one("#remove").disabled = !corners[chosen];
      one("#clear").disabled = !corners.length;
      one("#add").disabled = corners.length >= MOST;
    }

    function changed() {
      numbers.value = corners.map((corner) => corner.join(", ")).join("\n");
      show();
      ask();
    }

    function choose(at) {
      chosen = at;
      [...group.children].forEach((handle, k) => handle.classList.toggle("chosen", k === at));
      one("#remove").disabled = !corners[at];
    }

    function insert(at, corner) {
      corners.splice(at, 0, corner);
      chosen = at;
      changed();
    }

    function remove(at) {
      if (!corners[at]) return;
      const had = group.contains(document.activeElement);
      corners.splice(at, 1);
      chosen = Math.min(at, corners.length - 1);
      changed();
      say(`Removed. ${corners.length} corner${corners.length === 1 ? "" : "s"} left.`);
      if (had) (group.children[chosen] ?? one("#add")).focus({ preventScroll: true });
    }

    // Where a new corner belongs: in the edge on which it lies, or after the last one
    function place([x, y]) {
      const { width, height } = surface.getBoundingClientRect();
      if (corners.length < 3) return corners.length;
      let [best, nearest] = [corners.length, 14];
      corners.forEach((from, at) => {
        const to = corners[(at + 1) % corners.length];
        const [dx, dy] = [(to[0] - from[0]) * width, (to[1] - from[1]) * height];
        const [px, py] = [(x - from[0]) * width, (y - from[1]) * height];
        const along = Math.min(Math.max((px * dx + py * dy) / (dx * dx + dy * dy || 1), 0), 1);
        const distance = Math.hypot(px - along * dx, py - along * dy);
        if (distance < nearest) [best, nearest] = [at + 1, distance];
      });
      return best;
    }

    // Mouse, touch and pen
    let dragged = null;
    const at = (event) => {
      const { left, top, width, height } = surface.getBoundingClientRect();
      return [rounded((event.clientX - left) / width), rounded((event.clientY - top) / height)];
    };
    surface.addEventListener("pointerdown", (event) => {
      if (dragged || event.button !== 0) return;
      event.preventDefault();
      surface.setPointerCapture(event.pointerId);
      const handle = event.target.closest?.(".corner");
      if (handle) {
        choose([...group.children].indexOf(handle));
      } else if (corners.length < MOST) {
        insert(place(at(event)), at(event));
      } else {
        say(`There are ${MOST} corners, which is as many as an area can have here.`);
        return;
      }
      dragged = { id: event.pointerId, corner: chosen, from: at(event), start: corners[chosen] };
      group.children[chosen].focus({ preventScroll: true });
    });
    surface.addEventListener("pointermove", (event) => {
      if (event.pointerId !== dragged?.id) return;
      const [x, y] = at(event);
      const [fromX, fromY] = dragged.from;
      if (!dragged.hasMoved && x === fromX && y === fromY) return;
      dragged.hasMoved = true;
      corners[dragged.corner] = [rounded(dragged.start[0] + x - fromX), rounded(dragged.start[1] + y - fromY)];
      changed();
    });
    for (const over of ["pointerup", "pointercancel"]) {
      surface.addEventListener(over, (event) => {
        if (event.pointerId === dragged?.id) dragged = null;
      });
    }

    // Keys
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    group.addEventListener("keydown", (event) => {
      const corner = [...group.children].indexOf(event.target);
      if (corner < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) {
        event.preventDefault();
        const by = event.shiftKey ? 0.001 : 0.01;
        corners[corner] = corners[corner].map((value, axis) => rounded(value + by * steps[event.key][axis]));
        changed();
        say(words(corners[corner], corner));
      } else if (event.key === "Delete" || event.key === "Backspace") {
        event.preventDefault();
        remove(corner);
      }
    });
    one("#add").addEventListener("click", () => {
      // In the middle of the edge after the chosen corner; the first three around the middle.
      const start = [[0.35, 0.65], [0.5, 0.35], [0.65, 0.65]];
      const from = corners[chosen] ?? corners.at(-1);
      const where = corners.length < 3 ? corners.length : corners.indexOf(from) + 1;
      const to = corners[where % corners.length];
      insert(where, corners.length < 3 ? start[where] : [rounded((from[0] + to[0]) / 2), rounded((from[1] + to[1]) / 2)]);
      group.children[where].focus({ preventScroll: true });
      say(words(corners[where], where));
    });
    one("#remove").addEventListener("click", () => remove(chosen));
    one("#clear").addEventListener("click", () => { corners = []; chosen = -1; changed(); one("#add").focus(); });

    // What it would change: one question at a time, and only the last answer counts
    let [waiting, asked] = [null, null];
    const list = one("#result");
    function result(lines, problem, diff, dots) {
      const items = lines.map((line) => {
        const item = document.createElement("li");
        item.textContent = line;
        return item;
      });
      const found = document.createElement("ul");
      found.className = "found";
      found.append(...items);
      list.replaceChildren(found);
      if (problem) {
        const note = document.createElement("p");
        note.className = "notice bad";
        note.textContent = problem;
        list.prepend(note);
      }
      const pre = one("#diff");
      pre.hidden = !diff;
      pre.replaceChildren(...(diff ?? "").split("\n").filter(Boolean).map((line) => {
        const span = document.createElement("span");
        if (!/^(\+\+\+|---) /.test(line)) span.className = { "+": "added", "-": "gone" }[line[0]] ?? "";
        span.textContent = `${line}\n`;
        return span;
      }));
      const path = (isIn) => dots.filter((dot) => dot[2] === isIn).map(([x, y]) => `M${x} ${y}h0`).join("");
      one("#inside").setAttribute("d", path(true));
      one("#outside").setAttribute("d", path(false));
    }

    function ask() {
      clearTimeout(waiting);
      asked?.abort();
      asked = null;
      list.classList.toggle("old", corners.length >= 3);
      if (corners.length < 3) { result([], null, null, []); return; }
      waiting = setTimeout(send, 250);
    }

    async function send() {
      const own = new AbortController();
      asked = own;
      try {
        const answer = await fetch(one("#try").formAction, {
          method: "POST",
          body: new URLSearchParams(new FormData(form)),
          headers: { "X-Console": "1" },
          signal: own.signal,
        });
        const said = await answer.json();
        if (asked !== own) return;
        if (answer.ok) result(said.lines, said.problem, said.diff, said.dots);
        else result([], said.said, null, []);
      } catch {
        if (asked !== own) return;
        result([], "It can't be counted now: the console can't be reached.", null, []);
      }
      asked = null;
      list.classList.remove("old");
    }

    const showOverlap = () => { one("#overlap").hidden = form.elements.anchor.value !== "overlap"; };
    form.addEventListener("input", (event) => {
      if (event.target.name === "why") return;
      if (event.target.name?.startsWith("label:")) form.elements.about.value = "some";
      showOverlap();
      if (event.target === numbers) {
        if (!read()) return;
        chosen = -1;
        show();
      }
      ask();
    });
    addEventListener("pagehide", () => asked?.abort());

    one("#try").hidden = true;
    if (form.elements.do) one("#try").type = "button";  // So that Enter saves.
    one("#tools").hidden = one("#how").hidden = false;
    showOverlap();
    read();
    show();
    if (corners.length >= 3) ask();
  }
}
