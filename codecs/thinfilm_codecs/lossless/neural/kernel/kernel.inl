/* The inner loops themselves, compiled once for each instruction set. Every path gives the same integers. */
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct { int32_t multiplier, shift; } Ratio;

#include "context.inl"

/* Eight times the logarithm to base 2, of v >= 1. */
static inline int32_t log8(uint32_t v) {
    int n = 31 - __builtin_clz(v);
    return 8 * n + (int32_t)((((uint64_t)v << 3) >> n) & 7);
}

typedef struct {
    const int16_t *here, *a, *b; /* the sample itself in its padded plane, and the same place in the references */
    const int16_t *errors, *errors_a;
    int32_t reference, activity, spread, class, flat_reference;
} Pixel;

static inline void locate(const Geometry *g, const int16_t *samples, const int16_t *errors, int32_t z, int32_t y,
                          int32_t x, Pixel *p) {
    int64_t inside = (int64_t)(y + PAD_TOP) * g->pitch + PAD_LEFT + x;
    int32_t za = g->lag_a && z >= g->lag_a ? z - g->lag_a : g->lag_b && z >= g->lag_b ? z - g->lag_b : -1;
    int32_t zb = g->lag_b && z >= g->lag_b ? z - g->lag_b : za;
    p->here = samples + z * g->plane + inside;
    p->a = za < 0 ? NULL : samples + za * g->plane + inside;
    p->b = zb < 0 ? NULL : samples + zb * g->plane + inside;
    p->errors = errors ? errors + z * g->plane + inside : NULL;
    p->errors_a = errors && za >= 0 ? errors + za * g->plane + inside : NULL;
}

static const int16_t ACTIVITY_WEIGHTS[3][BLOCK] = {
    {0, 0, 0, 0, 1, 2, 3, 4}, {0, 0, 1, 3, 4, 3, 1, 0}, {0, 0, 1, 2, 4, 2, 1, 0}};

/* Local reference, activity, class. */
static inline void look(const Geometry *g, const Linear *linear, Pixel *p) {
    const int16_t *r0 = p->here - 8, *r1 = p->here - g->pitch - 4, *r2 = p->here - 2 * g->pitch - 4;
    int32_t reference = (3 * r0[7] + 3 * r1[4] + r1[3] + r1[5] + 4) >> 3;
#ifdef VECTORS
    int32_t activity = sum4(_mm_add_epi32(weigh8(r0, reference, ACTIVITY_WEIGHTS[0]),
                                          _mm_add_epi32(weigh8(r1, reference, ACTIVITY_WEIGHTS[1]),
                                                        weigh8(r2, reference, ACTIVITY_WEIGHTS[2]))));
#else
    int32_t activity = weigh(r0, reference, ACTIVITY_WEIGHTS[0]) + weigh(r1, reference, ACTIVITY_WEIGHTS[1]) +
                       weigh(r2, reference, ACTIVITY_WEIGHTS[2]);
#endif
    int32_t level = log8((uint32_t)activity + 16), class = 0, spread = 0;
    for (int i = 0; i < ACTIVITY_CLASSES - 1; i++) class += level >= linear->activity_thresholds[i];
    p->flat_reference = 0;
    if (p->a) {
        int32_t apart = spread_of(r0 + 4, p->a - 4, r1 + 2, p->a - g->pitch - 2);
        spread = clip(log8((uint32_t)(4 * apart + 16)) - level + 64, 0, 127);
        int32_t consistency = 0;
        for (int i = 0; i < CONSISTENCY_CLASSES - 1; i++) consistency += spread >= linear->consistency_thresholds[i];
        class += ACTIVITY_CLASSES * (1 + consistency);
        p->flat_reference = 1 + (p->a[0] == reference && p->a[1] == reference && p->a[g->pitch] == reference);
    }
    p->reference = reference;
    p->activity = activity;
    p->spread = spread;
    p->class = class;
}

static inline void gather_taps(const Geometry *g, const Pixel *p, int16_t *d) {
    differences(p->here - 8, p->reference, d);
    differences(p->here - g->pitch - 4, p->reference, d + 8);
    differences(p->here - 2 * g->pitch - 4, p->reference, d + 16);
    if (p->a) {
        differences(p->a - g->pitch - 4, p->reference, d + 24);
        differences(p->a - 4, p->reference, d + 32);
        differences(p->a + g->pitch - 4, p->reference, d + 40);
        differences(p->b - 4, p->reference, d + 48);
    } else {
        memset(d + 24, 0, 32 * sizeof *d);
    }
}

