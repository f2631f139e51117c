#include "sampling.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "threads.h"

namespace steelyard {
namespace {

constexpr int64_t kChunk = 65536;  // rows or positions that a thread takes at a time
constexpr int64_t kAhead = 64;     // positions whose memory is asked for before any is read

template <class Body> void in_chunks(int64_t total, int threads, Body body) {
  struct Context {
    Body& body;
    int64_t total;
  } context{body, total};
  share_out((total + kChunk - 1) / kChunk, threads, &context, [](void* pointer, int slot, int64_t chunk) {
    Context& c = *static_cast<Context*>(pointer);
    c.body(slot, chunk, chunk * kChunk, std::min((chunk + 1) * kChunk, c.total));
  });
}
int64_t chunks_of(int64_t total) { return (total + kChunk - 1) / kChunk; }

void add_up(uint64_t* sums, int64_t n) {  // sums[0] is 0, the others become sums of all before
  for (int64_t i = 1; i <= n; i++) sums[i] += sums[i - 1];
}

// The block among [low, high] that holds a unit: the last that starts at it or before.
int64_t block_of(const uint64_t* starts, uint64_t unit, int64_t low, int64_t high) {
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (starts[middle] <= unit) low = middle;
    else high = middle - 1;
  }
  return low;
}

// As many rows of a block as end at a unit, counted from the start of the block, or before it lie in front of its row.
// Counted to the end, since a processor would guess the place to stop wrong most of the time. The last where somebody
// changed the weights meanwhile.
template <class UnitsOf> int64_t rows_before(int64_t rows, uint64_t unit, UnitsOf units_of) {
  uint64_t end = 0;
  int64_t before = 0;
  for (int64_t i = 0; i < kBlock; i++) {
    if (rows == kBlock || i < rows) end += units_of(i);
    before += end <= unit;
  }
  return std::min(before, rows - 1);
}

// Rows of the units that `units_at` finds for some positions, several at a time, so that memory answers all together.
template <class X, bool permuted, class UnitsAt>
void look_up_in(const Table& table, Positions p, int64_t* rows, int threads, UnitsAt units_at) {
  const Weights& w = table.weights;
  const X* weights = static_cast<const X*>(w.data);
  const Permutation order(w.n, table.order);
  in_chunks(p.count, threads, [&](int, int64_t, int64_t begin, int64_t end) {
    uint64_t units[kAhead];
    int64_t blocks[kAhead];
    int64_t held[permuted ? kAhead : 1][kBlock];  // the rows of each block, where they are scattered
    for (int64_t at = begin; at < end; at += kAhead) {
      const int64_t n = std::min(kAhead, end - at);
      units_at(Positions{p.first + at * p.step, p.step, n}, units);
      for (int64_t i = 0; i < n; i++) __builtin_prefetch(table.cells + (units[i] >> table.shift));
      for (int64_t i = 0; i < n; i++) {
        blocks[i] = table.cells[units[i] >> table.shift];
        __builtin_prefetch(table.starts + blocks[i]);
      }
      for (int64_t i = 0; i < n; i++) {
        const uint32_t* cell = table.cells + (units[i] >> table.shift);
        blocks[i] = block_of(table.starts, units[i], cell[0], cell[1]);
        units[i] -= table.starts[blocks[i]];
        const int64_t first = blocks[i] * kBlock;
        if (permuted) {
          for (int64_t k = 0; k < std::min(kBlock, w.n - first); k++) {
            held[i][k] = static_cast<int64_t>(order(first + k));
            __builtin_prefetch(weights + held[i][k]);
          }
        } else {
          __builtin_prefetch(weights + first);
        }
      }
      for (int64_t i = 0; i < n; i++) {
        const int64_t first = blocks[i] * kBlock, many = std::min(kBlock, w.n - first);
        if (permuted)
          rows[at + i] = held[i][rows_before(many, units[i], [&](int64_t k) { return w.units_of(weights[held[i][k]]); })];
        else
          rows[at + i] = first + rows_before(many, units[i], [&](int64_t k) { return w.units_of(weights[first + k]); });
      }
    }
  });
}

template <bool permuted, class UnitsAt>
void look_up(const Table& table, Positions p, int64_t* rows, int threads, UnitsAt units_at) {
  if (table.weights.doubles) look_up_in<double, permuted>(table, p, rows, threads, units_at);
  else look_up_in<float, permuted>(table, p, rows, threads, units_at);
}

// −log x for x in (0, 1], by the steps that samplers/_random.py takes, so that both have the same bits.
double minus_log(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  const int64_t e = static_cast<int64_t>(bits - 0x3fe6a09e667f3bcd) >> 52;
  bits -= static_cast<uint64_t>(e) << 52;
  double m;
  std::memcpy(&m, &bits, 8);  // in [√½, √2)
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  static constexpr double terms[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
                                     1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
  double series = 1.0 / 23;
  for (double term : terms) series = series * z + term;
  return 0.0 - (static_cast<double>(e) * 0.6931471805599453 + 2.0 * s * series);  // and not −0 at 1
}

double arrival(const Weights& w, int64_t row, uint64_t random) {
  const uint64_t q = w.units(row);
  if (q == 0) return HUGE_VAL;
  const double uniform = static_cast<double>((random >> 11) + 1) * 0x1p-53;  // in (0, 1]
  return minus_log(uniform) / static_cast<double>(q);
}

// The arrivals of rows [begin, end), begin even: numbers come in pairs.
template <class Visit>
void arrivals(const Weights& w, const Philox& numbers, int64_t begin, int64_t end, Visit visit) {
  for (int64_t row = begin; row < end; row += 2) {
    uint64_t even, odd;
    numbers.both(static_cast<uint64_t>(row) >> 1, even, odd);
    visit(row, arrival(w, row, even));
    if (row + 1 < end) visit(row + 1, arrival(w, row + 1, odd));
  }
}

constexpr int64_t kBins = 65536;
int64_t bin_of(double arrival) {  // 32 bins an octave, by the bits of the number, which is not negative
  uint64_t bits;
  std::memcpy(&bits, &arrival, 8);
  return static_cast<int64_t>(bits >> 47);
}

}  // namespace

Survey survey(const Weights& weights, int threads) {
  std::vector<Survey> parts(chunks_of(weights.n));
  in_chunks(weights.n, threads, [&](int, int64_t chunk, int64_t begin, int64_t end) {
    Survey part{-1, 0, 0};
    for (int64_t i = begin; i < end; i++) {
      const double w = weights.raw(i);
      if (!(w >= 0 && w < HUGE_VAL)) {
        part.first_bad = i;
        break;
      }
      part.positive += w > 0;
      part.largest = std::max(part.largest, w);
    }
    parts[chunk] = part;
  });
  Survey all{-1, 0, 0};
  for (const Survey& part : parts) {
    if (all.first_bad < 0) all.first_bad = part.first_bad;
    all.positive += part.positive;
    all.largest = std::max(all.largest, part.largest);
  }
  return all;
}

uint64_t cut_off_sum(const Weights& weights, int threads) {
  std::vector<uint64_t> parts(chunks_of(weights.n));
  in_chunks(weights.n, threads, [&](int, int64_t chunk, int64_t begin, int64_t end) {
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; i++)
      sum += static_cast<uint64_t>(static_cast<int64_t>(weights.raw(i) * weights.scale));
    parts[chunk] = sum;
  });
  uint64_t sum = 0;
  for (uint64_t part : parts) sum += part;
  return sum;
}

