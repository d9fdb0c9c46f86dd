/* The inner loops for avx512. */
#include "kernel.h"
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,bmi2,fma")
#include <immintrin.h>
#define VECTORS
#define VECTORS_512
#include "kernel.inl"
#include "layers.inl"
#include "code.inl"
#include "objective.inl"
const Kernel kernel_avx512 = {predict, taps, equations, inputs, objective, code, derive, code_prepared};
#endif
