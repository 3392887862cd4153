// The image viewers: two versions of an image with a divider between them, zoom, position, and keys to flip.
(() => {
  const make = window.makeElement;
  const ZOOMS = [0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32];
  const NEAR_DIVIDER_PX = 26;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  const addViewer = (article, index) => {
    const size = { w: Number(article.dataset.width), h: Number(article.dataset.height) };
    const crops = [...article.querySelectorAll(".views li")].map((item) => ({
      name: item.textContent,
      x: Number(item.dataset.left) + item.dataset.side / 2,
      y: Number(item.dataset.top) + item.dataset.side / 2,
      side: Number(item.dataset.side),
    }));
    const versions = [...article.querySelectorAll(".version")].map((figure) => ({
      figure,
      image: figure.querySelector("img"),
      label: figure.querySelector(".label").textContent.trim(),
      scores: figure.dataset.psnr ? figure.dataset.psnr.split("|") : [],
      role: figure.dataset.role,
    }));
    const byRole = (...roles) => roles.map((role) => versions.find((version) => version.role === role)).find(Boolean);
    const sides = { a: byRole("start", "bicubic") ?? versions[0], b: byRole("lead", "run") ?? versions[versions.length - 1] };
    // The center in pixels of the image, and pixels of the screen for each; `crop` is its number, or -1.
    const view = { x: 0, y: 0, zoom: 1, crop: -1 };
    let held = null;

    // --- Nodes -----------------------------------------------------------------------------------------------
    const images = { a: make("img", { alt: "", draggable: "false" }), b: make("img", { alt: "", draggable: "false" }) };
    const divider = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", "aria-label": `Divider between the two versions of ${article.querySelector("h3").firstChild.textContent.trim()}` });
    const badges = { a: make("span", { class: "badge l" }), b: make("span", { class: "badge r" }) };
    const over = make("div", { class: "over" }, images.a);
    const stage = make("div", { class: "compare" }, make("div", { class: "both" }, images.b, over), make("span", { class: "divider" }), badges.a, badges.b, divider);
    const frames = crops.map((crop, i) => {
      const frame = make("span", { class: "spot", "aria-hidden": "true" }, make("span", {}, String(i + 1)));
      frame.style.cssText = `left:${(100 * (crop.x - crop.side / 2)) / size.w}%;top:${(100 * (crop.y - crop.side / 2)) / size.h}%;width:${(100 * crop.side) / size.w}%;height:${(100 * crop.side) / size.h}%`;
      frame.addEventListener("click", () => showCrop(i));
      return frame;
    });
    const here = make("span", { class: "here", "aria-hidden": "true" });
    const map = make("figure", { class: "overview" }, make("div", { class: "frame" }, make("img", { alt: "", src: byRole("hr").image.src, width: size.w, height: size.h }), ...frames, here), make("figcaption", {}, "HR. The yellow frame is the visible part."));

    // --- Showing -----------------------------------------------------------------------------------------------
    const fitZoom = () => Math.min(stage.clientWidth / size.w, stage.clientHeight / size.h) || 1;
    const place = () => {
      view.zoom = clamp(view.zoom, Math.min(fitZoom(), 1), 32);
      const reach = { x: stage.clientWidth / view.zoom / 2, y: stage.clientHeight / view.zoom / 2 };
      view.x = size.w <= 2 * reach.x ? size.w / 2 : clamp(view.x, reach.x, size.w - reach.x);
      view.y = size.h <= 2 * reach.y ? size.h / 2 : clamp(view.y, reach.y, size.h - reach.y);
      const left = stage.clientWidth / 2 - view.x * view.zoom;
      const top = stage.clientHeight / 2 - view.y * view.zoom;
      for (const image of Object.values(images)) {
        image.style.width = `${size.w}px`;
        image.style.height = `${size.h}px`;
        image.style.transform = `translate(${left.toFixed(2)}px,${top.toFixed(2)}px) scale(${view.zoom})`;
        image.style.imageRendering = view.zoom < 1 ? "auto" : "pixelated";
      }
      const box = { x: Math.max(0, view.x - reach.x), y: Math.max(0, view.y - reach.y), w: Math.min(size.w, 2 * reach.x), h: Math.min(size.h, 2 * reach.y) };
      here.style.cssText = `left:${(100 * box.x) / size.w}%;top:${(100 * box.y) / size.h}%;width:${(100 * box.w) / size.w}%;height:${(100 * box.h) / size.h}%`;
      const side = Math.min(2 * reach.x, Math.max(size.w, size.h));
      for (const { image } of versions) {
        image.style.width = `${(100 * size.w) / side}%`;
        image.style.left = `${(100 * (side / 2 - view.x)) / side}%`;
        image.style.top = `${(100 * (side / 2 - view.y)) / side}%`;
      }
      zoomText.textContent = `${+view.zoom.toFixed(1)}x`;
      views.forEach((button, i) => {
        const chosen = i === view.crop + 1 && (i > 0 || view.zoom <= fitZoom() * 1.001);
        button.setAttribute("aria-checked", String(chosen));
      });
      frames.forEach((frame, i) => frame.classList.toggle("chosen", i === view.crop));
      roam(views, Math.max(0, view.crop + 1));
      showScores();
    };
    const showCrop = (crop) => {
      view.crop = crop;
      if (crop < 0) Object.assign(view, { x: size.w / 2, y: size.h / 2, zoom: fitZoom() });
      else Object.assign(view, { x: crops[crop].x, y: crops[crop].y, zoom: stage.clientWidth / crops[crop].side });
      place();
    };
    const setZoom = (zoom, at = { x: 0, y: 0 }) => {
      const next = clamp(zoom, Math.min(fitZoom(), 1), 32);
      // The pixel under the pointer stays where it is.
      view.x += at.x / view.zoom - at.x / next;
      view.y += at.y / view.zoom - at.y / next;
      view.zoom = next;
      view.crop = -1;
      place();
    };
    const stepZoom = (direction, at) => {
      const next = direction > 0 ? ZOOMS.find((zoom) => zoom > view.zoom * 1.01) : ZOOMS.findLast((zoom) => zoom < view.zoom * 0.99);
      if (next) setZoom(next, at);
    };
    const pan = (dx, dy) => {
      view.x += dx / view.zoom;
      view.y += dy / view.zoom;
      view.crop = -1;
      place();
    };
    const scoreOf = (version) => version.scores[view.crop + 1] ?? "";
    const fillBadge = (node, version) => node.replaceChildren(version.label, ...(scoreOf(version) ? [make("span", { class: "num" }, scoreOf(version))] : []));
    const showScores = () => {
      for (const version of versions) {
        const score = version.figure.querySelector(".psnr");
        if (score) score.textContent = scoreOf(version);
      }
      fillBadge(badges.a, held ?? sides.a);
      fillBadge(badges.b, held ?? sides.b);
    };
    const show = () => {
      images.a.src = (held ?? sides.a).image.src;
      images.b.src = (held ?? sides.b).image.src;
      stage.classList.toggle("held", held !== null);
      for (const version of versions) {
        version.figure.classList.toggle("on-left", version === sides.a);
        version.figure.classList.toggle("on-right", version === sides.b);
      }
      for (const side of ["a", "b"]) selects[side].value = String(versions.indexOf(sides[side]));
      showScores();
      move();
    };
    const move = () => {
      stage.style.setProperty("--cut", `${divider.value}%`);
      divider.setAttribute("aria-valuetext", `${sides.a.label} up to ${Math.round(divider.value)} percent, then ${sides.b.label}`);
    };
    const hold = (version) => {
      if (held === version) return;
      held = version;
      show();
    };
    const toggleDifference = (on) => {
      stage.classList.toggle("diff", on);
      difference.checked = on;
    };

    // --- Toolbar -----------------------------------------------------------------------------------------------
    // A group of buttons is one stop of the Tab key; the arrow keys move in it.
    const roam = (buttons, chosen) => buttons.forEach((button, i) => (button.tabIndex = i === chosen ? 0 : -1));
    const views = ["Complete image", ...crops.map((crop) => crop.name)].map((name, i) => {
      const button = make("button", { type: "button", role: "radio" }, name);
      button.addEventListener("click", () => showCrop(i - 1));
      return button;
    });
    const group = make("div", { class: "views", role: "radiogroup", "aria-label": "Part of the image" }, ...views);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || event.shiftKey) return;
      event.preventDefault();
      const next = (views.indexOf(document.activeElement) + step + views.length) % views.length;
      showCrop(next - 1);
      views[next].focus();
    });
    const selects = {};
    const pickers = make("div", { class: "pickers" });
    for (const [side, name] of [["a", "A"], ["b", "B"]]) {
      const select = make("select", {}, ...versions.map((version, i) => make("option", { value: String(i) }, version.label)));
      select.addEventListener("change", () => {
        sides[side] = versions[Number(select.value)];
        show();
      });
      selects[side] = select;
      pickers.append(make("label", {}, make("kbd", {}, name), side === "a" ? "left" : "right", select));
    }
    const difference = make("input", { type: "checkbox" });
    difference.addEventListener("change", () => toggleDifference(difference.checked));
    pickers.append(make("label", { title: "Key: D" }, difference, "Difference, 6 times brighter"));
    // The keys do the same, so these buttons are not stops of the Tab key.
    const button = (text, label, act) => {
      const node = make("button", { type: "button", tabindex: "-1", "aria-label": label, title: label }, text);
      node.addEventListener("click", act);
      return node;
    };
    const holder = (side) => {
      const node = make("button", { type: "button", tabindex: "-1", title: `Hold: only the ${side === "a" ? "left" : "right"} version (key ${side.toUpperCase()})` }, `Hold ${side.toUpperCase()}`);
      node.addEventListener("pointerdown", () => hold(sides[side]));
      for (const name of ["pointerup", "pointerleave", "pointercancel"]) node.addEventListener(name, () => hold(null));
      return node;
    };
    const zoomText = make("output", { class: "num zoom-text", "aria-label": "Zoom" });
    const tools = make("div", { class: "tools" }, holder("a"), holder("b"), button("\u2212", "Zoom out (-)", () => stepZoom(-1)), zoomText, button("+", "Zoom in (+)", () => stepZoom(1)), button("1:1", "One pixel for one pixel", () => setZoom(1)));

    // --- Pointer -------------------------------------------------------------------------------------------------
    const pointers = new Map();
    let dragsDivider = false;
    const locate = (event) => {
      const box = stage.getBoundingClientRect();
      return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
    };
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return { distance: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    };
    const drag = (at) => {
      divider.value = String(clamp(50 + (100 * at.x) / stage.clientWidth, 0, 100));
      move();
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      divider.focus({ preventScroll: true });
      try {
        stage.setPointerCapture(event.pointerId);
      } catch {
        // The pointer has already left.
      }
      const at = locate(event);
      pointers.set(event.pointerId, at);
      const distance = Math.abs(at.x - ((divider.value - 50) * stage.clientWidth) / 100);
      dragsDivider = pointers.size === 1 && distance < NEAR_DIVIDER_PX;
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const old = pointers.size === 2 ? spread() : null;
      const at = locate(event);
      pointers.set(event.pointerId, at);
      if (old) {
        const now = spread();
        setZoom(view.zoom * (now.distance / old.distance), now);
        pan(old.x - now.x, old.y - now.y);
      } else if (dragsDivider) drag(at);
      else pan(before.x - at.x, before.y - at.y);
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
    stage.addEventListener("wheel", (event) => {
      // The wheel scrolls the page unless the viewer was chosen before.
      if (document.activeElement !== divider && !event.ctrlKey) return;
      event.preventDefault();
      stepZoom(event.deltaY < 0 ? 1 : -1, locate(event));
    }, { passive: false });
    divider.addEventListener("input", move);
    versions.forEach((version, i) => {
      version.figure.title = `Show on the right${i < 9 ? `; hold ${i + 1} for this version only` : ""}`;
      if (i < 9) version.figure.querySelector(".label").prepend(make("kbd", {}, String(i + 1)), " ");
      version.figure.addEventListener("click", () => {
        sides.b = version;
        show();
      });
    });

    // --- Page ----------------------------------------------------------------------------------------------------
    article.querySelector("ul.views").replaceWith(group);
    article.querySelector(".stage-grid").prepend(make("div", { class: "side" }, map, pickers, tools), make("div", { class: "stage" }, group, stage));
    show();
    showCrop(crops.length ? 0 : -1);
    new ResizeObserver(() => {
      if (view.crop >= 0) showCrop(view.crop);
      else place();
    }).observe(stage);
    keep(`image-${index}`, () => ({ ...view, a: sides.a.label, b: sides.b.label, cut: divider.value, fits: view.zoom <= fitZoom() * 1.001 }), (kept) => {
      sides.a = versions.find((version) => version.label === kept.a) ?? sides.a;
      // The newest output has another label after each evaluation.
      sides.b = versions.find((version) => version.label === kept.b && version.role !== "earlier") ?? sides.b;
      divider.value = kept.cut;
      show();
      if (kept.crop >= 0) showCrop(Math.min(kept.crop, crops.length - 1));
      else if (kept.fits) showCrop(-1);
      else {
        Object.assign(view, { x: kept.x, y: kept.y, zoom: kept.zoom, crop: -1 });
        place();
      }
    });
    return { article, stage, divider, view, sides, versions, hold, pan, stepZoom, setZoom, showCrop, toggleDifference, difference };
  };

  const viewers = [...document.querySelectorAll(".image")].map(addViewer);
  if (!viewers.length) return;

  // --- Keys: for the viewer with the focus, else the one that was pointed at last, else the one in the window -------
  let pointed = null;
  for (const viewer of viewers) viewer.article.addEventListener("pointerenter", () => (pointed = viewer));
  const isVisible = (viewer) => {
    const box = viewer.stage.getBoundingClientRect();
    return box.bottom > 80 && box.top < innerHeight - 80;
  };
  const findViewer = () => {
    const focused = viewers.find((viewer) => viewer.article.contains(document.activeElement));
    return focused ?? (pointed && isVisible(pointed) ? pointed : viewers.find(isVisible));
  };
  const release = () => viewers.forEach((viewer) => viewer.hold(null));
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.tagName === "SELECT" || (event.target.tagName === "INPUT" && event.target.type !== "range" && event.target.type !== "checkbox");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    const viewer = findViewer();
    if (!viewer) return;
    const key = event.key.toLowerCase();
    if (key === "a" || key === "b") viewer.hold(viewer.sides[key]);
    else if (/^[1-9]$/.test(key) && viewer.versions[key - 1]) viewer.hold(viewer.versions[key - 1]);
    else if (key === "d" && !event.repeat) viewer.toggleDifference(!viewer.difference.checked);
    else if (key === "+" || key === "=") viewer.stepZoom(1);
    else if (key === "-") viewer.stepZoom(-1);
    else if (key === "0" || key === "f") viewer.showCrop(-1);
    else if (event.shiftKey && document.activeElement === viewer.divider) {
      const moves = { ArrowLeft: [-48, 0], ArrowRight: [48, 0], ArrowUp: [0, -48], ArrowDown: [0, 48] };
      if (!moves[event.key]) return;
      event.preventDefault();
      viewer.pan(...moves[event.key]);
    }
  });
  document.addEventListener("keyup", release);
  addEventListener("blur", release);
  window.reportViewers = viewers;
})();
