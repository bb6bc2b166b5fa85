// Charts of a report: SVG drawn from the JSON beside each. Hover shows values, dragging zooms, a double click goes back.
"use strict";
(() => {
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2", "10 4"];
  const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "ring"];
  const NS = "http://www.w3.org/2000/svg";
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", role: "status" }));

  const make = (parent, name, attributes, text) => {
    const element = document.createElementNS(NS, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return parent.appendChild(element);
  };
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e9) return +(value / 1e9).toPrecision(3) + "G";
    if (size >= 1e6) return +(value / 1e6).toPrecision(3) + "M";
    if (size >= 1e4) return +(value / 1e3).toPrecision(3) + "k";
    return String(+value.toPrecision(4));
  };
  const ticks = (low, high, wanted) => {
    const rough = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) || 10 * power;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(+at.toPrecision(12));
    return found;
  };
  const showTip = (text, event) => {
    tip.textContent = text;
    tip.style.display = "block";
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(4, event.clientY - box.height - 12) + "px";
  };
  const hideTip = () => { tip.style.display = "none"; };
  const mark = (parent, shape, x, y, r, colour) => {
    const d = {
      square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`, triangle: `M${x},${y - r}l${r},${2 * r}h${-2 * r}z`,
      diamond: `M${x},${y - 1.3 * r}l${1.3 * r},${1.3 * r}l${-1.3 * r},${1.3 * r}l${-1.3 * r},${-1.3 * r}z`,
      cross: `M${x - r},${y - r}l${2 * r},${2 * r}m0,${-2 * r}l${-2 * r},${2 * r}`,
    }[shape];
    if (d) return make(parent, "path", { d, fill: shape === "cross" ? "none" : colour, stroke: colour, "stroke-width": 1.2 });
    return make(parent, "circle", { cx: x, cy: y, r, fill: shape === "ring" ? "none" : colour, stroke: colour });
  };

  function frame(holder, spec, height, left) {
    holder.replaceChildren();
    const width = Math.max(280, holder.clientWidth);
    const svg = make(holder, "svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", role: "img" });
    make(svg, "title", {}, spec.title);
    return { svg, width, height, left, right: 12, top: 10, bottom: 40 };
  }

  function axes(f, spec, x, y, xs, ys, yText) {
    for (const at of xs) {
      make(f.svg, "line", { x1: x(at), x2: x(at), y1: f.top, y2: f.height - f.bottom, class: "grid" });
      make(f.svg, "text", { x: x(at), y: f.height - f.bottom + 14, "text-anchor": "middle" }, short(at));
    }
    for (const at of ys) {
      make(f.svg, "line", { x1: f.left, x2: f.width - f.right, y1: y(at), y2: y(at), class: "grid" });
      make(f.svg, "text", { x: f.left - 5, y: y(at) + 4, "text-anchor": "end" }, yText(at));
    }
    make(f.svg, "text", { x: (f.left + f.width - f.right) / 2, y: f.height - 6, "text-anchor": "middle", class: "label" }, spec.x);
  }

  function zoomable(f, holder, range, set) {
    let begin = null, box = null;
    const at = (event) => {
      const inside = f.svg.getBoundingClientRect(), share = ((event.clientX - inside.left) / inside.width) * f.width;
      return Math.max(f.left, Math.min(f.width - f.right, share));
    };
    const value = (pixel) => range[0] + ((pixel - f.left) / (f.width - f.right - f.left)) * (range[1] - range[0]);
    f.svg.addEventListener("pointerdown", (event) => {
      begin = at(event);
      box = make(f.svg, "rect", { x: begin, y: f.top, width: 0, height: f.height - f.top - f.bottom, class: "zoom" });
    });
    f.svg.addEventListener("pointermove", (event) => {
      if (begin === null) return;
      box.setAttribute("x", Math.min(begin, at(event)));
      box.setAttribute("width", Math.abs(at(event) - begin));
    });
    const end = (event) => {
      if (begin === null) return;
      const [a, b] = [Math.min(begin, at(event)), Math.max(begin, at(event))];
      begin = null;
      box.remove();
      if (event.type === "pointerup" && b - a > 8) set([value(a), value(b)]);
    };
    f.svg.addEventListener("pointerup", end);
    f.svg.addEventListener("pointerleave", end);
    f.svg.addEventListener("dblclick", () => set(null));
  }

  function xy(holder, spec) {
    let range = null;
    const all = spec.series.flatMap((s) => s.points), xValues = all.map((p) => p[0]);
    const whole = [Math.min(...xValues), Math.max(...xValues)];
    if (whole[0] === whole[1]) { whole[0] -= 0.5; whole[1] += 0.5; }
    const draw = () => {
      const f = frame(holder, spec, spec.height || 230, 52), shown = range || whole;
      const pad = spec.lines === false ? (shown[1] - shown[0]) * 0.04 : 0, [low, high] = [shown[0] - pad, shown[1] + pad];
      const inside = all.filter((p) => p[0] >= low && p[0] <= high), ySource = inside.length ? inside : all;
      const plus = (v) => (spec.log ? Math.log10(Math.max(0, v) + 1) : v);
      const yLow = spec.lines === false && !spec.log ? Math.min(...ySource.map((p) => p[1])) * 0.95 : 0;
      const most = plus(Math.max(...ySource.map((p) => p[1]))) * 1.05, top = most > plus(yLow) ? most : plus(yLow) + 1;
      const x = (v) => f.left + ((v - low) / (high - low)) * (f.width - f.left - f.right);
      const y = (v) => f.height - f.bottom - ((plus(v) - plus(yLow)) / (top - plus(yLow))) * (f.height - f.top - f.bottom);
      const powers = [0];
      for (let n = Math.ceil(top / 5); n <= top; n += Math.ceil(top / 5)) powers.push(10 ** n);
      axes(f, spec, x, y, ticks(low, high, f.width / 110), spec.log ? powers : ticks(yLow, top, 4), short);
      const clip = "c" + Math.random().toString(36).slice(2);
      make(make(make(f.svg, "defs", {}), "clipPath", { id: clip }), "rect",
        { x: f.left, y: f.top - 6, width: f.width - f.left - f.right, height: f.height - f.top - f.bottom + 6 });
      const inner = make(f.svg, "g", { "clip-path": `url(#${clip})` });
      spec.series.forEach((s, n) => {
        const colour = COLOURS[n % 6];
        if (spec.lines !== false) {
          let d = "";
          s.points.forEach((p, i) => {
            d += i === 0 ? `M${x(p[0])},${y(p[1])}` : (s.step ? `H${x(p[0])}V${y(p[1])}` : `L${x(p[0])},${y(p[1])}`);
          });
          make(inner, "path", { d, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": DASHES[n % 6] });
        } else s.points.forEach((p) => mark(inner, SHAPES[n % 6], x(p[0]), y(p[1]), 4, colour));
      });
      const dot = make(f.svg, "circle", { r: 5, class: "dot", visibility: "hidden" });
      f.svg.addEventListener("pointermove", (event) => {
        const box = f.svg.getBoundingClientRect(), scale = f.width / box.width;
        const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
        let best = null, least = Infinity;
        spec.series.forEach((s) => s.points.forEach((p) => {
          if (p[0] < low || p[0] > high) return;
          const far = Math.abs(x(p[0]) - px) + Math.abs(y(p[1]) - py) * (spec.lines === false ? 1 : 0.3);
          if (far < least) { least = far; best = [s, p]; }
        }));
        if (!best) return;
        const [s, p] = best;
        dot.setAttribute("cx", x(p[0])); dot.setAttribute("cy", y(p[1])); dot.setAttribute("visibility", "visible");
        showTip((spec.series.length > 1 ? s.name + "\n" : "") + (p[2] || `${short(p[0])}: ${short(p[1])}`), event);
      });
      f.svg.addEventListener("pointerleave", () => { hideTip(); dot.setAttribute("visibility", "hidden"); });
      zoomable(f, holder, [low, high], (wanted) => { range = wanted; hideTip(); draw(); });
    };
    return draw;
  }

  function bars(holder, spec) {
    let range = null;
    const ends = spec.bars.flatMap((b) => [b.from, b.to]).concat(spec.zero === false ? [] : [0]);
    const whole = [Math.min(...ends), Math.max(...ends)];
    if (whole[0] === whole[1]) whole[1] += 1;
    return function draw() {
      const left = Math.min(230, Math.max(120, holder.clientWidth * 0.36));
      const f = frame(holder, spec, 52 + spec.bars.length * 20, left), [low, high] = range || whole;
      const x = (v) => f.left + ((v - low) / (high - low)) * (f.width - f.left - f.right);
      axes(f, spec, x, () => 0, ticks(low, high, f.width / 130), [], short);
      spec.bars.forEach((b, n) => {
        const y = f.top + n * 20, clipped = (v) => Math.max(f.left, Math.min(f.width - f.right, x(v)));
        const [a, z] = [clipped(Math.min(b.from, b.to)), clipped(Math.max(b.from, b.to))];
        const letters = Math.floor(f.left / 6.4);
        const name = b.name.length > letters ? b.name.slice(0, letters - 1) + "…" : b.name;
        make(f.svg, "text", { x: f.left - 6, y: y + 14, "text-anchor": "end" }, name);
        const colour = b.kind === "total" ? "#444444" : b.to < b.from ? "#D55E00" : "#0072B2";
        make(f.svg, "rect", { x: a, y: y + 3, width: Math.max(1, z - a), height: 14, fill: colour });
        const over = make(f.svg, "rect", { x: 0, y, width: f.width, height: 20, class: "over" });
        over.addEventListener("pointermove", (event) => showTip(`${b.name}\n${b.text}`, event));
        over.addEventListener("pointerleave", hideTip);
      });
      zoomable(f, holder, [low, high], (wanted) => { range = wanted; hideTip(); draw(); });
    };
  }

  function heat(holder, spec) {
    let range = null;
    const ramp = ["#fde725", "#6ece58", "#1f9e89", "#31688e", "#482878", "#440154"];
    const counts = spec.cells.map((c) => c[2]), least = Math.log(Math.min(...counts)), most = Math.log(Math.max(...counts));
    return function draw() {
      const f = frame(holder, spec, 320, 64), [low, high] = range || [spec.x0, spec.x1];
      const x = (v) => f.left + ((v - low) / (high - low)) * (f.width - f.left - f.right);
      const y = (v) => f.height - f.bottom - ((v - spec.y0) / (spec.y1 - spec.y0)) * (f.height - f.top - f.bottom);
      axes(f, spec, x, y, ticks(low, high, f.width / 110), ticks(spec.y0, spec.y1, 5), short);
      const [w, h] = [(spec.x1 - spec.x0) / spec.columns, (spec.y1 - spec.y0) / spec.rows];
      for (const [row, column, count] of spec.cells) {
        const a = spec.x0 + column * w, b = spec.y0 + row * h;
        if (a + w <= low || a >= high) continue;
        const [px, end] = [Math.max(f.left, x(a)), Math.min(f.width - f.right, x(a + w))];
        const colour = ramp[Math.min(5, Math.floor(((Math.log(count) - least) / (most - least || 1)) * 5.99))];
        make(f.svg, "rect", { x: px, y: y(b + h), width: Math.max(0.6, end - px), height: Math.max(0.6, y(b) - y(b + h)), fill: colour,
          "shape-rendering": "crispEdges" });
      }
      const known = new Map(spec.cells.map((c) => [c[0] * spec.columns + c[1], c[2]]));
      f.svg.addEventListener("pointermove", (event) => {
        const box = f.svg.getBoundingClientRect(), scale = f.width / box.width;
        const at = low + (((event.clientX - box.left) * scale - f.left) / (f.width - f.left - f.right)) * (high - low);
        const up = spec.y0 + ((f.height - f.bottom - (event.clientY - box.top) * scale) / (f.height - f.top - f.bottom)) * (spec.y1 - spec.y0);
        const column = Math.floor((at - spec.x0) / w), row = Math.floor((up - spec.y0) / h);
        if (row < 0 || row >= spec.rows || column < 0 || column >= spec.columns) return hideTip();
        showTip(`${at.toFixed(3)} s, ${short(up)} MiB: ${known.get(row * spec.columns + column) || 0} writes`, event);
      });
      f.svg.addEventListener("pointerleave", hideTip);
      zoomable(f, holder, [low, high], (wanted) => { range = wanted; hideTip(); draw(); });
    };
  }

  const charts = [];
  document.querySelectorAll("figure[data-chart]").forEach((figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent), holder = figure.querySelector(".plot");
    const draw = { xy, bars, heat }[spec.type](holder, spec);
    if (spec.type === "xy" && spec.series.length > 1) {
      const legend = figure.querySelector(".legend");
      spec.series.forEach((s, n) => {
        const item = legend.appendChild(document.createElement("span"));
        const icon = make(item, "svg", { width: 30, height: 12, "aria-hidden": "true" }), colour = COLOURS[n % 6];
        if (spec.lines === false) mark(icon, SHAPES[n % 6], 15, 6, 4, colour);
        else make(icon, "path", { d: "M1,6H29", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": DASHES[n % 6] });
        item.append(" " + s.name);
      });
    }
    charts.push(draw);
    draw();
  });
  let wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; charts.forEach((draw) => draw()); } });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  document.documentElement.dataset.ready = charts.length;
})();
