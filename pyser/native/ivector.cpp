// The inner loops of online i-vectors. What they compute is said in pyser/ivector/online.py, the arguments are described
// in pyser/ivector/kernels.py. A sum's order depends on the numbers and the processor's width alone, never on where in
// memory they lie or on what is computed beside them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

// total (packed,) += sum over pairs begin ... end of weight * quadratics[gauss], summed in float32 first; in parts that
// stay in the first-level cache.
INLINE void add_quadratic(int64_t begin, int64_t end, const int32_t *gauss, const double *weight,
                          const float *quadratics, int64_t packed, double *total) {
  const int64_t most = 1024;
  float part[most];
  for (int64_t start = 0; start < packed; start += most) {
    const int64_t length = std::min(most, packed - start);
    const float *from = quadratics + start;
    std::fill_n(part, length, 0.0f);
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const float w0 = static_cast<float>(weight[i]), w1 = static_cast<float>(weight[i + 1]);
      const float w2 = static_cast<float>(weight[i + 2]), w3 = static_cast<float>(weight[i + 3]);
      const float *u0 = from + gauss[i] * packed, *u1 = from + gauss[i + 1] * packed;
      const float *u2 = from + gauss[i + 2] * packed, *u3 = from + gauss[i + 3] * packed;
      int64_t q = 0;
      for (; q + kF <= length; q += kF)
        store(part + q, (load(part + q) + w0 * load(u0 + q) + w1 * load(u1 + q)) +
                            (w2 * load(u2 + q) + w3 * load(u3 + q)));
      for (; q < length; q++) part[q] += w0 * u0[q] + w1 * u1[q] + (w2 * u2[q] + w3 * u3[q]);
    }
    for (; i < end; i++) {
      const float w0 = static_cast<float>(weight[i]);
      const float *u0 = from + gauss[i] * packed;
      for (int64_t q = 0; q < length; q++) part[q] += w0 * u0[q];
    }
    for (int64_t q = 0; q < length; q++) total[start + q] += part[q];
  }
}

// (A + prior I) x = b with A in its packed lower triangle; vectors are padded with zeros to whole vectors.
struct System {
  const double *packed;
  double prior;
  int64_t size, padded;

  // y = (A + prior I) x, kD rows at once; each element is used twice.
  INLINE void times(const double *__restrict x, double *__restrict y) const {
    D place;
    for (int r = 0; r < kD; r++) place[r] = r;
    for (int64_t i = 0; i < padded; i += kD) store(y + i, prior * load(x + i));
    const double *row = packed;
    int64_t i = 0;
    for (; i + kD <= size; i += kD) {
      const double *a[kD];
      for (int64_t r = 0; r < kD; r++) {
        a[r] = row;
        row += i + r + 1;
      }
      D sum[kD] = {}, each[kD];
      for (int64_t r = 0; r < kD; r++) each[r] = D{} + x[i + r];
      for (int64_t j = 0; j < i; j += kD) {
        const D xj = load(x + j);
        D even = load(y + j), odd = {};
        for (int64_t r = 0; r < kD; r += 2) {
          const D first = load_once(a[r] + j), second = load_once(a[r + 1] + j);
          sum[r] += first * xj;
          sum[r + 1] += second * xj;
          even += each[r] * first;
          odd += each[r + 1] * second;
        }
        store(y + j, even + odd);
      }
      const D xi = load(x + i);
      D own = load(y + i);
      for (int64_t r = 0; r < kD; r++) {  // on the diagonal; beyond it the next rows begin
        const D values = load_once(a[r] + i);
        sum[r] += (place <= static_cast<double>(r) ? values : D{}) * xi;
        own += (place < static_cast<double>(r) ? values : D{}) * each[r];
      }
      store(y + i, own + add_up(sum));
    }
    for (const int64_t whole = i; i < size; i++) {
      D sum = {};
      for (int64_t j = 0; j < whole; j += kD) {
        const D values = load(row + j);
        sum += values * load(x + j);
        store(y + j, load(y + j) + values * x[i]);
      }
      double total = add_up(sum) + row[i] * x[i];
      for (int64_t j = whole; j < i; j++) {
        total += row[j] * x[j];
        y[j] += row[j] * x[i];
      }
      y[i] += total;
      row += i + 1;
    }
  }

