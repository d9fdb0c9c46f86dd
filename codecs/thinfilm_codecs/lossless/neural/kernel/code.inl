/* A group, pixel by pixel: the wavefront, the network and the entropy coder. */

enum { BATCH = 32, LOWEST = 1 << 16 };

/* ---- entropy coder: interleaved rANS with 64-bit states and 32-bit words; format page, "Entropy coding" ---- */

static inline void put(Coder *c, uint32_t start, uint32_t frequency) {
    if (c->count < c->capacity)
        c->symbols[c->count] = start << 16 | (frequency - 1);
    else
        c->failed = 1;
    c->count++;
}

static inline uint32_t peek(const Coder *c) { return (uint32_t)(c->state[c->count % STATES] & 0xFFFF); }

static inline void take(Coder *c, uint32_t start, uint32_t frequency) {
    uint64_t *state = &c->state[c->count++ % STATES], x = *state;
    x = frequency * (x >> 16) + (x & 0xFFFF) - start;
    if (x < (1ull << 31)) {
        if (c->word < c->words_count)
            x = x << 32 | c->words[c->word++];
        else
            c->failed = 1, x |= 1ull << 31;
    }
    *state = x;
}

static inline uint32_t code_bits(Coder *c, uint32_t value, int bits, int decoding) {
    if (!bits) return 0;
    if (!decoding) {
        put(c, value << (16 - bits), 1u << (16 - bits));
        return value;
    }
    value = peek(c) >> (16 - bits);
    take(c, value << (16 - bits), 1u << (16 - bits));
    return value;
}

/* An adaptive bit; *one is the probability of a one, in 2^-16. */
static inline int code_flag(Coder *c, int value, uint32_t *one, int decoding) {
    uint32_t p = *one;
    if (decoding) {
        value = peek(c) < p;
        take(c, value ? 0 : p, value ? p : 65536 - p);
    } else {
        put(c, value ? 0 : p, value ? p : 65536 - p);
    }
    if (value)
        p += (65536 - 32 - p) >> 5;
    else
        p -= (p - 32) >> 5;
    *one = p;
    return value;
}

/* ---- the distribution ---- */

/* First distance and number of low bits of a bin, in bins of width 1: escape, 7 of 16, 16 of 4, 80 of 1, and back. */
static inline int bin_start(int bin) {
    if (bin < 24) return bin < 8 ? -216 + 16 * (bin - 1) : -104 + 4 * (bin - 8);
    return bin < 104 ? bin - 64 : bin < 120 ? 40 + 4 * (bin - 104) : 104 + 16 * (bin - 120);
}

static inline int bin_bits(int bin) { return bin < 8 || bin >= 120 ? 4 : bin < 24 || bin >= 104 ? 2 : 0; }

static inline int bin_of(int distance) {
    if (distance < -40) return distance < -216 ? 0 : distance < -104 ? 1 + ((distance + 216) >> 4) : 8 + ((distance + 104) >> 2);
    if (distance < 40) return distance + 64;
    return distance < 104 ? 104 + ((distance - 40) >> 2) : distance < 216 ? 120 + ((distance - 104) >> 4) : 127;
}

static inline int point(int bin, int offset) { return clip(CURVE / 2 + 8 * bin_start(bin) - offset, 0, CURVE - 1); }

/* What the network says of a sample: weights of the components, and the eighths by which their means pass the origin. */
typedef struct {
    uint16_t weights[COMPONENTS];
    int32_t phase, offset; /* of the first half: 0 to 7; of the second */
} Distribution;

#ifndef VECTORS
static inline void weigh_components(const int32_t *out, const Tables *t, uint16_t *weights) {
    int32_t q[COMPONENTS], largest = INT32_MIN;
    uint32_t e[COMPONENTS], sum = 0;
    for (int j = 0; j < COMPONENTS; j++) {
        q[j] = out[j] >> 7;
        largest = q[j] > largest ? q[j] : largest;
    }
    for (int j = 0; j < COMPONENTS; j++) {
        int32_t below = largest - q[j];
        e[j] = t->exponential[below > 255 ? 255 : below];
        sum += e[j];
    }
    uint32_t reciprocal = ((1u << 31) - (1u << 15)) / sum;
    for (int j = 0; j < COMPONENTS; j++) weights[j] = (uint16_t)(e[j] * reciprocal >> 15);
}
#endif

