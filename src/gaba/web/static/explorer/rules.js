// The rules of gaba.rules and the measures of gaba, in plain numbers.
//
// norms: an array g of K numbers, zero or more; gramian: an array of K rows of K numbers. Every rule
// gives weights on the simplex, as a Python rule does that is called: a norm of exactly 0 gets 1/K,
// NaN makes all weights NaN, and 1e-23 and 1e20 may meet in one vector.

const EPSILON = Number.EPSILON; // 2^-52, as float64's in NumPy

export const sum = (values) => values.reduce((total, value) => total + value, 0);
export const zip = (a, b, f) => a.map((value, k) => f(value, b[k]));

/** Norms over the smallest positive one, and which of them are not 0. */
function relative(norms) {
  const live = norms.map((g) => g !== 0);
  const smallest = norms.reduce((least, g) => (g !== 0 && !(g >= least) ? g : least), Infinity);
  const unit = smallest === Infinity ? 1 : smallest;
  return { live, ratio: norms.map((g, k) => (live[k] ? g / unit : 1)) };
}

/** Weights in the proportions `raw` over the live tasks, 1/K for each of the others. */
function onSimplex(raw, { live, ratio }) {
  const K = raw.length;
  const kept = raw.map((value, k) => (live[k] ? value : 0));
  const nLive = live.filter(Boolean).length;
  const total = sum(kept);
  if (Number.isNaN(total + sum(ratio)) || (total === 0 && nLive > 0)) return raw.map(() => NaN);
  const scale = nLive / K / (total === 0 ? 1 : total);
  return kept.map((value, k) => (live[k] ? value * scale : 1 / K));
}

/** λ_k = 1/K. */
export function uniform(norms) {
  return norms.map(() => (norms.some(Number.isNaN) ? NaN : 1 / norms.length));
}

/** λ_k ∝ g_k^(−power); at power 1 contributions are equal for every K. */
export function inverseNorm(norms, power = 1) {
  const rel = relative(norms);
  return onSimplex(rel.ratio.map((ratio) => ratio ** -power), rel);
}

/** λ_k = (S − g_k) / ((K − 1) S), the paper's equation 4; S − g_k is summed without g_k. */
export function paper(norms) {
  if (norms.some(Number.isNaN)) return norms.map(() => NaN);
  const others = norms.map((_, k) => sum(norms.filter((_g, j) => j !== k)));
  const total = sum(others);
  return total === 0 ? uniform(norms) : others.map((other) => other / total);
}

/** λ_k ∝ 1 / log(1 + g_k / min g). */
export function logInverse(norms) {
  const rel = relative(norms);
  return onSimplex(rel.ratio.map((ratio) => 1 / Math.log1p(ratio)), rel);
}

/** λ_k ∝ 1 / rank_k, the smallest positive norm first; equal norms share the mean of their ranks. */
export function rankInverse(norms) {
  const rel = relative(norms);
  const ahead = (mine) =>
    sum(norms.map((g, j) => (!rel.live[j] ? 0 : g < mine ? 1 : g === mine ? 0.5 : 0)));
  return onSimplex(norms.map((g) => 1 / (0.5 + ahead(g))), rel);
}

/** λ_k (Gλ)_k equal for all k: the minimum of ½ λᵀGλ − Σ log λ_k, normalised. */
export function equalShare(gramian) {
  const unit = split(gramian);
  const K = gramian.length;
  const targets = unit.relative.ratio.map(() => 1);
  return unit.weights(balance(withRidge(unit.cosines, K * EPSILON), null, targets, 30));
}

/** (Gλ)_k / g_k equal for all k, or, where that needs a negative weight, at least as large. */
export function equalProjection(gramian) {
  const unit = split(gramian);
  const matrix = withRidge(unit.cosines, 1e-10);
  const ones = unit.relative.ratio.map(() => 1);
  const factor = cholesky(matrix);
  let exact = ones.map(() => 0);
  for (let i = 0; factor && i < 5; i += 1) {
    const missing = zip(ones, times(unit.cosines, exact), (wanted, got) => wanted - got);
    exact = zip(exact, solveWith(factor, missing), (value, more) => value + more);
  }
  const inside = factor !== null && exact.every((value) => value >= 0);
  return unit.weights(inside ? exact : balance(matrix, ones, null, 50));
}

/** c_k = m_k g_k, for multipliers or for weights. */
export function contributions(multipliers, norms) {
  return zip(multipliers, norms, (m, g) => m * g);
}

/** max c / min c: 1 is balanced; infinite where a task does not pull and another does. */
export function imbalance(multipliers, norms) {
  const pull = contributions(multipliers, norms);
  const most = Math.max(...pull);
  const least = Math.min(...pull);
  if (least === 0) return most === 0 ? 1 : Infinity;
  return most / least;
}

/** Parts of the whole: what each value has of their sum. */
export function proportions(values) {
  const total = sum(values);
  return values.map((value) => (total === 0 ? NaN : value / total));
}

/** Balanced to the digits shown: 1.00×. */
export const isBalanced = (ratio) => ratio < 1.005;

