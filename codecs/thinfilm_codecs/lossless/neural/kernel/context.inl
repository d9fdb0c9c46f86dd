/* What a pixel's neighbours tell, in plain C: the arithmetic that vector versions must repeat. */

static inline int32_t clip(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline int32_t magnitude(int32_t v) { return v < 0 ? -v : v; }
static inline int32_t difference(int32_t a, int32_t b) { return clip(a - b, -32767, 32767); }

#ifndef VECTORS

/* Sum of weighted distances of eight samples from a centre. */
static inline int32_t weigh(const int16_t *from, int32_t centre, const int16_t *weights) {
    int32_t sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += weights[i] * magnitude(difference(from[i], centre));
    return sum;
}

/* Eight differences from a centre. */
static inline void differences(const int16_t *from, int32_t centre, int16_t *to) {
    for (int i = 0; i < BLOCK; i++) to[i] = (int16_t)difference(from[i], centre);
}

static inline int32_t dot(const int16_t *a, const int16_t *b, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += (int32_t)a[i] * b[i];
    return sum;
}

/* Spread of the four differences of `p` from `q` and the four of `r` from `s` around their mean. */
static inline int32_t spread_of(const int16_t *p, const int16_t *q, const int16_t *r, const int16_t *s) {
    int32_t d[8], sum = 4, spread = 0;
    for (int i = 0; i < 4; i++) {
        d[i] = difference(p[i], q[i]);
        d[4 + i] = difference(r[i], s[i]);
        sum += d[i] + d[4 + i];
    }
    for (int i = 0; i < 8; i++) spread += magnitude(d[i] - (sum >> 3));
    return spread;
}

/* Two blocks as network inputs: differences from a centre in units of a ratio, 64 standing for none. */
static inline void quantise(const int16_t *one, const int16_t *two, int32_t centre, Ratio r, uint8_t *to) {
    int32_t half = 1 << (r.shift - 1);
    for (int i = 0; i < 2 * BLOCK; i++) {
        int32_t d = difference(i < BLOCK ? one[i] : two[i - BLOCK], centre);
        to[i] = (uint8_t)(64 + clip((d * r.multiplier + half) >> r.shift, -63, 63));
    }
}

#else

static inline __m128i differences8(const int16_t *from, int32_t centre) {
    __m128i d = _mm_subs_epi16(_mm_loadu_si128((const __m128i *)from), _mm_set1_epi16((int16_t)centre));
    return _mm_max_epi16(d, _mm_set1_epi16(-32767));
}

static inline int32_t sum4(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1));
    return _mm_cvtsi128_si32(v);
}

static inline __m128i weigh8(const int16_t *from, int32_t centre, const int16_t *weights) {
    return _mm_madd_epi16(_mm_abs_epi16(differences8(from, centre)), _mm_loadu_si128((const __m128i *)weights));
}

static inline void differences(const int16_t *from, int32_t centre, int16_t *to) {
    _mm_storeu_si128((__m128i *)to, differences8(from, centre));
}

static inline int32_t spread_of(const int16_t *p, const int16_t *q, const int16_t *r, const int16_t *s) {
    __m128i d = _mm_subs_epi16(_mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)p), _mm_loadl_epi64((const __m128i *)r)),
                               _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)q), _mm_loadl_epi64((const __m128i *)s)));
    d = _mm_max_epi16(d, _mm_set1_epi16(-32767));
    int32_t mean = (sum4(_mm_madd_epi16(d, _mm_set1_epi16(1))) + 4) >> 3;
    __m256i m = _mm256_abs_epi32(_mm256_sub_epi32(_mm256_cvtepi16_epi32(d), _mm256_set1_epi32(mean)));
    return sum4(_mm_add_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1)));
}

static inline void quantise(const int16_t *one, const int16_t *two, int32_t centre, Ratio r, uint8_t *to) {
    __m256i d = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)one)),
                                        _mm_loadu_si128((const __m128i *)two), 1);
    d = _mm256_max_epi16(_mm256_subs_epi16(d, _mm256_set1_epi16((int16_t)centre)), _mm256_set1_epi16(-32767));
    __m128i count = _mm_cvtsi32_si128(r.shift), bytes;
#ifdef VECTORS_512
    __m512i q = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(d), _mm512_set1_epi32(r.multiplier));
    q = _mm512_sra_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(1 << (r.shift - 1))), count);
    bytes = _mm512_cvtsepi32_epi8(q);
#else
    __m256i multiplier = _mm256_set1_epi32(r.multiplier), half = _mm256_set1_epi32(1 << (r.shift - 1));
    __m256i lo = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(d)), multiplier);
    __m256i hi = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(d, 1)), multiplier);
    lo = _mm256_sra_epi32(_mm256_add_epi32(lo, half), count);
    hi = _mm256_sra_epi32(_mm256_add_epi32(hi, half), count);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xD8);
    bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
#endif
    bytes = _mm_min_epi8(_mm_max_epi8(bytes, _mm_set1_epi8(-63)), _mm_set1_epi8(63));
    _mm_storeu_si128((__m128i *)to, _mm_add_epi8(bytes, _mm_set1_epi8(64)));
}

#endif
