// The denominator of LF-MMI: probabilities, renormalised at every frame; as many sequences side by side as a vector holds,
// so that an arc is a few vector instructions for all of them. What gets lost below the smallest number is bounded in the
// backward pass; where it could matter, the sequence is computed again in double, and then in the log domain, so that
// extreme outputs change the time but not the result.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lfmmi.h"

namespace lfmmi {
namespace {

constexpr int kLanes = kF;

typedef float Float __attribute__((vector_size(kLanes * sizeof(float))));
typedef float LooseFloat __attribute__((vector_size(kLanes * sizeof(float)), aligned(4)));
typedef double Double __attribute__((vector_size(kLanes * sizeof(double))));
template <typename Real> struct VectorOf;
template <> struct VectorOf<float> { typedef Float type; };
template <> struct VectorOf<double> { typedef Double type; };

// (kLanes, kLanes) in place.
template <typename Vector> INLINE void transpose_each(Vector *rows) {
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < i; j++) {
      const auto other = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = other;
    }
}

INLINE void transpose(Double *rows) { transpose_each(rows); }

#if defined(__clang__)
INLINE void transpose(Float *rows) { transpose_each(rows); }
#else
INLINE void transpose(Float *rows) {
  typedef int32_t Int __attribute__((vector_size(kLanes * sizeof(int32_t))));
  for (int d = kLanes / 2; d > 0; d /= 2) {
    Int low, high;
    for (int j = 0; j < kLanes; j++) {
      low[j] = j & d ? kLanes + j - d : j;
      high[j] = j & d ? kLanes + j : j + d;
    }
    for (int i = 0; i < kLanes; i++) {
      if (i & d) continue;
      const Float a = rows[i], b = rows[i + d];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + d] = __builtin_shuffle(a, b, high);
    }
  }
}
#endif

INLINE float largest(const float *from, int64_t count) {
  float peak = -std::numeric_limits<float>::infinity();
  int64_t i = 0;
  if (count >= kLanes) {
    Float best = *reinterpret_cast<const LooseFloat *>(from);
    for (i = kLanes; i + kLanes <= count; i += kLanes) {
      const Float next = *reinterpret_cast<const LooseFloat *>(from + i);
      best = next > best ? next : best;
    }
    for (int k = 0; k < kLanes; k++) peak = best[k] > peak ? best[k] : peak;
  }
  for (; i < count; i++) peak = from[i] > peak ? from[i] : peak;
  return peak;
}

// Arcs sorted by one of their ends; `state` is the other end.
struct Arcs {
  const int32_t *first;  // (states + 1)
  const int32_t *state, *pdf;
  const double *weight;
};

struct DenominatorGraph {
  int32_t states;
  Arcs in, out;
  const double *initial, *leak, *final;
  const int32_t *distance;  // frames from the start to each state
  double in_degree;
  bool leaky;
};

// An arc as the inner loops read it: where the vectors of its other state and of its pdf are, in bytes.
template <typename Real> struct Step {
  uint32_t state, pdf;
  Real weight;
};

template <typename Real> struct DenominatorMemory {
  std::vector<Step<Real>> in, out;
  std::vector<Real> initial, leak, final;
  Scratch alpha, kept, beta, emission, scale, posterior, row;
};

template <typename Vector> INLINE Vector &at(Vector *vectors, uint32_t bytes) {
  return *reinterpret_cast<Vector *>(reinterpret_cast<char *>(vectors) + bytes);
}

template <typename Vector> INLINE const Vector &at(const Vector *vectors, uint32_t bytes) {
  return *reinterpret_cast<const Vector *>(reinterpret_cast<const char *>(vectors) + bytes);
}

template <typename Real> INLINE typename VectorOf<Real>::type every(Real value) {
  return value - typename VectorOf<Real>::type{};
}

// kLanes sequences, lane[i] of the batch (< 0: none), each of length[i] frames.
struct Group {
  int64_t lane[kLanes], length[kLanes], frames = 0;

