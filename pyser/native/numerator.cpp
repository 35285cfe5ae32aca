// The numerators of LF-MMI: one graph after another, probabilities in double, renormalised at every frame. What gets lost
// below the smallest number is bounded in the backward pass; where it could matter, the log domain takes over.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lfmmi.h"

namespace lfmmi {
namespace {

INLINE double log_add(double a, double b) {
  double high = a > b ? a : b, low = a > b ? b : a;
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}

// A graph for one sequence; arcs sorted by source, pdfs numbered among those that occur.
struct NumeratorGraph {
  struct Arc {
    int32_t target, pdf;
    double weight;  // not log
  };
  int32_t states;
  std::vector<Arc> arcs;
  std::vector<int32_t> first, columns, distance, remaining;
  std::vector<double> log_weight, final;
  bool small;  // some weights are below what a double holds

  // table (A, 3): source, target, column; weights (A,) log; finals (states,) log
  void set(const int32_t *table, const double *weights, int64_t num_arcs, const double *finals, int32_t num_states,
           std::vector<int32_t> &number) {
    states = num_states;
    first.assign(states + 1, 0);
    arcs.resize(num_arcs);
    log_weight.resize(num_arcs);
    for (int64_t a = 0; a < num_arcs; a++) first[table[3 * a] + 1]++;
    for (int32_t s = 0; s < states; s++) first[s + 1] += first[s];
    for (int32_t column : columns) number[column] = -1;  // of the graph before
    columns.clear();
    small = false;
    for (int64_t a = 0; a < num_arcs; a++) {
      const int32_t source = table[3 * a], column = table[3 * a + 2], place = first[source]++;
      if (number[column] < 0) {
        number[column] = static_cast<int32_t>(columns.size());
        columns.push_back(column);
      }
      arcs[place] = {table[3 * a + 1], number[column], std::exp(weights[a])};
      log_weight[place] = weights[a];
      small = small || (weights[a] < -300 && weights[a] > -kInfinity);
    }
    for (int32_t s = states; s > 0; s--) first[s] = first[s - 1];
    first[0] = 0;
    final.assign(finals, finals + states);
    for (int32_t s = 0; s < states; s++) small = small || (final[s] < -300 && final[s] > -kInfinity);
    reach();
  }

 private:
  // Frames from the start to each state, and from each state to the end, at the least; -1: there is no way.
  void reach() {
    distance.assign(states, -1);
    queue_.assign(1, 0);
    distance[0] = 0;
    for (size_t i = 0; i < queue_.size(); i++) {
      const int32_t s = queue_[i];
      for (int32_t a = first[s]; a < first[s + 1]; a++) {
        const int32_t target = arcs[a].target;
        if (distance[target] >= 0 || log_weight[a] == -kInfinity) continue;
        distance[target] = distance[s] + 1;
        queue_.push_back(target);
      }
    }
    start_.assign(states + 1, 0);
    sources_.resize(arcs.size());
    for (const Arc &arc : arcs) start_[arc.target + 1]++;
    for (int32_t s = 0; s < states; s++) start_[s + 1] += start_[s];
    for (int32_t s = 0; s < states; s++)
      for (int32_t a = first[s]; a < first[s + 1]; a++)
        sources_[start_[arcs[a].target]++] = log_weight[a] == -kInfinity ? -1 : s;
    remaining.assign(states, -1);
    queue_.clear();
    for (int32_t s = 0; s < states; s++) {
      if (final[s] == -kInfinity) continue;
      remaining[s] = 0;
      queue_.push_back(s);
    }
    for (size_t i = 0; i < queue_.size(); i++) {
      const int32_t s = queue_[i];
      for (int32_t k = s ? start_[s - 1] : 0; k < start_[s]; k++) {
        if (sources_[k] < 0 || remaining[sources_[k]] >= 0) continue;
        remaining[sources_[k]] = remaining[s] + 1;
        queue_.push_back(sources_[k]);
      }
    }
  }

