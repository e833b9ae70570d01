// Charts: reads /api/v1/series and draws it with uPlot. Everything else on the pages is HTML.
(() => {
  "use strict";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const units = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]];
  const bits = (value) => {
    if (value == null) return "–";
    const [prefix, size] = units.find(([, s]) => Math.abs(value) >= s) || ["", 1];
    return `${Number((value / size).toPrecision(3))} ${prefix}bit/s`;
  };

  // 24-hour clock in the viewer's own zone; the date where a day begins, or alone when ticks are days apart.
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
  const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const full = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const times = (_, ticks, __, ___, step) => ticks.map((t, at) => {
    const moment = new Date(t * 1000);
    if (step >= 86400) return date.format(moment);
    const newDay = at === 0 || new Date(ticks[at - 1] * 1000).getDate() !== moment.getDate();
    return newDay ? `${clock.format(moment)}\n${date.format(moment)}` : clock.format(moment);
  });

  async function json(path, query) {
    const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { headers: { Accept: "application/json" } });
    if (answer.status === 401) { location.assign("/login"); }
    const body = await answer.json();
    if (!answer.ok) throw new Error(`${body.problem}; ${body.fix}`);
    return body;
  }

  function read(box, metric, seconds) {
    const end = Math.floor(Date.now() / 1000);
    return json("/api/v1/series", {
      device: box.dataset.device, key: box.dataset.key, metric, from: end - seconds, to: end,
      max_points: Math.max(60, Math.min(600, Math.floor(box.clientWidth / 2))),
    });
  }

  // A value between two gaps is no line: it is drawn as a point.
  const lonely = (u, index) => u.data[index].flatMap((v, at, all) => v != null && all[at - 1] == null && all[at + 1] == null ? [at] : []);
  const line = { spanGaps: false, points: { show: true, size: 3, filter: lonely }, value: (_, v) => bits(v) };
  const size = (plot) => ({ width: plot.clientWidth, height: innerWidth < 760 ? 220 : 260 });
  const axes = (values) => {
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    return [{ ...axis, values }, { ...axis, size: 82, values: (_, ticks) => ticks.map(bits) }];
  };
  const upwards = { range: (_, low, high) => [0, (high || 1) * 1.08] };

  // Under the lines: shaded where an agent sent the samples long after it took them, hatched where a seed made them up.
  const hatch = (ctx) => {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8 * devicePixelRatio;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = devicePixelRatio;
    pen.beginPath();
    for (const x of [-tile.width, 0, tile.width]) { pen.moveTo(x, tile.height); pen.lineTo(x + tile.width, 0); }
    pen.stroke();
    return ctx.createPattern(tile, "repeat");
  };
  const shades = (series) => (u) => {
    const { ctx, bbox } = u;
    ctx.save();
    for (const [places, fill] of [[series.late, colour("--late")], [series.generated, hatch(ctx)]]) {
      ctx.fillStyle = fill;
      for (const at of places) {
        const left = Math.max(bbox.left, u.valToPos(series.t[at], "x", true));
        const right = Math.min(bbox.left + bbox.width, u.valToPos(series.t[at] + series.step_s, "x", true));
        if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
      }
    }
    ctx.restore();
  };

  // Lines over the plot: { at } upright at a time, { level, label } across at a value.
  const marks = (list) => (u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    ctx.textAlign = "left";
    ctx.textBaseline = "bottom";
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const { at, level, label, stroke } of list) {
      if (at == null && level == null) continue;
      ctx.strokeStyle = ctx.fillStyle = stroke;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      if (at != null) {
        const x = u.valToPos(at, "x", true);
        ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height);
      } else {
        const y = u.valToPos(level, "y", true);
        ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y);
        ctx.save();
        ctx.setLineDash([]);
        ctx.strokeStyle = colour("--card");
        ctx.lineWidth = 4 * devicePixelRatio;
        ctx.strokeText(label, bbox.left + 6 * devicePixelRatio, y - 2 * devicePixelRatio);
        ctx.restore();
        ctx.fillText(label, bbox.left + 6 * devicePixelRatio, y - 2 * devicePixelRatio);
      }
      ctx.stroke();
    }
    ctx.restore();
  };

  class Chart {
    constructor(box) {
      this.box = box;
      this.plot = box.querySelector(".plot");
      this.note = box.querySelector(".note");
      this.seconds = 3600;
      for (const button of box.querySelectorAll(".range")) {
        button.addEventListener("click", () => {
          this.seconds = Number(button.dataset.seconds);
          for (const other of box.querySelectorAll(".range")) other.setAttribute("aria-pressed", other === button);
          this.refresh();
        });
      }
      new ResizeObserver(() => this.uplot && this.uplot.setSize(size(this.plot))).observe(this.plot);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    }

    async refresh() {
      const seconds = this.seconds;
      try {
        const [rx, tx] = await Promise.all([read(this.box, "interface.rx_bps", seconds), read(this.box, "interface.tx_bps", seconds)]);
        if (seconds !== this.seconds) return;
        this.series = [rx, tx];
        this.draw();
      } catch (error) {
        this.note.textContent = `No chart: ${error.message}`;
      }
    }

    draw() {
      if (!this.series) return;
      const [rx, tx] = this.series;
      const data = [rx.t, rx.avg, tx.avg, rx.max];
      const now = Date.now() / 1000;
      if (this.uplot) this.uplot.destroy();
      this.uplot = new uPlot({
        ...size(this.plot),
        cursor: { drag: { x: false, y: false } },
        scales: { x: { min: now - this.seconds, max: now }, y: upwards },
        axes: axes(times),
        hooks: { drawClear: [shades(rx)], draw: [marks(rx.resets.map((at) => ({ at: rx.t[at] + rx.step_s / 2, stroke: colour("--degraded") })))] },
        series: [
          { label: "Time", value: (_, t) => t == null ? "–" : full.format(new Date(t * 1000)) },
          { ...line, label: "In", stroke: colour("--in"), fill: colour("--in-fill"), width: 1.6 },
          { ...line, label: "Out", stroke: colour("--out"), width: 1.6 },
          { ...line, label: "In, peak", stroke: colour("--in"), width: 0.8, dash: [3, 4] },
        ],
      }, data, this.plot);
      const known = rx.p95.filter((v) => v != null);
      const gaps = rx.t.filter((t, i) => rx.avg[i] == null && t + rx.step_s < now && t > now - this.seconds).length;
      const parts = [`${rx.step_s >= 3600 ? rx.step_s / 3600 + " h" : rx.step_s >= 60 ? rx.step_s / 60 + " min" : rx.step_s + " s"} per point`];
      if (rx.resolution !== "raw") parts.push(`from ${rx.resolution} rollups`);
      if (gaps) parts.push(`${gaps} without data`);
      if (rx.resets.length) parts.push(`${rx.resets.length} counter reset${rx.resets.length > 1 ? "s" : ""} (dashed)`);
      if (rx.late.length) parts.push("sent later by the agent (shaded)");
      if (rx.generated.length) parts.push("generated for the demo, not measured (hatched)");
      if (!known.length) parts.push("nothing was measured in this range");
      this.note.textContent = parts.join(" · ");
    }
  }

  // A month as it is billed: means and peaks of five minutes, and the 95th percentile of each direction across them.
  class Month {
    constructor(box) {
      this.plot = box.querySelector(".plot");
      this.note = box.querySelector(".note");
      new ResizeObserver(() => this.uplot && this.uplot.setSize(size(this.plot))).observe(this.plot);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
      json("/api/v1/reports/p95/picture", { device: box.dataset.device, key: box.dataset.key, month: box.dataset.month, zone: box.dataset.zone })
        .then((body) => { this.body = body; this.draw(); })
        .catch((error) => { this.note.textContent = `No chart: ${error.message}`; });
    }

    draw() {
      if (!this.body) return;
      const { t, time_zone: zone, received, received_high, sent, sent_high, received_p95, sent_p95, step_s, end } = this.body;
      const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: zone });
      const moment = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZone: zone });
      if (this.uplot) this.uplot.destroy();
      this.uplot = new uPlot({
        ...size(this.plot),
        cursor: { drag: { x: false, y: false } },
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone),
        scales: { x: { min: t[0], max: Date.parse(end) / 1000 }, y: upwards },
        axes: axes((_, ticks) => ticks.map((at) => day.format(new Date(at * 1000)))),
        hooks: { draw: [marks([
          { level: received_p95, label: `in 95 %: ${bits(received_p95)}`, stroke: colour("--in") },
          { level: sent_p95, label: `out 95 %: ${bits(sent_p95)}`, stroke: colour("--out") },
        ])] },
        series: [
          { label: "Time", value: (_, at) => at == null ? "–" : moment.format(new Date(at * 1000)) },
          { ...line, label: "In", stroke: colour("--in"), fill: colour("--in-fill"), width: 1.4 },
          { ...line, label: "Out", stroke: colour("--out"), width: 1.4 },
          { ...line, label: "In, highest 5 min", stroke: colour("--in"), width: 0.8, dash: [2, 3] },
          { ...line, label: "Out, highest 5 min", stroke: colour("--out"), width: 0.8, dash: [2, 3] },
        ],
      }, [t, received, sent, received_high, sent_high], this.plot);
      this.note.textContent = `${step_s / 60} min per point · ${zone} · dashed across: 95th percentile of five-minute means`;
    }
  }

  for (const box of document.querySelectorAll(".month")) new Month(box);
  for (const box of document.querySelectorAll(".chart:not(.month)")) {
    const chart = new Chart(box);
    chart.refresh();
    setInterval(() => { if (!document.hidden && chart.seconds <= 86400) chart.refresh(); }, 10_000);
  }
})();
