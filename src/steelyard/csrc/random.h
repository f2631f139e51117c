// Random numbers by position: the number at a position of an epoch depends on nothing but seed, epoch and position.
// So any rank computes its own part alone, and a run resumes anywhere without a replay.
//
// samplers/_random.py holds the same arithmetic in NumPy; the two must agree to the bit.
#pragma once

#include <cstdint>

namespace steelyard {

// What a random number is for, so that no two uses share one.
enum class Stream : uint32_t { draw = 0, permutation = 1, race = 2, offset = 3 };

inline uint64_t high_product(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// Philox4x32-10 (Salmon et al., SC 2011): 128 random bits from a counter of 128 and a key of 64. One call serves two
// neighbouring positions.
struct Philox {
  uint32_t key0, key1, epoch, stream;

  Philox(uint64_t seed, uint32_t epoch, Stream stream)
      : key0(static_cast<uint32_t>(seed)),
        key1(static_cast<uint32_t>(seed >> 32)),
        epoch(epoch),
        stream(static_cast<uint32_t>(stream)) {}

  void both(uint64_t pair, uint64_t& even, uint64_t& odd) const {
    uint32_t a = static_cast<uint32_t>(pair), b = static_cast<uint32_t>(pair >> 32), c = epoch, d = stream;
    uint32_t k0 = key0, k1 = key1;
    for (int round = 0; round < 10; round++) {
      const uint64_t p = uint64_t{0xD2511F53u} * a, q = uint64_t{0xCD9E8D57u} * c;
      a = static_cast<uint32_t>(q >> 32) ^ b ^ k0;
      b = static_cast<uint32_t>(q);
      c = static_cast<uint32_t>(p >> 32) ^ d ^ k1;
      d = static_cast<uint32_t>(p);
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    even = uint64_t{b} << 32 | a, odd = uint64_t{d} << 32 | c;
  }

  uint64_t at(uint64_t position) const {
    uint64_t even, odd;
    both(position >> 1, even, odd);
    return position & 1 ? odd : even;
  }
};

// SplitMix64's finaliser: every bit of the result depends on every bit of x.
inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// A permutation of [0, n) that is computed where it is asked for: a Feistel network over the next power of two, walked
// until it comes back below n, which takes two steps at most on average.
struct Permutation {
  uint64_t n, key, high_mask, low_mask, rounds;
  int low_bits;

  Permutation(uint64_t n, uint64_t key) : n(n), key(key) {
    int bits = 0;
    while (bits < 63 && (uint64_t{1} << bits) < n) bits++;
    low_bits = bits - bits / 2;
    rounds = bits >= 12 ? 8 : 24;  // halves of a few bits take more of them to reach all orders evenly
    low_mask = (uint64_t{1} << low_bits) - 1, high_mask = (uint64_t{1} << (bits / 2)) - 1;
  }

  uint64_t operator()(uint64_t x) const {
    do {
      uint64_t low = x & low_mask, high = x >> low_bits;
      for (uint64_t round = 0; round < rounds; round += 2) {
        high ^= mix(low + key + round * kStep) & high_mask;
        low ^= mix(high + key + (round + 1) * kStep) & low_mask;
      }
      x = high << low_bits | low;
    } while (x >= n);
    return x;
  }

  static constexpr uint64_t kStep = 0x9E3779B97F4A7C15u;
};

}  // namespace steelyard
