// An axis for scores: logarithmic where none is negative, for defects score tens of times higher than normal parts; linear otherwise.
// A picture that the model holds scores nothing at all: zeros lie at the low end.

const DECADES = 1e4;

export function makeScale(values) {
  const known = values.filter((value) => Number.isFinite(value));
  let low = Math.min(...known);
  let high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  const logarithmic = known.length > 0 && low >= 0 && high > 0;
  if (logarithmic) low = Math.max(Math.min(...known.filter((value) => value > 0)), high / DECADES);
  if (low === high) [low, high] = logarithmic ? [low / 2, high * 2] : [low - 1, high + 1];
  const [a, b] = logarithmic ? [Math.log(low), Math.log(high)] : [low, high];
  const margin = 0.04 * (b - a);
  const [from, to] = [a - margin, b + margin];
  return {
    low: logarithmic ? Math.exp(from) : from,
    high: logarithmic ? Math.exp(to) : to,
    share: (value) => ((logarithmic ? Math.max(Math.log(value), from) : value) - from) / (to - from),
    value: (share) => (logarithmic ? Math.exp(from + share * (to - from)) : from + share * (to - from)),
    logarithmic,
  };
}

// Round values to write at an axis, at most `most`.
export function ticks(scale, most = 5) {
  const found = [];
  if (scale.logarithmic) {
    for (let decade = Math.floor(Math.log10(scale.low)); decade <= Math.ceil(Math.log10(scale.high)); decade += 1) {
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** decade);
    }
  } else {
    const rough = (scale.high - scale.low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((one) => one >= rough);
    for (let value = Math.ceil(scale.low / step) * step; value <= scale.high; value += step) found.push(Number(value.toPrecision(12)));
  }
  const inside = found.filter((value) => value >= scale.low && value <= scale.high);
  const every = Math.ceil(inside.length / most);
  return inside.filter((_, index) => index % every === 0);
}

export function histogram(values, scale, bins) {
  const counts = new Array(bins).fill(0);
  for (const value of values) counts[Math.min(bins - 1, Math.max(0, Math.floor(scale.share(value) * bins)))] += 1;
  return counts;
}
