/* The weights of the components and the search for a bin, in vectors: 8 coarse steps at once, then 16 fine ones. */

static inline void weigh_components(const int32_t *out, const Tables *t, uint16_t *weights) {
    __m256i q = _mm256_srai_epi32(_mm256_loadu_si256((const __m256i *)out), 7);
    __m256i most = _mm256_max_epi32(q, _mm256_permute4x64_epi64(q, 0x4E));
    most = _mm256_max_epi32(most, _mm256_shuffle_epi32(most, 0x4E));
    most = _mm256_max_epi32(most, _mm256_shuffle_epi32(most, 0xB1));
    __m256i below = _mm256_min_epi32(_mm256_sub_epi32(most, q), _mm256_set1_epi32(255));
    __m256i e = _mm256_and_si256(_mm256_i32gather_epi32((const int *)(const void *)t->exponential, below, 2),
                                 _mm256_set1_epi32(0xFFFF));
    uint32_t sum = (uint32_t)sum4(_mm_add_epi32(_mm256_castsi256_si128(e), _mm256_extracti128_si256(e, 1)));
    uint32_t reciprocal = ((1u << 31) - (1u << 15)) / sum;
    e = _mm256_srli_epi32(_mm256_mullo_epi32(e, _mm256_set1_epi32((int32_t)reciprocal)), 15);
    _mm_storeu_si128((__m128i *)weights, _mm_packus_epi32(_mm256_castsi256_si128(e), _mm256_extracti128_si256(e, 1)));
}

/* 8 * bin_start of every bin, in the middle of a curve. */
static const int32_t POINTS[BINS] __attribute__((aligned(64))) = {
    320,  320,  448,  576,  704,  832,  960,  1088, 1216, 1248, 1280, 1312, 1344, 1376, 1408, 1440, 1472, 1504, 1536,
    1568, 1600, 1632, 1664, 1696, 1728, 1736, 1744, 1752, 1760, 1768, 1776, 1784, 1792, 1800, 1808, 1816, 1824, 1832,
    1840, 1848, 1856, 1864, 1872, 1880, 1888, 1896, 1904, 1912, 1920, 1928, 1936, 1944, 1952, 1960, 1968, 1976, 1984,
    1992, 2000, 2008, 2016, 2024, 2032, 2040, 2048, 2056, 2064, 2072, 2080, 2088, 2096, 2104, 2112, 2120, 2128, 2136,
    2144, 2152, 2160, 2168, 2176, 2184, 2192, 2200, 2208, 2216, 2224, 2232, 2240, 2248, 2256, 2264, 2272, 2280, 2288,
    2296, 2304, 2312, 2320, 2328, 2336, 2344, 2352, 2360, 2368, 2400, 2432, 2464, 2496, 2528, 2560, 2592, 2624, 2656,
    2688, 2720, 2752, 2784, 2816, 2848, 2880, 3008, 3136, 3264, 3392, 3520, 3648, 3776};

/* The second half of the components at eight points. */
static inline __m256i second_half(const Distribution *d, const Tables *t, __m256i points) {
    points = _mm256_sub_epi32(points, _mm256_set1_epi32(d->offset));
    points = _mm256_min_epi32(_mm256_max_epi32(points, _mm256_setzero_si256()), _mm256_set1_epi32(CURVE - 1));
    __m256i sum = _mm256_setzero_si256(), low = _mm256_set1_epi32(0xFFFF);
    for (int j = COMPONENTS / 2; j < COMPONENTS; j++) {
        __m256i c = _mm256_i32gather_epi32((const int *)(const void *)(t->curves + j * CURVE), points, 2);
        c = _mm256_mullo_epi32(_mm256_and_si256(c, low), _mm256_set1_epi32(d->weights[j]));
        sum = _mm256_add_epi32(sum, _mm256_srli_epi32(c, 16));
    }
    return sum;
}

static inline int search(const Distribution *d, const Tables *t, uint32_t target, uint32_t *start, uint32_t *end) {
    const __m128i spread = _mm_set1_epi16((int16_t)65408), wanted = _mm_set1_epi16((int16_t)target);
    const uint16_t *coarse = t->coarse + d->phase * COMPONENTS / 2 * 8, *rows = t->rows + d->phase * COMPONENTS / 2 * BINS;
    __m256i far = second_half(d, t, _mm256_setr_epi32(0, 1472, 1792, 1920, 2048, 2176, 2304, 2624));
    far = _mm256_blend_epi32(far, _mm256_setzero_si256(), 1);
    __m128i sum = _mm_packus_epi32(_mm256_castsi256_si128(far), _mm256_extracti128_si256(far, 1));
    for (int j = 0; j < COMPONENTS / 2; j++)
        sum = _mm_add_epi16(sum, _mm_mulhi_epu16(_mm_set1_epi16((int16_t)d->weights[j]),
                                                 _mm_loadu_si128((const __m128i *)(coarse + 8 * j))));
    sum = _mm_add_epi16(_mm_mulhi_epu16(sum, spread), _mm_setr_epi16(0, 16, 32, 48, 64, 80, 96, 112));
    unsigned below = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi16(_mm_max_epu16(sum, wanted), wanted));
    int first = 16 * ((__builtin_popcount(below) >> 1) - 1);

    __m256i near = second_half(d, t, _mm256_load_si256((const __m256i *)(POINTS + first)));
    far = second_half(d, t, _mm256_load_si256((const __m256i *)(POINTS + first + 8)));
    __m256i fine = _mm256_permute4x64_epi64(_mm256_packus_epi32(near, far), 0xD8);
    if (!first) fine = _mm256_insert_epi16(fine, 0, 0);
    for (int j = 0; j < COMPONENTS / 2; j++)
        fine = _mm256_add_epi16(fine, _mm256_mulhi_epu16(_mm256_set1_epi16((int16_t)d->weights[j]),
                                                         _mm256_loadu_si256((const __m256i *)(rows + j * BINS + first))));
    fine = _mm256_add_epi16(_mm256_mulhi_epu16(fine, _mm256_broadcastsi128_si256(spread)),
                            _mm256_add_epi16(_mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                             _mm256_set1_epi16((int16_t)first)));
    __m256i wide = _mm256_broadcastsi128_si256(wanted);
    below = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(fine, wide), wide));
    int bin = (__builtin_popcount(below) >> 1) - 1;
    uint16_t bounds[16], ends[8];
    _mm256_storeu_si256((__m256i *)bounds, fine);
    _mm_storeu_si128((__m128i *)ends, sum);
    *start = bounds[bin];
    *end = bin < 15 ? bounds[bin + 1] : first < 112 ? ends[first / 16 + 1] : 65536;
    return first + bin;
}