/** s_k = m_k (Gm)_k / mᵀGm; NaN where the update is 0. */
export function shares(multipliers, gramian) {
  return proportions(zip(multipliers, times(gramian, multipliers), (m, along) => m * along));
}

/** The Gramian of gradients with these norms and cosines. */
export function gramianOf(norms, cosines) {
  return cosines.map((row, k) => row.map((cosine, l) => cosine * norms[k] * norms[l]));
}

/** Whether some gradients have these cosines: no eigenvalue below −1e-9. */
export function feasible(cosines) {
  return cholesky(withRidge(cosines, 1e-9)) !== null;
}

/** The smallest and the largest cosine that tasks a and b can have, the others being as they are. */
export function feasibleRange(cosines, a, b) {
  const fits = (value) => {
    const trial = cosines.map((row) => [...row]);
    trial[a][b] = value;
    trial[b][a] = value;
    return feasible(trial);
  };
  const edge = (bound) => {
    if (fits(bound)) return bound;
    let [inside, outside] = [cosines[a][b], bound];
    for (let i = 0; i < 40; i += 1) {
      const middle = (inside + outside) / 2;
      if (fits(middle)) inside = middle;
      else outside = middle;
    }
    return inside;
  };
  return [edge(-1), edge(1)];
}

// the solver of the two rules on Gramians -------------------------------------------------------

/** Lengths and angles of a Gramian; a task without a gradient is orthogonal to all others. */
function split(gramian) {
  const norms = gramian.map((row, k) => Math.sqrt(row[k]));
  const rel = relative(norms);
  const broken = sum(norms.map((g) => g * 0)); // 0, or NaN where a norm is not finite
  const cosines = gramian.map((row, k) =>
    row.map((value, l) => {
      if (k === l) return 1 + broken;
      if (!rel.live[k] || !rel.live[l]) return broken;
      const cosine = (0.5 * (value + gramian[l][k])) / norms[k] / norms[l];
      return Math.min(1, Math.max(-1, cosine)) + broken;
    }),
  );
  const weights = (lengths) =>
    onSimplex(zip(lengths, rel.ratio, (length, ratio) => length / ratio), rel);
  return { cosines, relative: rel, weights };
}

function withRidge(matrix, ridge) {
  return matrix.map((row, k) => row.map((value, l) => (k === l ? value + ridge : value)));
}

/**
 * y > 0 with s = matrix·y − offset > 0 and y_k s_k = targets_k (0, neared tenfold an iteration,
 * where there are no targets): Newton's method on y and s, steps cut at 0.95 of the way to the edge.
 */
function balance(matrix, offset, targets, iterations) {
  const K = matrix.length;
  let y = matrix.map((row) => 1 + sum(row.map((value) => value * 0)));
  let s = y;
  for (let i = 0; i < iterations; i += 1) {
    const product = targets ?? y.map(() => (0.1 * sum(zip(y, s, (u, v) => u * v))) / K);
    const reached = times(matrix, y);
    const missing = s.map((value, k) => value + (offset?.[k] ?? 0) - reached[k]);
    const system = matrix.map((row, k) =>
      row.map((value, l) => (k === l ? value + s[k] / y[k] : value)),
    );
    const factor = cholesky(system);
    if (factor === null) continue;
    const dy = solveWith(factor, y.map((value, k) => missing[k] + product[k] / value - s[k]));
    const ds = zip(times(matrix, dy), missing, (value, gap) => value - gap);
    const fastest = Math.max(...y.map((value, k) => Math.max(-dy[k] / value, -ds[k] / s[k])));
    const step = 0.95 / Math.max(fastest, 0.95);
    y = zip(y, dy, (value, change) => value + step * change);
    s = zip(s, ds, (value, change) => value + step * change);
  }
  return y;
}

function times(matrix, vector) {
  return matrix.map((row) => sum(zip(row, vector, (a, b) => a * b)));
}

/** The lower triangle L with L Lᵀ = matrix, or null where the matrix is not positive definite. */
function cholesky(matrix) {
  const K = matrix.length;
  const L = matrix.map(() => new Array(K).fill(0));
  for (let k = 0; k < K; k += 1) {
    for (let l = 0; l <= k; l += 1) {
      let rest = matrix[k][l];
      for (let j = 0; j < l; j += 1) rest -= L[k][j] * L[l][j];
      if (k === l && !(rest > 0)) return null;
      L[k][l] = k === l ? Math.sqrt(rest) : rest / L[l][l];
    }
  }
  return L;
}

function solveWith(L, vector) {
  const K = L.length;
  const x = [...vector];
  for (let k = 0; k < K; k += 1) {
    for (let j = 0; j < k; j += 1) x[k] -= L[k][j] * x[j];
    x[k] /= L[k][k];
  }
  for (let k = K - 1; k >= 0; k -= 1) {
    for (let j = k + 1; j < K; j += 1) x[k] -= L[j][k] * x[j];
    x[k] /= L[k][k];
  }
  return x;
}
