/* The Python face of the kernel: buffers in, buffers filled. Callers (compiled.py) have checked every size and bound. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

static const Kernel *kernel_called(const char *name) {
    if (!strcmp(name, "portable")) return &kernel_portable;
#if defined(__x86_64__) && defined(__GNUC__)
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return &kernel_avx2;
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &kernel_avx512;
#endif
    return NULL;
}

static const char *const NAMES[] = {"avx512", "avx2", "portable"};

static PyObject *instruction_sets(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < sizeof NAMES / sizeof *NAMES; i++) {
        if (!kernel_called(NAMES[i])) continue;
        PyObject *name = PyUnicode_FromString(NAMES[i]);
        if (!name || PyList_Append(list, name)) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

/* The arguments that every function starts with: instruction set, geometry, samples, errors, linear stage. */
typedef struct {
    const Kernel *kernel;
    Geometry geometry;
    Py_buffer samples, errors, activity, consistency, coefficients;
    Linear linear;
} Common;

static int common_from(PyObject *tuple, Common *c) {
    const char *name;
    Geometry *g = &c->geometry;
    memset(c, 0, sizeof *c);
    if (!PyArg_ParseTuple(tuple, "s(iiiiiiiL)w*w*y*y*y*", &name, &g->frames, &g->rows, &g->columns, &g->lag_a,
                          &g->lag_b, &g->maximum, &g->pitch, &g->plane, &c->samples, &c->errors, &c->activity,
                          &c->consistency, &c->coefficients))
        return -1;
    c->kernel = kernel_called(name);
    if (!c->kernel) {
        PyErr_Format(PyExc_ValueError, "This processor has no instruction set called %s.", name);
        return -1;
    }
    c->linear.activity_thresholds = c->activity.buf;
    c->linear.consistency_thresholds = c->consistency.buf;
    c->linear.coefficients = c->coefficients.buf;
    return 0;
}

static void common_release(Common *c) {
    Py_buffer *all[] = {&c->samples, &c->errors, &c->activity, &c->consistency, &c->coefficients};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->obj) PyBuffer_Release(all[i]);
}

static PyObject *predict(PyObject *self, PyObject *args) {
    (void)self;
    Common c;
    if (common_from(args, &c)) return common_release(&c), NULL;
    Py_BEGIN_ALLOW_THREADS;
    c.kernel->predict(&c.geometry, c.samples.buf, &c.linear, c.errors.buf);
    Py_END_ALLOW_THREADS;
    common_release(&c);
    Py_RETURN_NONE;
}