static inline uint32_t cumulative(const Distribution *d, const Tables *t, int bin) {
    if (bin == 0) return 0;
    if (bin == BINS) return 65536;
    uint32_t sum = 0;
    for (int j = 0; j < COMPONENTS; j++)
        sum += (uint32_t)d->weights[j] * t->curves[j * CURVE + point(bin, j < COMPONENTS / 2 ? d->phase : d->offset)] >> 16;
    return (uint32_t)bin + (sum * 65408u >> 16);
}

#ifndef VECTORS
/* The last bin whose cumulative frequency is not above `target`, and its bounds. */
static inline int search(const Distribution *d, const Tables *t, uint32_t target, uint32_t *start, uint32_t *end) {
    int lo = 0, hi = BINS;
    *start = 0;
    *end = 65536;
    while (hi - lo > 1) {
        int middle = (lo + hi) >> 1;
        uint32_t c = cumulative(d, t, middle);
        if (c <= target)
            lo = middle, *start = c;
        else
            hi = middle, *end = c;
    }
    return lo;
}
#else
#include "search.inl"
#endif

/* Code one sample; returns it, or -1 for a corrupt stream. */
static inline int32_t code_sample(const Geometry *g, const Tables *t, Coder *c, const int32_t *out, int32_t mean,
                                  int32_t scale, int32_t sample, int decoding) {
    int shift = bin_shift(scale);
    int64_t better = mean + ((int64_t)out[COMPONENTS] * scale >> 12);
    int64_t top = (int64_t)(g->maximum - 32768) * 16;
    int32_t centre = (int32_t)(better < -32768 * 16 ? -32768 * 16 : better > top ? top : better) + 8 + 32768 * 16;
    int32_t eighths = centre >> (shift + 1), origin = eighths >> 3;
    int64_t apart = ((int64_t)out[COMPONENTS + 1] * scale >> 12) >> (shift + 1);
    Distribution d;
    d.phase = eighths & 7;
    d.offset = d.phase + (int32_t)(apart < -1024 ? -1024 : apart > 1024 ? 1024 : apart);
    weigh_components(out, t, d.weights);
    uint32_t start, end, value = (uint32_t)(sample + 32768);
    int bin;
    if (decoding) {
        bin = search(&d, t, peek(c), &start, &end);
        take(c, start, end - start);
    } else {
        bin = bin_of((int32_t)(value >> shift) - origin);
        start = cumulative(&d, t, bin);
        put(c, start, cumulative(&d, t, bin + 1) - start);
    }
    if (bin == 0 || bin == BINS - 1) {
        value = code_bits(c, value, 16, decoding);
    } else {
        int32_t first = (origin + bin_start(bin)) * (1 << shift);
        int32_t low = (int32_t)code_bits(c, (uint32_t)((int32_t)value - first), shift + bin_bits(bin), decoding);
        if (first + low < 0) return -1;
        value = (uint32_t)(first + low);
    }
    return value > (uint32_t)g->maximum ? -1 : (int32_t)value;
}

/* ---- the network ---- */

#ifndef VECTORS
typedef struct { const Network *network; } Layers;

static int layers_open(Layers *l, const Network *n) { l->network = n; return 0; }
static void layers_close(Layers *l) { (void)l; }

INLINE void dense(const uint8_t *x, int in, const int8_t *w, const int32_t *b, int outs, int32_t *to) {
    for (int o = 0; o < outs; o++) {
        int32_t sum = b[o];
        for (int i = 0; i < in; i++) sum += (int32_t)x[i] * w[o * in + i];
        to[o] = sum;
    }
}

INLINE void activate(const int32_t *from, int n, int shift, uint8_t *to) {
    for (int i = 0; i < n; i++) to[i] = (uint8_t)clip((from[i] + (1 << (shift - 1))) >> shift, 0, 127);
}

