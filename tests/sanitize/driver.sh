#!/bin/sh
# Builds driver.cpp with the kernels and runs it:
#
#   tests/sanitize/driver.sh plain      at the options that CXXFLAGS adds, with the compiler that CXX names
#   tests/sanitize/driver.sh thread     with ThreadSanitizer, on four threads
#   tests/sanitize/driver.sh valgrind   under Valgrind, which knows what was never written; it has no AVX-512
#   tests/sanitize/driver.sh aarch64    for ARM, under QEMU
#
# The second argument is a folder to build in (build/driver).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
source=$here/../../src/steelyard/csrc
how=${1:?plain, thread, valgrind or aarch64}
build=${2:-$here/../../build/driver}/$how
mkdir -p "$build"

compiler=${CXX:-c++} runner= quick= threads=1 x86=0 options="-O2 ${CXXFLAGS-}"
case $(uname -m) in x86_64) x86=1 ;; esac
case $how in
  plain) ;;
  thread) options="-O1 -g -fsanitize=thread" threads=4 quick=quick ;;
  valgrind) options="-O1 -g" runner="valgrind --error-exitcode=9 --track-origins=yes -q" quick=quick ;;
  aarch64) compiler=aarch64-linux-gnu-g++ runner="qemu-aarch64-static -L /usr/aarch64-linux-gnu" x86=0 quick=quick ;;
  *) echo "unknown: $how" >&2; exit 2 ;;
esac
flags="-std=c++17 -Wall -Wextra -Wno-psabi -Wno-ignored-attributes -Wno-uninitialized -ffp-contract=off
  -fno-math-errno -fno-trapping-math -I$source -DSTEELYARD_X86=$x86 $options"

kernel() {
  isa=$1
  shift
  # shellcheck disable=SC2086
  $compiler $flags "$@" -DSTEELYARD_ISA="$isa" -c "$source/kernels.cpp" -o "$build/$isa.o"
  objects="$objects $build/$isa.o"
}
objects=
kernel baseline
if [ $x86 = 1 ]; then
  kernel avx2 -mavx2 -mfma -mf16c
  kernel avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
fi
# shellcheck disable=SC2086
$compiler $flags -rdynamic "$here/driver.cpp" "$source/threads.cpp" $objects -o "$build/driver" -ldl -lpthread
# shellcheck disable=SC2086
exec $runner "$build/driver" $threads $quick
