/* The inner loops for avx2. */
#include "kernel.h"
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2,bmi2,fma")
#include <immintrin.h>
#define VECTORS
#include "kernel.inl"
#include "layers.inl"
#include "code.inl"
#include "objective.inl"
const Kernel kernel_avx2 = {predict, taps, equations, inputs, objective, code, derive, code_prepared};
#endif
