/* The inner loops for portable. */
#include "kernel.h"
#include "kernel.inl"
#include "code.inl"
#include "objective.inl"
const Kernel kernel_portable = {predict, taps, equations, inputs, objective, code, derive, code_prepared};
