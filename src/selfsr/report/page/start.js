// Marks the page as scripted before it is drawn, records errors, and keeps the reader's choices when it reloads itself.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const note = (message) => {
    root.dataset.errors = (root.dataset.errors ? root.dataset.errors + "; " : "") + message;
  };
  window.addEventListener("error", (event) => event.message && note(event.message));
  window.addEventListener("unhandledrejection", (event) => note(String(event.reason)));

  // Returns an element with attributes and children, for the scripts that follow.
  window.makeElement = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem("selfsr-page") ?? "{}");
    sessionStorage.removeItem("selfsr-page");
    // Else the browser restores the position in pixels later, whatever has become longer above.
    if ("scroll" in kept) history.scrollRestoration = "manual";
  } catch {
    // A browser may forbid storage for files.
  }
  const getters = new Map();
  // Registers a choice: `get` returns it before a reload, `set` restores it after one.
  window.keep = (name, get, set) => {
    getters.set(name, get);
    if (name in kept) set(kept[name]);
  };
  window.collectKept = () => Object.fromEntries([...getters].map(([name, get]) => [name, get()]));
})();
