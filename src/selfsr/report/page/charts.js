// Draws the charts as SVG: one card for each quantity, one line for each run, and a cursor common to all charts.
(() => {
  const holder = document.getElementById("charts");
  if (!holder) return;
  // `noun` is the name of the lines; with `separate_axes`, every group of charts has its own range of steps.
  const { runs, charts, noun = "Runs", separate_axes = false } = JSON.parse(document.getElementById("chart-data").textContent);
  const SVG = document.querySelector("svg.defs").namespaceURI;
  const MARGIN = { top: 10, right: 14, bottom: 26, left: 52 };
  const HEIGHT = 208;
  const state = { smooth: 2, time: false, hidden: new Set(), cursor: null };
  const cards = [];

  const html = window.makeElement;
  const svg = (name, attributes = {}, text = "") => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  const mark = (run) => {
    const node = svg("svg", { class: `mark run-${run % 6}`, "aria-hidden": "true" });
    node.append(svg("use", { href: `#shape-${run % 6}` }));
    return node;
  };

  const dash = () => {
    const node = svg("svg", { class: "dash", "aria-hidden": "true", viewBox: "0 0 18 6" });
    node.append(svg("line", { class: "baseline", x1: 0, x2: 18, y1: 3, y2: 3 }));
    return node;
  };

  const { linearTicks, logTicks, tickTexts, stepText, timeText } = window.chartTicks;
  const valueText = (chart, value) => {
    if (value === null) return "not finite";
    if (chart.signed) return `${value > 0 ? "+" : ""}${+value.toPrecision(3)}`;
    if (chart.percent) return `${(100 * value).toFixed(1)} %`;
    const digits = chart.group.startsWith("Scores") ? value.toFixed(chart.unit === "dB" ? 2 : 4) : value.toPrecision(4);
    const small = Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : digits;
    return small;
  };
  const withUnit = (chart, value) => `${valueText(chart, value)} ${chart.unit}`.trim();

  // --- Time axis: seconds of a run at a step, from its log ---------------------------------------------------
  const secondsAt = (run, step) => {
    const elapsed = runs[run].elapsed;
    if (!elapsed.length) return null;
    let before = [0, 0];
    for (const point of elapsed) {
      if (step <= point[0]) {
        const share = (step - before[0]) / (point[0] - before[0] || 1);
        return before[1] + share * (point[1] - before[1]);
      }
      before = point;
    }
    return before[1] * (step / before[0]);
  };
  const toAxis = (run, step) => (state.time ? secondsAt(run, step) : step);

  // A Gaussian over neighboring points. Unlike a running average, it does not lag behind the curve.
  const smoothed = (values, width) => {
    if (!width) return values;
    const reach = Math.ceil(width * 2.5);
    return values.map((value, i) => {
      if (value === null) return null;
      let sum = 0;
      let weight = 0;
      for (let j = Math.max(0, i - reach); j <= Math.min(values.length - 1, i + reach); j++) {
        if (values[j] === null) continue;
        const w = Math.exp(-0.5 * ((i - j) / width) ** 2);
        sum += w * values[j];
        weight += w;
      }
      return sum / weight;
    });
  };

  // --- One chart -----------------------------------------------------------------------------------------------
  const yDomain = (chart, lines, log) => {
    const values = lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]).filter((y) => y !== null && (!log || y > 0));
    const levels = chart.baselines.map((b) => b.y);
    let low = Math.min(...values, ...levels);
    let high = Math.max(...values, ...levels);
    if (chart.markers && !chart.signed && values.length > 1) {
      // The score of the untrained network would flatten the rest of the curve, so very low scores are cut off.
      const base = levels.length ? Math.min(...levels) : [...values].sort((a, b) => a - b)[values.length >> 1];
      const floor = base - 2.5 * Math.max(high - base, 0.02 * Math.abs(high));
      const near = values.filter((y) => y >= floor);
      if (near.length * 2 >= values.length) low = Math.min(...near, ...levels);
    }
    if (log) return [low * 0.93, high * 1.07];
    const pad = (high - low || Math.abs(high) * 0.1 || 1) * 0.07;
    if (low >= 0 && low < 0.35 * high && !chart.markers) low = 0;
    else low -= pad;
    return [low, high + pad];
  };

  const xDomain = (own) => {
    let high = 0;
    for (const chart of separate_axes ? charts.filter((chart) => chart.group === own.group) : charts) {
      for (const line of chart.lines) {
        if (!state.hidden.has(line.run) && line.x.length) high = Math.max(high, toAxis(line.run, line.x[line.x.length - 1]) ?? 0);
      }
    }
    return [0, high || 1];
  };

  const pathOf = (points) => {
    let path = "";
    let open = false;
    for (const point of points) {
      if (point === null) open = false;
      else {
        path += `${open ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
        open = true;
      }
    }
    return path;
  };

  const draw = (card) => {
    const { chart, plot } = card;
    const width = Math.max(240, plot.clientWidth || 360);
    const log = card.log;
    const lines = chart.lines.filter((line) => !state.hidden.has(line.run) && line.x.length);
    const title = plot.querySelector("title");
    plot.replaceChildren(title);
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    plot.setAttribute("height", HEIGHT);
    card.scale = null;
    if (!lines.some((line) => line.y.some((y) => y !== null && (!log || y > 0)))) return;

    const [x0, x1] = xDomain(chart);
    const [y0, y1] = yDomain(chart, lines, log);
    const inner = { w: width - MARGIN.left - MARGIN.right, h: HEIGHT - MARGIN.top - MARGIN.bottom };
    const toX = (x) => MARGIN.left + ((x - x0) / (x1 - x0)) * inner.w;
    const warp = log ? Math.log : (v) => v;
    const toY = (y) => MARGIN.top + (1 - (warp(y) - warp(y0)) / (warp(y1) - warp(y0))) * inner.h;
    card.scale = { toX, toY, width, inner, x0, x1 };

    const ticks = log ? logTicks(y0, y1) : linearTicks(y0, y1, 4);
    const texts = chart.percent ? tickTexts(ticks.map((t) => 100 * t), log).map((t) => `${t} %`) : tickTexts(ticks, log);
    ticks.forEach((tick, i) => {
      const y = Math.round(toY(tick)) + 0.5;
      plot.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      plot.append(svg("text", { x: MARGIN.left - 8, y: y + 3.5, "text-anchor": "end" }, texts[i]));
    });
    const unit = state.time ? (x1 < 90 ? 1 : x1 < 5400 ? 60 : 3600) : 1;
    const unitName = state.time ? { 1: "s", 60: "min", 3600: "h" }[unit] : "steps";
    const xTicks = linearTicks(x0 / unit, x1 / unit, Math.max(2, Math.floor(inner.w / 72)));
    xTicks.forEach((tick, i) => {
      const text = state.time ? `${+tick.toFixed(2)}` : stepText(tick);
      plot.append(svg("text", { x: toX(tick * unit), y: HEIGHT - 8, "text-anchor": i ? "middle" : "start" }, i === 0 ? `${text} ${unitName}` : text));
    });

    const clip = `clip-${card.index}`;
    const clipPath = svg("clipPath", { id: clip });
    clipPath.append(svg("rect", { x: MARGIN.left - 5, y: MARGIN.top - 5, width: inner.w + 10, height: inner.h + 10 }));
    plot.append(clipPath);
    const field = svg("g", { "clip-path": `url(#${clip})` });
    plot.append(field);
    for (const baseline of chart.baselines) {
      const y = toY(baseline.y);
      // Its name is above the chart, where it covers no line.
      field.append(svg("line", { class: "baseline", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    }
    card.drawn = lines.map((line) => drawLine(card, field, line, { toX, toY, log }));
    card.marks = svg("g", { class: "cursor-marks" });
    plot.append(card.marks);
    point(card);
  };

  const drawLine = (card, field, line, { toX, toY, log }) => {
    const { chart } = card;
    const width = chart.noisy ? state.smooth : 0;
    const xs = line.x.map((step) => toX(toAxis(line.run, step) ?? 0));
    const at = (values) => values.map((y, i) => (y === null || (log && y <= 0) ? null : [xs[i], toY(y)]));
    const group = svg("g", { class: `run-${line.run % 6}` });
    if (line.low) {
      const edge = [...at(line.high), ...at(line.low).reverse()].filter((p) => p !== null);
      group.append(svg("path", { class: "band", d: `${pathOf(edge)}Z` }));
    }
    const shown = at(smoothed(line.y, width));
    if (width) group.append(svg("path", { class: "raw", d: pathOf(at(line.y)) }));
    group.append(svg("path", { class: "line", d: pathOf(shown) }));
    // Marks distinguish the runs without color: at every evaluation, or a few along a dense line.
    const every = chart.markers ? 1 : Math.max(1, Math.ceil(shown.length / 5));
    const solid = chart.markers || runs.length > 1 || shown.length === 1;
    shown.forEach((p, i) => {
      const dense = chart.markers && shown.length > 40;
      if (p && solid && !dense && (i + Math.floor((line.run + 1) * every / (runs.length + 1))) % every === 0) {
        group.append(svg("use", { class: "point", href: `#shape-${line.run % 6}`, x: p[0] - 5, y: p[1] - 5, width: 10, height: 10 }));
      }
    });
    line.y.forEach((y, i) => {
      if (y === null) group.append(svg("path", { class: "lost", d: `M${xs[i] - 4} ${MARGIN.top}l8 8m0-8l-8 8` }));
    });
    field.append(group);
    return { line, xs };
  };

  // --- Cursor --------------------------------------------------------------------------------------------------
  const nearest = (xs, x) => {
    let low = 0;
    let high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle;
      else high = middle;
    }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };

  const point = (card) => {
    const { chart, scale } = card;
    card.readout.replaceChildren();
    card.marks?.replaceChildren();
    if (!scale) {
      card.readout.append("no values");
      return;
    }
    const baselines = chart.baselines.map((baseline) => html("span", { class: "baseline-name" }, dash(), ` ${baseline.label} `, html("b", {}, valueText(chart, baseline.y))));
    const x = state.cursor === null || state.cursor > scale.x1 ? null : scale.toX(state.cursor);
    const now = state.time ? timeText(state.cursor ?? 0) : `step ${Math.round(state.cursor ?? 0).toLocaleString("en")}`;
    card.readout.append(html("span", {}, x === null ? "last" : now));
    if (x !== null) card.marks.append(svg("line", { class: "cursor", x1: Math.round(x) + 0.5, x2: Math.round(x) + 0.5, y1: MARGIN.top, y2: MARGIN.top + scale.inner.h }));
    for (const { line, xs } of card.drawn) {
      const i = x === null ? line.x.length - 1 : nearest(xs, x);
      const entry = html("span", { class: `run-${line.run % 6}` }, mark(line.run), " ", html("b", {}, valueText(chart, line.y[i])));
      if (line.low) entry.append(` (${valueText(chart, line.low[i])} to ${valueText(chart, line.high[i])})`);
      const when = state.time ? timeText(toAxis(line.run, line.x[i]) ?? 0) : `step ${line.x[i].toLocaleString("en")}`;
      entry.title = `${runs[line.run].name}, ${when}`;
      card.readout.append(entry);
      if (x !== null && line.y[i] !== null) {
        const y = scale.toY(line.y[i]);
        if (y <= HEIGHT - MARGIN.bottom + 4) card.marks.append(svg("circle", { class: `point run-${line.run % 6}`, cx: xs[i], cy: y, r: 4.5 }));
      }
    }
    card.readout.append(...baselines);
  };
  const setCursor = (value) => {
    state.cursor = value;
    cards.forEach(point);
  };

  const follow = (card) => {
    const { plot } = card;
    const move = (event) => {
      if (!card.scale) return;
      const box = plot.getBoundingClientRect();
      const share = ((event.clientX - box.left) * (card.scale.width / box.width) - MARGIN.left) / card.scale.inner.w;
      setCursor(card.scale.x0 + Math.min(1, Math.max(0, share)) * (card.scale.x1 - card.scale.x0));
    };
    plot.addEventListener("pointermove", move);
    plot.addEventListener("pointerdown", move);
    plot.addEventListener("focus", () => roam(card));
    plot.addEventListener("pointerleave", () => setCursor(null));
    plot.addEventListener("blur", () => setCursor(null));
    plot.addEventListener("keydown", (event) => {
      if (!card.scale) return;
      const places = [...new Set(card.drawn.flatMap(({ line }) => line.x.map((step) => toAxis(line.run, step) ?? 0)))].sort((a, b) => a - b);
      const here = state.cursor === null ? places.length - 1 : nearest(places, state.cursor);
      const jump = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -places.length, End: places.length }[event.key];
      if (event.key === "Escape") setCursor(null);
      if (event.key.toLowerCase() === "l" && card.button) card.button.click();
      const neighbor = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (neighbor) {
        event.preventDefault();
        const next = cards[(cards.indexOf(card) + neighbor + cards.length) % cards.length];
        roam(next);
        next.plot.focus();
      }
      if (jump === undefined) return;
      event.preventDefault();
      setCursor(places[Math.min(places.length - 1, Math.max(0, here + jump))]);
    });
  };

  // All charts are one stop of the Tab key; the arrow keys up and down move between them.
  const roam = (chosen) => {
    for (const card of cards) card.plot.setAttribute("tabindex", card === chosen ? "0" : "-1");
  };

  // --- The page --------------------------------------------------------------------------------------------------
  const redraw = () => cards.forEach(draw);

  const build = (chart, index) => {
    const readout = html("p", { class: "readout", "aria-live": "polite" });
    const plot = svg("svg", { class: "plot", role: "img", tabindex: "-1", "aria-roledescription": "line chart" });
    const last = chart.lines.map((line) => `${runs[line.run].name} ${withUnit(chart, line.y[line.y.length - 1])} at step ${line.x[line.x.length - 1]}`);
    const base = chart.baselines.map((b) => `${b.label} ${withUnit(chart, b.y)}`);
    plot.append(svg("title", {}, `${chart.title}. Last: ${[...last, ...base].join(", ")}. Use the arrow keys left and right to read values, up and down for other charts${chart.log_scale ? ", L for a logarithmic scale" : ""}.`));
    const head = html("div", { class: "chart-head" }, html("h4", {}, chart.title, chart.unit ? html("small", {}, ` ${chart.unit}`) : ""));
    const card = { chart, index, plot, readout, log: chart.starts_logarithmic };
    if (chart.log_scale) {
      const button = html("button", { type: "button", tabindex: "-1", title: "Key: L", "aria-pressed": String(card.log), "aria-label": `Logarithmic scale for ${chart.title}` }, "log");
      card.button = button;
      button.addEventListener("click", () => {
        card.log = !card.log;
        button.setAttribute("aria-pressed", String(card.log));
        draw(card);
      });
      head.append(button);
    }
    card.node = html("figure", { class: "chart" }, head, readout, plot);
    follow(card);
    return card;
  };

  const toolbar = () => {
    const bar = html("div", { class: "toolbar" });
    if (runs.length > 1) {
      const set = html("fieldset", { class: "runs" }, html("legend", {}, noun));
      runs.forEach((run, index) => {
        const box = html("input", { type: "checkbox", checked: "" });
        box.addEventListener("change", () => {
          if (box.checked) state.hidden.delete(index);
          else state.hidden.add(index);
          redraw();
        });
        set.append(html("label", { class: `run-${index % 6}` }, box, mark(index), run.name));
        keep(`run ${run.name}`, () => box.checked, (isShown) => isShown || box.click());
      });
      bar.append(set);
    }
    if (charts.some((chart) => chart.noisy)) {
      const slider = html("input", { type: "range", min: "0", max: "20", step: "1", value: String(state.smooth) });
      const shown = html("output", { class: "num" }, String(state.smooth));
      slider.addEventListener("input", () => {
        state.smooth = Number(slider.value);
        shown.textContent = slider.value;
        redraw();
      });
      keep("smoothing", () => slider.value, (value) => {
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
      });
      bar.append(html("label", { title: "Standard deviation of a Gaussian, in logged points. Values above the charts are not smoothed." }, "Smoothing", slider, shown));
    }
    if (runs.every((run) => run.elapsed.length)) {
      const choice = html("select", {}, html("option", { value: "" }, "steps"), html("option", { value: "time" }, "training time"));
      choice.addEventListener("change", () => {
        state.time = choice.value === "time";
        setCursor(null);
        redraw();
      });
      keep("axis", () => choice.value, (value) => {
        choice.value = value;
        choice.dispatchEvent(new Event("change"));
      });
      bar.append(html("label", {}, "Horizontal axis", choice));
    }
    return bar;
  };

  holder.append(toolbar());
  for (const group of new Set(charts.map((chart) => chart.group))) {
    const grid = html("div", { class: "chart-grid" });
    charts.forEach((chart, index) => {
      if (chart.group !== group) return;
      const card = build(chart, index);
      cards.push(card);
      grid.append(card.node);
    });
    holder.append(html("h3", { class: "chart-group" }, group), grid);
  }
  redraw();
  if (cards.length) roam(cards[0]);
  const values = document.querySelector("details.values");
  if (values) values.open = false;
  let width = holder.clientWidth;
  new ResizeObserver(() => {
    if (holder.clientWidth === width) return;
    width = holder.clientWidth;
    redraw();
  }).observe(holder);
})();