INLINE void run(const Network *k, int hidden, const uint8_t *x, int n, int32_t *out, uint8_t *h1, uint8_t *h2) {
    for (int i = 0; i < n; i++) {
        int32_t sums[HIDDEN1];
        dense(x + i * INPUTS, INPUTS, k->w1, k->b1, hidden, sums);
        activate(sums, hidden, 5, h1 + i * hidden);
        dense(h1 + i * hidden, hidden, k->w2, k->b2, HIDDEN2, sums);
        activate(sums, HIDDEN2, 6, h2 + i * HIDDEN2);
        dense(h2 + i * HIDDEN2, HIDDEN2, k->w3, k->b3, OUTPUTS, out + i * OUTPUTS);
    }
}

/* Each width of its own, so that the compiler knows the sizes of the loops. */
static void layers_run(const Layers *l, const uint8_t *x, int n, int32_t *out, uint8_t *h1, uint8_t *h2) {
    if (l->network->hidden == HIDDEN1)
        run(l->network, HIDDEN1, x, n, out, h1, h2);
    else
        run(l->network, HIDDEN1 / 2, x, n, out, h1, h2);
}
#endif

/* ---- the wavefront ---- */

/* Write a decoded sample, and the padding that follows from it. */
static inline void store(const Geometry *g, int16_t *samples, int32_t z, int32_t y, int32_t x, int16_t value) {
    int16_t *at = samples + z * g->plane + (int64_t)(y + PAD_TOP) * g->pitch + PAD_LEFT + x;
    *at = value;
    if (x == 0)
        for (int i = 1; i <= PAD_LEFT; i++) at[g->pitch - i] = value;
    if (x == g->columns - 1)
        for (int i = 1; i <= PAD_RIGHT; i++) at[i] = value;
    if (y == g->rows - 1)
        for (int j = 1; j <= PAD_BOTTOM; j++) {
            at[j * g->pitch] = value;
            if (x == 0) memcpy(at + j * g->pitch - PAD_LEFT, at - PAD_LEFT, PAD_LEFT * sizeof *at);
            if (x == g->columns - 1) memcpy(at + j * g->pitch + 1, at + 1, PAD_RIGHT * sizeof *at);
        }
}

typedef struct {
    uint8_t inputs[BATCH * INPUTS] __attribute__((aligned(64)));
    int32_t outputs[BATCH * OUTPUTS] __attribute__((aligned(64)));
    uint8_t hidden1[BATCH * HIDDEN1], hidden2[BATCH * HIDDEN2];
    struct { int32_t z, y, x, mean, scale; int64_t at; } pixels[BATCH];
    int count;
} Batch;

typedef struct {
    const Geometry *geometry;
    const Tables *tables;
    int16_t *samples, *errors;
    Layers layers;
    Coder *coder;
    int decoding;
} Task;

/* Code the pixels that wait in the batch. Returns 0, or -1 for a corrupt stream. */
static int drain(const Task *task, Batch *batch) {
    const Geometry *g = task->geometry;
    layers_run(&task->layers, batch->inputs, batch->count, batch->outputs, batch->hidden1, batch->hidden2);
    for (int i = 0; i < batch->count; i++) {
        int64_t at = batch->pixels[i].at;
        int32_t mean = batch->pixels[i].mean;
        int32_t value = code_sample(g, task->tables, task->coder, batch->outputs + i * OUTPUTS, mean,
                                    batch->pixels[i].scale, task->samples[at], task->decoding);
        if (value < 0 || task->coder->failed) return -1;
        if (task->decoding) {
            store(g, task->samples, batch->pixels[i].z, batch->pixels[i].y, batch->pixels[i].x,
                  (int16_t)(value - 32768));
            task->errors[at] = error_of(value - 32768, mean);
        }
    }
    batch->count = 0;
    return 0;
}