/* The linear prediction, in sixteenths. */
static inline int32_t linear_mean(const Geometry *g, const Linear *linear, const Pixel *p) {
    const int16_t *c = linear->coefficients + p->class * TAPS;
#ifdef VECTORS
#define TERM(from, i) _mm_madd_epi16(differences8(from, p->reference), _mm_loadu_si128((const __m128i *)(c + 8 * (i))))
    __m128i here = _mm_add_epi32(TERM(p->here - 8, 0), TERM(p->here - g->pitch - 4, 1));
    here = _mm_add_epi32(here, TERM(p->here - 2 * g->pitch - 4, 2));
    if (p->a) {
        __m128i there = _mm_add_epi32(TERM(p->a - g->pitch - 4, 3), TERM(p->a - 4, 4));
        there = _mm_add_epi32(there, _mm_add_epi32(TERM(p->a + g->pitch - 4, 5), TERM(p->b - 4, 6)));
        here = _mm_add_epi32(here, there);
    }
    int32_t sum = sum4(here);
#undef TERM
#else
    int16_t d[TAPS];
    gather_taps(g, p, d);
    int32_t sum = dot(c, d, TAPS);
#endif
    return clip(p->reference * 16 + ((sum + 128) >> 8), -32768 * 16, (g->maximum - 32768) * 16);
}

static inline int16_t error_of(int32_t sample, int32_t mean) {
    return (int16_t)difference(sample, (mean + 8) >> 4);
}

static void predict(const Geometry *g, const int16_t *samples, const Linear *linear, int16_t *errors) {
    for (int32_t z = 0; z < g->frames; z++)
        for (int32_t y = 0; y < g->rows; y++)
            for (int32_t x = 0; x < g->columns; x++) {
                Pixel p;
                locate(g, samples, NULL, z, y, x, &p);
                look(g, linear, &p);
                errors[p.here - samples] = error_of(p.here[0], linear_mean(g, linear, &p));
            }
}

static inline void locate_index(const Geometry *g, const int16_t *samples, const int16_t *errors, int64_t index,
                                Pixel *p) {
    int64_t frame = (int64_t)g->rows * g->columns;
    int32_t z = (int32_t)(index / frame), y = (int32_t)(index % frame / g->columns);
    locate(g, samples, errors, z, y, (int32_t)(index % g->columns), p);
}

static void taps(const Geometry *g, const int16_t *samples, const Linear *linear, const int64_t *index, size_t n,
                 int16_t *out, int32_t *targets, int32_t *classes) {
    for (size_t i = 0; i < n; i++) {
        Pixel p;
        locate_index(g, samples, NULL, index[i], &p);
        look(g, linear, &p);
        gather_taps(g, &p, out + i * TAPS);
        targets[i] = p.here[0] - p.reference;
        classes[i] = p.class;
    }
}

static void equations(const Geometry *g, const int16_t *samples, const Linear *linear, const int64_t *index, size_t n,
                      float *squares, float *products, int64_t *counts) {
    for (size_t i = 0; i < n; i++) {
        Pixel p;
        int16_t taps[TAPS];
        float row[TAPS], weighted[TAPS];
        locate_index(g, samples, NULL, index[i], &p);
        look(g, linear, &p);
        if (!p.activity) continue;
        gather_taps(g, &p, taps);
        float weight = 1 / ((float)p.activity / 32 + 1), target = (float)(p.here[0] - p.reference);
        float *square = squares + p.class * TAPS * TAPS, *product = products + p.class * TAPS;
        for (int j = 0; j < TAPS; j++) row[j] = taps[j];
        for (int j = 0; j < TAPS; j++) weighted[j] = row[j] * weight;
        for (int j = 0; j < TAPS; j++) product[j] += weighted[j] * target;
        for (int j = 0; j < TAPS; j++)
            for (int k = 0; k < TAPS; k++) square[j * TAPS + k] += weighted[j] * row[k];
        counts[p.class]++;
    }
}

static const int16_t ERROR_WEIGHTS[5][BLOCK] = {{0, 0, 0, 0, 0, 1, 3, 7},
                                                {0, 0, 1, 3, 6, 3, 1, 0},
                                                {0, 0, 0, 0, 1, 0, 0, 0},
                                                {0, 0, 0, 1, 3, 1, 0, 0},
                                                {0, 0, 0, 0, 1, 0, 0, 0}};

