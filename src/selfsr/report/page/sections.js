// Sections: one image at a time, wide tables in boxes of their own, and what a page that reloads itself must remember.
(() => {
  const make = window.makeElement;

  // Maps and graphs of many images are long, so the page has those of the chosen image.
  for (const section of document.querySelectorAll("section[data-choose-image]")) {
    const articles = [...section.querySelectorAll(":scope > article")];
    if (articles.length < 2) continue;
    const select = make("select", {}, ...articles.map((article, i) => make("option", { value: String(i) }, article.querySelector("h3").firstChild.textContent.trim())));
    const choose = () => articles.forEach((article, i) => (article.hidden = String(i) !== select.value));
    select.addEventListener("change", choose);
    articles[0].before(make("div", { class: "toolbar" }, make("label", {}, "Image", select)));
    choose();
    keep(`image of ${section.id}`, () => select.value, (value) => {
      if (!articles[value]) return;
      select.value = value;
      choose();
    });
  }

  // A table that is wider than its box scrolls inside it. Only then it is a stop of the Tab key, and has a hint.
  const boxes = [...document.querySelectorAll(".scroll")];
  const measure = () => {
    for (const box of boxes) {
      box.classList.remove("wide");
      const isWide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", isWide);
      if (isWide) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      if (!box.previousElementSibling?.classList.contains("hint")) box.before(make("p", { class: "hint", "aria-hidden": "true" }, "Scroll the table sideways for more columns \u2192"));
    }
  };
  measure();
  const observer = new ResizeObserver(measure);
  for (const box of boxes) observer.observe(box);

  [...document.querySelectorAll("details")].forEach((details, i) => {
    keep(`details ${i}`, () => details.open, (isOpen) => (details.open = isOpen));
  });
  // Relative to the content, since the header may have become longer.
  const top = () => document.querySelector("main").offsetTop;
  const scroll = (y) => scrollTo({ top: y + top(), behavior: "instant" });
  keep("scroll", () => scrollY - top(), (y) => {
    scroll(y);
    // Again when all has its final size.
    addEventListener("load", () => scroll(y), { once: true });
  });
  addEventListener("load", () => (document.documentElement.dataset.ready = "yes"), { once: true });
})();
