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

static Network network_from(int hidden, const int8_t *w, const int32_t *b) {
    Network n = {hidden, w, w + hidden * INPUTS, w + hidden * (INPUTS + HIDDEN2), b, b + hidden, b + hidden + HIDDEN2};
    return n;
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

typedef enum { TAPS_OF, EQUATIONS_OF, INPUTS_OF } Gathered;

/* The arguments of all three: common, index, and the buffers to fill. */
static PyObject *gather(PyObject *args, Gathered what) {
    Common c;
    PyObject *common;
    Py_buffer index, b[4];
    memset(b, 0, sizeof b);
    if (!PyArg_ParseTuple(args, what == INPUTS_OF ? "Oy*w*w*w*w*" : "Oy*w*w*w*", &common, &index, &b[0], &b[1], &b[2],
                          &b[3]))
        return NULL;
    if (!common_from(common, &c)) {
        size_t n = (size_t)index.len / sizeof(int64_t);
        Py_BEGIN_ALLOW_THREADS;
        if (what == INPUTS_OF)
            c.kernel->inputs(&c.geometry, c.samples.buf, c.errors.buf, &c.linear, index.buf, n, b[0].buf, b[1].buf,
                             b[2].buf, b[3].buf);
        else if (what == TAPS_OF)
            c.kernel->taps(&c.geometry, c.samples.buf, &c.linear, index.buf, n, b[0].buf, b[1].buf, b[2].buf);
        else
            c.kernel->equations(&c.geometry, c.samples.buf, &c.linear, index.buf, n, b[0].buf, b[1].buf, b[2].buf);
        Py_END_ALLOW_THREADS;
    }
    common_release(&c);
    PyBuffer_Release(&index);
    for (int i = 0; i < 4; i++)
        if (b[i].obj) PyBuffer_Release(&b[i]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *taps(PyObject *self, PyObject *args) { return (void)self, gather(args, TAPS_OF); }
static PyObject *equations(PyObject *self, PyObject *args) { return (void)self, gather(args, EQUATIONS_OF); }
static PyObject *inputs(PyObject *self, PyObject *args) { return (void)self, gather(args, INPUTS_OF); }

/* objective(name, hidden, weights, biases, scales, inputs, means, scales, targets, bits, gradient: empty for none). */
static PyObject *objective(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    int hidden, status = 0;
    Py_buffer b[9];
    if (!PyArg_ParseTuple(args, "siy*y*y*y*y*y*y*w*w*", &name, &hidden, &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6],
                          &b[7], &b[8]))
        return NULL;
    const Kernel *kernel = kernel_called(name);
    if (kernel) {
        Network network = network_from(hidden, b[0].buf, b[1].buf);
        Asked asked = {b[3].buf, b[4].buf, b[5].buf, b[6].buf};
        size_t n = (size_t)b[7].len / sizeof(float);
        Py_BEGIN_ALLOW_THREADS;
        status = kernel->objective(&network, b[2].buf, &asked, n, b[7].buf, b[8].len ? b[8].buf : NULL);
        Py_END_ALLOW_THREADS;
    }
    for (int i = 0; i < 9; i++) PyBuffer_Release(&b[i]);
    if (!kernel) return PyErr_Format(PyExc_ValueError, "This processor has no instruction set called %s.", name);
    if (status) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

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

/* code(common, hidden, weights, biases, exponential, curves, stream or None[, last step]): the stream, or True / False:
   decoded. With a last step only the steps up to it are decoded. */
static PyObject *code(PyObject *self, PyObject *args) {
    (void)self;
    Common c;
    PyObject *common, *stream_object, *result = NULL;
    Py_buffer weights, biases, exponential, curves, stream = {0};
    int hidden;
    long long last_step = INT64_MAX;
    if (!PyArg_ParseTuple(args, "Oiy*y*y*y*O|L", &common, &hidden, &weights, &biases, &exponential, &curves,
                          &stream_object, &last_step))
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
    Network network = network_from(hidden, weights.buf, biases.buf);
    Tables tables = {exponential.buf, curves.buf, NULL, NULL};
    if (!status) {
        Py_BEGIN_ALLOW_THREADS;
        status = c.kernel->code(&c.geometry, c.samples.buf, c.errors.buf, &c.linear, &network, &tables, &coder, decoding,
                                last_step);
        Py_END_ALLOW_THREADS;
    }
    if (decoding)
        result = PyBool_FromLong(status == 0 && (last_step < INT64_MAX || exhausted(&coder)));
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

/* ---- coding step by step, for back ends that run the networks elsewhere ---- */

typedef struct {
    const Kernel *kernel;
    Geometry geometry;
    uint16_t exponential[258], curves[COMPONENTS * CURVE + 2], rows[ROWS] __attribute__((aligned(32))), coarse[ROWS / 16];
    uint32_t flags[3];
    Coder coder;
    Py_buffer stream; /* of a decoder */
} Session;

static const char SESSION[] = "thinfilm.neural.session";

static void session_free(Session *s) {
    if (s->stream.obj) PyBuffer_Release(&s->stream);
    free(s->coder.symbols);
    free(s);
}

static void session_release(PyObject *capsule) { session_free(PyCapsule_GetPointer(capsule, SESSION)); }

/* open_session(kernel, maximum, pixels, exponential, curves, stream or None): a session, or None for no stream at all. */
static PyObject *open_session(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    int maximum;
    Py_ssize_t pixels;
    PyObject *stream, *capsule = NULL;
    Py_buffer exponential, curves;
    if (!PyArg_ParseTuple(args, "siny*y*O", &name, &maximum, &pixels, &exponential, &curves, &stream)) return NULL;
    const Kernel *kernel = kernel_called(name);
    Session *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    if (!s || !kernel) {
        free(s);
        PyErr_SetString(PyExc_RuntimeError, "The kernel could not begin the group.");
        goto done;
    }
    memset(s, 0, sizeof *s);
    s->kernel = kernel;
    s->geometry.maximum = maximum;
    for (int i = 0; i < 3; i++) s->flags[i] = 32768;
    memcpy(s->exponential, exponential.buf, sizeof s->exponential);
    memcpy(s->curves, curves.buf, sizeof s->curves);
    s->kernel->derive(&(Tables){s->exponential, s->curves, NULL, NULL}, s->rows, s->coarse);
    int bad = 0;
    if (stream != Py_None) {
        bad = PyObject_GetBuffer(stream, &s->stream, PyBUF_SIMPLE) || open_stream(&s->coder, &s->stream);
    } else {
        s->coder.capacity = 4 * (size_t)pixels;
        s->coder.symbols = malloc(s->coder.capacity * sizeof *s->coder.symbols);
        if (!s->coder.symbols) bad = 1, PyErr_NoMemory();
    }
    if (!bad) capsule = PyCapsule_New(s, SESSION, session_release);
    if (!capsule) session_free(s);
    if (bad && !PyErr_Occurred()) capsule = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&exponential);
    PyBuffer_Release(&curves);
    return capsule;
}

/* code_steps(session, counts, prepared, samples): steps in order, each of so many pixels; samples are read or filled. */
static PyObject *code_steps(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule;
    Py_buffer counts, prepared, samples;
    if (!PyArg_ParseTuple(args, "Oy*y*w*", &capsule, &counts, &prepared, &samples)) return NULL;
    Session *s = PyCapsule_GetPointer(capsule, SESSION);
    if (s) {
        Tables tables = {s->exponential, s->curves, s->rows, s->coarse};
        const int64_t *count = counts.buf;
        const Prepared *pixels = prepared.buf;
        int16_t *at = samples.buf;
        Py_BEGIN_ALLOW_THREADS;
        for (size_t i = 0; i < (size_t)counts.len / sizeof *count; i++) {
            s->kernel->code_prepared(&s->geometry, &tables, &s->coder, s->flags, pixels, (size_t)count[i], at,
                                     s->stream.obj != NULL);
            pixels += count[i];
            at += count[i];
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&counts);
    PyBuffer_Release(&prepared);
    PyBuffer_Release(&samples);
    if (!s) return NULL;
    Py_RETURN_NONE;
}

/* finish(session): of an encoder the stream; of a decoder whether its stream was right, to its end. */
static PyObject *finish(PyObject *self, PyObject *capsule) {
    (void)self;
    Session *s = PyCapsule_GetPointer(capsule, SESSION);
    if (!s) return NULL;
    return s->stream.obj ? PyBool_FromLong(!s->coder.failed && exhausted(&s->coder)) : flush(&s->coder);
}

static PyMethodDef METHODS[] = {
    {"instruction_sets", instruction_sets, METH_NOARGS, "Names of the instruction sets this processor has, best first."},
    {"predict", predict, METH_VARARGS, "Fill the errors of the linear stage."},
    {"taps", taps, METH_VARARGS, "Fill (taps, targets, classes) of the pixels of an index."},
    {"equations", equations, METH_VARARGS, "Add the pixels of an index to (squares, products, counts)."},
    {"inputs", inputs, METH_VARARGS, "Fill (inputs, means, scales, flats) of the pixels of an index."},
    {"objective", objective, METH_VARARGS, "Fill the bits of pixels, add to their gradient."},
    {"code", code, METH_VARARGS, "Code or decode a group."},
    {"open_session", open_session, METH_VARARGS, "Begin to code a group step by step."},
    {"code_steps", code_steps, METH_VARARGS, "Code some steps of a group."},
    {"finish", finish, METH_O, "Return a group's stream, or whether it was decoded."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef MODULE = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_size = 0, .m_methods = METHODS};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