/* 32 times the mean error around the pixel, some of the activity, and a floor. */
static inline int32_t error_scale(const Geometry *g, const Pixel *p, int32_t *plain) {
#ifdef VECTORS
    int32_t sum = sum4(_mm_add_epi32(weigh8(p->errors - 8, 0, ERROR_WEIGHTS[0]),
                                     weigh8(p->errors - g->pitch - 4, 0, ERROR_WEIGHTS[1])));
    if (p->errors_a)
        sum += sum4(_mm_add_epi32(weigh8(p->errors_a - g->pitch - 4, 0, ERROR_WEIGHTS[2]),
                                  _mm_add_epi32(weigh8(p->errors_a - 4, 0, ERROR_WEIGHTS[3]),
                                                weigh8(p->errors_a + g->pitch - 4, 0, ERROR_WEIGHTS[4]))));
#else
    int32_t sum = weigh(p->errors - 8, 0, ERROR_WEIGHTS[0]) + weigh(p->errors - g->pitch - 4, 0, ERROR_WEIGHTS[1]);
    if (p->errors_a)
        sum += weigh(p->errors_a - g->pitch - 4, 0, ERROR_WEIGHTS[2]) + weigh(p->errors_a - 4, 0, ERROR_WEIGHTS[3]) +
               weigh(p->errors_a + g->pitch - 4, 0, ERROR_WEIGHTS[4]);
#endif
    else
        sum += sum >> 2;
    *plain = sum;
    return sum + (p->activity >> 4) + 8;
}

/* units * 32 / scale as a multiplier of at most 15 bits and a shift: units * 2^6 is below 2^10. */
static inline Ratio ratio(uint32_t units, uint32_t scale) {
    int bits = 32 - __builtin_clz(scale);
    Ratio r = {(int32_t)(((uint64_t)units << (bits + 10)) / scale), bits + 5};
    return r;
}

static inline int32_t bin_shift(int32_t scale) { return clip(31 - __builtin_clz((uint32_t)scale) - 7, 0, 12); }

/* The network's inputs. */
static inline void gather_inputs(const Geometry *g, const Pixel *p, int32_t mean, int32_t scale, uint8_t *to) {
    int64_t pitch = g->pitch;
    int32_t centre = (mean + 8) >> 4;
    Ratio r = ratio(10, (uint32_t)p->activity + 16), e = ratio(12, (uint32_t)scale);
    quantise(p->here - 8, p->here - pitch - 4, centre, r, to);
    quantise(p->here - 2 * pitch - 4, p->here - 3 * pitch - 4, centre, r, to + 16);
    if (p->a) {
        quantise(p->a - 2 * pitch - 4, p->a - pitch - 4, centre, r, to + 32);
        quantise(p->a - 4, p->a + pitch - 4, centre, r, to + 48);
        quantise(p->a + 2 * pitch - 4, p->b - pitch - 4, centre, r, to + 64);
        quantise(p->b - 4, p->b + pitch - 4, centre, r, to + 80);
        quantise(p->errors_a - pitch - 4, p->errors_a - 4, 0, e, to + 112);
        quantise(p->errors_a + pitch - 4, p->errors_a + pitch - 4, 0, e, to + 128);
    } else {
        memset(to + 32, 64, 64);
        memset(to + 112, 64, 24);
    }
    quantise(p->errors - 8, p->errors - pitch - 4, 0, e, to + 96);
    int32_t level = log8((uint32_t)p->activity + 16), noise = log8((uint32_t)scale), shift = bin_shift(scale);
    int32_t rise = difference(centre, -32768);
    to[136] = (uint8_t)clip(level >> 1, 0, 127);
    to[137] = (uint8_t)clip(noise >> 1, 0, 127);
    to[138] = (uint8_t)clip(noise - level + 64, 0, 127);
    to[139] = (uint8_t)(p->a ? p->spread : 64);
    to[140] = p->a ? 96 : 32;
    to[141] = (uint8_t)(shift ? 64 : (mean & 15) * 8);
    to[142] = (uint8_t)(64 + clip((rise * e.multiplier + (1 << (e.shift - 1))) >> e.shift, -63, 63));
    to[143] = (uint8_t)(8 * shift);
}

static void inputs(const Geometry *g, const int16_t *samples, const int16_t *errors, const Linear *linear,
                   const int64_t *index, size_t n, uint8_t *out, int32_t *means, int32_t *scales, int32_t *flats) {
    for (size_t i = 0; i < n; i++) {
        Pixel p;
        int32_t plain;
        locate_index(g, samples, errors, index[i], &p);
        look(g, linear, &p);
        means[i] = linear_mean(g, linear, &p);
        scales[i] = error_scale(g, &p, &plain);
        flats[i] = p.activity == 0 && plain == 0 ? 1 + (p.here[0] == p.reference) : 0;
        gather_inputs(g, &p, means[i], scales[i], out + i * INPUTS);
    }
}