  std::vector<int32_t> queue_, start_, sources_;
};

struct NumeratorMemory {
  NumeratorGraph graph;
  Scratch alpha, beta, emission, scale, posterior, row;
};

// Probabilities in double. Returns false where numbers got too small.
bool scaled(const NumeratorGraph &g, const Batch &b, int64_t n, NumeratorMemory &memory) {
  const int64_t states = g.states, frames = b.lengths[n], pdfs = static_cast<int64_t>(g.columns.size());
  double *alpha = memory.alpha.take<double>((frames + 1) * states);
  double *beta = memory.beta.take<double>(2 * states), *next_beta = beta + states;
  double *emission = memory.emission.take<double>(frames * pdfs), *inverse = memory.scale.take<double>(frames);
  double *posterior = memory.posterior.take<double>(pdfs);
  const int32_t *columns = g.columns.data(), *first = g.first.data();
  const int32_t *distance = g.distance.data(), *remaining = g.remaining.data();
  const NumeratorGraph::Arc *arcs = g.arcs.data();
  std::fill(alpha, alpha + states, 0.0);
  alpha[0] = 1;
  double score = 0;
  for (int64_t t = 0; t < frames; t++) {
    const float *outputs = b.outputs + b.row(n, t);
    double *y = emission + t * pdfs;
    float peak = -std::numeric_limits<float>::infinity();
    for (int64_t c = 0; c < pdfs; c++) {
      const float value = outputs[columns[c]];
      y[c] = value;
      peak = value > peak ? value : peak;
    }
    for (int64_t c = 0; c < pdfs; c++) y[c] = fast_exp(y[c] - peak);
    const double *now = alpha + t * states;
    double *next = alpha + (t + 1) * states, sum = 0;
    std::fill(next, next + states, 0.0);
    for (int64_t s = 0; s < states; s++) {
      const double before = now[s];
      if (before == 0) continue;
      for (int32_t a = first[s]; a < first[s + 1]; a++) next[arcs[a].target] += before * arcs[a].weight * y[arcs[a].pdf];
    }
    for (int64_t s = 0; s < states; s++) {
      if (remaining[s] < 0 || remaining[s] > frames - t - 1) next[s] = 0;
      sum += next[s];
    }
    if (!(sum > 0 && sum < kInfinity)) return false;
    inverse[t] = 1 / sum;
    for (int64_t s = 0; s < states; s++) next[s] *= inverse[t];
    score += std::log(sum) + peak;
  }
  double total = 0;
  const double *last = alpha + frames * states;
  for (int64_t s = 0; s < states; s++) {
    beta[s] = std::exp(g.final[s]);
    total += last[s] * beta[s];
  }
  if (!(total > 0 && total < kInfinity)) return false;
  for (int64_t s = 0; s < states; s++) beta[s] /= total;
  score += std::log(total);

  double lost = 0;
  for (int64_t t = frames - 1; t >= 0; t--) {
    double reached = 0;
    for (int64_t s = 0; s < states; s++) {
      beta[s] = distance[s] < 0 || distance[s] > t + 1 ? 0 : beta[s] * inverse[t];
      reached += beta[s];
    }
    lost += reached;
    const double *now = alpha + t * states, *y = emission + t * pdfs;
    std::fill(posterior, posterior + pdfs, 0.0);
    for (int64_t s = 0; s < states; s++) {
      double sum = 0;
      if (distance[s] >= 0 && distance[s] <= t) {
        const double before = now[s];
        for (int32_t a = first[s]; a < first[s + 1]; a++) {
          const double after = arcs[a].weight * y[arcs[a].pdf] * beta[arcs[a].target];
          sum += after;
          posterior[arcs[a].pdf] += before * after;
        }
      }
      next_beta[s] = sum;
    }
    float *to = b.posteriors + b.row(n, t);
    for (int64_t c = 0; c < pdfs; c++) to[columns[c]] = static_cast<float>(posterior[c]);
    std::swap(beta, next_beta);
  }
  b.scores[n] = score;
  return lost * static_cast<double>(g.arcs.size()) * std::numeric_limits<double>::min() < kLost;
}

// The same with logarithms; see lfmmi.h.
void log_domain_one(const NumeratorGraph &g, const Batch &b, int64_t n, double limit, NumeratorMemory &memory) {
  const int64_t states = g.states, frames = b.lengths[n], pdfs = static_cast<int64_t>(g.columns.size());
  double *alpha = memory.alpha.take<double>((frames + 1) * states);
  double *beta = memory.beta.take<double>(2 * states), *next_beta = beta + states;
  double *y = memory.row.take<double>(pdfs), *posterior = memory.posterior.take<double>(pdfs);
  std::fill(alpha, alpha + (frames + 1) * states, -kInfinity);
  alpha[0] = 0;
  const auto emit = [&](int64_t t) {
    for (int64_t c = 0; c < pdfs; c++) {
      const double value = b.outputs[b.row(n, t) + g.columns[c]];
      y[c] = value < -limit ? -limit : value > limit ? limit : value;
    }
  };
  for (int64_t t = 0; t < frames; t++) {
    emit(t);
    const double *now = alpha + t * states;
    double *next = alpha + (t + 1) * states;
    for (int64_t s = 0; s < states; s++) {
      if (now[s] == -kInfinity || g.remaining[s] < 0 || g.remaining[s] > frames - t) continue;
      for (int32_t a = g.first[s]; a < g.first[s + 1]; a++)
        next[g.arcs[a].target] = log_add(next[g.arcs[a].target], now[s] + g.log_weight[a] + y[g.arcs[a].pdf]);
    }
  }
  double total = -kInfinity;
  for (int64_t s = 0; s < states; s++) {
    beta[s] = g.final[s];
    total = log_add(total, alpha[frames * states + s] + beta[s]);
  }
  b.scores[n] = total;
  const bool possible = std::isfinite(total);
  for (int64_t t = frames - 1; t >= 0; t--) {
    float *to = b.posteriors + b.row(n, t);
    std::fill(posterior, posterior + pdfs, 0.0);
    if (possible) emit(t);
    for (int64_t s = 0; possible && s < states; s++) {
      next_beta[s] = -kInfinity;
      const double before = alpha[t * states + s];
      if (before == -kInfinity) continue;
      for (int32_t a = g.first[s]; a < g.first[s + 1]; a++) {
        const double after = g.log_weight[a] + beta[g.arcs[a].target] + y[g.arcs[a].pdf];
        if (after == -kInfinity) continue;
        next_beta[s] = log_add(next_beta[s], after);
        posterior[g.arcs[a].pdf] += std::exp(before + after - total);
      }
    }
    std::fill(to, to + b.columns, 0.0f);
    for (int64_t c = 0; c < pdfs; c++) to[g.columns[c]] = static_cast<float>(posterior[c]);
    std::swap(beta, next_beta);
  }
}

thread_local NumeratorMemory numerator_memory;

}  // namespace

void log_domain(const int32_t *table, const double *weights, int64_t num_arcs, const double *finals, int64_t states,
                const Batch &b, double limit, const std::vector<int64_t> &which) {
  NumeratorMemory &memory = numerator_memory;
  std::vector<int32_t> number(b.columns, -1);
  memory.graph.columns.clear();
  memory.graph.set(table, weights, num_arcs, finals, static_cast<int32_t>(states), number);
  for (int64_t n : which) log_domain_one(memory.graph, b, n, limit, memory);
}

}  // namespace lfmmi