static PyObject *gather(PyObject *args, int for_network) {
    Common c;
    PyObject *common;
    Py_buffer index, b[4];
    int count = for_network ? 4 : 3;
    memset(b, 0, sizeof b);
    if (!PyArg_ParseTuple(args, for_network ? "Oy*w*w*w*w*" : "Oy*w*w*w*", &common, &index, &b[0], &b[1], &b[2], &b[3]))
        return NULL;
    if (!common_from(common, &c)) {
        size_t n = (size_t)index.len / sizeof(int64_t);
        Py_BEGIN_ALLOW_THREADS;
        if (for_network)
            c.kernel->inputs(&c.geometry, c.samples.buf, c.errors.buf, &c.linear, index.buf, n, b[0].buf, b[1].buf,
                             b[2].buf, b[3].buf);
        else
            c.kernel->taps(&c.geometry, c.samples.buf, &c.linear, index.buf, n, b[0].buf, b[1].buf, b[2].buf);
        Py_END_ALLOW_THREADS;
    }
    common_release(&c);
    PyBuffer_Release(&index);
    for (int i = 0; i < count; i++) PyBuffer_Release(&b[i]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *taps(PyObject *self, PyObject *args) { return (void)self, gather(args, 0); }
static PyObject *inputs(PyObject *self, PyObject *args) { return (void)self, gather(args, 1); }

/* ---- coding ---- */

/* The symbols in reverse through the interleaved states: words of 32 bits, last word first in memory. */
static PyObject *flush(const Coder *coder) {
    size_t room = coder->count + 2 * STATES, at = room;
    uint32_t *words = malloc(room * sizeof *words);
    if (!words) return PyErr_NoMemory();
    uint64_t state[STATES];
    for (int i = 0; i < STATES; i++) state[i] = 1ull << 31;
    for (size_t i = coder->count; i-- > 0;) {
        uint32_t start = coder->symbols[i] >> 16, frequency = (coder->symbols[i] & 0xFFFF) + 1;
        uint64_t x = state[i % STATES];
        if (x >= (uint64_t)frequency << 47) {
            words[--at] = (uint32_t)x;
            x >>= 32;
        }
        state[i % STATES] = (x / frequency << 16) + x % frequency + start;
    }
    for (int i = STATES; i-- > 0;) {
        words[--at] = (uint32_t)(state[i] >> 32);
        words[--at] = (uint32_t)state[i];
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)(words + at), (Py_ssize_t)((room - at) * sizeof *words));
    free(words);
    return bytes;
}

static int open_stream(Coder *coder, const Py_buffer *stream) {
    coder->words = stream->buf;
    coder->words_count = (size_t)stream->len / sizeof(uint32_t);
    if (stream->len % sizeof(uint32_t) || coder->words_count < 2 * STATES) return -1;
    for (int i = 0; i < STATES; i++) {
        coder->state[i] = coder->words[2 * i] | (uint64_t)coder->words[2 * i + 1] << 32;
        if (coder->state[i] < 1ull << 31 || coder->state[i] >> 63) return -1;
    }
    coder->word = 2 * STATES;
    return 0;
}

static int exhausted(const Coder *coder) {
    for (int i = 0; i < STATES; i++)
        if (coder->state[i] != 1ull << 31) return 0;
    return coder->word == coder->words_count;
}

/* code(common, hidden, weights, biases, exponential, curves, stream or None): the stream, or True / False: decoded. */
static PyObject *code(PyObject *self, PyObject *args) {
    (void)self;
    Common c;
    PyObject *common, *stream_object, *result = NULL;
    Py_buffer weights, biases, exponential, curves, stream = {0};
    int hidden;
    if (!PyArg_ParseTuple(args, "Oiy*y*y*y*O", &common, &hidden, &weights, &biases, &exponential, &curves, &stream_object))
        return NULL;
    Coder coder;
    memset(&coder, 0, sizeof coder);
    if (common_from(common, &c)) goto done;
    int decoding = stream_object != Py_None, status = 0;
    if (decoding) {
        if (PyObject_GetBuffer(stream_object, &stream, PyBUF_SIMPLE)) goto done;
        status = open_stream(&coder, &stream);
    } else {
        coder.capacity = 4 * (size_t)c.geometry.frames * c.geometry.rows * c.geometry.columns;
        coder.symbols = malloc(coder.capacity * sizeof *coder.symbols);
        if (!coder.symbols) {
            PyErr_NoMemory();
            goto done;
        }
    }
    const int8_t *w = weights.buf;
    const int32_t *b = biases.buf;
    Network network = {hidden, w, w + hidden * INPUTS, w + hidden * (INPUTS + HIDDEN2), b, b + hidden,
                       b + hidden + HIDDEN2};
    Tables tables = {exponential.buf, curves.buf, NULL, NULL};
    if (!status) {
        Py_BEGIN_ALLOW_THREADS;
        status = c.kernel->code(&c.geometry, c.samples.buf, c.errors.buf, &c.linear, &network, &tables, &coder, decoding);
        Py_END_ALLOW_THREADS;
    }
    if (decoding)
        result = PyBool_FromLong(status == 0 && exhausted(&coder));
    else if (status)
        PyErr_SetString(PyExc_RuntimeError, "The kernel could not code the group.");
    else
        result = flush(&coder);
done:
    free(coder.symbols);
    if (stream.obj) PyBuffer_Release(&stream);
    common_release(&c);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&biases);
    PyBuffer_Release(&exponential);
    PyBuffer_Release(&curves);
    return result;
}

static PyMethodDef METHODS[] = {
    {"instruction_sets", instruction_sets, METH_NOARGS, "Names of the instruction sets this processor has, best first."},
    {"predict", predict, METH_VARARGS, "Fill the errors of the linear stage."},
    {"taps", taps, METH_VARARGS, "Fill (taps, targets, classes) of the pixels of an index."},
    {"inputs", inputs, METH_VARARGS, "Fill (inputs, means, scales, flats) of the pixels of an index."},
    {"code", code, METH_VARARGS, "Code or decode a group."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef MODULE = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_size = 0, .m_methods = METHODS};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
