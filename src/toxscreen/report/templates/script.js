"use strict";
// Without this script the page shows everything at once; with it, long lists are paged, tables sort and filter, points answer.
(() => {
  document.documentElement.classList.add("scripted");
  const points = JSON.parse(document.getElementById("points").textContent);
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // A row of buttons that walks through `pages()` pages and calls `show(page)`.
  const pager = (noun, pages, show) => {
    const back = make("button", { type: "button", textContent: "‹ Back" });
    const on = make("button", { type: "button", textContent: "Next ›" });
    const where = make("span", { role: "status" });
    const tools = make("div", { className: "tools" }, back, where, on);
    let page = 0;
    tools.go = (to) => {
      page = Math.max(0, Math.min(to, pages() - 1));
      where.textContent = `${noun} ${page + 1} of ${Math.max(1, pages())}`;
      back.disabled = page === 0;
      on.disabled = page >= pages() - 1;
      back.hidden = on.hidden = where.hidden = pages() < 2;
      show(page);
    };
    back.onclick = () => tools.go(page - 1);
    on.onclick = () => tools.go(page + 1);
    return tools;
  };

  for (const box of document.querySelectorAll(".pages")) {
    const pages = [...box.querySelectorAll(".page")];
    const tools = pager("Sheet", () => pages.length, (now) => pages.forEach((page, i) => page.classList.toggle("now", i === now)));
    tools.go(0);
    if (pages.length > 1) box.append(tools);
  }

  for (const table of document.querySelectorAll("table[data-page]")) {
    const size = Number(table.dataset.page);
    const body = table.tBodies[0];
    let rows = [...body.rows];
    let kept = rows;
    const tools = pager("Page", () => Math.ceil(kept.length / size), (page) => {
      rows.forEach((row) => row.classList.add("off"));
      kept.slice(page * size, (page + 1) * size).forEach((row) => row.classList.remove("off"));
    });
    if (rows.length > size) {
      const label = `Filter by ${table.dataset.filter}`;
      const filter = make("input", { type: "search", placeholder: label, ariaLabel: label });
      filter.oninput = () => {
        const wanted = filter.value.toLowerCase();
        kept = rows.filter((row) => row.textContent.toLowerCase().includes(wanted));
        tools.go(0);
      };
      tools.prepend(filter);
      table.parentNode.before(tools);
    }
    for (const head of table.tHead.rows[0].cells) {
      if (!head.dataset.sort || rows.length < 2) continue;
      const value = (row) => {
        const cell = row.cells[head.cellIndex];
        return head.dataset.sort === "number" ? Number(cell.dataset.value ?? cell.textContent) || 0 : cell.textContent;
      };
      const order = new Intl.Collator(undefined, { numeric: true });
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.onclick = () => {
        const up = head.ariaSort === "descending" || (head.dataset.sort === "text" && head.ariaSort !== "ascending");
        [...head.parentNode.cells].forEach((cell) => cell.removeAttribute("aria-sort"));
        head.ariaSort = up ? "ascending" : "descending";
        const compare = head.dataset.sort === "number" ? (a, b) => value(a) - value(b) : (a, b) => order.compare(value(a), value(b));
        rows.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
        kept = rows.filter((row) => kept.includes(row));
        body.append(...rows);
        tools.go(0);
      };
    }
    tools.go(0);
  }

  // The card that shows the sample behind a point or a thumbnail.
  const card = document.getElementById("card");
  const [image, text, id, what] = card.children;
  const hide = () => {
    card.hidden = true;
    document.querySelectorAll(".at").forEach((element) => element.classList.remove("at"));
    document.querySelectorAll(".ring").forEach((ring) => ring.setAttribute("cx", -99));
  };
  const show = (section, i, x, y) => {
    const sample = points[section];
    const sheet = document.querySelector(`.sheet[data-class="${section}"] img[data-i="${i}"]`);
    const source = sheet ? sheet.src : sample.picture[i] && `data:image/webp;base64,${sample.picture[i]}`;
    image.hidden = !source;
    if (source) image.src = source;
    text.hidden = !sample.text[i];
    text.textContent = sample.text[i] ?? "";
    id.textContent = sample.id[i];
    what.textContent = `group ${sample.group[i]}, score ${sample.score[i]}`;
    card.hidden = false;
    const { width, height } = card.getBoundingClientRect();
    const left = x + 24 + width > innerWidth ? x - 24 - width : x + 24;
    card.style.left = `${Math.max(8, left)}px`;
    card.style.top = `${Math.max(8, Math.min(y - height / 2, innerHeight - height - 8))}px`;
  };
  // Let the arrow keys walk over `n()` things, one at a time.
  const walk = (element, n, go) => {
    let at = -1;
    element.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      at = (at + step + n) % n;
      go(at);
    });
    element.addEventListener("blur", hide);
    element.addEventListener("pointerleave", hide);
  };
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("scroll", hide, { passive: true });

  for (const sheet of document.querySelectorAll(".sheet")) {
    const pictures = [...sheet.querySelectorAll("img")];
    const point = (picture) => {
      hide();
      const box = picture.getBoundingClientRect();
      picture.classList.add("at");
      show(sheet.dataset.class, picture.dataset.i, box.right, box.top);
    };
    const under = (event) => event.target.matches("img") && point(event.target);
    sheet.addEventListener("pointerover", under);
    sheet.addEventListener("click", under);
    walk(sheet, pictures.length, (i) => point(pictures[i]));
  }

  for (const plot of document.querySelectorAll(".plot > svg")) {
    const section = plot.dataset.class;
    const { x, y, group } = points[section];
    const ring = plot.querySelector(".ring");
    // What the model gives another class has no place.
    const order = [...x.keys()].filter((i) => x[i] !== null).sort((a, b) => group[b] - group[a] || x[a] - x[b]);
    const point = (i) => {
      ring.setAttribute("cx", x[i]);
      ring.setAttribute("cy", y[i]);
      const screen = new DOMPoint(x[i], y[i]).matrixTransform(plot.getScreenCTM());
      show(section, i, screen.x, screen.y);
    };
    const under = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse());
      let nearest = -1;
      let least = 60 ** 2;
      for (const i of order) {
        const distance = (x[i] - at.x) ** 2 + (y[i] - at.y) ** 2;
        if (distance < least) [nearest, least] = [i, distance];
      }
      if (nearest < 0) hide();
      else point(nearest);
    };
    plot.addEventListener("pointermove", under);
    plot.addEventListener("click", under);
    walk(plot, order.length, (i) => point(order[i]));
  }
})();