void block_starts(const Weights& weights, uint64_t* starts, int threads) {
  static_assert(kChunk % kBlock == 0, "a block is one thread's");
  starts[0] = 0;
  in_chunks(weights.n, threads, [&](int, int64_t, int64_t begin, int64_t end) {
    for (int64_t block = begin / kBlock; block * kBlock < end; block++) {
      uint64_t sum = 0;
      for (int64_t i = block * kBlock; i < std::min((block + 1) * kBlock, end); i++) sum += weights.units(i);
      starts[block + 1] = sum;
    }
  });
  add_up(starts, weights.blocks());
}

void permuted_starts(const Weights& weights, uint64_t key, uint64_t* starts, int threads) {
  const Permutation order(weights.n, key);
  starts[0] = 0;
  in_chunks(weights.n, threads, [&](int, int64_t, int64_t begin, int64_t end) {
    int64_t rows[kChunk / 1024];
    constexpr int64_t some = sizeof(rows) / sizeof(rows[0]);
    static_assert(some % kBlock == 0, "whole blocks at a time");
    for (int64_t at = begin; at < end; at += some) {
      const int64_t n = std::min(some, end - at);
      for (int64_t i = 0; i < n; i++) {
        rows[i] = static_cast<int64_t>(order(at + i));
        __builtin_prefetch(static_cast<const char*>(weights.data) + rows[i] * (weights.doubles ? 8 : 4));
      }
      for (int64_t i = 0; i < n; i += kBlock) {
        uint64_t sum = 0;
        for (int64_t k = i; k < std::min(i + kBlock, n); k++) sum += weights.units(rows[k]);
        starts[(at + i) / kBlock + 1] = sum;
      }
    }
  });
  add_up(starts, weights.blocks());
}

void fill_cells(const uint64_t* starts, int64_t blocks, int shift, uint32_t* cells, int64_t count, int threads) {
  in_chunks(count, threads, [&](int, int64_t, int64_t begin, int64_t end) {
    int64_t block = block_of(starts, static_cast<uint64_t>(begin) << shift, 0, blocks - 1);
    for (int64_t cell = begin; cell < end; cell++) {
      while (block + 1 < blocks && starts[block + 1] <= static_cast<uint64_t>(cell) << shift) block++;
      cells[cell] = static_cast<uint32_t>(block);
    }
  });
  cells[count] = static_cast<uint32_t>(blocks - 1);
}

