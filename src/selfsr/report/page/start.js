// Marks the page as scripted before it is drawn, and records errors in an attribute of the document.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const note = (message) => {
    root.dataset.errors = (root.dataset.errors ? root.dataset.errors + "; " : "") + message;
  };
  window.addEventListener("error", (event) => note(event.message));
  window.addEventListener("unhandledrejection", (event) => note(String(event.reason)));
})();
