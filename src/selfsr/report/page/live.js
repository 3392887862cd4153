// A page that is followed: a small script next to it tells when the page was rewritten, and the page reloads itself.
(() => {
  const CHECK_MS = 2000;
  // Longer than the pause between two checks of the following command, even on a busy machine.
  const SILENT_S = 30;
  const banner = document.getElementById("live");
  const { script, stamp } = banner.dataset;
  let busy = false;
  let pending = null;

  const reload = () => {
    // Not while the reader drags or holds a key.
    if (busy) return;
    try {
      sessionStorage.setItem("selfsr-page", JSON.stringify(collectKept()));
    } catch {
      // The page then starts at its top.
    }
    location.reload();
  };
  for (const name of ["pointerdown", "keydown"]) addEventListener(name, () => (busy = true), true);
  for (const name of ["pointerup", "pointercancel", "keyup", "blur"]) addEventListener(name, () => (busy = false), true);

  const show = (state, text) => {
    if (banner.textContent !== text) banner.textContent = text;
    banner.dataset.state = state;
  };
  window.receiveNews = (news) => {
    if (news.stamp !== stamp) return reload();
    const silent = Date.now() / 1000 - news.checked;
    if (silent > SILENT_S) show("ended", `Not followed any more since ${new Date(1000 * news.checked).toLocaleTimeString()}: selfsr report --follow was stopped.`);
    else show(news.state, news.text);
  };
  // The last page comes without a script next to it, so it is there now, unless this page was copied elsewhere.
  const missScript = () => {
    let missed = stamp;
    try {
      missed = sessionStorage.getItem("selfsr-missed");
      sessionStorage.setItem("selfsr-missed", stamp);
    } catch {
      // Without storage, the page could reload itself forever.
    }
    if (missed === stamp) show("ended", "Not followed any more.");
    else reload();
  };
  const check = () => {
    pending?.remove();
    pending = document.createElement("script");
    pending.src = `${encodeURIComponent(script)}?${Date.now()}`;
    pending.onerror = missScript;
    document.head.append(pending);
  };
  check();
  setInterval(check, CHECK_MS);
})();
