(() => {
  const data = JSON.parse($("data").textContent);
  const { run, states, outcomes, rows, path, scaling, byName } = data;
  const n = data.nodes;
  const count = n.name.length;
  const total = Math.max(run.duration, 1);
  const PATH_ROW = 0; // the timeline's first row is the critical path, the workers come after it
  const label = (i) => (n.task[i] ? `${n.name[i]} [${n.task[i]}]` : n.name[i]);
  const end = (i) => n.start[i] + n.duration[i];
  const ran = (i) => n.row[i] >= 0;

  // On a worker of a backend a bar is the node's function there, and the node's own time is longer, by what it was moved and waited.
  const TRANSFER = states.findIndex((state) => state.id === "transfer");
  const REMOTE_QUEUE = states.findIndex((state) => state.id === "remote_queue");
  const barStart = n.start.slice();
  const barEnd = n.start.map((start, i) => start + n.duration[i]);
  const moved = new Map();
  for (const [i, sent, received, from, to, before, queue, after] of data.moved) {
    moved.set(i, { sent, received, elsewhere: from !== undefined, before, queue, after });
    if (from !== undefined) [barStart[i], barEnd[i]] = [Math.max(from, n.start[i]), Math.min(to, end(i))];
  }
  const elsewhere = (i) => moved.has(i) && moved.get(i).elsewhere;

  /** [state, from, to] of what comes before and after its bar. */
  function thinPieces(i) {
    const { before, queue, after } = moved.get(i);
    const waits = barStart[i] - queue;
    return [[TRANSFER, waits - before, waits], [REMOTE_QUEUE, waits, barStart[i]], [TRANSFER, barEnd[i], barEnd[i] + after]].filter(([, from, to]) => to > from);
  }

  /** What a bar's bands show, and of how much: of a node elsewhere, the states of its function alone. */
  function bandsOf(i) {
    const split = n.states[i];
    if (!split || !elsewhere(i)) return [split, n.duration[i]];
    const inside = split.map((us, s) => (s === TRANSFER || s === REMOTE_QUEUE ? 0 : us));
    const sum = () => inside.reduce((a, b) => a + b, 0);
    const last = inside.length - 1; // `other`, what is left: here also of the time around the function
    inside[last] = Math.max(0, inside[last] - Math.max(0, sum() - (barEnd[i] - barStart[i])));
    return [inside, Math.max(sum(), barEnd[i] - barStart[i], 1)];
  }

  // Text.

  /** For an axis: as many digits as its step needs. */
  function tick(us, span) {
    const [size, unit] = span >= 2e6 ? [1e6, "s"] : span >= 2e3 ? [1e3, "ms"] : [1, "µs"];
    const digits = Math.max(0, Math.ceil(-Math.log10(span / size / 8)));
    return `${(us / size).toFixed(Math.min(digits, 3))} ${unit}`;
  }

  function share(part, whole) {
    if (whole <= 0) return "-";
    const percent = (100 * part) / whole;
    if (percent > 0 && percent < 0.995) return "<1 %";
    return percent > 99 && percent < 100 ? ">99 %" : `${Math.round(percent)} %`;
  }
  const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  const cut = (text, limit) => (text.length > limit ? `${text.slice(0, limit - 1)}…` : text);

  function strongest(i) {
    const split = n.states[i];
    if (!split) return "";
    let best = 0;
    for (let s = 1; s < split.length; s++) if (split[s] > split[best]) best = s;
    return split[best] > 0 ? `${states[best].label} ${share(split[best], n.duration[i])}` : "";
  }

  // Colours: the style sheet has them, for the theme that is on.

  let theme = {};
  function readTheme() {
    for (const name of ["surface", "raised", "line", "grid", "ink", "soft", "accent", "bad", "plain"])
      theme[name] = colour(name);
    theme.states = states.map((state) => colour(`state-${state.id}`));
    theme.hatch = hatch(theme.soft, theme.surface);
    theme.waiting = hatch(theme.states[REMOTE_QUEUE], theme.surface);
    theme.dots = hatch(theme.line, theme.surface);
  }

  function hatch(ink, ground) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 8;
    const context = canvas.getContext("2d");
    context.fillStyle = ground;
    context.fillRect(0, 0, 8, 8);
    context.strokeStyle = ink;
    context.lineWidth = 1.6;
    for (const shift of [-8, 0, 8]) {
      context.beginPath();
      context.moveTo(shift - 1, 9);
      context.lineTo(shift + 9, -1);
      context.stroke();
    }
    return { image: canvas, repeat: "repeat" };
  }

  // What is derived from the nodes.

  const inRow = Array.from({ length: rows.length + 1 }, () => []);
  for (let i = 0; i < count; i++) if (ran(i)) inRow[n.row[i] + 1].push(i);
  for (const members of inRow) members.sort((a, b) => barStart[a] - barStart[b]);
  const downstream = Array.from({ length: count }, () => []);
  n.upstream.forEach((inputs, i) => inputs.forEach((input) => downstream[input].push(i)));

  /** How many of the stretches hold at each moment: [[time, number], ...], one entry a change. */
  function overlap(from, to) {
    const changes = [];
    for (let i = 0; i < count; i++)
      if (ran(i) && to(i) > from(i)) changes.push([from(i), 1], [to(i), -1]);
    changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const steps = [[0, 0]];
    let now = 0;
    for (const [at, by] of changes) {
      now += by;
      if (steps[steps.length - 1][0] === at) steps[steps.length - 1][1] = now;
      else steps.push([at, now]);
    }
    steps.push([total, now]);
    return steps;
  }
  const running = data.load ? data.load.running : overlap((i) => n.start[i], end);
  const queued = data.load ? data.load.queued : overlap((i) => n.start[i] - n.queue[i], (i) => n.start[i]);

  /** The last entry that is not after `at`. */
  function before(steps, at) {
    let [low, high] = [0, steps.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle][0] <= at) low = middle;
      else high = middle;
    }
    return steps[low];
  }

  // The timeline. All bars of a colour are one shape, so that thousands of nodes are drawn as eight.

  const Rects = echarts.graphic.extendShape({
    type: "rects",
    shape: { list: [] },
    buildPath(context, { list }) {
      for (let k = 0; k < list.length; k += 4) context.rect(list[k], list[k + 1], list[k + 2], list[k + 3]);
    },
  });
  echarts.graphic.registerShape("rects", Rects);

  // Names stand above the bars, where there is space for them: on the bands they could not be read.
  const named = rows.length <= 16;
  const rowHeight = named ? 34 : rows.length <= 40 ? 18 : 12;
  const above = named ? 14 : 1.5;
  const bar = rowHeight - above - (named ? 5 : 4);
  const thin = Math.max(4, Math.round(bar / 3));
  const lanesTop = 26;
  const lanesHeight = (rows.length + 1) * rowHeight;
  const loadTop = lanesTop + lanesHeight + 40;
  const loadHeight = 96;
  const chartHeight = loadTop + loadHeight + 74;
  const left = 132;
  let chart = null;
  let selected = -1;
  let hovered = -1;
  let overlays = [];

  function drawBars(parameters, api) {
    const { x, width } = parameters.coordSys;
    const [origin, y0] = api.coord([0, 0]);
    const scale = (api.coord([total, 0])[0] - origin) / total;
    const height = rowHeight;
    const right = x + width;
    const shapes = states.map(() => []);
    const plain = [];
    const thinner = { [TRANSFER]: [], [REMOTE_QUEUE]: [] };
    const marks = [];
    const words = [];
    inRow.forEach((members, row) => {
      if (row === PATH_ROW) return;
      const top = y0 - height / 2 + row * height + above;
      let drawnTo = -1;
      const thinTo = { [TRANSFER]: -1, [REMOTE_QUEUE]: -1 };
      for (const i of members) {
        const [outerFrom, outerTo] = [Math.max(origin + n.start[i] * scale, x), Math.min(origin + end(i) * scale, right)];
        if (outerTo < x || outerFrom > right) continue;
        if (n.critical[i]) marks.push(outerFrom, top + bar + 1, Math.max(outerTo - outerFrom - (outerTo - outerFrom > 4 ? 1 : 0), 1), 2.5);
        if (elsewhere(i)) {
          for (const [s, started, ended] of thinPieces(i)) {
            const [left, until] = [Math.max(origin + started * scale, x), Math.min(origin + ended * scale, right)];
            if (until - left < 0.5 || until < thinTo[s] + 0.5) continue;
            thinTo[s] = until;
            thinner[s].push(left, top + (bar - thin) / 2, until - left, thin);
          }
        }
        const from = Math.max(origin + barStart[i] * scale, x);
        const to = Math.min(origin + barEnd[i] * scale, right);
        if (to < x || from > right) continue;
        const wide = Math.max(to - from - (to - from > 4 ? 1 : 0), 1);
        if (to < drawnTo + 0.5) continue; // less than half a pixel, and another bar is there already
        drawnTo = Math.max(to, from + 1);
        const [split, whole] = bandsOf(i);
        if (!split) {
          plain.push(from, top, wide, bar);
        } else {
          let bottom = top + bar;
          for (let s = 0; s < split.length; s++) {
            if (!split[s]) continue;
            const high = (bar * split[s]) / whole;
            bottom -= high;
            shapes[s].push(from, bottom, wide, high);
          }
        }
        const failed = n.outcome[i] > 0;
        if (named ? wide > 40 || failed : failed) words.push([i, from, top, wide, failed]);
      }
    });
    const shape = (list, style) => ({ type: "rects", shape: { list }, style, silent: true });
    const children = Object.entries(thinner).map(([s, list]) => shape(list, thinLook(Number(s))));
    children.push(...shapes.map((list, s) => shape(list, { fill: theme.states[s] })));
    children.push(shape(plain, { fill: theme.plain }), shape(marks, { fill: theme.ink }));
    for (const [i, from, top, wide, failed] of words.slice(0, 600))
      children.push(named
        ? word(!failed ? label(i) : wide > 40 ? `✕ ${label(i)}` : "✕", from, top - 7, Math.max(wide - 3, 14), failed)
        : word("✕", from - 2, top + bar / 2, 14, true));
    drawPath(children, { origin, scale, x, right, top: y0 - height / 2 + above });
    return { type: "group", children };
  }

  /** Not by colour alone: waiting is hatched. */
  function thinLook(s) {
    return s === REMOTE_QUEUE ? { fill: theme.waiting, stroke: theme.states[s], lineWidth: 1 } : { fill: theme.states[s] };
  }

  function word(text, x, y, width, failed) {
    return {
      type: "text",
      silent: true,
      style: {
        text: cut(text, Math.ceil(width / 4) + 2), x, y, width, overflow: "truncate", ellipsis: "…", verticalAlign: "middle", fontSize: 11, fontFamily: "system-ui, sans-serif",
        fontWeight: failed ? 700 : 400, fill: failed ? theme.bad : theme.ink, stroke: named ? undefined : theme.surface, lineWidth: named ? 0 : 3,
      },
    };
  }

  function drawPath(children, { origin, scale, x, right, top }) {
    const lists = { node: [], queue: [], dependency: [], outside: [] };
    const words = [];
    for (const [kind, name, , started, ended] of path) {
      const from = Math.max(origin + started * scale, x);
      const to = Math.min(origin + ended * scale, right);
      if (to < x || from > right) continue;
      const wide = Math.max(to - from - (to - from > 3 ? 1 : 0), 0.5);
      lists[kind].push(from, top, wide, bar);
      if (named && wide > 40 && kind !== "outside") words.push([kind, name, from, wide]);
    }
    const looks = {
      node: { fill: theme.ink },
      queue: { fill: theme.hatch, stroke: theme.soft, lineWidth: 1 },
      dependency: { fill: theme.dots, stroke: theme.line, lineWidth: 1 },
      outside: { fill: "none", stroke: theme.line, lineWidth: 1 },
    };
    for (const [kind, list] of Object.entries(lists))
      children.push({ type: "rects", shape: { list }, style: looks[kind], silent: true });
    for (const [kind, name, from, wide] of words.slice(0, 200))
      children.push(word(kind === "node" ? name : kind === "queue" ? "queue" : "input wait", from, top - 7, wide - 3, false));
  }

  const axisText = () => ({ color: theme.soft, fontSize: 11, fontFamily: "system-ui, sans-serif" });

  function timelineOption(zoom) {
    const timeAxis = (gridIndex, more) => ({
      gridIndex, type: "value", min: 0, max: total, splitNumber: 8, axisLine: { show: false }, axisTick: { show: false },
      splitLine: { lineStyle: { color: theme.grid } }, ...more,
    });
    const labels = { ...axisText(), hideOverlap: true, showMaxLabel: false, formatter: (us) => tick(us, span()) };
    const line = (name, points, style, area) => ({
      name, type: "line", step: "end", xAxisIndex: 1, yAxisIndex: 1, data: points, symbol: "none", silent: true, sampling: "max",
      lineStyle: { width: 1.5, ...style }, areaStyle: area, animation: false,
    });
    return {
      animation: false,
      backgroundColor: "transparent",
      grid: [
        { left, right: 18, top: lanesTop, height: lanesHeight },
        { left, right: 18, top: loadTop, height: loadHeight },
      ],
      xAxis: [timeAxis(0, { position: "top", axisLabel: labels }), timeAxis(1, { axisLabel: labels })],
      yAxis: [
        {
          gridIndex: 0, type: "category", inverse: true, data: ["critical path", ...rows.map((row, k) => String(k))],
          axisLine: { show: false }, axisTick: { show: false },
          axisLabel: {
            ...axisText(), interval: 0, width: left - 16, overflow: "truncate",
            formatter: (value, k) => (k === PATH_ROW ? "critical path" : rows[k - 1].first ? cut(rows[k - 1].worker, 40) : rows[k - 1].worker ? "· overlapping" : "·"),
          },
          splitArea: { show: true, areaStyle: { color: [theme.raised, "transparent"] } },
        },
        {
          gridIndex: 1, type: "value", min: 0, minInterval: 1, splitNumber: 3, axisLabel: axisText(),
          splitLine: { lineStyle: { color: theme.grid } }, name: "nodes", nameLocation: "middle", nameGap: 40, nameTextStyle: axisText(),
        },
      ],
      legend: { top: loadTop - 30, right: 18, selectedMode: false, itemWidth: 22, itemHeight: 8, itemStyle: { opacity: 0 }, textStyle: axisText(), data: ["running", "queued", ...(run.maxWorkers ? ["workers"] : [])] },
      dataZoom: [
        { type: "inside", xAxisIndex: [0, 1], filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, preventDefaultMouseMove: false, minValueSpan: Math.min(total, 20), ...zoom },
        {
          type: "slider", xAxisIndex: [0, 1], filterMode: "none", bottom: 10, height: 20, showDataShadow: false, brushSelect: false, minValueSpan: Math.min(total, 20), ...zoom,
          borderColor: theme.line, fillerColor: theme.grid, handleStyle: { color: theme.surface, borderColor: theme.soft }, moveHandleStyle: { color: theme.line },
          textStyle: axisText(), labelFormatter: (us) => tick(us, total), backgroundColor: "transparent",
        },
      ],
      series: [
        { id: "bars", type: "custom", xAxisIndex: 0, yAxisIndex: 0, data: [[0, 0]], renderItem: drawBars, clip: false, silent: true, animation: false },
        line("running", running, { color: theme.ink }, { color: theme.ink, opacity: 0.1 }),
        line("queued", queued, { color: theme.accent, type: [5, 3] }),
        ...(run.maxWorkers ? [line("workers", [[0, run.maxWorkers], [total, run.maxWorkers]], { color: theme.soft, type: "dotted", width: 1 })] : []),
      ],
    };
  }

  let zoomed = { start: 0, end: 100 }; // as of the last event: to ask the chart for it copies all of its data
  const view = () => zoomed;
  function followZoom(event) {
    const { start, end: stop } = event.batch ? event.batch[0] : event;
    zoomed = { start, end: stop };
    redrawOverlay();
  }
  function span() {
    const { start, end: stop } = view();
    return (total * (stop - start)) / 100;
  }
  function zoomTo(from, to) {
    const least = Math.min(total, 20);
    let width = Math.min(Math.max(to - from, least), total);
    let start = Math.min(Math.max((from + to - width) / 2, 0), total - width);
    chart.dispatchAction({ type: "dataZoom", batch: [0, 1].map((dataZoomIndex) => ({ dataZoomIndex, start: (100 * start) / total, end: (100 * (start + width)) / total })) });
  }
  function zoomBy(factor) {
    const { start, end: stop } = view();
    const [from, to] = [(start * total) / 100, (stop * total) / 100];
    const middle = selected >= 0 && ran(selected) ? Math.min(Math.max((n.start[selected] + end(selected)) / 2, from), to) : (from + to) / 2;
    zoomTo(middle - ((middle - from) * factor), middle + ((to - middle) * factor));
  }

  // Outline, queue wait and arrows of the node that is pointed at or chosen; on a canvas of their own.

  const MOST_ARROWS = 60;

  function redrawOverlay() {
    const zr = chart.getZr();
    overlays.forEach((shape) => zr.remove(shape));
    overlays = [];
    for (const i of new Set([selected, hovered])) if (i >= 0 && ran(i)) overlay(zr, i, i === selected);
  }

  function overlay(zr, i, strong) {
    const place = (us, row) => chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [us, row]);
    const [areaLeft, areaRight] = [left, chart.getWidth() - 18];
    const clip = new echarts.graphic.Rect({ shape: { x: areaLeft, y: lanesTop, width: areaRight - areaLeft, height: lanesHeight } });
    const group = new echarts.graphic.Group({ silent: true });
    group.setClipPath(clip);
    const add = (shape) => { shape.zlevel = 5; shape.silent = true; group.add(shape); };
    const half = bar / 2;
    const box = (node) => {
      const [x0, y] = place(n.start[node], n.row[node] + 1);
      const [x1] = place(end(node), n.row[node] + 1);
      return { x0, x1: Math.max(x1, x0 + 1), y: y - rowHeight / 2 + above + half };
    };
    const me = box(i);
    if (n.queue[i] > 0) {
      const [x] = place(n.start[i] - n.queue[i], 0);
      add(new echarts.graphic.Line({ shape: { x1: x, y1: me.y, x2: me.x0, y2: me.y }, style: { stroke: theme.accent, lineWidth: 2, lineDash: [3, 3] } }));
    }
    if (elsewhere(i)) {
      for (const [s, started, ended] of thinPieces(i)) {
        const [[x0], [x1]] = [place(started, 0), place(ended, 0)];
        add(new Rects({ shape: { list: [x0, me.y - thin / 2, x1 - x0, thin] }, style: thinLook(s) }));
      }
    }
    add(new echarts.graphic.Rect({ shape: { x: me.x0 - 1.5, y: me.y - half - 1.5, width: me.x1 - me.x0 + 3, height: 2 * half + 3, r: 2 }, style: { fill: "none", stroke: theme.accent, lineWidth: strong ? 3 : 2 } }));
    const arrows = [
      ...n.upstream[i].filter(ran).slice(0, MOST_ARROWS).map((from) => [from, i, true]),
      ...(strong ? downstream[i].filter(ran).slice(0, MOST_ARROWS).map((to) => [i, to, false]) : []),
    ];
    for (const [from, to, incoming] of arrows) {
      const [a, b] = [box(from), box(to)];
      const bend = Math.min(Math.max((b.x0 - a.x1) / 2, 14), 70);
      const style = { stroke: incoming ? theme.accent : theme.soft, lineWidth: incoming ? 1.8 : 1.3, fill: "none", lineDash: incoming ? null : [4, 3] };
      add(new echarts.graphic.BezierCurve({ shape: { x1: a.x1, y1: a.y, x2: b.x0 - 4, y2: b.y, cpx1: a.x1 + bend, cpy1: a.y, cpx2: b.x0 - bend, cpy2: b.y }, style }));
      add(new echarts.graphic.Polygon({ shape: { points: [[b.x0, b.y], [b.x0 - 7, b.y - 4], [b.x0 - 7, b.y + 4]] }, style: { fill: style.stroke } }));
    }
    zr.add(group);
    overlays.push(group);
  }

  // Pointing

  const NEAR = 16;

  function hit(x, y) {
    if (!chart.containPixel({ gridIndex: 0 }, [x, y])) return null;
    const [at, row] = chart.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
    const tolerance = (span() / (chart.getWidth() - left - 18)) * 3;
    if (row === PATH_ROW) {
      const step = path.find((each) => at >= each[3] && at <= each[4]);
      return step ? { step } : null;
    }
    const members = inRow[row] || [];
    let [low, high] = [0, members.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (barStart[members[middle]] <= at) low = middle + 1;
      else high = middle;
    }
    let best = null;
    for (const k of [low - 1, low]) {
      const i = members[k];
      if (i === undefined) continue;
      const away = Math.max(barStart[i] - at, at - barEnd[i], 0);
      if (away <= tolerance && (best === null || away < best.away)) best = { i, away };
    }
    if (best) return { node: best.i };
    // Beside all bars: of the next ones to either side, one whose own time it is.
    const near = members.slice(Math.max(0, low - NEAR), low).reverse().concat(members.slice(low, low + NEAR));
    const whose = near.find((i) => n.start[i] <= at && at <= end(i));
    return whose === undefined ? null : { node: whose };
  }

  const tip = element("div", "", { class: "tip", role: "presentation" });
  tip.hidden = true;
  document.body.append(tip);

  function showTip(event, title, lines) {
    tip.replaceChildren(element("b", cut(title, 160)), ...lines.map((line) => element("div", line)));
    tip.hidden = false;
    const { clientX: x, clientY: y } = event;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, x + 14 + width > innerWidth ? x - width - 14 : x + 14)}px`;
    tip.style.top = `${Math.max(4, y + 14 + height > innerHeight ? y - height - 14 : y + 14)}px`;
  }

  function facts(i) {
    const lines = [];
    if (ran(i)) {
      lines.push(`ran ${time(n.duration[i])}, from ${time(n.start[i])}`);
      lines.push(`queue wait ${time(n.queue[i])}, waited for inputs ${time(n.dependency[i])}`);
      const split = n.states[i];
      lines.push(split ? split.map((us, s) => [us, s]).filter(([us]) => us > 0).sort((a, b) => b[0] - a[0]).map(([us, s]) => `${states[s].label} ${time(us)}`).join(", ") : "states not recorded");
    }
    lines.push(...movedFacts(i).map(([what, said]) => `${what} ${said}`));
    if (n.critical[i]) lines.push("on the critical path");
    else if (n.slack[i] !== null) lines.push(`slack ${time(n.slack[i])}`);
    if (n.outcome[i]) lines.push(`${outcomes[n.outcome[i]].replace("_", " ")}${n.error[i] ? `: ${n.error[i]}` : ""}`);
    return lines;
  }

  /** What, and how it was: of a node that was moved. */
  function movedFacts(i) {
    const { sent, received, before, queue, after } = moved.get(i) || {};
    const there = [];
    if (elsewhere(i)) {
      const first = [...(before ? [`transfer ${time(before)}`] : []), ...(queue ? [`remote_queue ${time(queue)}`] : [])];
      there.push(["function", `${time(barEnd[i] - barStart[i])}, from ${time(barStart[i])}`]);
      if (first.length) there.push(["before it", first.join(" and ") + (first.length > 1 ? ", in whatever order" : "")]);
      if (after) there.push(["after it", `transfer ${time(after)}`]);
    }
    return [...there, ...(sent ? [["sent", bytes(sent)]] : []), ...(received ? [["received", bytes(received)]] : [])];
  }

  function stepFacts([kind, name, , started, ended, behind]) {
    const long = `${time(ended - started)}, ${share(ended - started, total)} of the run`;
    if (kind === "node") return [name, ["on the critical path", long]];
    if (kind === "queue") return [name, [`queued${behind ? ` (worker busy with ${behind})` : ""}`, long]];
    if (kind === "dependency") return [name, ["waited for inputs that are not in the record", long]];
    return ["outside of nodes", [long]];
  }

  function hover(event) {
    const { offsetX: x, offsetY: y } = event;
    const found = hit(x, y);
    const now = found && found.node !== undefined ? found.node : -1;
    if (now !== hovered) {
      hovered = now;
      redrawOverlay();
    }
    chart.getZr().setCursorStyle(found ? "pointer" : "default");
    const pointer = event.event;
    if (found && found.step) showTip(pointer, ...stepFacts(found.step));
    else if (found) showTip(pointer, label(found.node), facts(found.node));
    else if (chart.containPixel({ gridIndex: 1 }, [x, y])) {
      const at = chart.convertFromPixel({ xAxisIndex: 1, yAxisIndex: 1 }, [x, y])[0];
      showTip(pointer, `at ${time(Math.round(at))}`, [`${plural(before(running, at)[1], "node")} running`, `${plural(before(queued, at)[1], "node")} queued`]);
    } else tip.hidden = true;
  }

  // Choosing a node: its bar, its row in the table, its details.

  function select(i, { reveal = false } = {}) {
    selected = i;
    hovered = -1;
    tip.hidden = true;
    if (chart) {
      if (reveal && i >= 0 && ran(i)) {
        const { start, end: stop } = view();
        const [from, to] = [(start * total) / 100, (stop * total) / 100];
        if (n.start[i] < from || end(i) > to) {
          const half = Math.max((to - from) / 2, n.duration[i]);
          const middle = (n.start[i] + end(i)) / 2;
          zoomTo(middle - half, middle + half);
        }
        const y = lanesTop + (n.row[i] + 1) * rowHeight;
        const box = document.querySelector(".timeline-box");
        if (y < box.scrollTop || y > box.scrollTop + box.clientHeight - 60) box.scrollTop = y - box.clientHeight / 2;
      }
      redrawOverlay();
    }
    showDetails(i);
    for (const row of document.querySelectorAll("#nodes tbody tr")) row.classList.toggle("chosen", Number(row.dataset.node) === i);
  }

  function links(title, members) {
    const box = document.createDocumentFragment();
    box.append(element("div", `${title} (${members.length})`, { class: "small" }));
    const list = element("div", null, { class: "links" });
    for (const i of members.slice(0, 24)) {
      const button = element("button", label(i), { type: "button", title: label(i) });
      button.addEventListener("click", () => select(i, { reveal: true }));
      list.append(button);
    }
    if (members.length > 24) list.append(element("span", `and ${members.length - 24} more`, { class: "small" }));
    if (!members.length) list.append(element("span", "none", { class: "small" }));
    box.append(list);
    return box;
  }

  function pairs(entries) {
    const list = element("dl");
    for (const [name, value] of entries) list.append(element("dt", name), element("dd", value));
    return list;
  }

  function showDetails(i) {
    const box = $("details");
    if (!box) return; // no node ran: there is no timeline, and no bar to choose
    if (i < 0) {
      box.replaceChildren(element("p", "Select a bar, or a node in the table below, to see its times, its states and its neighbours.", { class: "hint" }));
      return;
    }
    const columns = element("div", null, { class: "columns" });
    const first = element("div");
    first.append(element("h3", label(i)));
    first.append(pairs([
      ...(n.outcome[i] ? [["outcome", outcomes[n.outcome[i]].replace("_", " ") + (n.error[i] ? `: ${n.error[i]}` : "")]] : []),
      ...(n.cause[i] ? [["failed upstream", n.cause[i]]] : []),
      ...(ran(i) ? [
        ["worker", rows[n.row[i]].worker || "not recorded"],
        ["start", `${time(n.start[i])} into the run`],
        ["duration", time(n.duration[i])],
        ["queue wait", time(n.queue[i])],
        ["waited for inputs", time(n.dependency[i])],
        ...movedFacts(i),
        ["slack", n.slack[i] === null ? "unknown" : n.critical[i] ? `${time(n.slack[i])}, on the critical path` : time(n.slack[i])],
      ] : [["ran", "never"]]),
    ]));
    const second = element("div");
    const split = n.states[i];
    if (split) {
      second.append(element("div", `Its time by state${n.samples[i] ? `, from ${plural(n.samples[i], "sample")}${n.samples[i] < 200 ? " (approximate)" : ""}` : ""}`, { class: "small" }));
      second.append(bands(split, n.duration[i]));
      second.append(pairs(split.map((us, s) => [us, s]).filter(([us]) => us > 0).map(([us, s]) => [states[s].label, `${time(us)}, ${share(us, n.duration[i])}`])));
    } else if (ran(i)) second.append(element("div", "Its states were not recorded.", { class: "small" }));
    const third = element("div");
    third.append(links("Upstream", n.upstream[i]), links("Downstream", downstream[i]));
    columns.append(first, second, third);
    box.replaceChildren(columns);
  }

  function bands(split, whole) {
    const svgElement = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      return made;
    };
    const svg = svgElement("svg", { class: "shares", "aria-hidden": "true" });
    let from = 0;
    split.forEach((us, s) => {
      if (!us) return;
      const wide = (100 * us) / Math.max(whole, 1);
      svg.append(svgElement("rect", { x: `${from}%`, width: `${wide}%`, height: "100%", class: `state-${states[s].id}` }));
      from += wide;
    });
    return svg;
  }

  // Keys on the timeline: the same as the pointer.

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    const longest = () => inRow.flat().reduce((best, i) => (best < 0 || n.duration[i] > n.duration[best] ? i : best), -1);
    if (key === "+" || key === "=") zoomBy(0.5);
    else if (key === "-") zoomBy(2);
    else if (key === "0") zoomTo(0, total);
    else if (key === "Escape") select(-1);
    else if (key.startsWith("Arrow")) {
      if (selected < 0 || !ran(selected)) select(longest(), { reveal: true });
      else if (key === "ArrowLeft" || key === "ArrowRight") {
        const members = inRow[n.row[selected] + 1];
        const next = members[members.indexOf(selected) + (key === "ArrowRight" ? 1 : -1)];
        if (next !== undefined) select(next, { reveal: true });
      } else {
        const by = key === "ArrowDown" ? 1 : -1;
        for (let row = n.row[selected] + 1 + by; row > PATH_ROW && row < inRow.length; row += by) {
          if (!inRow[row].length) continue;
          const middle = (n.start[selected] + end(selected)) / 2;
          const away = (i) => Math.max(n.start[i] - middle, middle - end(i), 0);
          select(inRow[row].reduce((best, i) => (away(i) < away(best) ? i : best)), { reveal: true });
          break;
        }
      }
      $("spoken").textContent = selected >= 0 ? `${label(selected)}: ${facts(selected).join("; ")}` : "";
    } else return;
    event.preventDefault();
  }

  // Time by state for the names that took most, and makespan by workers.

  let namesChart = null;
  let curveChart = null;

  function tooltip() {
    return { trigger: "axis", confine: true, renderMode: "html", backgroundColor: theme.surface, borderColor: theme.soft, textStyle: { color: theme.ink, fontSize: 12.5 }, axisPointer: { type: "shadow", shadowStyle: { color: theme.grid, opacity: 0.6 } } };
  }
  function tipBox(title, lines) {
    const box = element("div");
    box.append(element("b", title), ...lines.map((line) => element("div", line)));
    box.style.whiteSpace = "normal";
    box.style.maxWidth = "320px";
    return box;
  }

  function namesOption() {
    const known = states.map((state, s) => s).filter((s) => byName.some((each) => each.states && each.states[s] > 0));
    const most = Math.max(...byName.map((each) => each.duration));
    const series = known.length
      ? known.map((s) => ({ name: states[s].label, type: "bar", stack: "time", barMaxWidth: 18, data: byName.map((each) => (each.states ? each.states[s] : 0)), itemStyle: { color: theme.states[s] } }))
      : [];
    const rest = byName.map((each) => (each.states ? Math.max(0, each.duration - each.states.reduce((a, b) => a + b, 0)) : each.duration));
    if (rest.some((us) => us > 0)) series.push({ name: "not recorded", type: "bar", stack: "time", barMaxWidth: 18, data: rest, itemStyle: { color: theme.plain } });
    return {
      animation: false,
      grid: { left: 168, right: 62, top: 6, bottom: 26 },
      tooltip: {
        ...tooltip(),
        formatter: ([{ dataIndex }]) => {
          const each = byName[dataIndex];
          const split = (each.states || []).map((us, s) => [us, s]).filter(([us]) => us > 0).sort((a, b) => b[0] - a[0]);
          return tipBox(cut(each.name, 160), [
            `${time(each.duration)} in ${plural(each.executions, "execution")}`,
            ...split.map(([us, s]) => `${states[s].label}: ${time(us)}, ${share(us, each.duration)}`),
            ...(each.critical ? [`${time(each.critical)} of it on the critical path`] : []),
          ]);
        },
      },
      xAxis: { type: "value", splitNumber: 4, max: most * 1.02, axisLabel: { ...axisText(), hideOverlap: true, showMaxLabel: false, formatter: (us) => tick(us, most) }, splitLine: { lineStyle: { color: theme.grid } } },
      yAxis: {
        type: "category", inverse: true, data: byName.map((each, k) => String(k)), axisTick: { show: false }, axisLine: { lineStyle: { color: theme.line } },
        axisLabel: { ...axisText(), color: theme.ink, interval: 0, width: 156, overflow: "truncate", formatter: (k) => cut(byName[k].name, 60) },
      },
      series: series.map((one, k) => (k === series.length - 1
        ? { ...one, label: { show: true, position: "right", ...axisText(), formatter: ({ dataIndex }) => time(byName[dataIndex].duration) } }
        : one)),
    };
  }

  function curveOption() {
    const points = scaling.points;
    const longest = Math.max(...points.map((point) => point[1]));
    const lines = [];
    if (scaling.now) lines.push({ xAxis: scaling.now, label: { formatter: `now: ${scaling.now}`, position: "end", ...axisText() } });
    return {
      animation: false,
      grid: { left: 64, right: 28, top: 26, bottom: 44 },
      tooltip: {
        ...tooltip(), axisPointer: { type: "line", lineStyle: { color: theme.soft } },
        formatter: ([{ dataIndex }]) => {
          const [workers, makespan, limit] = points[dataIndex];
          return tipBox(plural(workers, "worker"), [`${time(makespan)} predicted`, ...(limit ? [`limited by ${limit}`] : [])]);
        },
      },
      xAxis: { type: "log", logBase: 2, min: points[0][0], max: points[points.length - 1][0], name: "workers", nameLocation: "middle", nameGap: 28, nameTextStyle: axisText(), axisLabel: axisText(), axisLine: { lineStyle: { color: theme.line } }, splitLine: { lineStyle: { color: theme.grid } } },
      yAxis: { type: "value", min: 0, max: longest * 1.05, splitNumber: 4, axisLabel: { ...axisText(), showMaxLabel: false, formatter: (us) => tick(us, longest) }, splitLine: { lineStyle: { color: theme.grid } } },
      series: [{
        type: "line", data: points, symbol: "circle", symbolSize: points.length > 24 ? 4 : 6, showAllSymbol: true, lineStyle: { color: theme.ink, width: 1.8 }, itemStyle: { color: theme.ink },
        markLine: { silent: true, symbol: "none", lineStyle: { color: theme.accent, type: "dashed", width: 1.5 }, data: lines },
      }],
    };
  }

  // The table of nodes: filtered and sorted as arrays, shown a page at a time.

  const PAGE = 100;
  const table = { order: Array.from({ length: count }, (_, i) => i), shown: [], page: 0, key: "start", up: true };
  const searchable = n.name.map((name, i) => `${name} ${n.task[i] || ""} ${ran(i) ? rows[n.row[i]].worker : ""}`.toLowerCase());
  const columns = {
    name: (i) => n.name[i], worker: (i) => (ran(i) ? n.row[i] : -1), start: (i) => n.start[i], duration: (i) => n.duration[i], queue: (i) => n.queue[i],
    dependency: (i) => n.dependency[i], state: (i) => strongest(i), slack: (i) => (n.slack[i] === null ? -1 : n.slack[i]), critical: (i) => -n.critical[i], outcome: (i) => n.outcome[i],
  };

  function sort() {
    const value = columns[table.key];
    const keys = Array.from({ length: count }, (_, i) => value(i));
    const sign = table.up ? 1 : -1;
    table.order.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      return (x < y ? -1 : x > y ? 1 : 0) * sign || a - b;
    });
  }

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = $("only").value;
    table.shown = table.order.filter((i) =>
      (only === "all" || (only === "critical" ? n.critical[i] : only === "failed" ? n.outcome[i] > 0 : n.queue[i] > 0)) && words.every((word) => searchable[i].includes(word)));
    table.page = 0;
    render();
  }

  function cell(text, kind) {
    return element("td", text, kind ? { class: kind } : {});
  }

  function render() {
    const pages = Math.max(1, Math.ceil(table.shown.length / PAGE));
    table.page = Math.min(Math.max(table.page, 0), pages - 1);
    const from = table.page * PAGE;
    const body = document.createDocumentFragment();
    for (const i of table.shown.slice(from, from + PAGE)) {
      const row = element("tr", null, { "data-node": i, class: i === selected ? "chosen" : "" });
      const name = cell(null, "name");
      const button = element("button", label(i), { type: "button", title: label(i), "data-node": i });
      name.append(button);
      const known = ran(i);
      const state = cell(null, "nowrap");
      if (n.states[i]) state.append(bands(n.states[i], n.duration[i]), ` ${strongest(i)}`);
      else state.textContent = known ? "not recorded" : "";
      row.append(
        name, cell(known ? rows[n.row[i]].worker : "", "nowrap"), cell(known ? time(n.start[i]) : "", "number"), cell(known ? time(n.duration[i]) : "", "number"),
        cell(known ? time(n.queue[i]) : "", "number"), cell(time(n.dependency[i]), "number"), state, cell(n.slack[i] === null ? "" : time(n.slack[i]), "number"),
        cell(n.critical[i] ? "yes" : "", ""), cell(outcomes[n.outcome[i]].replace("_", " "), n.outcome[i] ? "error nowrap" : "nowrap"));
      body.append(row);
    }
    if (!table.shown.length) {
      const row = element("tr");
      row.append(element("td", count ? "No node matches." : "The record holds no node.", { colspan: 10, class: "empty" }));
      body.append(row);
    }
    document.querySelector("#nodes tbody").replaceChildren(body);
    $("matches").textContent = table.shown.length === count ? plural(count, "node") : `${table.shown.length.toLocaleString("en")} of ${plural(count, "node")}`;
    $("pager").hidden = pages === 1;
    $("page").textContent = `${(from + 1).toLocaleString("en")} to ${Math.min(from + PAGE, table.shown.length).toLocaleString("en")}`;
    $("previous").disabled = table.page === 0;
    $("next").disabled = table.page === pages - 1;
  }

  for (const heading of document.querySelectorAll("#nodes thead th")) {
    const key = heading.dataset.key;
    heading.firstElementChild.addEventListener("click", () => {
      // Numbers begin with the greatest, names with the first.
      table.up = table.key === key ? !table.up : ["name", "worker", "start", "state"].includes(key);
      table.key = key;
      for (const other of document.querySelectorAll("#nodes thead th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", table.up ? "ascending" : "descending");
      sort();
      filter();
    });
  }
  $("search").addEventListener("input", filter);
  $("only").addEventListener("change", filter);
  $("previous").addEventListener("click", () => { table.page -= 1; render(); });
  $("next").addEventListener("click", () => { table.page += 1; render(); });
  document.querySelector("#nodes tbody").addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-node]");
    if (row) select(Number(row.dataset.node), { reveal: true });
  });

  // Theme, size, start.

  function draw() {
    readTheme();
    if (chart) chart.setOption(timelineOption(view()), { notMerge: true });
    if (namesChart) namesChart.setOption(namesOption(), { notMerge: true });
    if (curveChart) curveChart.setOption(curveOption(), { notMerge: true });
    if (chart) redrawOverlay();
  }

  if ($("timeline")) {
    $("timeline").style.height = `${chartHeight}px`;
    chart = echarts.init($("timeline"), null, { renderer: "canvas" });
    const zr = chart.getZr();
    zr.on("mousemove", hover);
    zr.on("globalout", () => { hovered = -1; tip.hidden = true; redrawOverlay(); });
    zr.on("click", (event) => {
      const found = hit(event.offsetX, event.offsetY);
      if (found && found.node !== undefined) select(found.node);
      else if (found && found.step[2] >= 0) select(found.step[2]);
      else if (chart.containPixel({ gridIndex: 0 }, [event.offsetX, event.offsetY])) select(-1);
    });
    chart.on("datazoom", followZoom);
    $("timeline").addEventListener("keydown", onKey);
    $("zoom-in").addEventListener("click", () => zoomBy(0.5));
    $("zoom-out").addEventListener("click", () => zoomBy(2));
    $("zoom-all").addEventListener("click", () => zoomTo(0, total));
  }
  if ($("names")) namesChart = echarts.init($("names"), null, { renderer: "canvas" });
  if ($("curve")) curveChart = echarts.init($("curve"), null, { renderer: "canvas" });
  const resizing = new ResizeObserver(() => {
    for (const one of [chart, namesChart, curveChart]) if (one) one.resize();
    if (chart) redrawOverlay();
  });
  for (const id of ["timeline", "names", "curve"]) if ($(id)) resizing.observe($(id));

  followTheme(draw);
  showDetails(-1);
  sort();
  filter();

  function placeAt(i, us) {
    const [x, y] = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [us, n.row[i] + 1]);
    const box = $("timeline").getBoundingClientRect();
    return { x: box.x + x, y: box.y + y };
  }

  // For those who drive the page from outside, as tests do: where a node's bar is, what is chosen, from where to where arrows go.
  Object.defineProperty(window, "tracedThreadpool", {
    value: Object.freeze({
      find: (name) => n.name.indexOf(name),
      place: (i) => placeAt(i, (barStart[i] + barEnd[i]) / 2),
      at: placeAt,
      get thin() { return selected < 0 || !elsewhere(selected) ? [] : thinPieces(selected).map(([s, from, to]) => [states[s].id, from, to]); },
      get selected() { return selected < 0 ? null : n.name[selected]; },
      get hovered() { return hovered < 0 ? null : n.name[hovered]; },
      get arrows() { return overlays.flatMap((group) => group.children()).filter((child) => child.type === "bezier-curve").map(({ shape }) => [shape.x1, shape.y1, shape.x2, shape.y2]); },
    }),
  });
})();
