/* The network's layers, in vectors of 8-bit products: inputs of at most 127 keep every pair of products in 16 bits. */

/* Weights as (inputs / 4, outputs, 4). */
typedef struct {
    int hidden;
    int8_t w1[HIDDEN1 * INPUTS] __attribute__((aligned(64)));
    int8_t w2[HIDDEN2 * HIDDEN1] __attribute__((aligned(64)));
    int8_t w3[OUTPUTS * HIDDEN2] __attribute__((aligned(64)));
    int32_t b1[HIDDEN1] __attribute__((aligned(64))), b2[HIDDEN2] __attribute__((aligned(64))), b3[OUTPUTS] __attribute__((aligned(64)));
} Packed;

typedef struct { Packed *packed; } Layers;

static void pack(const int8_t *from, int outs, int in, int8_t *to) {
    for (int o = 0; o < outs; o++)
        for (int i = 0; i < in; i++) to[(i / 4 * outs + o) * 4 + i % 4] = from[o * in + i];
}

static int layers_open(Layers *l, const Network *n) {
    l->packed = aligned_alloc(64, (sizeof(Packed) + 63) / 64 * 64);
    if (!l->packed) return -1;
    Packed *p = l->packed;
    p->hidden = n->hidden;
    pack(n->w1, n->hidden, INPUTS, p->w1);
    pack(n->w2, HIDDEN2, n->hidden, p->w2);
    pack(n->w3, OUTPUTS, HIDDEN2, p->w3);
    memcpy(p->b1, n->b1, (size_t)n->hidden * sizeof *p->b1);
    memcpy(p->b2, n->b2, sizeof p->b2);
    memcpy(p->b3, n->b3, sizeof p->b3);
    return 0;
}

static void layers_close(Layers *l) { free(l->packed); }

#ifdef VECTORS_512
typedef __m512i Vector;
enum { LANES = 16 };
#define LOAD(p) _mm512_load_si512((const void *)(p))
#define STORE(p, v) _mm512_store_si512((void *)(p), v)
#define BROADCAST(v) _mm512_set1_epi32(v)
#define ACCUMULATE(sum, x, w) _mm512_dpbusd_epi32(sum, x, w)
static inline void store_activated(uint8_t *to, Vector v, int shift) {
    v = _mm512_srai_epi32(_mm512_add_epi32(v, BROADCAST(1 << (shift - 1))), shift);
    v = _mm512_min_epi32(_mm512_max_epi32(v, BROADCAST(0)), BROADCAST(127));
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(v));
}
#else
typedef __m256i Vector;
enum { LANES = 8 };
#define LOAD(p) _mm256_load_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_store_si256((__m256i *)(p), v)
#define BROADCAST(v) _mm256_set1_epi32(v)
#define ACCUMULATE(sum, x, w) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)))
static inline void store_activated(uint8_t *to, Vector v, int shift) {
    v = _mm256_srai_epi32(_mm256_add_epi32(v, BROADCAST(1 << (shift - 1))), shift);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    words = _mm_min_epi16(_mm_max_epi16(words, _mm_setzero_si128()), _mm_set1_epi16(127));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}
#endif

/* `PIXELS` rows of `IN` inputs against `COLUMNS` vectors of outputs, all sums in registers. */
#define TILE(PIXELS, COLUMNS, IN, OUTS, x, stride, w, b, SINK)                                                  \
    do {                                                                                                       \
        Vector sums[PIXELS][COLUMNS];                                                                          \
        _Pragma("GCC unroll 8") for (int p = 0; p < PIXELS; p++)                                               \
            _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++) sums[p][c] = LOAD((b) + c * LANES);      \
        for (int k = 0; k < (IN) / 4; k++) {                                                                   \
            Vector v[COLUMNS];                                                                                 \
            _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++)                                          \
                v[c] = LOAD((w) + ((size_t)k * (OUTS) + c * LANES) * 4);                                       \
            _Pragma("GCC unroll 8") for (int p = 0; p < PIXELS; p++) {                                         \
                int32_t four;                                                                                  \
                memcpy(&four, (x) + p * (stride) + 4 * k, 4);                                                  \
                Vector xs = BROADCAST(four);                                                                   \
                _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++)                                      \
                    sums[p][c] = ACCUMULATE(sums[p][c], xs, v[c]);                                             \
            }                                                                                                  \
        }                                                                                                      \
        _Pragma("GCC unroll 8") for (int p = 0; p < PIXELS; p++)                                               \
            _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++) { SINK; }                                \
    } while (0)

/* n is rounded up to a multiple of 4: the batch has room, and what is computed there is not read. */
INLINE void run(const Packed *packed, int hidden, const uint8_t *x, int n, int32_t *out, uint8_t *h1, uint8_t *h2) {
    for (int i = 0; i < n; i += 4) {
        const uint8_t *from = x + i * INPUTS;
        uint8_t *to1 = h1 + i * hidden, *to2 = h2 + i * HIDDEN2;
#ifdef VECTORS_512
        enum { WIDE = 3 };
#else
        enum { WIDE = 2 };
#endif
        for (int o = 0; o < hidden; o += WIDE * LANES)
            TILE(4, WIDE, INPUTS, hidden, from, INPUTS, packed->w1 + 4 * o, packed->b1 + o,
                 store_activated(to1 + p * hidden + o + c * LANES, sums[p][c], 5));
        for (int o = 0; o < HIDDEN2; o += 2 * LANES)
            TILE(4, 2, hidden, HIDDEN2, to1, hidden, packed->w2 + 4 * o, packed->b2 + o,
                 store_activated(to2 + p * HIDDEN2 + o + c * LANES, sums[p][c], 6));
        for (int o = 0; o < OUTPUTS; o += LANES)
            TILE(4, 1, HIDDEN2, OUTPUTS, to2, HIDDEN2, packed->w3 + 4 * o, packed->b3 + o,
                 STORE(out + (i + p) * OUTPUTS + o + c * LANES, sums[p][c]));
    }
}

/* Each width of its own, so that the compiler knows the sizes of the loops. */
static void layers_run(const Layers *l, const uint8_t *x, int n, int32_t *out, uint8_t *h1, uint8_t *h2) {
    if (l->packed->hidden == HIDDEN1)
        run(l->packed, HIDDEN1, x, n, out, h1, h2);
    else
        run(l->packed, HIDDEN1 / 2, x, n, out, h1, h2);
}
