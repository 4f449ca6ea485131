"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const EVERY = 1000;
  const SHOWN = 200; // rows of a table, names of a list
  let paused = false;
  let opener = null;

  // Text goes into the page by textContent, never as markup.

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  /** Sets what differs alone: nothing flickers, selections and focus stay. */
  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }
  function mark(node, className) {
    if (node.className !== className) node.className = className;
  }
  function show(node, on) {
    if (node.hidden === on) node.hidden = !on;
  }

  function time(s) {
    if (s === null || s === undefined) return "";
    if (s >= 119.5) {
      const whole = Math.round(s);
      const minutes = Math.floor(whole / 60);
      return whole >= 3600 ? `${Math.floor(whole / 3600)} h ${minutes % 60} min` : `${minutes} min ${whole % 60} s`;
    }
    if (s >= 9.95) return `${s.toFixed(0)} s`;
    if (s >= 0.9995) return `${s.toFixed(1)} s`;
    return `${Math.round(s * 1000)} ms`;
  }
  const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  const label = (node) => (node.task_id ? `${node.name} [${node.task_id}]` : node.name);

  /** Children of `parent`, one for each of `items`, kept by key in the items' order; a key may come several times. */
  function keep(parent, items, keyOf, make, update) {
    const known = new Map([...parent.children].map((child) => [child.key, child]));
    const times = new Map();
    let place = parent.firstElementChild;
    for (const item of items) {
      const plain = keyOf(item);
      const time = times.get(plain) ?? 0;
      times.set(plain, time + 1);
      const key = `${time} ${plain}`;
      let child = known.get(key);
      if (child) known.delete(key);
      else {
        child = make(item);
        child.key = key;
      }
      if (child === place) place = place.nextElementSibling;
      else parent.insertBefore(child, place);
      update(child, item);
    }
    for (const child of known.values()) child.remove();
  }

  function makePool() {
    const made = element("section", "pool");
    const header = element("header");
    made.title_ = element("h2");
    made.note = element("span", "soft");
    header.append(made.title_, made.note);
    made.lanes = element("ul", "lanes");
    made.lanes.setAttribute("aria-label", "Lanes");
    made.runs = element("div");
    made.idle = element("p", "soft", "No run is in progress.");
    made.append(header, made.lanes, made.runs, made.idle);
    return made;
  }
  function updatePool(made, pool) {
    say(made.title_, pool.pool);
    say(made.note, `process ${pool.pid}${pool.closed ? ", closed" : ""}`);
    keep(made.lanes, pool.lanes, (lane) => lane.name, () => element("li"), (item, lane) => {
      const wait = lane.queued ? `, oldest for ${time(lane.oldest_queued_seconds)}` : "";
      say(item, `${lane.name}: ${lane.active} of ${lane.limit} busy, ${lane.queued} queued${wait}`);
    });
    keep(made.runs, pool.runs, (run) => run.id, makeRun, (item, run) => updateRun(item, run, pool.at));
    show(made.idle, !pool.runs.length);
  }

  const KINDS = ["done", "failed", "skipped", "running", "queued", "blocked"];
  function makeRun() {
    const made = element("article", "run");
    const header = element("header");
    made.title_ = element("h3");
    made.since = element("span", "soft small");
    made.end = element("span", "end");
    header.append(made.title_, made.since, made.end);
    made.bar = element("div", "bar");
    made.bar.setAttribute("role", "img");
    made.parts = Object.fromEntries(KINDS.map((kind) => [kind, element("span", kind)]));
    made.bar.append(...Object.values(made.parts));
    made.key_ = element("ul", "key");
    made.counts = {};
    made.kinds = {};
    for (const kind of KINDS) {
      const item = element("li");
      made.kinds[kind] = item;
      made.counts[kind] = element("span");
      item.append(element("i", kind), made.counts[kind]);
      made.key_.append(item);
    }
    made.failedNames = element("p", "late");
    made.chain = element("p", "soft");
    made.table = element("table");
    const head = element("tr");
    for (const [text, className] of [["Running node", ""], ["for", "number"], ["usually", "number optional"],
      ["does", ""], ["worker", "optional"], ["stack", ""]]) {
      const cell = element("th", className, text);
      cell.scope = "col";
      head.append(cell);
    }
    const thead = element("thead");
    thead.append(head);
    made.rows = element("tbody");
    made.table.append(thead, made.rows);
    const scroll = element("div", "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Running nodes");
    scroll.append(made.table);
    made.scroll_ = scroll;
    made.graph = element("details");
    made.graph.append(element("summary", "", "Picture of the DAG"));
    made.canvas = element("canvas");
    made.canvas.setAttribute("role", "img");
    made.under = element("p", "soft", "Point at a node for its name.");
    for (const kind of ["pointermove", "pointerdown"])
      made.canvas.addEventListener(kind, (event) => pointAt(made, event));
    made.graph.append(made.canvas, made.under);
    made.queued = list("Queued");
    made.blocked = list("Blocked");
    made.append(header, made.bar, made.key_, made.failedNames, made.chain, scroll, made.graph, made.queued, made.blocked);
    return made;
  }
  function list(title) {
    const made = element("details");
    made.title_ = title;
    made.summary = element("summary");
    made.items = element("ul");
    made.append(made.summary, made.items);
    return made;
  }

  function endText(run) {
    const end = run.predicted_end;
    if (end.seconds === null) return `End not predicted: ${end.reason}`;
    const at = new Date(end.at * 1000).toLocaleTimeString();
    return `${time(end.seconds)} left (${time(end.earliest_seconds)} to ${time(end.latest_seconds)}), until ${at}`;
  }

  function updateRun(made, run, at) {
    say(made.title_, run.name);
    say(made.since, `for ${time(run.elapsed_seconds)}, id ${run.id}`);
    say(made.end, endText(run));
    mark(made.end, run.predicted_end.seconds === null ? "soft" : "end");
    const counts = {
      done: run.done - run.failed - run.skipped,
      failed: run.failed,
      skipped: run.skipped,
      running: run.running.length,
      queued: run.queued.length,
      blocked: run.blocked.length,
    };
    const known = Math.max(run.planned ?? 0, run.done + counts.running + counts.queued + counts.blocked, 1);
    for (const kind of KINDS) {
      const width = `${(100 * Math.max(0, counts[kind])) / known}%`;
      if (made.parts[kind].style.width !== width) made.parts[kind].style.width = width;
      show(made.kinds[kind], counts[kind] > 0 || !["failed", "skipped"].includes(kind));
      say(made.counts[kind], `${Math.max(0, counts[kind]).toLocaleString("en")} ${kind}`);
    }
    const of = run.planned === null ? "" : ` of ${plural(run.planned, "node")}`;
    const summary = `${run.done.toLocaleString("en")}${of} done, ${counts.running} running, ` +
      `${counts.queued} queued, ${counts.blocked} blocked`;
    if (made.bar.getAttribute("aria-label") !== summary) made.bar.setAttribute("aria-label", summary);
    show(made.failedNames, run.failed > 0);
    const named = run.failed_names.slice(0, 10);
    const others = run.failed > named.length ? ` and ${(run.failed - named.length).toLocaleString("en")} more` : "";
    say(made.failedNames, `Failed: ${named.join(", ")}${others}`);
    show(made.chain, run.critical_chain.length > 0);
    const chain = run.critical_chain;
    say(made.chain, "The end waits for: " +
      (chain.length > 8 ? [...chain.slice(0, 4), "…", ...chain.slice(-3)] : chain).join(" → "));
    show(made.scroll_, run.running.length > 0);
    keep(made.rows, run.running.slice(0, SHOWN), (node) => `${label(node)} ${node.worker}`, makeRow, updateRow);
    show(made.graph, run.graph !== null || !made.graph.open);
    if (made.graph.open && run.graph) draw(made, run.graph, summary);
    fill(made.queued, run.queued, (node) => `${label(node)}, for ${time(Math.max(0, at - node.since))}`);
    fill(made.blocked, run.blocked, (node) => `${label(node)}, waits for ${node.upstream.join(", ")}`);
  }

  const HIGH = 200; // pixels, of the picture
  const BETWEEN = 0.5; // cells, between one depth and the next
  /** How many cells the depths take beside each other, `high` above one another. */
  const across = (depths, high) =>
    depths.reduce((sum, depth) => sum + Math.ceil(depth.length / high) + BETWEEN, -BETWEEN);
  /** A block of cells for each depth, a cell for each node; the largest cells with which it fits. */
  function draw(made, nodes, summary) {
    const depths = [];
    for (const node of nodes) (depths[node.depth] ??= []).push(node);
    const shown = depths.filter(Boolean);
    const tallest = Math.max(...shown.map((depth) => depth.length), 1);
    const width = made.canvas.clientWidth || 600;
    let size = 18;
    while (size > 2 && across(shown, Math.floor(HIGH / size)) * size > width) size -= 1;
    const high = Math.min(tallest, Math.floor(HIGH / size));
    size = Math.min(size, width / across(shown, high));
    const scale = window.devicePixelRatio || 1;
    let x = 0;
    const places = [];
    for (const depth of shown) {
      depth.forEach((node, index) => places.push([x + Math.floor(index / high), index % high, node]));
      x += Math.ceil(depth.length / high) + BETWEEN;
    }
    const height = Math.ceil(high * size) + 1;
    const canvas = made.canvas;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colours = {};
    for (const kind of [...KINDS, "planned"])
      colours[kind] = style.getPropertyValue(kind === "planned" ? "--blocked" : `--${kind}`).trim();
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const gap = size >= 4 ? 1 : 0;
    for (const [column, row, node] of places) {
      pen.fillStyle = colours[node.state];
      pen.fillRect(column * size, row * size, size - gap, size - gap);
    }
    made.places = places;
    made.size_ = size;
    if (canvas.getAttribute("aria-label") !== summary) canvas.setAttribute("aria-label", summary);
  }
  function pointAt(made, event) {
    const box = made.canvas.getBoundingClientRect();
    const column = (event.clientX - box.left) / made.size_;
    const row = Math.floor((event.clientY - box.top) / made.size_);
    const node = made.places?.find((place) => place[0] <= column && column < place[0] + 1 && place[1] === row)?.[2];
    say(made.under, node ? `${node.name}: ${node.state}` : "Point at a node for its name.");
  }

  function makeRow() {
    const row = element("tr");
    row.cells_ = ["name", "number", "number optional", "", "optional", ""].map((name) => element("td", name));
    row.since_ = element("span");
    row.late_ = element("span");
    row.cells_[1].append(row.since_, " ", row.late_);
    row.button = element("button", "", "Stack");
    row.button.type = "button";
    row.button.addEventListener("click", () => openStack(row));
    row.cells_[5].append(row.button);
    row.append(...row.cells_);
    return row;
  }
  function updateRow(row, node) {
    row.node = node;
    const [name, since, usual, does, worker] = row.cells_;
    say(name, label(node) + (node.backend === "threads" ? "" : ` on ${node.backend}`));
    const late = node.late_seconds > 0;
    say(row.since_, time(node.elapsed_seconds) + (late ? "," : ""));
    say(row.late_, late ? `late by ${time(node.late_seconds)}` : "");
    mark(since, `number${late || node.stalled ? " late" : ""}`);
    say(usual, node.usual
      ? `${time(node.usual.p50_seconds)} to ${time(node.usual.p95_seconds)} (${node.usual.count})` : "not known");
    mark(does, node.stalled ? "late" : "");
    say(does, (node.stalled ? "stalled: " : "") + (node.state ?? "") + (node.on ? ` ${node.on}` : ""));
    say(worker, node.worker);
    row.button.setAttribute("aria-label", `Stack of ${label(node)}`);
  }
  function fill(made, items, text) {
    show(made, items.length > 0);
    say(made.summary, `${made.title_}: ${plural(items.length, "node")}`);
    if (!made.open) return;
    const shown = items.slice(0, SHOWN).map(text);
    if (items.length > SHOWN) shown.push(`and ${(items.length - SHOWN).toLocaleString("en")} more`);
    keep(made.items, shown.map((each, index) => [index, each]), (each) => each[0], () => element("li"),
      (item, each) => say(item, each[1]));
  }

  // The stack of one node, asked for when somebody wants it.

  async function openStack(row) {
    const wanted = row.node;
    opener = row.button;
    say($("stack-title"), `Stack of ${label(wanted)}`);
    say($("stack-note"), "Asking…");
    say($("stack-text"), "");
    $("stack").showModal();
    try {
      const document_ = await ask("&stacks=1");
      const off = (node) => Math.abs(node.since - wanted.since);
      const [found] = document_.pools.flatMap((pool) => pool.runs).flatMap((run) => run.running)
        .filter((node) => label(node) === label(wanted) && node.worker === wanted.worker && off(node) < 0.5)
        .sort((one, other) => off(one) - off(other));
      if (!found) say($("stack-note"), "It has ended meanwhile.");
      else if (!found.stack) say($("stack-note"), "There is no stack to be read from this process.");
      else {
        const on = found.on ? ` ${found.on}` : "";
        say($("stack-note"), `${found.worker}, ${found.state ?? "state unknown"}${on}, for ${time(found.elapsed_seconds)}`);
        say($("stack-text"), found.stack.join("\n"));
      }
    } catch (error) {
      say($("stack-note"), `No answer: ${error.message}`);
    }
  }
  $("stack-close").addEventListener("click", () => $("stack").close());
  $("stack").addEventListener("close", () => opener?.isConnected && opener.focus());

  async function ask(more = "") {
    const answer = await fetch(`${location.pathname}?format=json${more}`, {
      cache: "no-store", signal: AbortSignal.timeout(10000),
    });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  }

  let lastGood = 0;
  async function tick() {
    if (!paused && !document.hidden) {
      try {
        const live = await ask(document.querySelector(".run details[open] canvas") ? "&graph=1" : "");
        lastGood = Date.now();
        keep($("pools"), live.pools, (pool) => `${pool.pid} ${pool.pool}`, makePool, updatePool);
        const runs = live.pools.reduce((sum, pool) => sum + pool.runs.length, 0);
        say($("status"), live.pools.length ? `${plural(runs, "run")} in progress` : "No adapter is open in this process.");
        say($("age"), "");
        mark($("status"), "");
        mark($("pools"), "");
      } catch (error) {
        // The age changes all the time, so it is beside what a screen reader reads out.
        say($("age"), lastGood ? `What is below is ${time((Date.now() - lastGood) / 1000)} old.` : "");
        say($("status"), "The process does not answer.");
        mark($("status"), "bad");
        mark($("pools"), "gone");
      }
    }
    setTimeout(tick, EVERY);
  }
  $("pause").addEventListener("click", () => {
    paused = !paused;
    say($("pause"), paused ? "Go on" : "Pause");
  });
  tick();
})();