  Group(const Batch &b, const std::vector<int64_t> &from, size_t start) {
    for (size_t i = 0; i < kLanes; i++) {
      lane[i] = start + i < from.size() ? from[start + i] : -1;
      length[i] = lane[i] < 0 ? 0 : b.lengths[lane[i]];
      frames = std::max(frames, length[i]);
    }
  }
};

// The exponentials of frame t, y (columns, filled up to whole blocks), over each sequence's largest one, whose logarithm
// is added to score. `row` is room for (kLanes, columns).
template <typename Real, typename Vector>
INLINE void emit(const Batch &b, const Group &group, float limit, int64_t t, Real *row, Vector *y, double *score) {
  const int64_t padded = (b.columns + kLanes - 1) / kLanes * kLanes;
  for (int i = 0; i < kLanes; i++) {
    Real *to = row + i * padded;
    if (t >= group.length[i]) {
      if (t == group.length[i] || t == 0) std::fill(to, to + padded, Real(0));
      continue;
    }
    const float *from = b.outputs + b.row(group.lane[i], t);
    float peak = largest(from, b.columns);
    peak = peak < -limit ? -limit : peak > limit ? limit : peak;
    for (int64_t c = 0; c < b.columns; c++) {
      const float value = from[c] < -limit ? -limit : from[c] > limit ? limit : from[c];
      to[c] = fast_exp(value - peak);
    }
    score[i] += peak;
  }
  for (int64_t c = 0; c < padded; c += kLanes) {
    Vector block[kLanes];
    for (int i = 0; i < kLanes; i++) block[i] = *reinterpret_cast<const Vector *>(row + i * padded + c);
    transpose(block);
    for (int i = 0; i < kLanes; i++) y[c + i] = block[i];
  }
}

// Posteriors (columns) times y to their places of frame t.
template <typename Vector>
INLINE void write(const Batch &b, const Group &group, int64_t t, const Vector *posterior, const Vector *y) {
  for (int64_t c = 0; c < b.columns; c += kLanes) {
    Vector block[kLanes];
    for (int i = 0; i < kLanes; i++) block[i] = posterior[c + i] * y[c + i];
    transpose(block);
    const int64_t count = std::min<int64_t>(kLanes, b.columns - c);
    for (int i = 0; i < kLanes; i++) {
      if (t >= group.length[i]) continue;
      float *to = b.posteriors + b.row(group.lane[i], t) + c;
      if (count == kLanes)
        for (int k = 0; k < kLanes; k++) to[k] = static_cast<float>(block[i][k]);
      else
        for (int64_t k = 0; k < count; k++) to[k] = static_cast<float>(block[i][k]);
    }
  }
}

// Probabilities of the states after a frame, not scaled; returns their sum.
template <typename Real, typename Vector>
INLINE Vector advance(const DenominatorGraph &g, const std::vector<Step<Real>> &steps, const Vector *now, const Vector *y,
                      Vector *next) {
  const Step<Real> *step = steps.data();
  Vector sum = {};
  for (int64_t s = 0; s < g.states; s++) {
    Vector total = {};
    for (const Step<Real> *end = steps.data() + g.in.first[s + 1]; step < end; step++)
      total += step->weight * at(now, step->state) * at(y, step->pdf);
    next[s] = total;
    sum += total;
  }
  return sum;
}

