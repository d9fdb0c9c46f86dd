/* What the network would spend on pixels, in floats, and its slope: for fitting only, where nothing must be exact. */

#pragma GCC diagnostic ignored "-Wpsabi" /* the vectors below are passed to nobody */

typedef float Floats __attribute__((vector_size(4 * COMPONENTS)));
typedef int32_t Ints __attribute__((vector_size(4 * COMPONENTS)));

/* 2 to the power of each, within 2^-22; from -126 to 126. */
INLINE Floats power_of_two(Floats v) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    Floats whole = (v + magic) - magic, rest = v - whole;
    Floats p = rest * (0.2402265f + rest * (0.05550411f + rest * (0.009618129f + rest * 0.0013333558f)));
    p = 1 + rest * (0.69314718f + p);
    Ints exponent = __builtin_convertvector(whole, Ints) << 23;
    return (Floats)((Ints)p + exponent);
}

INLINE float sum_of(Floats v) {
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

INLINE Floats picked(Ints mask, Floats yes, Floats no) { return (Floats)((mask & (Ints)yes) | (~mask & (Ints)no)); }

INLINE Floats held_to(Floats v) {
    const Floats most = {80, 80, 80, 80, 80, 80, 80, 80};
    v = picked(v > most, most, v);
    return picked(v < -most, -most, v);
}

INLINE Floats logistic(Floats v) { return 1 / (1 + power_of_two(held_to(v * -1.44269504f))); }

/* Bits of a pixel, and their slopes with respect to the network's outputs, which are in units of 2^-11. */
INLINE float spend(const int32_t *outputs, Floats scales, int32_t mean, int32_t scale, int32_t target,
                   float *slopes) {
    const float leak = BINS / 65536.0f, error = (float)scale / 32, width = (float)(1 << bin_shift(scale));
    float near = (float)(16 * target - mean) / 16 - (float)outputs[COMPONENTS] * error / 2048;
    int held = near > (float)(target + 32768); /* the mean at the smallest sample */
    if (held) near = (float)(target + 32768);
    float far = near - (float)outputs[COMPONENTS + 1] * error / 2048;
    Floats apart = {near, near, near, near, far, far, far, far}, narrow = 1 / (scales * width);
    int32_t largest = outputs[0];
    Ints logits;
    memcpy(&logits, outputs, sizeof logits);
    for (int j = 1; j < COMPONENTS; j++) largest = outputs[j] > largest ? outputs[j] : largest;
    Floats weights = power_of_two(held_to(__builtin_convertvector(logits - largest, Floats) * (1.44269504f / 2048)));
    weights /= sum_of(weights);
    const Floats one = {1, 1, 1, 1, 1, 1, 1, 1};
    Floats towards = picked(apart > 0, -one, one); /* away from where a logistic rounds to 1 */
    Floats upper = logistic(towards * (apart + 0.5f) * narrow), lower = logistic(towards * (apart - 0.5f) * narrow);
    Floats each = (upper - lower) * towards;
    float whole = sum_of(weights * each), probability = whole * (1 - leak) + 1 / 65536.0f / width;
    Floats slope = weights * (-1.44269504f * (1 - leak) / probability);
    Floats by_weight = slope * (each - whole);
    Floats by_mean = slope * (lower * (1 - lower) - upper * (1 - upper)) * narrow;
    float second = by_mean[4] + by_mean[5] + by_mean[6] + by_mean[7];
    memset(slopes, 0, OUTPUTS * sizeof *slopes);
    for (int j = 0; j < COMPONENTS; j++) slopes[j] = by_weight[j] / 2048;
    slopes[COMPONENTS] = held ? 0 : sum_of(by_mean) * error / 2048;
    slopes[COMPONENTS + 1] = second * error / 2048;
    return -__builtin_log2f(probability);
}

/* ---- the gradient ---- */

#if defined VECTORS_512
enum { WIDTH = 16 };
#elif defined VECTORS
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif
typedef float Run __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

/* A batch in floats: what the layers took, and the slopes with respect to their sums. */
typedef struct {
    float inputs[BATCH * INPUTS], h1[BATCH * HIDDEN1], h2[BATCH * HIDDEN2];
    float g1[BATCH * HIDDEN1], g2[BATCH * HIDDEN2], g3[BATCH * OUTPUTS];
} Floated;

/* to += the sum of n <= 256 rows of `length`, each by its factor; about half of the factors are 0. */
INLINE void add_rows(const float *factors, int stride, int n, const float *rows, int length, int tiles, float *to) {
    uint8_t live[256];
    int count = 0;
    for (int k = 0; k < n; k++) {
        live[count] = (uint8_t)k;
        count += factors[k * stride] != 0;
    }
    for (int i = 0; i < length; i += tiles * WIDTH) {
        Run sums[9];
        _Pragma("GCC unroll 9") for (int t = 0; t < tiles; t++) sums[t] = *(const Run *)(to + i + t * WIDTH);
        for (int k = 0; k < count; k++) {
            const float *row = rows + live[k] * length + i, factor = factors[live[k] * stride];
            _Pragma("GCC unroll 9") for (int t = 0; t < tiles; t++) sums[t] += *(const Run *)(row + t * WIDTH) * factor;
        }
        _Pragma("GCC unroll 9") for (int t = 0; t < tiles; t++) *(Run *)(to + i + t * WIDTH) = sums[t];
    }
}

/* Slopes below a layer: through its weights (outs, ins), where the activations below were not held at their bounds. */
INLINE void back(const float *slopes, int outs, const float *weights, int ins, int tiles, const uint8_t *activations,
                 float by, int count, float *to) {
    memset(to, 0, (size_t)(count * ins) * sizeof *to);
    for (int p = 0; p < count; p++) add_rows(slopes + p * outs, 1, outs, weights, ins, tiles, to + p * ins);
    for (int i = 0; i < count * ins; i++) to[i] = activations[i] > 0 && activations[i] < 127 ? to[i] * by : 0;
}

/* Add a batch to the gradient of a layer's weights and biases. */
INLINE void gather_slopes(const float *slopes, int outs, const float *in, int ins, int tiles, int count, float *weights,
                          float *biases) {
    for (int o = 0; o < outs; o++) add_rows(slopes + o, outs, count, in, ins, tiles, weights + o * ins);
    for (int p = 0; p < count; p++)
        for (int o = 0; o < outs; o++) biases[o] += slopes[p * outs + o];
}

static void to_floats(const uint8_t *from, int n, int centre, float *to) {
    for (int i = 0; i < n; i++) to[i] = (float)(from[i] - centre);
}

typedef struct {
    float w2[HIDDEN2 * HIDDEN1], w3[OUTPUTS * HIDDEN2];
    Floated batch;
} Learning;

INLINE void learn(Learning *l, int hidden, const uint8_t *inputs, const uint8_t *h1, const uint8_t *h2, int count,
                  float *gradient) {
    Floated *f = &l->batch;
    float *w2 = gradient + hidden * INPUTS, *w3 = w2 + HIDDEN2 * hidden, *biases = w3 + OUTPUTS * HIDDEN2;
    to_floats(inputs, count * INPUTS, 64, f->inputs);
    to_floats(h1, count * hidden, 0, f->h1);
    to_floats(h2, count * HIDDEN2, 0, f->h2);
    back(f->g3, OUTPUTS, l->w3, HIDDEN2, 2, h2, 1 / 64.0f, count, f->g2);
    back(f->g2, HIDDEN2, l->w2, hidden, 6, h1, 1 / 32.0f, count, f->g1);
    gather_slopes(f->g1, hidden, f->inputs, INPUTS, 9, count, gradient, biases);
    gather_slopes(f->g2, HIDDEN2, f->h1, hidden, 6, count, w2, biases + hidden);
    gather_slopes(f->g3, OUTPUTS, f->h2, HIDDEN2, 2, count, w3, biases + hidden + HIDDEN2);
}

/* The gradient is of the sum of all bits, by weights, then by biases; or NULL. */
static int objective(const Network *network, const float *scales, const Asked *asked, size_t n, float *bits,
                     float *gradient) {
    Layers layers;
    uint8_t inputs[BATCH * INPUTS] __attribute__((aligned(64))), h1[BATCH * HIDDEN1], h2[BATCH * HIDDEN2];
    int32_t outputs[BATCH * OUTPUTS] __attribute__((aligned(64)));
    Learning *learning = malloc(sizeof *learning);
    Floats widths;
    memcpy(&widths, scales, sizeof widths);
    if (!learning) return -2;
    if (layers_open(&layers, network)) return free(learning), -2;
    for (int i = 0; i < HIDDEN2 * network->hidden; i++) learning->w2[i] = network->w2[i];
    for (int i = 0; i < OUTPUTS * HIDDEN2; i++) learning->w3[i] = network->w3[i];
    for (size_t i = 0; i < n; i += BATCH) {
        int count = n - i < BATCH ? (int)(n - i) : BATCH;
        memcpy(inputs, asked->inputs + i * INPUTS, (size_t)count * INPUTS);
        layers_run(&layers, inputs, count, outputs, h1, h2);
        for (int k = 0; k < count; k++)
            bits[i + k] = spend(outputs + k * OUTPUTS, widths, asked->means[i + k], asked->scales[i + k],
                                asked->targets[i + k], learning->batch.g3 + k * OUTPUTS);
        if (!gradient) continue;
        if (network->hidden == HIDDEN1)
            learn(learning, HIDDEN1, inputs, h1, h2, count, gradient);
        else
            learn(learning, HIDDEN1 / 2, inputs, h1, h2, count, gradient);
    }
    layers_close(&layers);
    free(learning);
    return 0;
}
