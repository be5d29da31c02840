// Drawings, in SVG by hand: stacked columns over time, histograms, bars. Each has a label that says what it shows,
// and a table with the same figures beside it.

import { clock, count, day, h, minute, percent, replace, s, table } from "./dom.js";

/** A drawing of its own pixels, so that its text is as large on a phone as on a desk. */
function drawing(label, width, height, ...children) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label }, ...children);
}

/** A chart's figures as a table, folded away. */
export function figures(caption, columns, rows) {
  return h("details", { class: "figures" }, h("summary", { text: "Show as table" }), table(caption, columns, rows));
}

/** Keeps a chart and its table up to date and as wide as their place, and the table as open as it was. */
export function chart(draw) {
  const place = h("div", { class: "chart-place" });
  const tablePlace = h("div");
  let data;
  let last;
  const redraw = () => {
    const width = Math.round(place.clientWidth);
    if (data === undefined || width === 0) return;
    const now = `${width} ${JSON.stringify(data)}`;
    if (now === last) return;
    last = now;
    const open = tablePlace.querySelector("details")?.open ?? false;
    const focused = tablePlace.contains(document.activeElement);
    const drawn = draw(data, width);
    replace(place, drawn.chart);
    if (focused) return;
    replace(tablePlace, drawn.table);
    const details = tablePlace.querySelector("details");
    if (details !== null) details.open = open;
  };
  new ResizeObserver(redraw).observe(place);
  const update = (fresh) => {
    data = fresh;
    redraw();
  };
  return { element: h("div", { class: "chart-block" }, place, tablePlace), picture: place, table: tablePlace, update };
}

/** What the colours stand for. */
export function legend(items) {
  return h("ul", { class: "legend" }, items.map(([kind, text]) =>
    h("li", {}, h("span", { class: `swatch fill-${kind}`, "aria-hidden": "true" }), text)));
}

const STACK = ["exact", "semantic"];

/** Joins steps so that `most` columns are left; what was before the start is empty. */
function joined(short, most) {
  const names = ["exact", "semantic", "upstream", "bypass"];
  const told = Math.max(...names.map((name) => short[name]?.length ?? 0), 0);
  const before = Math.max(0, most - told);
  const series = { step_s: short.step_s, from: short.from - before * short.step_s };
  for (const name of names) series[name] = [...Array(before).fill(0), ...(short[name] ?? [])];
  const length = before + told;
  const per = Math.max(1, Math.ceil(length / most));
  const columns = [];
  // From the end: the newest column is whole, the oldest may hold fewer steps.
  for (let end = length; end > 0; end -= per) {
    const start = Math.max(0, end - per);
    const column = { at: series.from + start * series.step_s };
    for (const name of names) {
      column[name] = series[name].slice(start, end).reduce((sum, n) => sum + n, 0);
    }
    column.looked = column.exact + column.semantic + column.upstream;
    column.all = column.looked + column.bypass;
    columns.unshift(column);
  }
  return { columns, step: per * series.step_s };
}

