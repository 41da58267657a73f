// Arithmetic on anomaly maps: {height, width, data}, row by row, NaN where nothing was inspected. No drawing here but the colours of heat.

// The same map with neither side above `most`: the highest value of each block, so that no peak is lost.
export function pool(map, most) {
  const step = Math.ceil(Math.max(map.height, map.width) / most);
  if (step <= 1) return map;
  const height = Math.ceil(map.height / step);
  const width = Math.ceil(map.width / step);
  const data = new Float32Array(height * width).fill(NaN);
  for (let y = 0; y < map.height; y += 1) {
    for (let x = 0; x < map.width; x += 1) {
      const value = map.data[y * map.width + x];
      const place = Math.floor(y / step) * width + Math.floor(x / step);
      if (!(data[place] >= value) && !Number.isNaN(value)) data[place] = value;
    }
  }
  return { height, width, data };
}

export function peak(map) {
  let best = -1;
  for (let i = 0; i < map.data.length; i += 1) if (map.data[i] > (best < 0 ? -Infinity : map.data[best])) best = i;
  return best < 0 ? null : { y: Math.floor(best / map.width), x: best % map.width, score: map.data[best] };
}

// The 8-connected regions above a threshold, highest first: {area, score, y, x} with the place of the peak.
export function regions(map, threshold) {
  const { height, width, data } = map;
  const seen = new Uint8Array(data.length);
  const found = [];
  for (let start = 0; start < data.length; start += 1) {
    if (seen[start] || !(data[start] > threshold)) continue;
    const region = { area: 0, score: -Infinity, y: 0, x: 0 };
    const stack = [start];
    seen[start] = 1;
    while (stack.length) {
      const place = stack.pop();
      const y = Math.floor(place / width);
      const x = place % width;
      region.area += 1;
      if (data[place] > region.score || (data[place] === region.score && place < region.y * width + region.x)) {
        Object.assign(region, { score: data[place], y, x });
      }
      for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny += 1) {
        for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx += 1) {
          const next = ny * width + nx;
          if (!seen[next] && data[next] > threshold) {
            seen[next] = 1;
            stack.push(next);
          }
        }
      }
    }
    found.push(region);
  }
  return found.sort((a, b) => b.score - a.score);
}

// Edges of a cell that a contour crosses, by which corners lie above (1: top left, 2: top right, 4: bottom right, 8: bottom left).
const CROSSED = [[], ["LT"], ["TR"], ["LR"], ["RB"], ["LT", "RB"], ["TB"], ["LB"], ["BL"], ["TB"], ["TR", "BL"], ["RB"], ["LR"], ["TR"], ["LT"], []];

// Contour lines at a threshold as an SVG path, in shares of the picture times `scale` = [x, y]. Marching squares between pixel centres.
export function contours(map, threshold, [scaleX, scaleY]) {
  const { height, width, data } = map;
  const at = (y, x) => {
    const value = y < 0 || x < 0 || y >= height || x >= width ? NaN : data[y * width + x];
    return value;
  };
  const share = (a, b) => (Number.isNaN(a) || Number.isNaN(b) ? 0.5 : (threshold - a) / (b - a));
  const px = (x) => (Math.min(Math.max((x + 0.5) / width, 0), 1) * scaleX).toFixed(2);
  const py = (y) => (Math.min(Math.max((y + 0.5) / height, 0), 1) * scaleY).toFixed(2);
  const parts = [];
  for (let y = -1; y < height; y += 1) {
    for (let x = -1; x < width; x += 1) {
      const [a, b, c, d] = [at(y, x), at(y, x + 1), at(y + 1, x + 1), at(y + 1, x)];
      const which = (a > threshold ? 1 : 0) + (b > threshold ? 2 : 0) + (c > threshold ? 4 : 0) + (d > threshold ? 8 : 0);
      if (which === 0 || which === 15) continue;
      const point = (edge) => {
        if (edge === "T") return `${px(x + share(a, b))} ${py(y)}`;
        if (edge === "B") return `${px(x + share(d, c))} ${py(y + 1)}`;
        if (edge === "L") return `${px(x)} ${py(y + share(a, d))}`;
        return `${px(x + 1)} ${py(y + share(b, c))}`;
      };
      for (const [from, to] of CROSSED[which]) parts.push(`M${point(from)}L${point(to)}`);
    }
  }
  return parts.join("");
}

// Which values the colours run between: clear at half the threshold, hottest at twice. Without a threshold from the middle to the peak.
export function heatRange(map, threshold) {
  if (threshold > 0) return [0.5 * threshold, 2 * threshold];
  const sorted = Float32Array.from(map.data).filter((value) => !Number.isNaN(value)).sort();
  if (!sorted.length) return [0, 1];
  const [low, high] = [sorted[Math.floor(sorted.length / 2)], sorted[sorted.length - 1]];
  return high > low ? [low, high] : [low - 1, low];
}

// The colour of heat 0..1, [r, g, b]. A fit of the palette "turbo" without its dark ends (Mikhailov 2019, published polynomial).
export function colour(heat) {
  const t = 0.16 + 0.76 * heat;
  const along = (c) => c.reduceRight((sum, factor) => sum * t + factor, 0);
  return [
    along([0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943]),
    along([0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604]),
    along([0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973]),
  ].map((value) => Math.round(255 * Math.min(Math.max(value, 0), 1)));
}

const COLOURS = Array.from({ length: 256 }, (_, index) => colour(index / 255));

// The heat as RGBA bytes: colour and opacity both grow with it; grey where nothing was inspected.
export function paint(map, [low, high]) {
  const pixels = new Uint8ClampedArray(4 * map.data.length);
  for (let i = 0; i < map.data.length; i += 1) {
    const value = map.data[i];
    if (Number.isNaN(value)) {
      pixels.set([128, 128, 128, 120], 4 * i);
    } else if (value > low) {
      const heat = Math.min((value - low) / (high - low), 1);
      pixels.set(COLOURS[Math.round(255 * heat)], 4 * i);
      pixels[4 * i + 3] = 255 * Math.min(1, 0.25 + 1.5 * heat);
    }
  }
  return pixels;
}

// What share of scores lies above a threshold: [how many, of how many].
export function failing(scores, threshold) {
  let above = 0;
  for (const score of scores) if (score > threshold) above += 1;
  return [above, scores.length];
}
