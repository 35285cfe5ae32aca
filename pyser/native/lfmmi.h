// What the two halves of LF-MMI share: denominator.cpp and numerator.cpp. What they compute is said in
// pyser/chain/denominator.py and pyser/chain/numerator.py.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "vectors.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace lfmmi {

constexpr double kLost = 1e-6;  // of a sequence's probability may get lost below the smallest number
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Numbers below the smallest normal one count as 0 (kLost allows for it); on some processors they are very slow.
class FlushToZero {
 public:
#if defined(__x86_64__)
  FlushToZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushToZero() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

// Memory that the next call on this thread uses again: fresh pages cost more than the computation on small graphs.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  template <typename T> T *take(int64_t count) {
    size_t bytes = (count * sizeof(T) + 127) / 128 * 128;
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(128, bytes);
      if (!data_) throw std::bad_alloc();
      size_ = bytes;
    }
    return static_cast<T *>(data_);
  }

 private:
  void *data_ = nullptr;
  size_t size_ = 0;
};

// Polynomials on |r| <= ln(2)/2; relative errors 1e-7 and 1e-10. Plain enough for the compiler to vectorise.
INLINE float fast_exp(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds, and leaves the integer in the low bits
  float z = x * 1.44269504f + magic, n = z - magic;
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666655e-1f + r * (4.16657962e-2f + r * (8.33345205e-3f +
            r * 1.39388170e-3f)))));
  int32_t bits;
  std::memcpy(&bits, &z, 4);
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits + 127) << 23);
  float power;
  std::memcpy(&power, &bits, 4);
  return x < -87.0f ? 0.0f : p * power;
}

INLINE double fast_exp(double x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  double z = x * 1.4426950408889634 + magic, n = z - magic;
  double r = x - n * 0.693147180559945286 - n * 2.319046813846e-17;
  double p = 1 + r * (1 + r * (1. / 2 + r * (1. / 6 + r * (1. / 24 + r * (1. / 120 + r * (1. / 720 + r * (1. / 5040 +
             r * (1. / 40320 + r * (1. / 362880)))))))));
  int64_t bits;
  std::memcpy(&bits, &z, 8);
  bits = static_cast<int64_t>(static_cast<uint64_t>(bits + 1023) << 52);
  double power;
  std::memcpy(&power, &bits, 8);
  return x < -700.0 ? 0.0 : p * power;
}

// Network outputs (N, T, C) and what is wanted of them; the posteriors come zeroed.
struct Batch {
  int64_t sequences, frames, columns;
  const float *outputs;
  const int64_t *lengths;
  double *scores;
  float *posteriors;
  int64_t row(int64_t n, int64_t t) const { return (n * frames + t) * columns; }
};

// Log-domain forward-backward of the sequences `which` through one graph; outputs count as limited to +-limit. The arguments
// are those of NumeratorGraph::set.
void log_domain(const int32_t *table, const double *weights, int64_t num_arcs, const double *finals, int64_t states,
                const Batch &b, double limit, const std::vector<int64_t> &which);

}  // namespace lfmmi
