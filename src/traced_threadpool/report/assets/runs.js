(() => {
  const { runs, lines, texts } = JSON.parse($("data").textContent);
  const MOST = 500;

  // The list: rows are made of what is shown alone.

  const order = runs.map((_, index) => index);
  let sortedBy = 1;
  let up = true;
  const searchable = runs.map((run) => run.cells.join(" ").toLowerCase());

  function list() {
    const words = $("search").value.toLowerCase().trim();
    const only = $("only").value;
    const sign = up ? 1 : -1;
    order.sort((a, b) => {
      const [one, other] = [runs[a].keys[sortedBy], runs[b].keys[sortedBy]];
      return (one < other ? -sign : one > other ? sign : 0) || a - b;
    });
    const found = order.filter((index) => (only === "all" || runs[index].kind === only) && searchable[index].includes(words));
    const shown = found.slice(0, MOST);
    $("matches").textContent = found.length > MOST ? `the first ${MOST} of ${found.length.toLocaleString("en")}` : `${found.length.toLocaleString("en")} runs`;
    document.querySelector("#runs tbody").replaceChildren(...shown.map((index) => {
      const row = element("tr", null, { "data-run": index });
      row.append(...runs[index].cells.map((text, at) => element("td", text, { class: texts.includes(at) ? "name" : "number" })));
      return row;
    }));
  }

  for (const [at, heading] of document.querySelectorAll("#runs th").entries()) {
    heading.querySelector("button").addEventListener("click", () => {
      up = sortedBy === at ? !up : texts.includes(at) || at < 2;
      sortedBy = at;
      for (const each of document.querySelectorAll("#runs th")) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      list();
    });
  }
  $("search").addEventListener("input", list);
  $("only").addEventListener("change", list);

  // The chart.

  const chart = echarts.init($("runs-chart"), null, { renderer: "canvas" });

  function option() {
    const [soft, line, grid, ink, surface] = ["soft", "line", "grid", "ink", "surface"].map(colour);
    const axis = { color: soft, fontSize: 12 };
    const longest = Math.max(...runs.map((run) => run.duration));
    const series = (kind, symbol, fill, more = {}) => ({
      type: "scatter", name: kind, symbol, symbolSize: kind === "all" ? 6 : 9, itemStyle: { color: fill, opacity: kind === "all" ? 0.7 : 1 },
      data: runs.flatMap((run, index) => (run.kind === kind ? [[run.started, run.duration, index]] : [])), ...more,
    });
    return {
      animation: false,
      grid: { left: 70, right: 70, top: 12, bottom: 34 },
      tooltip: {
        trigger: "item", confine: true, renderMode: "html", backgroundColor: surface, borderColor: soft, textStyle: { color: ink, fontSize: 12.5 },
        formatter: ({ data }) => {
          const run = runs[data[2]];
          const box = element("div");
          box.append(element("b", `run ${run.cells[0]}: ${run.cells[2]}`), element("div", run.cells[4]), element("div", run.cells[6]));
          return box;
        },
      },
      xAxis: { type: "time", axisLabel: { ...axis, hideOverlap: true }, axisLine: { lineStyle: { color: line } }, splitLine: { show: false } },
      yAxis: { type: "value", min: 0, max: longest * 1.05, axisLabel: { ...axis, showMaxLabel: false, formatter: time }, splitLine: { lineStyle: { color: grid } } },
      series: [
        series("all", "circle", colour("plain"), {
          markLine: {
            silent: true, symbol: "none", lineStyle: { color: colour("accent"), type: "dashed" },
            data: lines.map(([name, us]) => ({ yAxis: us, label: { formatter: name, position: "end", ...axis } })),
          },
        }),
        series("slow", "triangle", ink),
        series("failed", "path://M1 1L9 9M9 1L1 9", "transparent", { itemStyle: { color: "transparent", borderColor: colour("bad"), borderWidth: 2 } }),
      ],
    };
  }

  chart.on("click", ({ data }) => {
    if (!data) return;
    $("only").value = "all";
    $("search").value = runs[data[2]].cells[8];
    list();
    $("list").scrollIntoView();
  });

  new ResizeObserver(() => chart.resize()).observe($("runs-chart"));
  followTheme(() => chart.setOption(option(), { notMerge: true }));
  list();
})();