// Returns 0, or 1 where there is not enough memory. All matrices are contiguous.
// outputs, posteriors (N, T, C), the posteriors zeroed; lengths, scores (N,).
// first_arc, first_state (N + 1): where the arcs and states of each sequence's graph start.
extern "C" int pyser_numerators(const int64_t *first_arc, const int32_t *arcs, const double *weights,
                                const int64_t *first_state, const double *finals, int64_t sequences, int64_t frames,
                                int64_t columns, const float *outputs, const int64_t *lengths, double *scores,
                                float *posteriors) try {
  using namespace lfmmi;
  FlushToZero flush;
  const Batch b = {sequences, frames, columns, outputs, lengths, scores, posteriors};
  std::vector<int32_t> number(columns, -1);
  NumeratorMemory &memory = numerator_memory;
  memory.graph.columns.clear();
  for (int64_t n = 0; n < sequences; n++) {
    memory.graph.set(arcs + 3 * first_arc[n], weights + first_arc[n], first_arc[n + 1] - first_arc[n],
                     finals + first_state[n], static_cast<int32_t>(first_state[n + 1] - first_state[n]), number);
    if (memory.graph.small || !scaled(memory.graph, b, n, memory))
      log_domain_one(memory.graph, b, n, kInfinity, memory);
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
