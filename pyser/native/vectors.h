// Vectors as wide as the processor's own, in GCC's and Clang's notation: D of kD doubles, F of kF floats.
#pragma once

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kD = kBytes / 8, kF = kBytes / 4;

typedef double D __attribute__((vector_size(kBytes), aligned(8)));
typedef float F __attribute__((vector_size(kBytes), aligned(4)));

static INLINE D load(const double *from) { return *reinterpret_cast<const D *>(from); }
static INLINE F load(const float *from) { return *reinterpret_cast<const F *>(from); }
// For what is used twice: compilers would rather read memory twice than keep it.
static INLINE D load_once(const double *from) { return *reinterpret_cast<const volatile D *>(from); }
static INLINE void store(double *to, D value) { *reinterpret_cast<D *>(to) = value; }
static INLINE void store(float *to, F value) { *reinterpret_cast<F *>(to) = value; }
static INLINE F larger(F a, F b) { return a > b ? a : b; }

static INLINE double add_up(D v) {
  double half[kD];
  store(half, v);
  for (int width = kD / 2; width; width /= 2)
    for (int i = 0; i < width; i++) half[i] += half[i + width];
  return half[0];
}

// Element r of the result is the sum of v[r].
static INLINE D add_up(const D *v) {
#if defined(__AVX512F__)
  typedef long long I __attribute__((vector_size(64)));
  D two[4], four[2];
  for (int r = 0; r < 4; r++)
    two[r] = __builtin_shuffle(v[2 * r], v[2 * r + 1], (I){0, 8, 2, 10, 4, 12, 6, 14}) +
             __builtin_shuffle(v[2 * r], v[2 * r + 1], (I){1, 9, 3, 11, 5, 13, 7, 15});
  for (int r = 0; r < 2; r++)
    four[r] = __builtin_shuffle(two[2 * r], two[2 * r + 1], (I){0, 1, 8, 9, 4, 5, 12, 13}) +
              __builtin_shuffle(two[2 * r], two[2 * r + 1], (I){2, 3, 10, 11, 6, 7, 14, 15});
  return __builtin_shuffle(four[0], four[1], (I){0, 1, 2, 3, 8, 9, 10, 11}) +
         __builtin_shuffle(four[0], four[1], (I){4, 5, 6, 7, 12, 13, 14, 15});
#else
  D sums;
  for (int r = 0; r < kD; r++) sums[r] = add_up(v[r]);
  return sums;
#endif
}
