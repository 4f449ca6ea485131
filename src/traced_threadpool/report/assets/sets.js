(() => {
  const { before, after } = JSON.parse($("data").textContent);
  const chart = echarts.init($("sets-chart"), null, { renderer: "canvas" });

  function option() {
    const [soft, line, grid, ink, surface] = ["soft", "line", "grid", "ink", "surface"].map(colour);
    const axis = { color: soft, fontSize: 12 };
    const series = (name, of, symbol, fill) => ({
      type: "scatter", name, symbol, symbolSize: 7, itemStyle: { color: fill, opacity: 0.8 },
      data: of.runs.map((us, index) => [index + 1, us]),
      markLine: {
        silent: true, symbol: "none", lineStyle: { color: fill, type: "dashed" },
        data: [{ yAxis: of.median, label: { formatter: name, position: "end", ...axis } }],
      },
    });
    return {
      animation: false,
      grid: { left: 70, right: 70, top: 12, bottom: 34 },
      tooltip: {
        trigger: "item", confine: true, renderMode: "html", backgroundColor: surface, borderColor: soft, textStyle: { color: ink, fontSize: 12.5 },
        formatter: ({ data, seriesName }) => element("div", `${seriesName}, ${data[0].toLocaleString("en")}: ${time(data[1])}`),
      },
      xAxis: { type: "value", min: 1, minInterval: 1, axisLabel: axis, axisLine: { lineStyle: { color: line } }, splitLine: { show: false } },
      yAxis: {
        type: "value", min: 0, max: Math.max(...before.runs, ...after.runs) * 1.05,
        axisLabel: { ...axis, showMaxLabel: false, formatter: time }, splitLine: { lineStyle: { color: grid } },
      },
      series: [series("before", before, "circle", colour("plain")), series("after", after, "triangle", ink)],
    };
  }

  new ResizeObserver(() => chart.resize()).observe($("sets-chart"));
  followTheme(() => chart.setOption(option(), { notMerge: true }));
})();
