// The blind test: hide names, shuffle the models for each image, collect votes, and show the tally.
(() => {
  const card = document.getElementById("blind-card");
  const viewer = window.viewer;
  if (!card || !viewer) return;
  const { data, make } = viewer;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const VOTE_KEYS = ["a", "s", "d", "g"];
  const state = { running: false, orders: [], votes: [], done: false };

  const shuffle = (names) => {
    const mixed = [...names];
    for (let i = mixed.length - 1; i > 0; i--) {
      const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
      [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
    }
    return mixed;
  };
  const button = (act, ...children) => {
    const node = make("button", { type: "button" }, ...children);
    node.addEventListener("click", act);
    return node;
  };

  const start = () => {
    state.running = true;
    state.done = false;
    state.orders = data.images.map((image) => shuffle(data.models.filter((name) => image.images[name])));
    state.votes = data.images.map(() => undefined);
    document.documentElement.classList.add("blind");
    document.querySelector(".viewer .keys").before(card);
    viewer.showImage(0);
    document.getElementById("viewer").scrollIntoView();
    viewer.panes[0].canvas.focus({ preventScroll: true });
  };
  const stop = () => {
    state.running = false;
    state.done = state.votes.some((vote) => vote !== undefined);
    document.documentElement.classList.remove("blind");
    document.getElementById("blind").append(card);
    viewer.setBlind(null, data.models.slice(0, 4));
    show();
    card.scrollIntoView({ block: "center" });
  };
  const arrange = () => {
    if (!state.running) return;
    const order = state.orders[viewer.image];
    const references = data.versions.filter((version) => !data.models.includes(version) && version !== "bicubic");
    viewer.setBlind(
      { order: [...order, ...references], label: (name) => `Output ${LETTERS[order.indexOf(name)] ?? "?"}` },
      order.slice(0, 4),
    );
    show();
  };
  // `choice` is a model, or null for none of them.
  const vote = (choice) => {
    if (!state.running) return;
    state.votes[viewer.image] = choice;
    const open = state.votes.findIndex((one) => one === undefined);
    if (open < 0) stop();
    else {
      const later = state.votes.findIndex((one, index) => one === undefined && index > viewer.image);
      viewer.showImage(later < 0 ? open : later);
    }
  };

  const countVotes = () => data.models.map((name) => [name, state.votes.filter((one) => one === name).length]);
  const exportVotes = () => {
    const record = {
      comparison: document.title,
      models: data.models,
      votes: data.images.map((image, index) => ({ image: image.name, order: state.orders[index], vote: state.votes[index] ?? null, voted: state.votes[index] !== undefined })),
      tally: Object.fromEntries(countVotes()),
    };
    const url = URL.createObjectURL(new Blob([JSON.stringify(record, null, 2)], { type: "application/json" }));
    const link = make("a", { href: url, download: "votes.json" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    return record;
  };

  const show = () => {
    card.replaceChildren();
    if (state.running) {
      const voted = state.votes.filter((one) => one !== undefined).length;
      const order = state.orders[viewer.image];
      card.append(make("p", {}, `${data.images[viewer.image].name}: which output is best? ${voted} of ${data.images.length} images have a vote.`));
      const votes = make("div", { class: "votes" });
      order.forEach((name, index) => {
        const key = VOTE_KEYS[index];
        const node = button(() => vote(name), ...(key ? [make("kbd", {}, key.toUpperCase()), " "] : []), `Output ${LETTERS[index]}`);
        node.setAttribute("aria-pressed", String(state.votes[viewer.image] === name));
        votes.append(node);
      });
      votes.append(button(() => vote(null), make("kbd", {}, "X"), " None is better"), button(stop, "Stop and show names"));
      card.append(votes);
      return;
    }
    if (state.done) {
      const counts = countVotes();
      const most = Math.max(1, ...counts.map(([, count]) => count));
      const total = state.votes.filter((one) => one !== undefined).length;
      const none = state.votes.filter((one) => one === null).length;
      const body = make("tbody");
      for (const [name, count] of counts) {
        const bar = make("span", { class: "bar", "aria-hidden": "true" });
        bar.style.width = `${(70 * count) / most}%`;
        body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "num" }, String(count)), make("td", {}, bar)));
      }
      card.append(
        make("p", {}, `${total} of ${data.images.length} images have a vote${none ? `, ${none} of them for none` : ""}.`),
        make("table", { class: "tally" }, make("caption", {}, "Votes"), body),
        make("div", { class: "votes" }, button(exportVotes, "Save votes as JSON"), button(start, "Start again")),
      );
      return;
    }
    card.append(make("div", { class: "votes" }, button(start, make("kbd", {}, "B"), " Start the blind test")));
  };

  document.addEventListener("image-change", arrange);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName ?? "")) return;
    const key = event.key.toLowerCase();
    if (key === "b") (state.running ? stop : start)();
    else if (key === "x") vote(null);
    else if (state.running && VOTE_KEYS.includes(key)) {
      const name = state.orders[viewer.image][VOTE_KEYS.indexOf(key)];
      if (name) vote(name);
    }
  });
  viewer.blind = { state, countVotes, exportVotes };
  show();
})();