// The states' probabilities of all frames take frames * states vectors. Where that is more than `most` bytes, they are kept
// at the start of every stretch of frames only, and computed again from there.
template <typename Real>
void denominator_group(const DenominatorGraph &g, const Batch &b, float limit, double most, const Group &group,
                       DenominatorMemory<Real> &memory, std::vector<int64_t> &failed) {
  typedef typename VectorOf<Real>::type Vector;
  const int64_t states = g.states, padded = (b.columns + kLanes - 1) / kLanes * kLanes, frames = group.frames;
  const bool fits = static_cast<double>(frames) * states * sizeof(Vector) <= most;
  const int64_t stretch = fits ? frames : static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(frames))));
  Vector *alpha = memory.alpha.template take<Vector>((stretch + 1) * states);
  Vector *kept = memory.kept.template take<Vector>(((frames - 1) / stretch + 1) * states);
  Vector *beta = memory.beta.template take<Vector>(2 * states), *next_beta = beta + states;
  Vector *emission = memory.emission.template take<Vector>(frames * padded);
  Vector *inverse = memory.scale.template take<Vector>(frames);
  Vector *posterior = memory.posterior.template take<Vector>(padded);
  Real *row = memory.row.template take<Real>(kLanes * padded);
  const Real *leak = memory.leak.data(), *final = memory.final.data();
  double score[kLanes] = {0};
  Vector closing = {};

  for (int64_t s = 0; s < states; s++) alpha[s] = every<Real>(memory.initial[s] + leak[s]);
  for (int64_t t = 0; t < frames; t++) {
    const int64_t place = t % stretch;
    if (place == 0) {
      if (t > 0) std::copy_n(alpha + stretch * states, states, alpha);
      std::copy_n(alpha, states, kept + t / stretch * states);
    }
    Vector *y = emission + t * padded, *next = alpha + (place + 1) * states;
    emit(b, group, limit, t, row, y, score);
    const Vector sum = advance(g, memory.in, alpha + place * states, y, next);
    Vector scale = {};
    for (int i = 0; i < kLanes; i++) {
      if (t >= group.length[i]) continue;
      score[i] += std::log(static_cast<double>(sum[i]));
      scale[i] = sum[i] > 0 ? 1 / sum[i] : 0;
    }
    inverse[t] = scale;
    for (int64_t s = 0; s < states; s++) next[s] = next[s] * scale + leak[s];
    for (int i = 0; i < kLanes; i++) {
      if (t + 1 != group.length[i]) continue;
      double total = 0;
      for (int64_t s = 0; s < states; s++) total += static_cast<double>(final[s]) * next[s][i];
      closing[i] = total > 0 ? 1 / total : 0;
      score[i] += std::log(total);
    }
  }

  for (int64_t s = 0; s < states; s++) beta[s] = Vector{};
  Vector lost = {};
  for (int64_t t = frames - 1, from = (frames - 1) / stretch * stretch; t >= 0; t--) {
    if (t < from) {
      from -= stretch;
      std::copy_n(kept + from / stretch * states, states, alpha);
      for (int64_t u = from; u < t; u++) {
        Vector *next = alpha + (u - from + 1) * states;
        advance(g, memory.in, alpha + (u - from) * states, emission + u * padded, next);
        for (int64_t s = 0; s < states; s++) next[s] = next[s] * inverse[u] + leak[s];
      }
    }
    Vector ends = {};
    bool any = false;
    for (int i = 0; i < kLanes; i++) {
      if (t + 1 != group.length[i]) continue;
      ends[i] = closing[i];
      any = true;
    }
    if (any)
      for (int64_t s = 0; s < states; s++) beta[s] += final[s] * ends;  // it was 0 in these lanes
    Vector leaked = {}, reached = {};
    if (g.leaky)
      for (int64_t s = 0; s < states; s++) leaked += leak[s] * beta[s];
    const Vector scale = inverse[t];
    for (int64_t s = 0; s < states; s++) {
      beta[s] = (beta[s] + leaked) * scale;
      if (g.distance[s] <= t + 1) reached += beta[s];
    }
    lost += reached;

    const Vector *now = alpha + (t - from) * states, *y = emission + t * padded;
    const Step<Real> *step = memory.out.data();
    for (int64_t c = 0; c < padded; c++) posterior[c] = Vector{};
    for (int64_t s = 0; s < states; s++) {
      const Vector before = now[s];
      Vector total = {};
      for (const Step<Real> *end = memory.out.data() + g.out.first[s + 1]; step < end; step++) {
        const Vector after = step->weight * at(beta, step->state);
        total += after * at(y, step->pdf);
        at(posterior, step->pdf) += after * before;
      }
      next_beta[s] = total;
    }
    write(b, group, t, posterior, y);
    std::swap(beta, next_beta);
  }
  for (int i = 0; i < kLanes; i++) {
    if (group.lane[i] < 0) continue;
    b.scores[group.lane[i]] = score[i];
    const double share = static_cast<double>(lost[i]) * g.in_degree * std::numeric_limits<Real>::min();
    if (!(share < kLost) || !std::isfinite(score[i])) failed.push_back(group.lane[i]);
  }
}

