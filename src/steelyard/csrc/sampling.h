// Draws from weights: which rows, by position. Plain numbers and pointers, as in the losses.
//
// Weights become whole numbers q of units of total/2^62 or finer: w·2^k cut off, and odd where w > 0. Sums of
// whole numbers are exact in any order, so no draw depends on threads, and a weight of zero is never drawn. Rows stand in
// blocks of 8; only the sums of blocks are kept, and within a block the weights themselves are read again. That costs
// 2 bytes a weight at most, and the weights may stay where they are, on disk too.
#pragma once

#include <cstdint>
#include <vector>

#include "random.h"

namespace steelyard {

constexpr int64_t kBlock = 8;

struct Weights {
  const void* data;
  bool doubles;  // or floats
  int64_t n;
  double scale;  // 2^k

  double raw(int64_t i) const {
    return doubles ? static_cast<const double*>(data)[i] : static_cast<const float*>(data)[i];
  }
  uint64_t units(int64_t i) const { return units_of(raw(i)); }
  uint64_t units_of(double w) const {
    return static_cast<uint64_t>(static_cast<int64_t>(w * scale)) | static_cast<uint64_t>(w > 0);
  }
  int64_t blocks() const { return (n + kBlock - 1) / kBlock; }
};

struct Survey {
  int64_t first_bad;  // NaN, infinite or negative; −1 where there is none
  int64_t positive;   // how many are above zero
  double largest;
};
Survey survey(const Weights& weights, int threads);

// Σ of w·2^k cut off; no row is raised to 1.
uint64_t cut_off_sum(const Weights& weights, int threads);

// starts[b] is Σ q before block b, starts[blocks] the total.
void block_starts(const Weights& weights, uint64_t* starts, int threads);

// The same with the rows in the order of a permutation: block b holds the rows that it puts at 8·b and behind.
void permuted_starts(const Weights& weights, uint64_t key, uint64_t* starts, int threads);

// cells[g] is the block that holds unit g·2^shift; cells has one entry more than it needs, the last block.
void fill_cells(const uint64_t* starts, int64_t blocks, int shift, uint32_t* cells, int64_t count, int threads);

struct Table {
  Weights weights;
  const uint64_t* starts;
  const uint32_t* cells;
  int shift;
  uint64_t order = 0;  // key of the rows' permutation, where they are permuted
};

// Which positions: first, first + step, ... `count` of them.
struct Positions {
  int64_t first, step, count;
};

// Each position draws on its own, from the number that it has in the epoch.
void draw_independent(const Table& table, const Philox& numbers, Positions positions, int64_t* rows, int threads);

// All `total` positions together are equally spaced over the units, so that a row comes ⌊total·p⌋ or ⌈total·p⌉ times; `key`
// permutes them, `offset` (below the number of units) shifts them.
void draw_systematic(const Table& table, int64_t total, uint64_t offset, uint64_t key, Positions positions,
                     int64_t* rows, int threads);

// The `wanted` rows with the smallest E/q, E exponential: a draw without replacement. In the order of the rows. False,
// and rows that mean nothing, where somebody changed the weights meanwhile.
bool race(const Weights& weights, const Philox& numbers, int64_t wanted, int64_t* rows, int threads);

// to[i] = permutation of [0, n[i·each]) by key[i·each], at x[i].
void permute(const int64_t* x, const int64_t* n, const uint64_t* key, bool each, int64_t count, int64_t* to, int threads);

}  // namespace steelyard