/* All pixels of one step of the wavefront: z rises, then y. They do not see one another. */
static int code_step(const Task *task, const Linear *linear, uint32_t *flags, Batch *batch, int64_t step) {
    const Geometry *g = task->geometry;
    int64_t behind = step - (g->columns - 1) - (int64_t)ROW_LAG * (g->rows - 1);
    int32_t z = behind > 0 ? (int32_t)((behind + FRAME_LAG - 1) / FRAME_LAG) : 0;
    for (; z < g->frames && step >= (int64_t)FRAME_LAG * z; z++) {
        int64_t u = step - (int64_t)FRAME_LAG * z, late = u - (g->columns - 1);
        int32_t y = late > 0 ? (int32_t)((late + ROW_LAG - 1) / ROW_LAG) : 0;
        for (; y < g->rows && (int64_t)ROW_LAG * y <= u; y++) {
            int32_t x = (int32_t)(u - (int64_t)ROW_LAG * y), plain;
            Pixel p;
            locate(g, task->samples, task->errors, z, y, x, &p);
            look(g, linear, &p);
            int32_t mean = linear_mean(g, linear, &p), scale = error_scale(g, &p, &plain);
            int64_t at = p.here - task->samples;
            if (p.activity == 0 && plain == 0 &&
                code_flag(task->coder, *p.here == p.reference, &flags[p.flat_reference], task->decoding)) {
                if (task->decoding) {
                    if (p.reference > g->maximum - 32768) return -1;
                    store(g, task->samples, z, y, x, (int16_t)p.reference);
                    task->errors[at] = error_of(p.reference, mean);
                }
                continue;
            }
            int n = batch->count++;
            gather_inputs(g, &p, mean, scale, batch->inputs + n * INPUTS);
            batch->pixels[n].z = z;
            batch->pixels[n].y = y;
            batch->pixels[n].x = x;
            batch->pixels[n].mean = mean;
            batch->pixels[n].scale = scale;
            batch->pixels[n].at = at;
            if (batch->count == BATCH && drain(task, batch)) return -1;
        }
    }
    return batch->count ? drain(task, batch) : 0;
}

/* Fill the tables that are made of the curves. */
static void derive(const Tables *t, uint16_t *rows, uint16_t *coarse) {
    for (int i = 0; i < PHASES * COMPONENTS / 2 * BINS; i++) {
        int phase = i / (COMPONENTS / 2 * BINS), component = i / BINS % (COMPONENTS / 2), bin = i % BINS;
        rows[i] = bin ? t->curves[component * CURVE + point(bin, phase)] : 0;
        if (i % 16 == 0) coarse[i / 16] = rows[i];
    }
}

static int code(const Geometry *g, int16_t *samples, int16_t *errors, const Linear *linear, const Network *network,
                const Tables *tables, Coder *coder, int decoding, int64_t last_step) {
    Task task = {g, tables, samples, errors, {0}, coder, decoding};
    uint16_t rows[ROWS] __attribute__((aligned(32))), coarse[ROWS / 16];
    derive(tables, rows, coarse);
    Tables all = {tables->exponential, tables->curves, rows, coarse};
    task.tables = &all;
    if (layers_open(&task.layers, network)) return -2;
    Batch batch;
    batch.count = 0;
    uint32_t flags[3] = {32768, 32768, 32768};
    int64_t last = g->columns - 1 + (int64_t)ROW_LAG * (g->rows - 1) + (int64_t)FRAME_LAG * (g->frames - 1);
    if (last > last_step) last = last_step;
    int result = 0;
    for (int64_t step = 0; step <= last && !result; step++)
        result = code_step(&task, linear, flags, &batch, step);
    layers_close(&task.layers);
    return coder->failed ? -1 : result;
}

/* One step of the wavefront whose networks were run elsewhere. */
static void code_prepared(const Geometry *g, const Tables *t, Coder *c, uint32_t *flags, const Prepared *pixels,
                          size_t count, int16_t *samples, int decoding) {
    size_t waiting[BATCH], n = 0;
    for (size_t i = 0; i < count && !c->failed; i++) {
        const Prepared *p = pixels + i;
        if (p->flat && code_flag(c, samples[i] == p->reference, &flags[p->flat - 1], decoding)) {
            if (p->reference > g->maximum - 32768) c->failed = 1;
            samples[i] = (int16_t)p->reference;
        } else {
            waiting[n++] = i;
        }
        if (n < BATCH && i + 1 < count) continue;
        for (size_t k = 0; k < n && !c->failed; k++) {
            p = pixels + waiting[k];
            int16_t *sample = samples + waiting[k];
            int32_t value = code_sample(g, t, c, p->outputs, p->mean, p->scale, *sample, decoding);
            if (value < 0) c->failed = 1;
            *sample = (int16_t)(value - 32768);
        }
        n = 0;
    }
}
