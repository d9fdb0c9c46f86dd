/* The neural codec's inner loops: what they take and return. Format and arithmetic: docs/formats/neural.md. */
#ifndef THINFILM_NEURAL_KERNEL_H
#define THINFILM_NEURAL_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum {
    PAD_LEFT = 8, PAD_RIGHT = 8, PAD_TOP = 3, PAD_BOTTOM = 2,
    BLOCK = 8,          /* neighbours are taken in runs of 8 samples */
    TAPS = 7 * BLOCK,   /* of the linear stage */
    INPUTS = 18 * BLOCK,
    HIDDEN1 = 192,      /* of the widest network; a network says its own: a multiple of 48 */
    HIDDEN2 = 32,
    COMPONENTS = 8,     /* logistics in the predicted distribution: the first half around one mean, the rest around another */
    OUTPUTS = 16,       /* weights of the components, mean, way from it to the other mean, unused */
    BINS = 128, PHASES = 8,
    CURVE = 4096,       /* points of a component's distribution function, in eighths of a bin around 2048 */
    ACTIVITY_CLASSES = 8, CONSISTENCY_CLASSES = 4,
    CLASSES = ACTIVITY_CLASSES * (CONSISTENCY_CLASSES + 1),
    ROWS = PHASES * COMPONENTS / 2 * BINS,
    ROW_LAG = 4, FRAME_LAG = 12,
    STATES = 4
};

typedef struct {
    int32_t frames, rows, columns;
    int32_t lag_a, lag_b;    /* frames back to the two references; 0: none */
    int32_t maximum;         /* largest sample */
    int32_t pitch;           /* samples from row to row of a padded plane */
    int64_t plane;           /* samples from frame to frame */
} Geometry;

typedef struct {
    const uint8_t *activity_thresholds;    /* ACTIVITY_CLASSES - 1 */
    const uint8_t *consistency_thresholds; /* CONSISTENCY_CLASSES - 1 */
    const int16_t *coefficients;           /* (CLASSES, TAPS), units of 2^-12 */
} Linear;

typedef struct {
    int32_t hidden;                /* outputs of the first layer, at most HIDDEN1 */
    const int8_t *w1, *w2, *w3;    /* (out, in) */
    const int32_t *b1, *b2, *b3;
} Network;

typedef struct {
    const uint16_t *exponential;   /* 256 */
    const uint16_t *curves;        /* (COMPONENTS, CURVE), and one word more */
    const uint16_t *rows;          /* (PHASES, COMPONENTS / 2, BINS): the first half at every bin; made by the kernel */
    const uint16_t *coarse;        /* (PHASES, COMPONENTS / 2, 8): every sixteenth bin of these; made by the kernel */
} Tables;

typedef struct {
    uint32_t *symbols; size_t count, capacity;           /* encoder: (start << 16 | frequency - 1) in order */
    const uint32_t *words; size_t word, words_count;     /* decoder */
    uint64_t state[STATES];
    int failed;
} Coder;

/* What was found elsewhere of a pixel. flat: 0, or 1 more than the context of its flag. */
typedef struct { int32_t flat, reference, mean, scale, outputs[COMPONENTS + 2]; } Prepared;

typedef struct {
    const uint8_t *inputs;
    const int32_t *means, *scales;
    const int16_t *targets;
} Asked;

typedef struct {
    /* All pixels from their neighbours alone: the linear prediction's errors. */
    void (*predict)(const Geometry *, const int16_t *samples, const Linear *, int16_t *errors);
    /* The linear stage's rows of taps, for fitting. */
    void (*taps)(const Geometry *, const int16_t *samples, const Linear *, const int64_t *index, size_t n,
                 int16_t *taps, int32_t *targets, int32_t *classes);
    /* Their normal equations by class, added up: weighted by 1 / (activity / 32 + 1), flat surroundings left out. */
    void (*equations)(const Geometry *, const int16_t *samples, const Linear *, const int64_t *index, size_t n,
                      float *squares, float *products, int64_t *counts);
    /* The network's inputs at some pixels, for training. */
    void (*inputs)(const Geometry *, const int16_t *samples, const int16_t *errors, const Linear *,
                   const int64_t *index, size_t n, uint8_t *inputs, int32_t *means, int32_t *scales, int32_t *flats);
    /* Bits that the network would spend on some pixels, and, unless NULL, the gradient of their sum is added to. For
       fitting. Returns 0, or -2: no memory. */
    int (*objective)(const Network *, const float *scales, const Asked *, size_t n, float *bits, float *gradient);
    /* Code a group: samples are read (encoding) or filled in (decoding). Returns 0, or -1 for a corrupt stream. Steps of
       the wavefront behind `last_step` are left out. */
    int (*code)(const Geometry *, int16_t *samples, int16_t *errors, const Linear *, const Network *,
                const Tables *, Coder *, int decoding, int64_t last_step);
    /* Fill the tables that are made of others. */
    void (*derive)(const Tables *, uint16_t *rows, uint16_t *coarse);
    /* Code one step of a group; of the geometry only the maximum counts. Failure is said in the coder. */
    void (*code_prepared)(const Geometry *, const Tables *, Coder *, uint32_t *flags, const Prepared *, size_t count,
                          int16_t *samples, int decoding);
} Kernel;

extern const Kernel kernel_portable, kernel_avx2, kernel_avx512;

#endif
