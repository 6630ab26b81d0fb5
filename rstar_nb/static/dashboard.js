// The dashboard: shows what Python read from a run's folder.
// All text reaches the page through textContent.
function render({ model, el }) {
  function h(tag, attrs = {}, ...kids) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    e.append(...kids);
    return e;
  }
  const clock = (x) => {
    const s = Math.max(0, Math.floor(x)),
      m = Math.floor(s / 60);
    return (
      (m >= 60 ? Math.floor(m / 60) + ":" + String(m % 60).padStart(2, "0") : m) +
      ":" +
      String(s % 60).padStart(2, "0")
    );
  };
  const name = h("b"),
    pill = h("span", { class: "state" }),
    line = h("span", { class: "line", "aria-live": "polite" }),
    time = h("span", { class: "time" }),
    fill = h("div", { class: "fill" });
  const bar = h(
      "div",
      { class: "meter", role: "progressbar", "aria-label": "progress of the phase" },
      fill,
    ),
    table = h("table", { class: "rounds" }),
    curve = h("img", { alt: "accuracy by round" });
  const title = h("div", { class: "hint" }),
    tree = h("div", { class: "tree" });
  el.append(
    h(
      "div",
      {
        class: "rstar rstar-run",
        "data-lm-suppress-shortcuts": "true",
        role: "group",
        "aria-label": "dashboard of a run",
      },
      h("div", { class: "bar" }, name, pill, line, time),
      bar,
      h("div", { class: "body" }, h("div", { class: "numbers" }, table), curve),
      title,
      tree,
    ),
  );

  let since = performance.now(),
    view = null;
  function showStatus() {
    const s = model.get("status"),
      now = s.now || {};
    since = performance.now();
    name.textContent = s.name || "";
    line.textContent = s.line || "";
    pill.textContent = s.state || "";
    pill.className = "state " + (s.state || "");
    const rows = (s.table || []).map((row, k) =>
      h(
        "tr",
        {},
        ...row.map((x, i) =>
          h(
            k ? "td" : "th",
            k && now.phase && row[0] === String(now.round) && s.table[0][i] === now.phase
              ? { class: "now" }
              : {},
            x,
          ),
        ),
      ),
    );
    table.replaceChildren(h("thead", {}, ...rows.slice(0, 1)), h("tbody", {}, ...rows.slice(1)));
    tick();
  }
  // Between two messages the browser counts on:
  // what is measured stays, what is estimated grows with the clock.
  function tick() {
    const now = model.get("status").now || {},
      more = (performance.now() - since) / 1000;
    bar.style.visibility = now.phase ? "" : "hidden";
    if (!now.phase) {
      time.textContent = "";
      return;
    }
    const elapsed = now.elapsed + more,
      left = now.left === null ? null : Math.max(0, now.left - more),
      unknown = now.fraction === null;
    const fraction = unknown
      ? 1
      : now.estimated
        ? Math.min(0.99, elapsed / Math.max(elapsed, now.elapsed + now.left))
        : now.fraction;
    fill.style.width = 100 * fraction + "%";
    bar.className = "meter" + (unknown ? " unknown" : now.estimated ? " estimated" : "");
    unknown
      ? bar.removeAttribute("aria-valuenow")
      : bar.setAttribute("aria-valuenow", Math.round(100 * fraction));
    time.textContent =
      clock(elapsed) +
      (left === null ? "" : `, about ${clock(left)} left`) +
      (now.estimated && !unknown ? " (estimated)" : "");
  }
  // The picture stands in an img, where an SVG runs no script.
  function showCurve() {
    curve.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(model.get("curve"));
    curve.style.display = model.get("curve") ? "" : "none";
  }
  function showTree() {
    const data = model.get("tree");
    if (view) view.stop();
    tree.replaceChildren();
    title.textContent = data.title || "no problem is solved yet";
    view = data.nodes ? mountTree(tree, data, { get: () => null, set() {} }) : null;
  }
  model.on("change:status", showStatus);
  model.on("change:curve", showCurve);
  model.on("change:tree", showTree);
  showStatus();
  showCurve();
  showTree();
  const timer = setInterval(tick, 1000);
  return () => {
    clearInterval(timer);
    if (view) view.stop();
  };
}
export default { render };