  INLINE double dot(const double *x, const double *y) const {
    D sum = {};
    for (int64_t i = 0; i < padded; i += kD) sum += load(x + i) * load(y + i);
    return add_up(sum);
  }

  // x = (A + prior I)^-1 b by Cholesky.
  void solve(const double *b, double *x) const {
    std::vector<double> root(packed, packed + size * (size + 1) / 2);
    for (int64_t i = 0; i < size; i++) {
      double *at = &root[i * (i + 1) / 2];
      at[i] += prior;
      for (int64_t j = 0; j <= i; j++) {
        const double *other = &root[j * (j + 1) / 2];
        double value = at[j];
        for (int64_t k = 0; k < j; k++) value -= at[k] * other[k];
        at[j] = i == j ? std::sqrt(value) : value / other[j];
      }
      double value = b[i];
      for (int64_t k = 0; k < i; k++) value -= at[k] * x[k];
      x[i] = value / at[i];
    }
    for (int64_t i = size - 1; i >= 0; i--) {
      const double *at = &root[i * (i + 1) / 2];
      x[i] /= at[i];
      for (int64_t j = 0; j < i; j++) x[j] -= at[j] * x[i];
    }
  }

  // matrix/optimization.cc, LinearCgd: false if the residual grew.
  INLINE bool conjugate_gradient(const double *b, double *x, int64_t max_iters, double *scratch) const {
    double *residual = scratch, *direction = scratch + padded, *moved = scratch + 2 * padded;
    times(x, residual);
    for (int64_t i = 0; i < padded; i += kD) {
      store(residual + i, load(residual + i) - load(b + i));
      store(direction + i, -load(residual + i));
    }
    double norm = dot(residual, residual), first_norm = norm, fresh_norm = norm;
    for (int64_t iter = 0; iter < std::min(max_iters, size + 5); iter++) {
      times(direction, moved);
      const double curvature = dot(direction, moved), slope = dot(direction, residual);
      if (curvature == 0) break;
      const double step = -slope / curvature;
      D squares = {};
      for (int64_t i = 0; i < padded; i += kD) {
        store(x + i, load(x + i) + step * load(direction + i));
        const D left = load(residual + i) + step * load(moved + i);
        store(residual + i, left);
        squares += left * left;
      }
      double next_norm = add_up(squares);
      if (next_norm < 1e-4 * fresh_norm || next_norm > 1e4 * fresh_norm) {
        times(x, residual);
        for (int64_t i = 0; i < padded; i += kD) store(residual + i, load(residual + i) - load(b + i));
        next_norm = fresh_norm = dot(residual, residual);
      }
      if (next_norm <= 2.2250738585072014e-308) break;
      const double ratio = next_norm / norm;
      for (int64_t i = 0; i < padded; i += kD)
        store(direction + i, ratio * load(direction + i) - load(residual + i));
      norm = next_norm;
    }
    return !(norm > first_norm && norm > first_norm + 1e-10 * dot(b, b));
  }
};

constexpr int kSums = kBytes == 64 ? 16 : 8;  // vectors that stay in registers

// y (kD vecs) += x (dim) times the columns of `matrix` (dim, size) that begin where it points; vecs <= N.
template <int N>
INLINE void add_product(int64_t vecs, const double *x, const double *matrix, int64_t dim, int64_t size, double *y) {
  if constexpr (N > 1)
    if (vecs < N) return add_product<N - 1>(vecs, x, matrix, dim, size, y);
  D sum[N] = {};
  for (int64_t d = 0; d < dim; d++)
    for (int n = 0; n < N; n++) sum[n] += x[d] * load(matrix + d * size + kD * n);
  for (int n = 0; n < N; n++) store(y + kD * n, load(y + kD * n) + sum[n]);
}

