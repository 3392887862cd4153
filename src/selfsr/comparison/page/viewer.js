// The viewer: two to four panes that show versions of one image with a common zoom and position.
(() => {
  const holder = document.getElementById("panes");
  if (!holder) return;
  const data = JSON.parse(document.getElementById("compare-data").textContent);
  const bar = document.getElementById("viewer-bar");
  const flip = document.getElementById("flip");
  const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
  const MOST_PANES = 4;
  // Zoom is in pixels of the screen for a pixel of HR; the position is the center, in pixels of HR.
  const view = { image: 0, zoom: 1, x: 0, y: 0, fit: true };
  const panes = [];
  let active = 0;
  let held = null;
  let blind = null;
  const decoded = new Map();

  const make = window.makeElement;
  const current = () => data.images[view.image];
  const order = () => (blind ? blind.order : data.versions);
  const listAvailable = () => order().filter((version) => current().images[version]);

  // --- Images ------------------------------------------------------------------------------------------------
  const getImage = (index, version) => {
    const source = data.images[index].images[version];
    if (!source) return null;
    const key = `${index} ${version}`;
    if (!decoded.has(key)) {
      const image = new Image();
      image.onload = () => requestDraw();
      image.src = source;
      decoded.set(key, image);
      // A few images stay decoded, for quick changes between neighbors.
      if (decoded.size > 48) decoded.delete(decoded.keys().next().value);
    }
    const image = decoded.get(key);
    return image.complete && image.naturalWidth ? image : null;
  };

  // --- Drawing -----------------------------------------------------------------------------------------------
  let requested = false;
  const requestDraw = () => {
    if (requested) return;
    requested = true;
    requestAnimationFrame(() => {
      requested = false;
      draw();
    });
  };
  const getVersion = (pane) => (held !== null && pane.index === active ? order()[held] : pane.version);
  const getLabel = (version) => (blind && data.models.includes(version) ? blind.label(version) : version);

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const image = current();
    // As high as the image needs at this width, but never more than the window has.
    const wanted = (panes[0].canvas.clientWidth * image.height) / image.width;
    const rows = getComputedStyle(holder).gridTemplateColumns.split(" ").length < countPanes() ? 2 : 1;
    const paneHeight = Math.round(Math.min(Math.max(wanted, 150), Math.max(240, (0.8 * innerHeight) / rows)));
    holder.style.setProperty("--pane-height", `${paneHeight}px`);
    for (const pane of panes) {
      if (pane.node.hidden) continue;
      const { canvas } = pane;
      const width = Math.round(canvas.clientWidth * ratio);
      const height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    if (view.fit) fitView();
    for (const pane of panes) {
      if (pane.node.hidden) continue;
      const { canvas, context } = pane;
      const version = getVersion(pane);
      const source = getImage(view.image, version);
      context.clearRect(0, 0, canvas.width, canvas.height);
      const left = Math.round(canvas.width / 2 - view.x * view.zoom);
      const top = Math.round(canvas.height / 2 - view.y * view.zoom);
      if (source) {
        context.imageSmoothingEnabled = view.zoom < 2 && (version !== "LR" || view.zoom * data.scale < 2);
        context.imageSmoothingQuality = "high";
        context.drawImage(source, left, top, Math.round(image.width * view.zoom), Math.round(image.height * view.zoom));
      }
      const scores = blind ? "" : image.scores[version] ?? "";
      pane.caption.replaceChildren(make("b", {}, getLabel(version)), scores ? ` ${scores}` : "");
      canvas.setAttribute("aria-label", `Pane ${pane.index + 1}: ${getLabel(version)}, ${image.name}, ${describeZoom()}`);
    }
    zoomText.textContent = describeZoom();
  };
  const describeZoom = () => `${Math.round(view.zoom * 100)} %`;

  const countPanes = () => panes.filter((pane) => !pane.node.hidden).length;
  const fitView = () => {
    const { canvas } = panes[0];
    const image = current();
    view.zoom = Math.min(canvas.width / image.width, canvas.height / image.height) || 1;
    view.x = image.width / 2;
    view.y = image.height / 2;
  };
  const keepInside = () => {
    view.x = Math.min(current().width, Math.max(0, view.x));
    view.y = Math.min(current().height, Math.max(0, view.y));
  };
  const setZoom = (zoom, at) => {
    const next = Math.min(ZOOMS[ZOOMS.length - 1], Math.max(ZOOMS[0], zoom));
    if (at) {
      // The pixel under the pointer stays where it is.
      view.x += at.x / view.zoom - at.x / next;
      view.y += at.y / view.zoom - at.y / next;
    }
    view.zoom = next;
    view.fit = false;
    keepInside();
    requestDraw();
  };
  const stepZoom = (direction, at) => {
    const next = direction > 0 ? ZOOMS.find((z) => z > view.zoom * 1.001) : ZOOMS.findLast((z) => z < view.zoom * 0.999);
    if (next) setZoom(next, at);
  };
  const fit = () => {
    view.fit = true;
    requestDraw();
  };
  const move = (dx, dy) => {
    view.x += dx / view.zoom;
    view.y += dy / view.zoom;
    view.fit = false;
    keepInside();
    requestDraw();
  };

  // --- Panes -------------------------------------------------------------------------------------------------
  const activate = (index) => {
    active = index;
    for (const pane of panes) pane.node.classList.toggle("active", pane.index === index);
  };
  const fillSelect = (pane) => {
    pane.select.replaceChildren(...listAvailable().map((version) => make("option", { value: version }, getLabel(version))));
    if (!listAvailable().includes(pane.version)) pane.version = listAvailable()[0];
    pane.select.value = pane.version;
  };
  const addPane = (index) => {
    const canvas = make("canvas", { tabindex: "0", role: "img" });
    const select = make("select", { "aria-label": `Version in pane ${index + 1}` });
    const caption = make("p", { class: "caption" });
    const node = make("div", { class: "pane" }, make("div", { class: "pane-head" }, select), canvas, caption);
    const pane = { index, node, canvas, select, caption, context: canvas.getContext("2d"), version: data.versions[0] };
    select.addEventListener("change", () => {
      pane.version = select.value;
      activate(index);
      requestDraw();
    });
    follow(pane);
    panes.push(pane);
    holder.append(node);
  };

  const follow = (pane) => {
    const { canvas } = pane;
    const pointers = new Map();
    const place = (event) => {
      const ratio = window.devicePixelRatio || 1;
      const box = canvas.getBoundingClientRect();
      return { x: (event.clientX - box.left - box.width / 2) * ratio, y: (event.clientY - box.top - box.height / 2) * ratio };
    };
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return { distance: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    };
    canvas.addEventListener("focus", () => activate(pane.index));
    canvas.addEventListener("pointerdown", (event) => {
      activate(pane.index);
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture?.(event.pointerId);
      pointers.set(event.pointerId, place(event));
      canvas.classList.add("dragged");
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      if (pointers.size === 2) {
        const old = spread();
        pointers.set(event.pointerId, place(event));
        const now = spread();
        setZoom(view.zoom * (now.distance / old.distance), now);
        move(old.x - now.x, old.y - now.y);
        return;
      }
      const now = place(event);
      pointers.set(event.pointerId, now);
      move(before.x - now.x, before.y - now.y);
    });
    const release = (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) canvas.classList.remove("dragged");
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener(
      "wheel",
      (event) => {
        // The wheel scrolls the page unless the pane was chosen before.
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        stepZoom(event.deltaY < 0 ? 1 : -1, place(event));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const step = 48;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (!moves[event.key]) return;
      event.preventDefault();
      move(...moves[event.key]);
    });
  };

  // --- Toolbar -----------------------------------------------------------------------------------------------
  // Buttons with a key are not stops of the Tab key.
  const button = (text, label, act) => {
    const tabindex = /\((.)\)$/.test(label) ? "-1" : "0";
    const node = make("button", { type: "button", tabindex, "aria-label": label, title: label }, text);
    node.addEventListener("click", act);
    return node;
  };
  const imageSelect = make("select", { "aria-label": "Image" });
  data.images.forEach((image, index) => imageSelect.append(make("option", { value: String(index) }, image.name)));
  imageSelect.addEventListener("change", () => showImage(Number(imageSelect.value)));
  const zoomText = make("output", { class: "zoom-text", "aria-label": "Zoom" });
  const counts = make("fieldset", {}, make("legend", {}, "Panes"));
  const countButtons = [2, 3, 4].map((count) => {
    const node = button(String(count), `${count} panes`, () => showPanes(count));
    counts.append(node);
    return [count, node];
  });

  const showPanes = (count) => {
    for (const pane of panes) pane.node.hidden = pane.index >= count;
    holder.style.setProperty("--columns", String(count === 4 && innerWidth < 1400 ? 2 : count));
    for (const [number, node] of countButtons) node.setAttribute("aria-pressed", String(number === count));
    if (active >= count) activate(0);
    requestDraw();
  };
  const showImage = (index) => {
    view.image = (index + data.images.length) % data.images.length;
    imageSelect.value = String(view.image);
    view.fit = true;
    document.dispatchEvent(new CustomEvent("image-change"));
    refresh();
  };
  const refresh = () => {
    held = null;
    panes.forEach(fillSelect);
    fillFlip();
    requestDraw();
  };
  const fillFlip = () => {
    flip.replaceChildren();
    order().slice(0, 9).forEach((version, index) => {
      if (!current().images[version]) return;
      const node = make("button", { type: "button", tabindex: "-1" }, make("kbd", {}, String(index + 1)), ` ${getLabel(version)}`);
      const hold = (on) => () => {
        held = on ? index : null;
        requestDraw();
      };
      node.addEventListener("pointerdown", hold(true));
      for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) node.addEventListener(name, hold(false));
      node.addEventListener("keydown", (event) => (event.key === " " || event.key === "Enter") && hold(true)());
      node.addEventListener("keyup", hold(false));
      flip.append(node);
    });
  };

  // --- Keys --------------------------------------------------------------------------------------------------
  const isTyping = (event) => event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName ?? "");
  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const digit = Number(event.key);
    if (digit >= 1 && digit <= 9) {
      if (order()[digit - 1] && current().images[order()[digit - 1]] && held !== digit - 1) {
        held = digit - 1;
        requestDraw();
      }
      return;
    }
    const actions = {
      "+": () => stepZoom(1), "=": () => stepZoom(1), "-": () => stepZoom(-1), 0: fit, f: fit,
      n: () => showImage(view.image + 1), p: () => showImage(view.image - 1),
    };
    actions[event.key.toLowerCase()]?.();
  });
  document.addEventListener("keyup", (event) => {
    if (Number(event.key) >= 1 && held !== null) {
      held = null;
      requestDraw();
    }
  });
  addEventListener("blur", () => {
    held = null;
    requestDraw();
  });
  addEventListener("resize", () => showPanes(countPanes()));

  bar.append(
    make("label", {}, "Image ", imageSelect),
    make("fieldset", {}, button("\u2039", "Previous image (P)", () => showImage(view.image - 1)), button("\u203a", "Next image (N)", () => showImage(view.image + 1))),
    counts,
    make("fieldset", {}, button("\u2212", "Zoom out (-)", () => stepZoom(-1)), button("+", "Zoom in (+)", () => stepZoom(1)), button("Fit", "Fit the image (0)", fit), button("1:1", "One pixel for one pixel", () => setZoom(1)), zoomText),
  );
  for (let index = 0; index < MOST_PANES; index++) addPane(index);
  panes.forEach((pane, index) => (pane.version = data.versions[Math.min(index, data.versions.length - 1)]));
  activate(0);
  showPanes(innerWidth < 700 ? 2 : Math.max(2, Math.min(3, data.models.length)));
  showImage(0);

  // For the other scripts of the page.
  window.viewer = {
    data, make, getImage, showImage,
    get image() { return view.image; },
    get panes() { return panes; },
    showPlace(place) {
      showImage(place.image);
      view.x = place.left + place.side / 2;
      view.y = place.top + place.side / 2;
      draw();
      setZoom(Math.max(1, Math.min(16, Math.floor(Math.min(panes[0].canvas.width, panes[0].canvas.height) / place.side))));
      view.x = place.left + place.side / 2;
      view.y = place.top + place.side / 2;
      requestDraw();
    },
    setBlind(state, versions) {
      blind = state;
      if (versions) {
        versions.forEach((version, index) => panes[index] && (panes[index].version = version));
        showPanes(Math.min(MOST_PANES, Math.max(2, versions.length)));
      }
      refresh();
    },
    get zoom() { return view.zoom; },
    get center() { return [view.x, view.y]; },
    draw,
  };
})();
