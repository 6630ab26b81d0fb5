// The tree viewer of rstar_nb: one function, used by the notebook widget and by exported pages.
// Everything a model wrote reaches the page through textContent only.
function mountTree(el, data, host) {
  const SVG = "http://www.w3.org/2000/svg",
    COL = 190,
    ROW = 46,
    R = 13,
    PHASES = ["select", "expand", "execute", "score", "backup"];
  const nodes = data.nodes,
    events = data.events,
    last = events.length;

  // ---- small helpers -----------------------------------------------------------------------
  function h(tag, attrs = {}, ...kids) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs))
      k.startsWith("on")
        ? e.addEventListener(k.slice(2), v)
        : v === true
          ? e.setAttribute(k, "")
          : v !== false && e.setAttribute(k, v);
    e.append(...kids.filter((x) => x !== null && x !== undefined && x !== false));
    return e;
  }
  function s(tag, attrs = {}, text) {
    const e = document.createElementNS(SVG, tag);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    return e;
  }
  // A piece of a label: text, and whether the step's siblings lack it.
  const piece = ([text, bold]) => (bold ? h("b", { class: "own" }, text) : text);
  const signed = (x) =>
    x === null || x === undefined
      ? "–"
      : x === Infinity
        ? "∞"
        : (x >= 0 ? "+" : "−") + Math.abs(x).toFixed(2);
  const mix = (a, b, t) =>
    "#" +
    a
      .map((x, i) =>
        Math.round(x + (b[i] - x) * t)
          .toString(16)
          .padStart(2, "0"),
      )
      .join("");
  const qColor = (q) =>
    q < 0
      ? mix([247, 247, 247], [162, 19, 40], Math.min(1, -q))
      : mix([247, 247, 247], [27, 90, 156], Math.min(1, q));
  // Comments, strings, keywords, numbers and common names of Python, a group for each.
  const KEYWORDS =
    "and|as|assert|break|class|continue|def|del|elif|else|except|False|finally|for|from|if|" +
    "import|in|is|lambda|None|not|or|pass|raise|return|True|try|while|with|yield";
  const NAMES =
    "answer|abs|all|any|enumerate|int|float|len|list|map|max|min|print|range|round|set|" +
    "sorted|str|sum|tuple|zip";
  const STRING = [
    /"""[\s\S]*?"""/,
    /'''[\s\S]*?'''/,
    /"(?:\\.|[^"\\\n])*"/,
    /'(?:\\.|[^'\\\n])*'/,
  ].map((r) => r.source);
  const NUMBER = /\b(\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?)\b/.source;
  const TOKEN = new RegExp(
    `(#[^\\n]*)|(${STRING.join("|")})|\\b(${KEYWORDS})\\b|${NUMBER}|\\b(${NAMES})\\b`,
    "g",
  );
  function colored(code, kind) {
    const pre = h("pre", { class: kind });
    let at = 0;
    for (const m of code.matchAll(TOKEN)) {
      const cls = ["", "comment", "string", "keyword", "number", "name"][
        m.findIndex((x, i) => i > 0 && x !== undefined)
      ];
      pre.append(code.slice(at, m.index), h("span", { class: "t-" + cls }, m[0]));
      at = m.index + m[0].length;
    }
    pre.append(code.slice(at));
    return pre;
  }

  // ---- the state of the tree after `at` events ---------------------------------------------
  const N = nodes.map((n) => n.n0),
    W = nodes.map((n) => n.w0),
    alive = nodes.map((n) => n.alive0),
    ran = nodes.map((n) => n.ran0);
  const scored = nodes.map((n) => n.scored0),
    judged = nodes.map((n) => (n.judged0 ? 1 : 0));
  let at = 0,
    rollouts = 0,
    dirty = new Set();
  function apply(e, forward) {
    const touch = (list, f) =>
      list.forEach((i, k) => {
        f(i, k);
        dirty.add(i);
      });
    if (e.kind === "expand")
      touch(e.children, (i) => {
        alive[i] = forward;
      });
    if (e.kind === "execute")
      touch(e.nodes, (i) => {
        ran[i] = forward;
      });
    if (e.kind === "score")
      touch(e.nodes, (i) => {
        scored[i] = forward;
      });
    if (e.kind === "backup") {
      touch(e.path, (i, k) => {
        [N[i], W[i]] = (forward ? e.after : e.before)[k];
      });
      judged[e.path[e.path.length - 1]] += forward ? 1 : -1;
      rollouts += forward ? 1 : -1;
    }
  }
  const visits = (i) => N[i] + (scored[i] ? 1 : 0);
  const q = (i) => (visits(i) ? (W[i] + (scored[i] ? nodes[i].ppm : 0)) / visits(i) : 0);
  const known = (i) => visits(i) > 0;
  function outcome(i) {
    const n = nodes[i];
    if (n.parent < 0) return "root";
    if (!ran[i]) return "unrun";
    if (n.status !== "ok") return "failed";
    return n.correct === null || !judged[i] ? "executed" : n.correct ? "correct" : "wrong";
  }
  const path = (i) => {
    const p = [];
    for (; i >= 0 && nodes[i]; i = nodes[i].parent) p.unshift(i);
    return p;
  };
  // The formulas of rstar_nb.search.ucb; a score counts as one rollout already made.
  const bonus = (i, c, rule) => {
    const n = visits(i),
      parent = visits(nodes[i].parent);
    if (rule === "puct") return (c * nodes[i].prior * Math.sqrt(Math.max(parent, 1))) / (1 + n);
    return n === 0 ? Infinity : c * Math.sqrt(Math.log(Math.max(parent, 1)) / n);
  };

  // ---- the page ----------------------------------------------------------------------------
  const root = h("div", {
    class: "rstar rstar-tree",
    tabindex: "0",
    "data-lm-suppress-shortcuts": "true",
    "aria-label": "search tree",
    role: "group",
  });
  const button = (text, title, f) =>
    h("button", { type: "button", title, "aria-label": title, onclick: f }, text);
  const slider = h("input", {
    type: "range",
    class: "timeline",
    min: 0,
    max: last,
    value: last,
    "aria-label": "events played",
    oninput: (e) => goto(+e.target.value),
  });
  const count = h("span", { class: "count" }),
    play = button("play", "play or pause (space)", () => toggle());
  const speed = h(
    "select",
    {
      "aria-label": "speed",
      class: "speed",
      onchange: () => {
        if (timer) {
          toggle();
          toggle();
        }
      },
    },
    ...[
      ["slow", 1200],
      ["normal", 450],
      ["fast", 90],
    ].map(([t, v]) => h("option", { value: v, selected: t === "normal" }, t)),
  );
  const pills = Object.fromEntries(PHASES.map((k) => [k, h("span", {}, k)])),
    what = h("div", { class: "what", "aria-live": "polite" });
  const find = h("input", {
    type: "search",
    placeholder: "search steps",
    "aria-label": "search steps",
    oninput: () => search(find.value),
    onkeydown: (e) => {
      if (e.key === "Enter") nextHit(e.shiftKey ? -1 : 1);
    },
  });
  const hits = h("span", { class: "hits" });
  const check = (text, on, f, cls) =>
    h(
      "label",
      {},
      h("input", {
        type: "checkbox",
        checked: on,
        class: cls,
        onchange: (e) => f(e.target.checked),
      }),
      text,
    );
  const canvas = h("div", { class: "canvas" }),
    content = h("div", { class: "content", "aria-live": "polite" });
  const cInput = h("input", {
    type: "range",
    class: "c",
    min: 0,
    max: 5,
    step: 0.05,
    value: data.c,
    "aria-label": "exploration constant c",
    oninput: () => {
      host.set("c", +cInput.value);
      drawDetail();
    },
  });
  const ruleInput = h(
    "select",
    {
      class: "rule",
      "aria-label": "selection rule",
      onchange: () => {
        host.set("rule", ruleInput.value);
        drawDetail();
      },
    },
    ...["uct", "puct"].map((r) =>
      h("option", { value: r, selected: r === data.rule }, r.toUpperCase()),
    ),
  );
  const cText = h("span", { class: "c-value" });
  const detail = h(
    "div",
    { class: "detail" },
    h("div", { class: "bar" }, ruleInput, h("label", {}, "c", cInput), cText),
    content,
  );
  let follow = true;
  root.append(
    h("h4", {}, data.question),
    h(
      "div",
      { class: "bar" },
      button("|◀", "first event (Home)", () => goto(0)),
      button("◀", "one phase back (left)", () => goto(at - 1)),
      play,
      button("▶", "one phase on (right)", () => goto(at + 1)),
      button("▶|", "last event (End)", () => goto(last)),
      slider,
      count,
      button("− rollout", "one rollout back (shift+left)", () => jump(-1)),
      button("+ rollout", "one rollout on (shift+right)", () => jump(1)),
      speed,
    ),
    h("div", { class: "bar" }, h("span", { class: "phases" }, ...Object.values(pills)), what),
    h(
      "div",
      { class: "bar" },
      find,
      hits,
      check(
        "all nodes",
        !data.compact,
        (v) => {
          arrange(v);
        },
        "show-all",
      ),
      check("solutions", true, (v) => svg.classList.toggle("solutions", v), "show-solutions"),
      data.pairs.length > 0 &&
        check(
          `pairs (${data.pairs.length})`,
          false,
          (v) => svg.classList.toggle("pairs", v),
          "show-pairs",
        ),
      check(
        "follow",
        true,
        (v) => {
          follow = v;
        },
        "follow",
      ),
      button("−", "smaller", () => zoom(1 / 1.2)),
      button("+", "larger", () => zoom(1.2)),
      button("fit", "fit into the window", () => fit()),
    ),
    h("div", { class: "body" }, canvas, detail),
    legend(),
  );
  [...root.querySelectorAll(".bar")][0].querySelectorAll("button, input, select").forEach((b) => {
    if (!last) b.disabled = true;
  });

  function legend() {
    const dot = (fill, cls, text) => {
      const g = s("g", { class: "n " + cls });
      g.append(s("circle", { class: "disc", cx: 8, cy: 8, r: 6, fill }));
      const box = s("svg", { width: 16, height: 16 });
      box.append(g);
      return h("span", {}, box, " " + text);
    };
    const line = (kind, text) => {
      const box = s("svg", { width: 22, height: 16, class: "solutions pairs" });
      box.append(
        s("path", {
          class: { band: "band good", hot: "edge hot", pair: "pair" }[kind],
          d: "M4,8H18",
          "stroke-width": { band: 8, hot: 3, pair: 1.6 }[kind],
        }),
      );
      return h("span", {}, box, " " + text);
    };
    return h(
      "div",
      { class: "legend" },
      dot(qColor(-1), "", "Q = −1"),
      dot(qColor(0), "", "Q = 0"),
      dot(qColor(1), "", "Q = +1"),
      dot("#e4e4e4", "", "not visited"),
      dot("#fff", "failed", "did not run"),
      dot("#fff", "correct", "correct ✓"),
      dot("#fff", "wrong", "wrong ✗"),
      line("band", "solution"),
      line("hot", "this event"),
      data.pairs.length > 0 && line("pair", "pair: better → worse"),
      h("span", {}, "number and line width: visits"),
      h("span", {}, h("b", { class: "own" }, "bold"), ": what its siblings lack"),
      h("span", {}, h("span", { class: "branch" }, "r3"), ": a branch begun by rollout 3"),
      h(
        "span",
        { class: "keys" },
        "keys: ←/→ phase, shift rollout, space play, w/s sibling, a/d parent/child, / search",
      ),
    );
  }

  // ---- the drawing: every node once, then only what changes --------------------------------
  const svg = s("svg", { class: "solutions", role: "img", "aria-label": "tree of steps" });
  const layers = ["band", "pair", "edge", "node"].map(() => svg.appendChild(s("g")));
  const clip = s("clipPath", { id: "label" + Math.random().toString(36).slice(2) });
  clip.append(s("rect", { x: -0.8 * COL, y: -60, width: 0.8 * COL - R - 6, height: 60 }));
  const arrow = s("marker", {
    id: clip.id + "arrow",
    viewBox: "0 0 8 8",
    refX: 8,
    refY: 4,
    markerWidth: 7,
    markerHeight: 7,
    orient: "auto",
  });
  arrow.append(s("path", { class: "arrow", d: "M0,0L8,4L0,8Z" }));
  svg.append(clip, arrow);
  canvas.append(svg);
  const good = new Set(data.selected.flatMap(path)),
    most = Math.max(1, ...nodes.slice(1).map((n) => n.n1));
  const view = nodes.map((n, i) => {
    const g = s("g", { class: "n", "data-node": i }),
      v = { g, place: null };
    const label = s("g", { "clip-path": `url(#${clip.id})` });
    n.label.forEach((line, k, all) => {
      const text = s("text", { x: -0.78 * COL, y: -8 - 12 * (all.length - 1 - k) });
      for (const [x, bold] of line) text.append(s("tspan", bold ? { class: "own" } : {}, x));
      label.append(text);
    });
    v.halo = s("circle", { class: "halo", r: R + 5 });
    v.disc = s("circle", { class: "disc", r: R });
    v.count = s("text", { class: "count", y: 4 });
    v.end = s("text", { class: "end", x: R + 7, y: 4 });
    v.reward = s("text", { class: "reward", y: R + 14 });
    v.branch = s("text", { class: "branch", x: 2, y: R + 14 }, n.branch);
    g.append(
      s("rect", {
        class: "touch",
        x: i ? -0.78 * COL : -R,
        y: i ? -34 : -R,
        width: i ? 0.78 * COL + R : 2 * R,
        height: i ? 34 + R : 2 * R,
      }),
    );
    if (i) g.append(label);
    g.append(
      v.halo,
      v.disc,
      v.count,
      v.end,
      v.reward,
      v.branch,
      s("title", {}, i ? n.step.slice(0, 300) : "the question"),
    );
    g.addEventListener("click", () => {
      pick(i);
      root.focus({ preventScroll: true });
    });
    layers[3].append(g);
    if (i) {
      v.edge = layers[2].appendChild(s("path", { class: "edge" }));
      v.band = layers[0].appendChild(s("path", { class: "band" + (good.has(i) ? " good" : "") }));
    }
    return v;
  });
  const pairs = data.pairs.map(([better, worse]) => ({
    better,
    worse,
    line: layers[1].appendChild(s("path", { class: "pair", "marker-end": `url(#${arrow.id})` })),
  }));

  // An answer in few letters: a float without its last digits.
  const short = (a) =>
    /^-?\d+\.\d{8,}$/.test(a) ? String(+(+a).toPrecision(10)) : a.slice(0, 16);
  let full = !data.compact,
    scale = 1,
    width = 0,
    height = 0;
  const spot = (i) => {
    const p = full ? nodes[i].at : nodes[i].compact;
    return p && [p[0] * COL + 30, p[1] * ROW + 50];
  };
  function arrange(all) {
    full = all;
    width = height = 0;
    const box = root.querySelector("input.show-all");
    if (box) box.checked = all;
    view.forEach((v, i) => {
      v.place = spot(i);
      if (!v.place) return;
      width = Math.max(
        width,
        v.place[0] + 45 + 6.7 * (nodes[i].answer === null ? 6 : short(nodes[i].answer).length + 4),
      );
      height = Math.max(height, v.place[1] + 40);
      v.g.setAttribute("transform", `translate(${v.place[0]},${v.place[1]})`);
      const from = i && spot(nodes[i].parent);
      if (!from) return;
      const [x0, y0] = from,
        [x1, y1] = v.place,
        bend = x0 + 0.16 * COL;
      for (const line of [v.edge, v.band])
        line.setAttribute(
          "d",
          `M${x0},${y0}C${bend},${y0} ${x0 + 8},${y1} ${bend + 8},${y1}L${x1},${y1}`,
        );
    });
    for (const { better, worse, line } of pairs) {
      const a = spot(better),
        b = spot(worse);
      if (!a || !b) continue;
      const [x, y] = [Math.max(a[0], b[0]) + 70, (a[1] + b[1]) / 2],
        border = (R + 2) / Math.hypot(x - b[0], y - b[1]);
      line.setAttribute(
        "d",
        `M${a[0]},${a[1]}Q${x},${y} ${b[0] + (x - b[0]) * border},${b[1] + (y - b[1]) * border}`,
      );
    }
    nodes.forEach((_, i) => dirty.add(i));
    refresh();
    zoom(1);
  }
  function zoom(by) {
    scale = Math.min(3, Math.max(0.15, scale * by));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width * scale);
    svg.setAttribute("height", height * scale);
  }
  function fit() {
    scale = 1;
    zoom(Math.min(1.2, Math.max(0.6, (canvas.clientWidth - 20) / width)) || 1);
  }
  function reveal(i) {
    const p = view[i] && view[i].place;
    if (!p) return;
    const x = p[0] * scale,
      y = p[1] * scale;
    if (x < canvas.scrollLeft + 130 || x > canvas.scrollLeft + canvas.clientWidth - 60)
      canvas.scrollLeft = x - canvas.clientWidth / 2;
    if (y < canvas.scrollTop + 40 || y > canvas.scrollTop + canvas.clientHeight - 40)
      canvas.scrollTop = y - canvas.clientHeight / 2;
  }

  let picked = null,
    found = new Set(),
    hot = new Set();
  function refresh() {
    for (const i of dirty) {
      const n = nodes[i],
        v = view[i],
        kind = outcome(i),
        there = alive[i] && v.place;
      v.g.setAttribute(
        "class",
        [
          "n",
          kind,
          there ? "" : "off",
          i === picked ? "picked" : "",
          found.has(i) ? "hit" : "",
          hot.has(i) ? "hot" : "",
        ].join(" "),
      );
      if (v.edge) for (const line of [v.edge, v.band]) line.classList.toggle("off", !there);
      if (!there) continue;
      v.disc.setAttribute("fill", known(i) ? qColor(q(i)) : "#e4e4e4");
      v.count.textContent = N[i] || "";
      v.count.style.fill = known(i) && Math.abs(q(i)) > 0.6 ? "#fff" : "#222";
      v.end.textContent = !ran[i]
        ? ""
        : n.status !== "ok"
          ? n.status
          : n.answer !== null
            ? "= " + short(n.answer) + ({ correct: " ✓", wrong: " ✗" }[kind] || "")
            : "";
      if (v.edge) {
        const w = 0.8 + 5 * Math.sqrt(N[i] / most);
        v.edge.style.strokeWidth = w;
        v.band.style.strokeWidth = w + 8;
        v.edge.classList.toggle("hot", hot.has(i));
      }
    }
    dirty.clear();
    for (const { better, worse, line } of pairs)
      line.classList.toggle(
        "off",
        !(alive[better] && alive[worse] && view[better].place && view[worse].place),
      );
  }

  // ---- moving through the log --------------------------------------------------------------
  function goto(to, quiet) {
    to = Math.max(0, Math.min(last, Math.round(to) || 0));
    const one = to === at + 1;
    while (at < to) apply(events[at++], true);
    while (at > to) apply(events[--at], false);
    hot.forEach((i) => {
      dirty.add(i);
      view[i].reward.textContent = "";
    });
    const e = at ? events[at - 1] : null;
    hot = new Set(e ? e.path || e.nodes || e.children : []);
    hot.forEach((i) => dirty.add(i));
    refresh();
    if (e && e.kind === "backup")
      e.path.forEach((i, k) => {
        view[i].reward.textContent = signed(e.reward).replace(".00", "");
        if (one) {
          view[i].g.classList.add("pulse");
          view[i].disc.style.animationDelay = (e.path.length - 1 - k) * 140 + "ms";
        }
      });
    if (follow && hot.size && last && !quiet) reveal([...hot][hot.size - 1]);
    slider.value = at;
    count.textContent = last ? `${at} / ${last}, rollout ${rollouts}` : "no event log";
    for (const k of PHASES) pills[k].classList.toggle("now", !!e && e.kind === k);
    what.textContent = describe(e);
    if (!quiet) host.set("position", at);
    drawDetail();
  }
  function describe(e) {
    if (!e) return last ? "the root, before the first event" : "";
    const names = (list) => list.map((i) => (i ? i : "root")).join(" → ");
    if (e.kind === "select") return "go down to " + names(e.path);
    if (e.kind === "expand") return `${e.children.length} new steps below ${e.node || "the root"}`;
    if (e.kind === "execute")
      return `${e.status.filter((x) => x === "ok").length} of ${e.nodes.length} ran`;
    if (e.kind === "score") return "PPM scores " + e.ppm.map(signed).join(", ");
    if (e.kind !== "backup") return e.kind;
    const change = (k) =>
      `${e.path[k] || "root"}: N ${e.before[k][0]} → ${e.after[k][0]}, ` +
      `sum ${signed(e.before[k][1])} → ${signed(e.after[k][1])}`;
    return (
      `reward ${signed(e.reward)} to ${e.path.length} nodes, from ` +
      [...new Set([e.path.length - 1, 0])].map(change).join(" up to ")
    );
  }
  function jump(way) {
    let to = at;
    do to += way;
    while (to > 0 && to < last && events[to - 1].kind !== "backup");
    goto(to);
  }
  let timer = null;
  function toggle() {
    if (timer) {
      clearInterval(timer);
      timer = null;
    } else if (last) {
      if (at === last) goto(0);
      timer = setInterval(() => {
        goto(at + 1);
        if (at === last) toggle();
      }, +speed.value);
    }
    play.textContent = timer ? "pause" : "play";
  }

  // ---- the node in hand --------------------------------------------------------------------
  function pick(i, quiet) {
    if (i !== null && !nodes[i]) i = null;
    if (picked !== null) dirty.add(picked);
    picked = i;
    if (i !== null) {
      dirty.add(i);
      if (!spot(i)) arrange(true);
    }
    refresh();
    drawDetail();
    if (i !== null) reveal(i);
    if (!quiet) host.set("selected_node", picked);
  }
  function drawDetail() {
    const c = +cInput.value;
    cText.textContent = c.toFixed(2);
    if (picked === null || !alive[picked]) {
      content.replaceChildren(
        h(
          "p",
          { class: "hint" },
          picked === null
            ? "Click a node to see its step."
            : "This node does not exist yet at this point of the search.",
        ),
        ranking(0, c, "the first steps"),
      );
      return;
    }
    const n = nodes[picked],
      steps = path(picked).slice(1),
      kind = outcome(picked);
    const verdict = {
      unrun: "not executed yet",
      failed: `${n.status}: ${n.error}`,
      correct: `answer = ${n.answer}, correct ✓`,
      wrong: `answer = ${n.answer}, wrong ✗`,
      root: "the question",
      executed: n.answer !== null ? `ran, answer = ${n.answer}` : "ran",
    }[kind];
    content.replaceChildren(
      h("div", {}, h("b", {}, picked ? `node ${picked}, step ${steps.length}` : "root")),
      ...steps.slice(0, -1).map((i) => colored(nodes[i].step, "before")),
      picked ? colored(n.step, "step") : "",
      h("div", { class: "verdict " + kind }, verdict),
      n.origin ? h("div", { class: "origin" }, n.origin) : "",
      ...chosenFor().map((x) => h("div", { class: "chosen" }, x)),
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h("tr", {}, ...["N", "Q", "prior", "PPM", "sum"].map((x) => h("th", {}, x))),
        ),
        h(
          "tbody",
          {},
          h(
            "tr",
            { class: "numbers" },
            ...[
              N[picked],
              known(picked) ? signed(q(picked)) : "–",
              n.prior.toFixed(2),
              scored[picked] ? signed(n.ppm) : "–",
              signed(W[picked]),
            ].map((x) => h("td", {}, String(x))),
          ),
        ),
      ),
      ranking(picked ? n.parent : 0, c, picked ? "this step and its siblings" : "the first steps"),
      picked && n.children.some((i) => alive[i]) ? ranking(picked, c, "its children") : "",
    );
  }
  function chosenFor() {
    const others = (side, other) =>
        [...new Set(data.pairs.filter((p) => p[side] === picked).map((p) => p[other]))].join(", "),
      worse = others(0, 1),
      better = others(1, 0);
    return [
      data.selected.includes(picked) && "a selected solution",
      worse && `preferred to node ${worse}`,
      better && `worse than node ${better}`,
    ].filter((x) => x);
  }
  function ranking(parent, c, title) {
    const rule = ruleInput.value,
      kids = (nodes[parent] ? nodes[parent].children : []).filter((i) => alive[i]);
    if (!kids.length) return h("div", { class: "hint" }, "nothing below it yet");
    const rows = kids
      .map((i, k) => ({ i, k, runs: ran[i] && nodes[i].status === "ok", b: bonus(i, c, rule) }))
      .map((r) => ({
        ...r,
        total: r.runs ? (r.b === Infinity ? Infinity : q(r.i) + r.b) : -Infinity,
      }));
    rows.sort((a, b) => (b.total === a.total ? a.k - b.k : b.total > a.total ? 1 : -1));
    const table = h(
      "table",
      { class: "ranking", "data-parent": parent },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ...[
            title,
            "N",
            "Q",
            rule === "uct" ? "c·√(ln Nₚ/N)" : "c·P·√Nₚ/(1+N)",
            rule.toUpperCase(),
          ].map((x) => h("th", {}, x)),
        ),
      ),
      h(
        "tbody",
        {},
        ...rows.map((r, k) =>
          h(
            "tr",
            { "data-node": r.i, class: r.i === picked ? "me" : "", onclick: () => pick(r.i) },
            h("td", {}, r.runs ? `${k + 1}. ` : "× ", ...nodes[r.i].name.map(piece)),
            ...(r.runs
              ? [N[r.i], known(r.i) ? signed(q(r.i)) : "–", signed(r.b), signed(r.total)]
              : ["–", "–", "–", "did not run"]
            ).map((x) => h("td", {}, String(x))),
          ),
        ),
      ),
    );
    return table;
  }

  // ---- search and keys ---------------------------------------------------------------------
  function search(text) {
    found.forEach((i) => dirty.add(i));
    const t = text.trim().toLowerCase();
    found = new Set(
      t
        ? nodes
            .map((_, i) => i)
            .filter(
              (i) =>
                i &&
                [nodes[i].step, nodes[i].answer || "", nodes[i].error].some((x) =>
                  x.toLowerCase().includes(t),
                ),
            )
        : [],
    );
    found.forEach((i) => dirty.add(i));
    hits.textContent = t ? `${found.size} found` : "";
    refresh();
  }
  function nextHit(way) {
    const list = [...found];
    if (list.length) pick(list[(list.indexOf(picked) + way + list.length) % list.length]);
  }
  function sibling(way) {
    const kids = nodes[nodes[picked].parent].children.filter((i) => alive[i] && spot(i));
    return kids[kids.indexOf(picked) + way];
  }
  const KEYS = {
    ArrowRight: (e) => (e.shiftKey ? jump(1) : goto(at + 1)),
    ArrowLeft: (e) => (e.shiftKey ? jump(-1) : goto(at - 1)),
    Home: () => goto(0),
    End: () => goto(last),
    " ": toggle,
    a: () => picked && pick(nodes[picked].parent),
    d: () => {
      const kids = (nodes[picked || 0] || { children: [] }).children.filter(
        (i) => alive[i] && spot(i),
      );
      if (picked === null) pick(0);
      else if (kids.length) pick(kids.reduce((x, y) => (N[y] > N[x] ? y : x)));
    },
    w: () => picked && sibling(-1) !== undefined && pick(sibling(-1)),
    s: () => picked && sibling(1) !== undefined && pick(sibling(1)),
    "/": () => find.focus(),
    Escape: () => pick(null),
  };
  root.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (
      e.ctrlKey ||
      e.metaKey ||
      e.altKey ||
      (e.target !== root && /INPUT|SELECT|BUTTON/.test(e.target.tagName)) ||
      !KEYS[e.key]
    )
      return;
    e.preventDefault();
    KEYS[e.key](e);
  });

  // ---- start -------------------------------------------------------------------------------
  el.append(root);
  arrange(full);
  reveal(0);
  goto(
    host.get("position") === null || host.get("position") === undefined
      ? last
      : host.get("position"),
    true,
  );
  if (host.get("selected_node") !== null && host.get("selected_node") !== undefined)
    pick(host.get("selected_node"), true);
  if (typeof ResizeObserver !== "undefined") {
    const once = new ResizeObserver(() => {
      if (canvas.clientWidth) {
        fit();
        reveal(picked === null ? 0 : picked);
        once.disconnect();
      }
    });
    once.observe(canvas);
  }
  root.viewer = {
    goto,
    pick,
    setC: (c) => {
      cInput.value = c;
      drawDetail();
    },
    setRule: (r) => {
      ruleInput.value = r;
      drawDetail();
    },
    get at() {
      return at;
    },
    get picked() {
      return picked;
    },
    stop: () => timer && toggle(),
  };
  return root.viewer;
}
