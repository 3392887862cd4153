// The places where models differ most or are worst: crops that are drawn from the images of the viewer.
(() => {
  const holder = document.getElementById("place-list");
  const viewer = window.viewer;
  if (!holder || !viewer) return;
  const { data, make } = viewer;

  const drawCrop = (canvas, place, version) => {
    const image = new Image();
    const factor = version === "LR" ? 1 / data.scale : 1;
    image.onload = () => {
      const side = place.side * factor;
      canvas.width = canvas.height = Math.max(1, Math.round(place.side));
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(image, place.left * factor, place.top * factor, side, side, 0, 0, canvas.width, canvas.height);
    };
    image.src = data.images[place.image].images[version];
  };

  const addPlace = (group, place) => {
    const image = data.images[place.image];
    const title = `${image.name}, ${place.left} px from the left, ${place.top} px from the top`;
    const show = make("button", { type: "button", "aria-label": `Show in the viewer: ${title}` }, "Show in the viewer");
    show.addEventListener("click", () => {
      viewer.showPlace(place);
      document.getElementById("viewer").scrollIntoView();
      viewer.panes[0].canvas.focus({ preventScroll: true });
    });
    const row = make("ul", { class: "place-row" });
    for (const version of data.versions) {
      if (!image.images[version]) continue;
      const canvas = make("canvas", { role: "img", "aria-label": `${version}: ${title}` });
      const caption = make("figcaption", {}, version);
      if (place.psnr[version]) caption.append(make("br"), make("span", { class: "num" }, place.psnr[version]));
      if (version === place.worst) caption.append(make("br"), "worst here");
      row.append(make("li", version === place.worst ? { class: "is-worst" } : {}, make("figure", {}, canvas, caption)));
      pending.push([canvas, place, version]);
    }
    group.append(make("div", { class: "place-card" }, make("div", { class: "place-head" }, make("h4", {}, title), show), row));
  };

  // Crops are decoded when they come near the screen.
  const pending = [];
  const groups = new Map();
  for (const place of data.places) {
    const title = place.worst === null ? "Where the models differ most" : `Where ${place.worst} is worst`;
    if (!groups.has(title)) {
      const group = make("div", { class: "place-group" }, make("h3", {}, title));
      groups.set(title, group);
      holder.append(group);
    }
    addPlace(groups.get(title), place);
  }
  if (!data.places.length) holder.append(make("p", { class: "notice" }, "The outputs of all models are equal."));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        const index = pending.findIndex(([canvas]) => canvas === entry.target);
        if (index >= 0) drawCrop(...pending.splice(index, 1)[0]);
      }
    },
    { rootMargin: "400px" },
  );
  for (const [canvas] of pending) observer.observe(canvas);
})();
