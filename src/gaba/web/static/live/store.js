// What the page knows of a run: buckets of steps, least, mean and greatest of each series.

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

/** Buckets as sent: x (count), and each series' levels low, mean, high (count each). */
export function unpack(sent) {
  const x = new Float64Array(bytes(sent.x));
  const values = new Float32Array(bytes(sent.values));
  const series = new Map();
  const { names, count, levels } = sent;
  names.forEach((name, i) => {
    const level = (l) => values.subarray((l * names.length + i) * count, (l * names.length + i + 1) * count);
    series.set(name, levels === 1 ? [level(0), level(0), level(0)] : [level(0), level(1), level(2)]);
  });
  return { stride: sent.stride, start: sent.start, count, x, series };
}

export class Store {
  constructor() {
    this.clear("");
  }

  clear(generation) {
    this.generation = generation;
    this.stride = 0;
    this.x = [];
    this.series = new Map();
  }

  /**
   * Takes an event. Its buckets replace those from their first one on, so that an event that comes
   * twice does no harm. False if something before them was missed.
   */
  take(event) {
    if (event.generation !== this.generation) this.clear(event.generation);
    if (!event.buckets) return true;
    const found = unpack(event.buckets);
    if (found.stride !== this.stride) {
      if (found.start !== 0) return false;
      this.clear(this.generation);
      this.stride = found.stride;
    }
    if (found.start > this.x.length) return false;
    this.x.length = found.start;
    for (const value of found.x) this.x.push(value);
    for (const name of found.series.keys()) {
      if (!this.series.has(name)) this.series.set(name, [[], [], []]);
    }
    for (const [name, levels] of this.series) {
      const news = found.series.get(name);
      levels.forEach((level, l) => {
        const known = level.length;
        level.length = found.start;
        if (known < found.start) level.fill(NaN, known);
        for (let i = 0; i < found.count; i++) level.push(news ? news[l][i] : NaN);
      });
    }
    return true;
  }
}
