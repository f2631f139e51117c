// Labels, looked at before anything is written: whether each is a class, and what the rows kept weigh.
#pragma once

#include "stream.h"

namespace steelyard {
namespace STEELYARD_ISA {

constexpr int64_t kLabelBlock = 1024;

static void labels(LabelTask& task, int64_t begin, int64_t end, int64_t chunk) {
  int64_t buffer[kLabelBlock];
  double weight_buffer[kLabelBlock];
  const uint64_t classes = task.classes;
  const int64_t ignore = task.ignore_index;
  double sum = 0;
  bool bad = false;
  for (int64_t i = begin; i < end; i += kLabelBlock) {
    const int64_t n = end - i < kLabelBlock ? end - i : kLabelBlock;
    const int64_t* y = peek<int64_t>(task.rows, task.target, i, n, buffer);
    int64_t outside = 0, kept = 0;
    for (int64_t j = 0; j < n; j++) {
      const int64_t keep = y[j] != ignore;
      kept += keep;
      outside += keep & (int64_t)((uint64_t)y[j] >= classes);
    }
    if (outside) bad = true;
    if (bad) continue;
    if (!task.table && !task.row_weight) {
      sum += (double)kept;
      continue;
    }
    const double* v = nullptr;
    if (task.row_weight) {
      read<double>(task.rows, task.row_weight, i, n, weight_buffer);
      v = weight_buffer;
    }
    double part = 0;
    for (int64_t j = 0; j < n; j++) {
      if (y[j] == ignore) continue;
      double mass = !task.table ? 1.0 : task.doubles ? ((const double*)task.table)[y[j]] : ((const float*)task.table)[y[j]];
      part += v ? mass * v[j] : mass;
    }
    sum += part;
  }
  task.partial[chunk] = sum;
  if (bad) __atomic_store_n(&task.bad, true, __ATOMIC_RELAXED);
}

}  // namespace STEELYARD_ISA
}  // namespace steelyard