// ROWS rows of x, `step` apart and `dim` long, times kF vecs columns of `matrix` (dim, width), vecs <= VECS. Every sum
// runs over the dimensions in order, so that a row's result does not depend on which rows are computed beside it.
template <int ROWS, int VECS>
INLINE void product(int64_t vecs, const float *x, int64_t step, int64_t dim, const float *matrix, int64_t width,
                    float *out) {
  if constexpr (VECS > 1)
    if (vecs < VECS) return product<ROWS, VECS - 1>(vecs, x, step, dim, matrix, width, out);
  F sum[ROWS][VECS] = {};
  for (int64_t d = 0; d < dim; d++)
    for (int v = 0; v < VECS; v++) {
      const F column = load(matrix + d * width + kF * v);
      for (int r = 0; r < ROWS; r++) sum[r][v] += x[r * step + d] * column;
    }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECS; v++) store(out + r * width + kF * v, sum[r][v]);
}

constexpr int64_t ROWS = 6;                    // times so many vectors are as many sums as stay in registers
constexpr int kVectors = kBytes == 64 ? 4 : 2;

// x (rows, dim), rows `step` apart, times `matrix` (dim, width), width a multiple of 16: out, rows `width` apart.
template <int ROWS>
INLINE void product(const float *x, int64_t step, int64_t dim, const float *matrix, int64_t width, float *out) {
  for (int64_t c = 0; c < width; c += kVectors * kF)
    product<ROWS, kVectors>(std::min<int64_t>(kVectors, (width - c) / kF), x, step, dim, matrix + c, width, out + c);
}

INLINE void product(const float *x, int64_t rows, int64_t step, int64_t dim, const float *matrix, int64_t width,
                    float *out) {
  if (rows == ROWS)
    product<ROWS>(x, step, dim, matrix, width, out);
  else
    for (int64_t r = 0; r < rows; r++) product<1>(x + r * step, step, dim, matrix, width, out + r * width);
}

// hmm/posterior.cc, VectorToPosteriorEntry: the best Gaussians of a frame, best first, and their number.
INLINE int32_t select_of_frame(const float *row, int64_t num_gauss, float min_post, float scale, int64_t keep,
                               int32_t *gaussians, float *post) {
  const int64_t lanes = 64, whole = num_gauss - num_gauss % lanes;
  float peaks[lanes];  // the best of every 64th Gaussian: tells which of them need a closer look
  if (scale == 0) return 0;
  for (int64_t lane = 0; lane < lanes; lane++) peaks[lane] = row[std::min(lane, num_gauss - 1)];
  for (int64_t start = lanes; start < whole; start += lanes)
    for (int64_t lane = 0; lane < lanes; lane += kF)
      store(peaks + lane, larger(load(peaks + lane), load(row + start + lane)));
  for (int64_t g = std::max(whole, lanes); g < num_gauss; g++) peaks[g - whole] = std::max(peaks[g - whole], row[g]);
  F most = load(peaks);
  for (int64_t lane = kF; lane < lanes; lane += kF) most = larger(most, load(peaks + lane));
  float best = most[0];
  for (int i = 1; i < kF; i++) best = std::max(best, most[i]);
  const float floor = best + std::log(min_post);
  int64_t n = 0;
  for (int64_t lane = 0; lane < lanes; lane++) {
    if (!(peaks[lane] > floor)) continue;
    for (int64_t g = lane; g < num_gauss; g += lanes) {
      const float like = row[g];
      if (!(like > floor) || (n == keep && like <= post[n - 1])) continue;
      if (n < keep) n++;
      int64_t j = n - 1;
      for (; j > 0 && post[j - 1] < like; j--) {
        post[j] = post[j - 1];
        gaussians[j] = gaussians[j - 1];
      }
      post[j] = like;
      gaussians[j] = static_cast<int32_t>(g);
    }
  }
  if (n == 0) {  // (so far below zero that min_post of the best is the best)
    n = 1;
    post[0] = best;
    gaussians[0] = static_cast<int32_t>(std::max_element(row, row + num_gauss) - row);
  }
  float total = 0;
  for (int64_t j = 0; j < n; j++) total += post[j] = std::exp(post[j] - best);
  const float cutoff = min_post * total;  // of the sum before anything is dropped
  while (n > 1 && post[n - 1] < cutoff) total -= post[--n];
  for (int64_t j = 0; j < n; j++) post[j] *= scale / total;
  return static_cast<int32_t>(n);
}

}  // namespace

