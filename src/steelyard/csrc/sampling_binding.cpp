// What Python sees of the draws: arrays by their addresses. samplers/_table.py and _random.py own the arrays, and have
// checked their lengths.
#include <nanobind/nanobind.h>

#include <tuple>

#include "pages.h"
#include "sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace steelyard {
namespace {

template <class T> T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

// Memory that is still to be touched: in huge pages it costs fewer faults now, and fewer walks when it is read at random.
template <class T> T* fresh(uintptr_t address, int64_t count) {
  advise_huge_pages(at<T>(address), count * static_cast<int64_t>(sizeof(T)));
  return at<T>(address);
}

Weights weights_of(uintptr_t data, bool doubles, int64_t n, double scale) {
  return {at<const void>(data), doubles, n, scale};
}
#define STEELYARD_WEIGHTS uintptr_t data, bool doubles, int64_t n, double scale
#define STEELYARD_WEIGHTS_NAMES "data"_a, "doubles"_a, "n"_a, "scale"_a

nb::tuple survey_of(uintptr_t data, bool doubles, int64_t n, int threads) {
  Survey found;
  {
    nb::gil_scoped_release released;
    found = survey(weights_of(data, doubles, n, 1), threads);
  }
  return nb::make_tuple(found.first_bad, found.positive, found.largest);
}

uint64_t cut_off(STEELYARD_WEIGHTS, int threads) {
  nb::gil_scoped_release released;
  return cut_off_sum(weights_of(data, doubles, n, scale), threads);
}

void starts_of(STEELYARD_WEIGHTS, uintptr_t starts, int threads) {
  nb::gil_scoped_release released;
  const Weights weights = weights_of(data, doubles, n, scale);
  block_starts(weights, fresh<uint64_t>(starts, weights.blocks() + 1), threads);
}

void permuted(STEELYARD_WEIGHTS, uint64_t key, uintptr_t starts, int threads) {
  nb::gil_scoped_release released;
  const Weights weights = weights_of(data, doubles, n, scale);
  permuted_starts(weights, key, fresh<uint64_t>(starts, weights.blocks() + 1), threads);
}

void cells_of(uintptr_t starts, int64_t blocks, int shift, uintptr_t cells, int64_t count, int threads) {
  nb::gil_scoped_release released;
  fill_cells(at<const uint64_t>(starts), blocks, shift, fresh<uint32_t>(cells, count + 1), count, threads);
}

void independent(STEELYARD_WEIGHTS, uintptr_t starts, uintptr_t cells, int shift, uint64_t seed, uint32_t epoch,
                 int64_t first, int64_t step, int64_t count, uintptr_t rows, int threads) {
  nb::gil_scoped_release released;
  const Table table{weights_of(data, doubles, n, scale), at<const uint64_t>(starts), at<const uint32_t>(cells), shift};
  draw_independent(table, Philox(seed, epoch, Stream::draw), {first, step, count}, fresh<int64_t>(rows, count), threads);
}

void systematic(STEELYARD_WEIGHTS, uintptr_t starts, uintptr_t cells, int shift, uint64_t order, int64_t total,
                uint64_t offset, uint64_t key, int64_t first, int64_t step, int64_t count, uintptr_t rows, int threads) {
  nb::gil_scoped_release released;
  const Table table{weights_of(data, doubles, n, scale), at<const uint64_t>(starts), at<const uint32_t>(cells),
                    shift, order};
  draw_systematic(table, total, offset, key, {first, step, count}, fresh<int64_t>(rows, count), threads);
}

bool race_of(STEELYARD_WEIGHTS, uint64_t seed, uint32_t epoch, int64_t wanted, uintptr_t rows, int threads) {
  nb::gil_scoped_release released;
  return race(weights_of(data, doubles, n, scale), Philox(seed, epoch, Stream::race), wanted,
              fresh<int64_t>(rows, wanted), threads);
}

void permute_of(uintptr_t x, uintptr_t sizes, uintptr_t keys, bool each, int64_t count, uintptr_t to, int threads) {
  nb::gil_scoped_release released;
  permute(at<const int64_t>(x), at<const int64_t>(sizes), at<const uint64_t>(keys), each, count, at<int64_t>(to), threads);
}

}  // namespace

void add_sampling(nb::module_& m) {
  m.def("survey", &survey_of, "data"_a, "doubles"_a, "n"_a, "threads"_a);
  m.def("cut_off_sum", &cut_off, STEELYARD_WEIGHTS_NAMES, "threads"_a);
  m.def("block_starts", &starts_of, STEELYARD_WEIGHTS_NAMES, "starts"_a, "threads"_a);
  m.def("permuted_starts", &permuted, STEELYARD_WEIGHTS_NAMES, "key"_a, "starts"_a, "threads"_a);
  m.def("fill_cells", &cells_of, "starts"_a, "blocks"_a, "shift"_a, "cells"_a, "count"_a, "threads"_a);
  m.def("draw_independent", &independent, STEELYARD_WEIGHTS_NAMES, "starts"_a, "cells"_a, "shift"_a, "seed"_a, "epoch"_a,
        "first"_a, "step"_a, "count"_a, "rows"_a, "threads"_a);
  m.def("draw_systematic", &systematic, STEELYARD_WEIGHTS_NAMES, "starts"_a, "cells"_a, "shift"_a, "order"_a,
        "total"_a, "offset"_a, "key"_a, "first"_a, "step"_a, "count"_a, "rows"_a, "threads"_a);
  m.def("race", &race_of, STEELYARD_WEIGHTS_NAMES, "seed"_a, "epoch"_a, "wanted"_a, "rows"_a, "threads"_a);
  m.def("permute", &permute_of, "x"_a, "sizes"_a, "keys"_a, "each"_a, "count"_a, "to"_a, "threads"_a);
}

}  // namespace steelyard
