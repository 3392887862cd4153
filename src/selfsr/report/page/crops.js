// Before and after: overlays two versions of a crop, with a divider between them.
(() => {
  const make = (name, className = "", attributes = {}) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  const comparison = (crop) => {
    const versions = [...crop.querySelectorAll(".version")].map((figure) => ({
      figure,
      image: figure.querySelector("img"),
      label: figure.querySelector(".label").textContent.trim(),
      score: figure.querySelector(".psnr")?.textContent ?? "",
      role: figure.dataset.role,
    }));
    if (versions.length < 2) return;
    const sides = {
      left: versions.find((version) => version.role === "start") ?? versions.find((version) => version.role === "bicubic") ?? versions[0],
      right: versions.find((version) => version.role === "lead") ?? versions[versions.length - 1],
    };

    const frame = make("div", "compare");
    const both = make("div", "both");
    const right = make("img", "", { alt: "" });
    const left = make("img", "over-img", { alt: "" });
    both.append(right, left);
    const range = make("input", "", { type: "range", min: "0", max: "100", step: "0.5", value: "50", "aria-label": "Divider between the two versions, in percent from the left" });
    const leftBadge = make("span", "badge l");
    const rightBadge = make("span", "badge r");
    frame.append(both, range, make("span", "divider"), leftBadge, rightBadge);

    const badge = (node, version) => {
      node.replaceChildren(version.label);
      if (version.score) {
        const score = make("span", "num");
        score.textContent = version.score;
        node.append(score);
      }
    };
    const selects = {};
    const show = () => {
      left.src = sides.left.image.src;
      right.src = sides.right.image.src;
      badge(leftBadge, sides.left);
      badge(rightBadge, sides.right);
      for (const version of versions) {
        version.figure.classList.toggle("on-left", version === sides.left);
        version.figure.classList.toggle("on-right", version === sides.right);
      }
      for (const side of ["left", "right"]) selects[side].value = String(versions.indexOf(sides[side]));
      range.setAttribute("aria-valuetext", `${sides.left.label} up to ${Math.round(range.value)} percent, then ${sides.right.label}`);
    };
    const move = () => {
      frame.style.setProperty("--cut", `${range.value}%`);
      range.setAttribute("aria-valuetext", `${sides.left.label} up to ${Math.round(range.value)} percent, then ${sides.right.label}`);
    };
    range.addEventListener("input", move);

    const pickers = make("div", "pickers");
    for (const side of ["left", "right"]) {
      const label = make("label");
      const select = make("select");
      versions.forEach((version, index) => {
        const option = make("option", "", { value: String(index) });
        option.textContent = version.label;
        select.append(option);
      });
      select.addEventListener("change", () => {
        sides[side] = versions[Number(select.value)];
        show();
      });
      selects[side] = select;
      label.append(side === "left" ? "Left" : "Right", select);
      pickers.append(label);
    }
    const difference = make("label");
    const box = make("input", "", { type: "checkbox" });
    box.addEventListener("change", () => frame.classList.toggle("diff", box.checked));
    difference.append(box, "Show the difference, 6 times brighter");
    pickers.append(difference);

    for (const version of versions) {
      version.figure.title = "Show on the right";
      version.figure.addEventListener("click", () => {
        sides.right = version;
        show();
      });
    }
    const stage = make("div", "stage");
    stage.append(crop.querySelector("h4"), pickers, frame);
    crop.prepend(stage);
    show();
    move();
  };

  for (const image of document.querySelectorAll(".image")) {
    const crops = [...image.querySelectorAll(".crop")];
    const spots = [...image.querySelectorAll(".spot")];
    crops.forEach(comparison);
    const choose = (index) => {
      crops.forEach((crop, i) => (crop.hidden = i !== index));
      spots.forEach((spot, i) => spot.setAttribute("aria-pressed", String(i === index)));
    };
    spots.forEach((spot, i) => spot.addEventListener("click", () => choose(i)));
    choose(0);
  }
})();