extern "C" {

// out (frames, columns) = windows of x times `matrix` (length, width) plus offset; window t begins `step` * t into x.
void ivector_transform(const float *x, int64_t frames, int64_t step, int64_t length, const float *matrix,
                              int64_t width, const float *offset, int64_t columns, float *out) {
  std::vector<float> buffer(ROWS * width);
  for (int64_t t = 0; t < frames; t += ROWS) {
    const int64_t rows = std::min(ROWS, frames - t);
    product(x + t * step, rows, step, length, matrix, width, buffer.data());
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++) out[(t + r) * columns + c] = buffer[r * width + c] + offset[c];
  }
}

void ivector_subtract_running_mean(const float *feats, int64_t frames, int64_t dim, const double *speaker,
                                          const double *total, int64_t window, double speaker_frames,
                                          double global_frames, float *out) {
  std::vector<double> sums(dim, 0.0);
  for (int64_t t = 0; t < frames; t++) {
    const float *row = feats + t * dim;
    for (int64_t d = 0; d < dim; d++) sums[d] += row[d];
    if (t >= window)
      for (int64_t d = 0; d < dim; d++) sums[d] -= row[d - window * dim];
    const double count = static_cast<double>(std::min(t + 1, window));
    const double from_speaker = std::max(0.0, std::min({window - count, speaker_frames, speaker[dim]}));
    const double from_total = std::max(0.0, std::min(window - count - from_speaker, global_frames));
    const double a = from_speaker > 0 ? from_speaker / speaker[dim] : 0.0, b = from_total / total[dim];
    const double inverse = 1.0 / (count + from_speaker + from_total);
    for (int64_t d = 0; d < dim; d++)
      out[t * dim + d] = row[d] - static_cast<float>((sums[d] + a * speaker[d] + b * total[d]) * inverse);
  }
}

// The log-likelihoods are (x, x^2, 1) times `matrix` (2 dim + 1, width): those of a few frames at a time, in the cache.
void ivector_posteriors(const float *feats, int64_t frames, int64_t dim, const float *matrix, int64_t width,
                               int64_t num_gauss, const float *min_post, const float *scale, int64_t keep,
                               int32_t *gaussians, float *post, int32_t *count) {
  const int64_t step = 2 * dim + 1;
  std::vector<float> terms(ROWS * step, 1.0f), likes(ROWS * width);
  for (int64_t t = 0; t < frames; t += ROWS) {
    const int64_t rows = std::min(ROWS, frames - t);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t d = 0; d < dim; d++) {
        const float x = feats[(t + r) * dim + d];
        terms[r * step + d] = x;
        terms[r * step + dim + d] = x * x;
      }
    product(terms.data(), rows, step, step, matrix, width, likes.data());
    for (int64_t r = 0; r < rows; r++)
      count[t + r] = select_of_frame(&likes[r * width], num_gauss, min_post[t + r], scale[t + r], keep,
                                     gaussians + (t + r) * keep, post + (t + r) * keep);
  }
}

int64_t ivector_sum_blocks(const int64_t *begin, const int64_t *end, int64_t blocks, const int32_t *gaussians,
                                  const float *post, const int32_t *count, int64_t keep, const float *feats,
                                  int64_t dim, int64_t num_gauss, int64_t *starts, int32_t *gauss, double *weight,
                                  double *first) {
  std::vector<int64_t> seen(num_gauss, -1), place(num_gauss);
  int64_t n = 0;
  for (int64_t b = 0; b < blocks; b++) {
    starts[b] = n;
    for (int64_t t = begin[b]; t < end[b]; t++) {
      const float *row = feats + t * dim;
      for (int64_t j = 0; j < count[t]; j++) {
        const int32_t g = gaussians[t * keep + j];
        const float w = post[t * keep + j];
        if (seen[g] != b) {
          seen[g] = b;
          place[g] = n;
          gauss[n] = g;
          weight[n] = 0;
          std::fill_n(first + n * dim, dim, 0.0);
          n++;
        }
        weight[place[g]] += w;
        double *sum = first + place[g] * dim;
        for (int64_t d = 0; d < dim; d++) sum[d] += static_cast<double>(w * row[d]);
      }
    }
  }
  starts[blocks] = n;
  return n;
}

