/* The inner loops for portable. */
#include "kernel.h"
#include "kernel.inl"
#include "code.inl"
const Kernel kernel_portable = {predict, taps, inputs, code, derive, code_prepared};