template <typename Real> void prepare(const Arcs &arcs, int64_t count, std::vector<Step<Real>> &steps) {
  constexpr uint32_t size = sizeof(typename VectorOf<Real>::type);
  steps.resize(count);
  for (int64_t a = 0; a < count; a++)
    steps[a] = {size * static_cast<uint32_t>(arcs.state[a]), size * static_cast<uint32_t>(arcs.pdf[a]),
                static_cast<Real>(arcs.weight[a])};
}

template <typename Real> void prepare(const DenominatorGraph &g, DenominatorMemory<Real> &memory) {
  prepare(g.in, g.in.first[g.states], memory.in);
  prepare(g.out, g.in.first[g.states], memory.out);
  memory.initial.assign(g.initial, g.initial + g.states);
  memory.leak.assign(g.leak, g.leak + g.states);
  memory.final.assign(g.final, g.final + g.states);
}

thread_local DenominatorMemory<float> float_memory;
thread_local DenominatorMemory<double> double_memory;

}  // namespace
}  // namespace lfmmi

// Returns 0, or 1 where there is not enough memory. All matrices are contiguous.
// outputs, posteriors (N, T, C), the posteriors zeroed; lengths, scores (N,).
// in_*, out_*: arcs sorted by target and by source: (states + 1) first arcs, (A,) other state, column, weight (not log).
// initial, leak, final (states,): probabilities; leak is the coefficient times the initial probabilities.
// distance (states,): frames from the start to each state, at the least. arcs, weights, finals: the graph as numerators
// have it, for the log domain. limit: of the outputs. most: bytes for the states' probabilities.
extern "C" int pyser_denominator(
    int64_t states, int64_t num_arcs, const int32_t *in_first, const int32_t *in_state, const int32_t *in_pdf,
    const double *in_weight, const int32_t *out_first, const int32_t *out_state, const int32_t *out_pdf,
    const double *out_weight, const double *initial, const double *leak, const double *final, const int32_t *distance,
    const int32_t *arcs, const double *weights, const double *finals, double limit, double most, int64_t sequences,
    int64_t frames, int64_t columns, const float *outputs, const int64_t *lengths, double *scores, float *posteriors) try {
  using namespace lfmmi;
  FlushToZero flush;
  DenominatorGraph g = {static_cast<int32_t>(states), {in_first, in_state, in_pdf, in_weight},
                        {out_first, out_state, out_pdf, out_weight}, initial, leak, final, distance, 1, false};
  for (int64_t s = 0; s < states; s++) {
    g.in_degree = std::max<double>(g.in_degree, in_first[s + 1] - in_first[s]);
    g.leaky = g.leaky || leak[s] != 0;
  }
  const Batch b = {sequences, frames, columns, outputs, lengths, scores, posteriors};
  std::vector<int64_t> order(sequences), again;
  for (int64_t n = 0; n < sequences; n++) order[n] = n;
  std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return lengths[x] > lengths[y]; });
  prepare(g, float_memory);
  for (size_t start = 0; start < order.size(); start += kLanes)
    denominator_group(g, b, static_cast<float>(limit), most, Group(b, order, start), float_memory, again);
  if (again.empty()) return 0;
  prepare(g, double_memory);
  std::vector<int64_t> last;
  for (size_t start = 0; start < again.size(); start += kLanes)
    denominator_group(g, b, static_cast<float>(limit), most, Group(b, again, start), double_memory, last);
  if (last.empty()) return 0;
  if (!g.leaky) log_domain(arcs, weights, num_arcs, finals, states, b, limit, last);
  for (int64_t n : last) {
    if (!g.leaky) continue;  // the leak keeps all numbers in range, unless an output is not a number
    scores[n] = std::numeric_limits<double>::quiet_NaN();
    std::fill(posteriors + b.row(n, 0), posteriors + b.row(n, lengths[n]), 0.0f);
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