// Gaussian by Gaussian, so that one matrix serves all its pairs from the cache.
void ivector_linear_terms(const int64_t *starts, int64_t blocks, const int32_t *gauss, const double *first,
                                 const double *sigma_inv_m, int64_t num_gauss, int64_t dim, int64_t size, double *out) {
  const int64_t pairs = starts[blocks];
  std::vector<int64_t> begin(num_gauss + 1, 0), order(pairs), block(pairs);
  for (int64_t i = 0; i < pairs; i++) begin[gauss[i] + 1]++;
  for (int64_t g = 0; g < num_gauss; g++) begin[g + 1] += begin[g];
  std::vector<int64_t> fill(begin);
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t i = starts[b]; i < starts[b + 1]; i++) {
      const int64_t at = fill[gauss[i]]++;
      order[at] = i;
      block[at] = b;
    }
  std::fill_n(out, blocks * size, 0.0);
  for (int64_t g = 0; g < num_gauss; g++) {
    const double *matrix = sigma_inv_m + g * dim * size;
    for (int64_t at = begin[g]; at < begin[g + 1]; at++) {
      const double *x = first + order[at] * dim;
      double *y = out + block[at] * size;
      for (int64_t s = 0; s < size; s += kSums * kD)
        add_product<kSums>(std::min<int64_t>(kSums, (size - s) / kD), x, matrix + s, dim, size, y + s);
    }
  }
}

double ivector_solve_blocks(int64_t begin, int64_t end, const int64_t *starts, const int32_t *gauss,
                                   const double *weight, const float *quadratics, int64_t size, const double *linears,
                                   int64_t width, double count, double *linear, double *quadratic, double prior_offset,
                                   double max_count, int64_t cg_iters, int64_t rows, float *out) {
  const int64_t packed = size * (size + 1) / 2, padded = (size + kD - 1) / kD * kD;
  std::vector<double> space(5 * padded, 0.0);
  double *x = space.data(), *b = x + padded, *scratch = b + padded;
  x[0] = prior_offset;
  for (int64_t block = begin; block < end; block++, out += size) {
    add_quadratic(starts[block], starts[block + 1], gauss, weight, quadratics, packed, quadratic);
    for (int64_t i = starts[block]; i < starts[block + 1]; i++) count += weight[i];
    for (int64_t s = 0; s < size; s++) linear[s] += linears[block * width + s];
    if (block - begin >= rows) continue;
    if (count > 0) {
      const double prior = max_count > 0 ? std::max(count, max_count) / max_count : 1.0;
      std::copy_n(linear, size, b);
      b[0] += prior * prior_offset;
      const System system{quadratic, prior, size, padded};
      if (cg_iters == 0 || !system.conjugate_gradient(b, x, cg_iters, scratch)) system.solve(b, x);
    } else {
      std::fill_n(x, size, 0.0);
      x[0] = prior_offset;
    }
    for (int64_t s = 0; s < size; s++) out[s] = static_cast<float>(x[s]);
    out[0] -= static_cast<float>(prior_offset);
  }
  return count;
}

// One system, for the tests.
bool ivector_conjugate_gradient(const double *packed, double prior, int64_t size, const double *b, double *x,
                                       int64_t max_iters) {
  const int64_t padded = (size + kD - 1) / kD * kD;
  std::vector<double> space(5 * padded, 0.0);
  std::copy_n(x, size, space.data());
  std::copy_n(b, size, space.data() + padded);
  const System system{packed, prior, size, padded};
  const bool good = system.conjugate_gradient(space.data() + padded, space.data(), max_iters, space.data() + 2 * padded);
  std::copy_n(space.data(), size, x);
  return good;
}

void ivector_solve_exactly(const double *packed, double prior, int64_t size, const double *b, double *x) {
  System{packed, prior, size, size}.solve(b, x);
}

}  // extern "C"