/** Share of requests answered by each layer, over how many there were. */
export function overTime(series, full) {
  const { columns, step } = joined(series, full < 500 ? 30 : 60);
  const [top, share, gap, volume, left] = [8, 170, 22, 46, 40];
  const bottom = top + share;
  const base = bottom + gap + volume;
  const width = full - left;
  const pitch = width / Math.max(1, columns.length);
  const bar = Math.max(1, pitch - Math.min(2, pitch * 0.2));
  const most = Math.max(1, ...columns.map((column) => column.all));
  const name = step * columns.length > 36 * 3600 ? day : minute;
  const parts = [];
  for (const mark of [0, 0.5, 1]) {
    const y = bottom - mark * share;
    parts.push(s("line", { x1: left, x2: full, y1: y, y2: y, class: "grid" }),
      s("text", { x: left - 6, y: y + 4, class: "tick", "text-anchor": "end", text: percent(mark, 0) }));
  }
  columns.forEach((column, index) => {
    const x = left + index * pitch;
    let y = bottom;
    const group = s("g", { class: "column" }, s("rect", { x, y: top, width: pitch, height: base - top, class: "catch" }));
    if (column.looked > 0) {
      for (const layer of STACK) {
        const height = (column[layer] / column.looked) * share;
        y -= height;
        if (height > 0) group.append(s("rect", { x, y, width: bar, height, class: `fill-${layer}` }));
      }
    }
    if (column.all > 0) {
      const height = Math.max(1.5, (column.all / most) * volume);
      group.append(s("rect", { x, y: base - height, width: bar, height, class: "fill-volume" }));
    }
    const hits = column.exact + column.semantic;
    const told = column.all === 0 ? "no requests"
      : `${percent(column.looked ? hits / column.looked : NaN)} hits: ${count(column.exact)} exact, ${count(column.semantic)} semantic; ${count(column.upstream)} misses, ${count(column.bypass)} bypasses`;
    group.append(s("title", { text: `${name(column.at)}: ${told}` }));
    parts.push(group);
  });
  parts.push(s("line", { x1: left, x2: full, y1: base, y2: base, class: "axis" }),
    s("text", { x: left - 6, y: base - volume + 9, class: "tick", "text-anchor": "end", text: count(most) }),
    s("text", { x: left - 6, y: base + 1, class: "tick", "text-anchor": "end", text: "0" }),
    s("text", { x: left, y: base - volume - 7, class: "tick", text: `Requests per ${duration(step)}` }));
  const marks = Math.min(full < 500 ? 3 : 5, columns.length);
  for (let mark = 0; mark < marks; mark += 1) {
    const index = Math.round((mark / Math.max(1, marks - 1)) * (columns.length - 1));
    const anchor = mark === 0 ? "start" : mark === marks - 1 ? "end" : "middle";
    const x = mark === 0 ? left : mark === marks - 1 ? full : left + index * pitch + pitch / 2;
    parts.push(s("text", { x, y: base + 18, class: "tick", "text-anchor": anchor, text: name(columns[index].at) }));
  }
  const all = columns.reduce((sum, column) => sum + column.looked, 0);
  const hits = columns.reduce((sum, column) => sum + column.exact + column.semantic, 0);
  const label = all === 0 ? "No requests in this window"
    : `Hit rate over time, from ${name(columns[0].at)}: ${percent(hits / all)} of ${count(all)} requests in all`;
  const rows = columns.filter((column) => column.all > 0).map((column) => [
    step < 60 ? clock(column.at) : name(column.at), percent(column.looked ? (column.exact + column.semantic) / column.looked : NaN),
    count(column.exact), count(column.semantic), count(column.upstream), count(column.bypass),
  ]);
  return {
    chart: drawing(label, full, base + 24, ...parts),
    table: figures("Hit rate over time", ["From", ...["Hit rate", "Exact", "Semantic", "Misses", "Bypasses"].map((n) => ({ name: n, number: true }))], rows),
  };
}

function duration(seconds) {
  if (seconds % 86_400 === 0) return seconds === 86_400 ? "day" : `${seconds / 86_400} days`;
  if (seconds % 3600 === 0) return seconds === 3600 ? "hour" : `${seconds / 3600} hours`;
  if (seconds % 60 === 0) return seconds === 60 ? "minute" : `${seconds / 60} minutes`;
  return `${seconds} s`;
}

/** One row of columns over named bins, for the latency of a layer. */
export function strip(label, counts, names, kind) {
  const [top, height] = [6, 60];
  const most = Math.max(1, ...counts);
  const pitch = 720 / Math.max(1, counts.length);
  const base = top + height;
  const parts = [s("line", { x1: 0, x2: 720, y1: base, y2: base, class: "axis" })];
  counts.forEach((n, index) => {
    const tall = n === 0 ? 0 : Math.max(2, (n / most) * height);
    parts.push(s("g", { class: "column" },
      s("rect", { x: index * pitch, y: top, width: pitch, height, class: "catch" }),
      s("rect", { x: index * pitch + 1, y: base - tall, width: Math.max(1, pitch - 2), height: tall, class: `fill-${kind}` }),
      s("title", { text: `${names[index]}: ${count(n)}` })));
  });
  return s("svg", { viewBox: `0 0 720 ${base + 2}`, preserveAspectRatio: "none", class: "strip", role: "img", "aria-label": label }, ...parts);
}

/**
 * Nearest-neighbour similarity: above the line what was served, below what was not, with the threshold that is set and
 * the one that is tried.
 */
