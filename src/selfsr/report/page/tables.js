// Score tables: choose the metric and the evaluation, sort by a column. Also the copy button and printing.
(() => {
  const scores = [...document.querySelectorAll(".score")];

  const control = (legend, options, choose) => {
    const set = document.createElement("fieldset");
    const name = document.createElement("legend");
    name.textContent = legend;
    set.append(name);
    const buttons = options.map(([value, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => press(value));
      set.append(button);
      return [value, button];
    });
    let current = options[0][0];
    const press = (chosen) => {
      current = chosen;
      for (const [value, button] of buttons) {
        button.setAttribute("aria-pressed", String(value === chosen));
        button.tabIndex = value === chosen ? 0 : -1;
      }
      choose(chosen);
    };
    // The buttons are one stop of the Tab key.
    set.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const here = buttons.findIndex(([, button]) => button === event.target);
      const [value, button] = buttons[(here + step + buttons.length) % buttons.length];
      press(value);
      button.focus();
    });
    press(current);
    keep(`choice of ${legend}`, () => current, (value) => options.some(([one]) => one === value) && press(value));
    return set;
  };

  if (scores.length) {
    const chosen = {};
    const show = (key) => (value) => {
      chosen[key] = value;
      for (const score of scores) score.hidden = Object.entries(chosen).some(([k, v]) => score.dataset[k] !== v);
    };
    const bar = document.createElement("div");
    bar.className = "toolbar";
    const metrics = new Map(scores.map((score) => [score.dataset.metric, score.dataset.metricName]));
    const which = [...new Set(scores.map((score) => score.dataset.which))];
    bar.append(control("Metric", [...metrics], show("metric")));
    const names = { best: "best of each run", last: "last of each run" };
    if (which.length > 1) bar.append(control("Evaluation", which.map((w) => [w, names[w]]), show("which")));
    document.querySelector(".tables").before(bar);
  }

  const cellValue = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const kind = head.dataset.sort;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const [x, y] = [cellValue(a, column, kind), cellValue(b, column, kind)];
          // Missing values stay at the end in both directions.
          return down && x !== null && y !== null ? compare(y, x) : compare(x, y);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    const code = button.parentElement.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      let done = false;
      try {
        await navigator.clipboard.writeText(code.textContent);
        done = true;
      } catch {
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 1600);
    });
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
