// The bandit playground: shows the moments of a game that Python plays, and asks for more.
function render({ model, el }) {
  const SVG = "http://www.w3.org/2000/svg",
    SPAN = 1.7,
    WIDE = 400,
    COLORS = ["#0b5394", "#c04a00", "#666"],
    DASH = ["", "7 4", "2 3"];
  function h(tag, attrs = {}, ...kids) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs))
      k.startsWith("on")
        ? e.addEventListener(k.slice(2), v)
        : v !== false && e.setAttribute(k, v === true ? "" : v);
    e.append(...kids);
    return e;
  }
  function s(tag, attrs = {}, text) {
    const e = document.createElementNS(SVG, tag);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    return e;
  }
  const set = (k, v) => {
    model.set(k, v);
    model.save_changes();
  };
  const button = (text, title, f) =>
    h("button", { type: "button", title, "aria-label": title, onclick: f }, text);
  let at = model.get("moments").length - 1,
    timer = null,
    earlier = [],
    truth = true;
  const last = () => model.get("moments").length - 1;

  // ---- the page ----------------------------------------------------------------------------
  const count = h("span", { class: "count" }),
    rows = h("div", { class: "arms" }),
    graph = s("svg", {
      class: "regret",
      viewBox: "0 0 420 230",
      role: "img",
      "aria-label": "regret",
    }),
    note = h("div", { class: "what", "aria-live": "polite" });
  const c = h("input", {
      type: "range",
      class: "c",
      min: 0,
      max: 5,
      step: 0.05,
      value: model.get("c"),
      "aria-label": "exploration constant c",
      oninput: () => set("c", +c.value),
    }),
    cText = h("span", { class: "c-value" });
  const root = h(
    "div",
    {
      class: "rstar rstar-bandit",
      "data-lm-suppress-shortcuts": "true",
      role: "group",
      "aria-label": "bandit playground",
    },
    h(
      "div",
      { class: "bar" },
      button("pull", "one pull", () => pull(1)),
      button("pull 100", "a hundred pulls", () => pull(100)),
      button("new game", "the same arms with other luck", () => {
        earlier.push(model.get("moments"));
        earlier = earlier.slice(-8);
        set("seed", model.get("seed") + 1);
      }),
      h("label", {}, "c", c),
      cText,
      button(
        "+ arm",
        "one more arm",
        () => model.get("arms").length < 6 && set("arms", [...model.get("arms"), 0.5]),
      ),
      button(
        "− arm",
        "one arm less",
        () => model.get("arms").length > 2 && set("arms", model.get("arms").slice(0, -1)),
      ),
      h(
        "label",
        {},
        h("input", {
          type: "checkbox",
          class: "truth",
          checked: true,
          onchange: (e) => {
            truth = e.target.checked;
            draw();
          },
        }),
        "show the truth",
      ),
      count,
    ),
    note,
    h("div", { class: "body" }, rows, h("div", { class: "side" }, graph)),
    h(
      "div",
      { class: "legend" },
      ...[
        "● mean of the rewards",
        "┃ upper bound",
        "│ truth",
        "blue: the highest bound, pulled next",
        "faint lines: earlier games",
      ].map((x) => h("span", {}, x)),
    ),
  );
  el.append(root);

  // ---- drawing -----------------------------------------------------------------------------
  function buildArms() {
    rows.replaceChildren(
      ...model.get("arms").map((p, i) => {
        const picture = s("svg", {
          viewBox: `-12 0 ${WIDE + 24} 40`,
          role: "img",
          "aria-label": `arm ${i + 1}`,
        });
        const value = h("span", { class: "p" }, p.toFixed(2));
        const slider = h("input", {
          type: "range",
          min: 0,
          max: 1,
          step: 0.01,
          value: p,
          "aria-label": `truth of arm ${i + 1}`,
          oninput: () => {
            value.textContent = (+slider.value).toFixed(2);
          },
          onchange: () => {
            const arms = [...model.get("arms")];
            arms[i] = +slider.value;
            set("arms", arms);
          },
        });
        return h(
          "div",
          { class: "arm", "data-arm": i },
          h("b", {}, `arm ${i + 1}`),
          picture,
          h("span", { class: "pulls" }),
          h("label", { class: "set" }, slider, value),
        );
      }),
      axis(),
    );
  }
  function axis() {
    const g = s("svg", { viewBox: `-12 0 ${WIDE + 24} 18` });
    for (const x of [0, 0.5, 1, 1.5])
      g.append(s("text", { x: (x / SPAN) * WIDE, y: 13, "text-anchor": "middle" }, x));
    return h("div", { class: "arm axis" }, h("b"), g, h("span"), h("span"));
  }
  function draw() {
    const moments = model.get("moments"),
      arms = model.get("arms"),
      now = moments[at],
      pulls = arms.map(() => 0),
      wins = arms.map(() => 0);
    for (const m of moments.slice(1, at + 1)) {
      pulls[m[0]]++;
      wins[m[0]] += m[1];
    }
    const bounds = now[2].map((b) => (b === null ? Infinity : b)),
      next = bounds.indexOf(Math.max(...bounds)),
      x = (v) => (Math.min(v, SPAN) / SPAN) * WIDE;
    rows.querySelectorAll("[data-arm]").forEach((row, i) => {
      const g = row.querySelector("svg"),
        q = pulls[i] ? wins[i] / pulls[i] : 0,
        color = i === next ? COLORS[0] : "#888",
        far = x(bounds[i]);
      g.replaceChildren(
        s("line", { x1: 0, x2: WIDE, y1: 20, y2: 20, stroke: "#e4e4e4" }),
        s("line", {
          class: "bound",
          x1: x(Math.max(q, 0)),
          x2: far,
          y1: 20,
          y2: 20,
          stroke: color,
          "stroke-width": 4,
          opacity: 0.6,
        }),
      );
      g.append(
        bounds[i] > SPAN
          ? s("path", { d: `M${WIDE},12L${WIDE + 10},20L${WIDE},28Z`, fill: color })
          : s("line", { x1: far, x2: far, y1: 10, y2: 30, stroke: color, "stroke-width": 3 }),
      );
      if (pulls[i])
        g.append(
          s("circle", {
            class: "mean",
            cx: x(q),
            cy: 20,
            r: at && now[0] === i ? 9 : 6,
            fill: color,
          }),
        );
      if (truth)
        g.append(
          s("line", {
            class: "true",
            x1: x(arms[i]),
            x2: x(arms[i]),
            y1: 4,
            y2: 36,
            stroke: "#222",
            "stroke-width": 1.5,
          }),
        );
      row.classList.toggle("next", i === next);
      row.dataset.bound = bounds[i];
      row.dataset.pulls = pulls[i];
      row.querySelector(".pulls").textContent =
        `${pulls[i]} ×, mean ${pulls[i] ? q.toFixed(2) : "–"}, ` +
        `bound ${bounds[i] === Infinity ? "∞" : bounds[i].toFixed(2)}`;
      row.querySelector(".set").style.visibility = truth ? "" : "hidden";
    });
    count.textContent = `${at} pulls`;
    cText.textContent = model.get("c").toFixed(2);
    note.textContent = at
      ? `pull ${at}: arm ${now[0] + 1} brought ${now[1]}; the highest bound is arm ${next + 1}'s`
      : `no pull yet; arm ${next + 1} comes first`;
    drawRegret(moments);
  }
  function drawRegret(moments) {
    const L = 38,
      T = 12,
      W = 300,
      H = 180,
      shown = moments.slice(0, at + 1),
      games = [...earlier.map((g) => [g, 0.18]), [shown, 1]];
    const wide = Math.max(10, ...games.map(([g]) => g.length - 1)),
      high = Math.max(1, ...games.flatMap(([g]) => g[g.length - 1].slice(3)));
    const X = (t) => L + (t / wide) * W,
      Y = (v) => T + H - (v / high) * H;
    graph.replaceChildren(
      s("line", { x1: L, x2: L + W, y1: T + H, y2: T + H, stroke: "#222" }),
      s("line", { x1: L, x2: L, y1: T, y2: T + H, stroke: "#222" }),
      s("text", { x: L + W / 2, y: 226, "text-anchor": "middle" }, "pulls"),
      s("text", { x: L + 6, y: T + 4 }, "regret"),
      s("text", { x: L + W, y: T + H + 15, "text-anchor": "middle" }, wide),
      s("text", { x: L, y: T + H + 15, "text-anchor": "middle" }, 0),
      s("text", { x: L - 5, y: T + 5, "text-anchor": "end" }, high.toFixed(high < 10 ? 1 : 0)),
    );
    for (const [game, opacity] of games)
      COLORS.forEach((color, k) =>
        graph.append(
          s("polyline", {
            class: opacity === 1 ? "now" : "before",
            points: game.map((m, t) => `${X(t).toFixed(1)},${Y(m[3 + k]).toFixed(1)}`).join(" "),
            fill: "none",
            stroke: color,
            "stroke-width": 2,
            "stroke-dasharray": DASH[k],
            opacity,
          }),
        ),
      );
    // Labels at the ends of the lines, pushed apart where they would touch.
    const ends = [model.get("rule_name"), "greedy", "uniform"]
      .map((name, k) => ({ k, name, v: shown[at][3 + k] }))
      .sort((a, b) => b.v - a.v);
    let y = T - 8;
    const placed = ends.map((e) => ({ ...e, y: (y = Math.max(y + 14, Y(e.v) + 4)) })),
      over = Math.max(0, y - (T + H - 5)); // above the axis
    for (const e of placed)
      graph.append(
        s(
          "text",
          {
            class: "who",
            x: Math.min(X(at), L + W) + 6,
            y: e.y - over,
            fill: COLORS[e.k],
            "font-weight": 600,
          },
          `${e.name} ${e.v.toFixed(1)}`,
        ),
      );
  }

  // ---- following the game ------------------------------------------------------------------
  function pull(n) {
    model.send({ step: n });
  }
  const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  function follow() {
    const step = Math.max(1, Math.ceil((last() - at) / 50));
    if (at > last()) {
      at = last();
    }
    if (timer) return draw();
    const tick = () => {
      at = Math.min(last(), at + (still() ? Infinity : step));
      draw();
      if (at < last()) timer = setTimeout(tick, 30);
      else timer = null;
    };
    at < last() ? tick() : draw();
  }
  model.on("change:moments", follow);
  model.on("change:arms", () => {
    earlier = [];
    buildArms();
    follow();
  });
  model.on("change:c", () => {
    c.value = model.get("c");
    draw();
  });
  buildArms();
  draw();
  return () => timer && clearTimeout(timer);
}
export default { render };