export function similarity({ edges, hits, misses, from, threshold, tried }, width) {
  const [top, half, gap] = [24, 92, 2];
  const middle = top + half;
  const most = Math.max(1, ...hits, ...misses);
  const at = (value) => ((Math.min(1, Math.max(from, value)) - from) / (1 - from)) * width;
  const parts = [];
  const x = at(tried);
  parts.push(s("rect", { x, y: top, width: width - x, height: 2 * half + gap, class: "reach" }));
  hits.forEach((_, index) => {
    const [low, high] = [edges[index], edges[index + 1]];
    if (high <= from + 1e-9) return;
    const [left, right] = [at(low), at(high)];
    const up = (hits[index] / most) * (half - 4);
    const down = (misses[index] / most) * (half - 4);
    parts.push(s("g", { class: "column" },
      s("rect", { x: left, y: top, width: right - left, height: 2 * half, class: "catch" }),
      hits[index] > 0 && s("rect", { x: left + 1, y: middle - Math.max(2, up), width: Math.max(1, right - left - 2), height: Math.max(2, up), class: "fill-semantic" }),
      misses[index] > 0 && s("rect", { x: left + 1, y: middle + gap, width: Math.max(1, right - left - 2), height: Math.max(2, down), class: "fill-upstream" }),
      s("title", { text: `Similarity ${low.toFixed(2)} to ${high.toFixed(2)}: ${count(hits[index])} served, ${count(misses[index])} not served` })));
  });
  parts.push(s("line", { x1: 0, x2: width, y1: middle + gap / 2, y2: middle + gap / 2, class: "axis" }),
    s("text", { x: 0, y: top + 10, class: "tick", text: "Served ↑" }),
    s("text", { x: 0, y: top + 2 * half - 2, class: "tick", text: "Not served ↓" }));
  const set = at(threshold);
  const anchor = set > width - 130 ? "end" : "start";
  parts.push(s("line", { x1: set, x2: set, y1: top - 8, y2: top + 2 * half + gap, class: "threshold" }),
    s("text", { x: anchor === "end" ? set - 6 : set + 6, y: 13, class: "threshold-name", "text-anchor": anchor, text: `threshold ${threshold.toFixed(2)}` }));
  if (Math.abs(tried - threshold) > 0.004) {
    parts.push(s("line", { x1: x, x2: x, y1: top - 2, y2: top + 2 * half + gap, class: "tried" }));
  }
  for (let mark = 0; mark <= 5; mark += 1) {
    const value = from + ((1 - from) * mark) / 5;
    const place = mark === 0 ? "start" : mark === 5 ? "end" : "middle";
    parts.push(s("text", { x: at(value), y: top + 2 * half + 20, class: "tick", "text-anchor": place, text: value.toFixed(2) }));
  }
  const sum = (values) => values.reduce((total, n) => total + n, 0);
  return drawing(
    `Similarity of the nearest stored prompt: ${count(sum(hits))} lookups served, ${count(sum(misses))} not served; the threshold is ${threshold.toFixed(2)}`,
    width, top + 2 * half + 28, ...parts);
}

/** A small histogram of similarities, for one entry. */
export function similarities(edges, counts) {
  const first = counts.findIndex((n) => n > 0);
  const start = Math.max(0, Math.min(first, counts.length - 15));
  const names = counts.map((_, index) => `${(edges[index] ?? 0).toFixed(2)} to ${(edges[index + 1] ?? 1).toFixed(2)}`);
  return {
    chart: h("div", {},
      strip("Similarity of the prompts that this entry answered", counts.slice(start), names.slice(start), "semantic"),
      h("div", { class: "ends", "aria-hidden": "true" }, h("span", { text: (edges[start] ?? 0).toFixed(2) }), h("span", { text: (edges.at(-1) ?? 1).toFixed(2) }))),
    table: figures("Similarity of the hits it gave", ["Similarity", { name: "Hits", number: true }],
      names.map((name, index) => [name, count(counts[index])]).filter((_, index) => counts[index] > 0)),
  };
}

/** A bar as long as a share; its figures stand beside it. */
export function bar(share, kind) {
  const value = Number.isFinite(share) ? Math.min(1, Math.max(0, share)) : 0;
  return s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", class: "bar-line", "aria-hidden": "true" },
    s("rect", { x: 0, y: 0, width: 100, height: 6, class: "bar-track" }),
    value > 0 && s("rect", { x: 0, y: 0, width: Math.max(0.8, value * 100), height: 6, class: `fill-${kind}` }));
}

/** One line divided among its parts. */
export function divided(label, parts) {
  const total = parts.reduce((sum, [, n]) => sum + n, 0);
  let x = 0;
  const drawn = parts.filter(([, n]) => n > 0).map(([kind, n]) => {
    const width = (n / total) * 100;
    const rect = s("rect", { x, y: 0, width: Math.max(0.3, width - 0.3), height: 6, class: `fill-${kind}` });
    x += width;
    return rect;
  });
  return s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", class: "divided", role: "img", "aria-label": label },
    s("rect", { x: 0, y: 0, width: 100, height: 6, class: "bar-track" }), drawn);
}
