// The pixel weights (a large map with a step slider), and the self-similarity graphs (pins, readout of a cell).
(() => {
  const make = window.makeElement;

  // CSS filters scale around black (brightness) and around middle gray (contrast). Both together map low to 0 and
  // high to 1, and no value between them is clipped.
  const stretchFilter = (low, high) => {
    const range = Math.max(high - low, 1 / 255);
    const contrast = 1 + (2 * low) / range;
    return `brightness(${1 / (range * contrast)}) contrast(${contrast}) url(#scale)`;
  };

  const weightMaps = (card) => {
    const bodies = [...card.querySelectorAll(".run-maps")];
    const screen = make("figure", { class: "screen" });
    const image = make("img", { class: "mapped", alt: "" });
    const caption = make("figcaption", { "aria-live": "polite" });
    screen.append(image, caption);
    card.querySelector(".all-maps").before(screen);
    const slider = make("input", { type: "range", min: "0", step: "1", "aria-label": "Step of the weight map" });
    const play = make("button", { type: "button" });
    const stretch = make("input", { type: "checkbox" });
    const stretchLabel = make("label");
    stretchLabel.append(stretch, "Stretch colors to the range of this map");
    let body = null;
    let frames = [];

    const weight = (share) => (body.dataset.peak ? (share * Number(body.dataset.peak)).toFixed(2) : `${Math.round(100 * share)} %`);
    const show = (index) => {
      const frame = frames[index];
      const map = frame.querySelector("img");
      image.src = map.src;
      image.alt = map.alt;
      caption.textContent = frame.querySelector("figcaption").innerText.replace("\n", ", ");
      for (const other of frames) other.classList.toggle("now", other === frame);
      slider.value = String(index);
      slider.setAttribute("aria-valuetext", `step ${frame.dataset.step}`);
      const [low, high] = [Number(frame.dataset.low), Number(frame.dataset.high)];
      image.style.filter = stretch.checked ? stretchFilter(low, high) : "";
      body.querySelector(".low").textContent = stretch.checked ? weight(low) : "0";
      body.querySelector(".high").textContent = stretch.checked ? weight(high) : (body.dataset.peak ? Number(body.dataset.peak) : "100 %");
    };
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    const start = () => {
      play.textContent = "Pause";
      let index = Number(slider.value) === frames.length - 1 ? 0 : Number(slider.value);
      show(index);
      timer = setInterval(() => {
        index += 1;
        show(index);
        if (index === frames.length - 1) stop();
      }, 650);
    };
    const player = make("div", { class: "player" });
    player.append(play, slider);
    const choose = (chosen) => {
      stop();
      body = chosen;
      frames = [...body.querySelectorAll(".frames figure")];
      for (const other of bodies) other.hidden = other !== body;
      slider.max = String(frames.length - 1);
      player.hidden = frames.length < 2;
      body.querySelector(".frames").before(player);
      body.querySelector(".key").after(stretchLabel);
      show(Math.floor((frames.length - 1) / 2));
    };

    play.addEventListener("click", () => (timer ? stop() : start()));
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value));
    });
    stretch.addEventListener("change", () => show(Number(slider.value)));
    for (const other of bodies) {
      [...other.querySelectorAll(".frames figure")].forEach((frame, index) => frame.addEventListener("click", () => {
        stop();
        show(index);
      }));
    }
    if (bodies.length > 1) {
      const label = make("label", { class: "which-run" });
      const select = make("select");
      bodies.forEach((other, index) => {
        const option = make("option", { value: String(index) });
        option.textContent = other.dataset.name;
        select.append(option);
      });
      select.addEventListener("change", () => choose(bodies[Number(select.value)]));
      label.append("Run", select);
      card.querySelector(".all-maps").prepend(label);
    }
    choose(bodies[0]);
  };
  document.querySelectorAll(".maps-card").forEach(weightMaps);

  // The gray values of a graph are the log10 of its entries, so that the cell under the pointer can be read from them.
  const readCells = (graphs) => {
    const reading = graphs.querySelector(".reading");
    const floor = Number(graphs.dataset.floor);
    for (const image of graphs.querySelectorAll(".graph")) {
      let pixels = null;
      image.addEventListener("pointermove", (event) => {
        const side = image.naturalWidth;
        if (!pixels) {
          const canvas = make("canvas", { width: String(side), height: String(side) });
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          pixels = context.getImageData(0, 0, side, side).data;
        }
        const box = image.getBoundingClientRect();
        const cell = (position, size) => Math.min(side - 1, Math.max(0, Math.floor((position / size) * side)));
        const x = cell(event.clientX - box.left, box.width);
        const y = cell(event.clientY - box.top, box.height);
        const gray = pixels[4 * (y * side + x)];
        const share = gray === 0 ? `at most 1e${floor}` : (10 ** (floor * (1 - gray / 255))).toExponential(1);
        const half = (side - 1) / 2;
        reading.textContent = `displacement ${x - half} right, ${y - half} down: ${share}`;
      });
      image.addEventListener("pointerleave", () => (reading.textContent = ""));
    }
  };

  for (const graphs of document.querySelectorAll(".graphs")) {
    const points = [...graphs.querySelectorAll(".point")];
    const pins = [...graphs.querySelectorAll(".pin")];
    const area = graphs.querySelector(".area");
    const choose = (index) => {
      area.style.left = pins[index].style.left;
      area.style.top = pins[index].style.top;
      points.forEach((point, i) => (point.hidden = i !== index));
      pins.forEach((pin, i) => {
        pin.setAttribute("aria-pressed", String(i === index));
        pin.tabIndex = i === index ? 0 : -1;
      });
    };
    pins.forEach((pin, i) => {
      pin.addEventListener("click", () => choose(i));
      // All pins are one stop of the Tab key.
      pin.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = (i + step + pins.length) % pins.length;
        choose(next);
        pins[next].focus();
      });
    });
    choose(0);
    readCells(graphs);
  }
})();