void draw_independent(const Table& table, const Philox& numbers, Positions positions, int64_t* rows, int threads) {
  const uint64_t total = table.starts[table.weights.blocks()];
  look_up<false>(table, positions, rows, threads, [&](Positions p, uint64_t* units) {
    int64_t i = 0;
    if (p.step == 1 && p.first % 2 == 0)  // numbers come in pairs
      for (; i + 2 <= p.count; i += 2) {
        numbers.both(static_cast<uint64_t>(p.first + i) >> 1, units[i], units[i + 1]);
        units[i] = high_product(units[i], total), units[i + 1] = high_product(units[i + 1], total);
      }
    for (; i < p.count; i++)
      units[i] = high_product(numbers.at(static_cast<uint64_t>(p.first + i * p.step)), total);
  });
}

void draw_systematic(const Table& table, int64_t total, uint64_t offset, uint64_t key, Positions positions,
                     int64_t* rows, int threads) {
  const uint64_t units = table.starts[table.weights.blocks()], n = static_cast<uint64_t>(total);
  const uint64_t step = units / n, rest = units % n;
  const Permutation order(n, key);
  // (j·units + offset) / n, exactly, without a product of 128 bits where 64 hold it.
  const bool narrow = n < (uint64_t{1} << 31);
  look_up<true>(table, positions, rows, threads, [&](Positions p, uint64_t* units_of_draws) {
    for (int64_t i = 0; i < p.count; i++) {
      const uint64_t j = order(static_cast<uint64_t>(p.first + i * p.step));
      const uint64_t more = narrow ? (j * rest + offset) / n
                                   : static_cast<uint64_t>((static_cast<unsigned __int128>(j) * rest + offset) / n);
      units_of_draws[i] = j * step + more;
    }
  });
}

bool race(const Weights& weights, const Philox& numbers, int64_t wanted, int64_t* rows, int threads) {
  const int64_t chunks = chunks_of(weights.n);
  const int slots = std::max(1, threads);
  std::vector<int64_t> histogram(kBins * slots);
  in_chunks(weights.n, threads, [&](int slot, int64_t, int64_t begin, int64_t end) {
    int64_t* counts = histogram.data() + slot * kBins;
    arrivals(weights, numbers, begin, end, [&](int64_t, double time) { counts[bin_of(time)]++; });
  });
  // The bin in which the last of the wanted arrives, and how many of that bin are wanted.
  int64_t last = 0, missing = wanted;
  for (; last < kBins; last++) {
    int64_t here = 0;
    for (int slot = 0; slot < slots; slot++) here += histogram[slot * kBins + last];
    if (here >= missing) break;
    missing -= here;
  }
  struct Arrival {
    double time;
    int64_t row;
    bool operator<(const Arrival& other) const { return time != other.time ? time < other.time : row < other.row; }
  };
  std::vector<std::vector<Arrival>> undecided(chunks);
  std::vector<int64_t> first(chunks + 1);  // of each chunk's rows in the result
  in_chunks(weights.n, threads, [&](int, int64_t chunk, int64_t begin, int64_t end) {
    arrivals(weights, numbers, begin, end, [&](int64_t row, double time) {
      const int64_t bin = bin_of(time);
      first[chunk + 1] += bin < last;
      if (bin == last) undecided[chunk].push_back({time, row});
    });
  });
  std::vector<Arrival> all;
  for (const auto& some : undecided) all.insert(all.end(), some.begin(), some.end());
  // The weights are read three times. Were they changed meanwhile, the passes disagree, and nothing may be written where
  // they disagree about.
  if (missing < 1 || missing > static_cast<int64_t>(all.size())) return false;
  std::nth_element(all.begin(), all.begin() + (missing - 1), all.end());
  const Arrival bound = all[missing - 1];
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    for (const Arrival& one : undecided[chunk]) first[chunk + 1] += !(bound < one);
    first[chunk + 1] += first[chunk];
  }
  if (first[chunks] != wanted) return false;
  std::atomic<bool> agreed{true};
  in_chunks(weights.n, threads, [&](int, int64_t chunk, int64_t begin, int64_t end) {
    int64_t to = first[chunk];
    arrivals(weights, numbers, begin, end, [&](int64_t row, double time) {
      if (bound < Arrival{time, row}) return;
      if (to < first[chunk + 1]) rows[to] = row;
      to++;
    });
    if (to != first[chunk + 1]) agreed = false;
  });
  return agreed;
}

void permute(const int64_t* x, const int64_t* n, const uint64_t* key, bool each, int64_t count, int64_t* to,
             int threads) {
  in_chunks(count, threads, [&](int, int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      to[i] = static_cast<int64_t>(Permutation(n[each ? i : 0], key[each ? i : 0])(x[i]));
  });
}

}  // namespace steelyard
