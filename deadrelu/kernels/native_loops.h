/* The loops over a tensor, for one type of its elements; native.c includes this file once for each.
 *
 * CELL is the type in memory, WORD what is computed with, LOAD(cell) leads from one to the other, NAME(name) makes names
 * that differ. `op` is known where a function is inlined, so that each loop holds what is asked for and nothing else.
 *
 * Everything comes down to one loop: rows of n elements side by side, column by column. How a tensor becomes such rows
 * depends on what lies side by side in memory: units, units and positions of a sample, or positions alone. The last
 * samples come first: they were written last, and lie in the cache; and the first ones then, for whoever reads z next.
 */

typedef struct {
    int32_t hits[TILE];   /* engaged elements of each column */
    uint8_t fired[TILE];  /* bit k: the element of row k was engaged */
    WORD top[TILE];
    double sum[TILE];
    double square[TILE];
} NAME(Columns);

/* Add `jam` rows, `step` elements apart, to n columns. Up to 8 elements are summed in WORD, at most 3 deep, then in double. */
static ALWAYS_INLINE void NAME(add_rows)(const int op, const int jam, const CELL *restrict z, int64_t step, int64_t n,
                                         const Look *look, int32_t *restrict hits_of, uint8_t *restrict fired_of,
                                         WORD *restrict top_of, double *restrict sum_of, double *restrict square_of)
{
    const WORD low = (WORD)look->low[0], high = (WORD)look->high[0];
    const WORD low2 = (WORD)look->low[1], high2 = (WORD)look->high[1];
    for (int64_t j = 0; j < n; j++) {
        int32_t hits = 0, bits = 0, odd = 0;
        WORD best = HAS_TOP(op) ? top_of[j] : 0, part[4] = {0, 0, 0, 0};
        double square = 0;
#pragma GCC unroll 8
        for (int k = 0; k < jam; k++) {
            WORD x = LOAD(z[k * step + j]);
            if (COUNTS(op)) {
                /* a comparison with NaN is false: so an end that is NaN is no end */
                const int32_t one = !(x <= low) & !(x >= high), other = !(x <= low2) & !(x >= high2);
                const int32_t on = op == INTERVALS ? (x == x) & (one | other) : x > low;
                bits |= on ? 1 << k : 0;
                if (!COUNTS_BITS)
                    hits += on;
            }
            if (op == SQUARES || op == MAGNITUDE)
                x = x < 0 ? -x : x;
            if (SUMS(op))
                part[k & 3] += op == RECTIFIED && x <= 0 ? 0 : x;
            if (op == SQUARES)
                square += (double)x * (double)x;
            if (HAS_TOP(op))
                best = x > best ? x : best; /* NaN is never larger, and nothing is larger than NaN */
            if (op == REACH)
                odd |= x != x;
        }
        if (COUNTS(op)) {
            hits_of[j] += COUNTS_BITS ? __builtin_popcount((unsigned)bits) : hits;
            fired_of[j] = (uint8_t)bits;
        }
        if (HAS_TOP(op))
            top_of[j] = odd ? NAN : best;
        if (SUMS(op))
            sum_of[j] += (part[0] + part[1]) + (part[2] + part[3]);
        if (op == SQUARES)
            square_of[j] += square;
    }
}

typedef void (*NAME(Add))(const CELL *, int64_t, int64_t, const Look *, NAME(Columns) *, int64_t);
#define ADD(OP, JAM) \
    static void NAME(add_##OP##_##JAM)(const CELL *z, int64_t step, int64_t n, const Look *look, NAME(Columns) *to, int64_t first) \
    { \
        NAME(add_rows)(OP, JAM, z, step, n, look, to->hits + first, to->fired + first, to->top + first, \
                       to->sum + first, to->square + first); \
    }
ADD(TOP, 1) ADD(POSITIVE, 1) ADD(RECTIFIED, 1) ADD(INTERVALS, 1) ADD(MAGNITUDE, 1) ADD(SQUARES, 1) ADD(REACH, 1)
ADD(TOP, 8) ADD(POSITIVE, 8) ADD(RECTIFIED, 8) ADD(INTERVALS, 8) ADD(MAGNITUDE, 8) ADD(SQUARES, 8) ADD(REACH, 8)
#undef ADD
#define EACH(JAM) \
    {NAME(add_TOP_##JAM), NAME(add_POSITIVE_##JAM), NAME(add_RECTIFIED_##JAM), \
     NAME(add_INTERVALS_##JAM), NAME(add_MAGNITUDE_##JAM), NAME(add_SQUARES_##JAM), NAME(add_REACH_##JAM)}
static const NAME(Add) NAME(add_one)[] = EACH(1), NAME(add_eight)[] = EACH(8);
#undef EACH

/* Add any number of rows whose elements are `stride` apart; those that do not lie side by side are copied first. */
static void NAME(add)(const CELL *z, int64_t rows, int64_t step, int64_t stride, int64_t n, const Look *look,
                      NAME(Columns) *to, int64_t first)
{
    CELL copy[8][TILE];
    for (int64_t at = 0; at < rows; at += 8) {
        const CELL *from = z + at * step;
        const int64_t left = rows - at < 8 ? rows - at : 8;
        int64_t apart = step;
        if (stride != 1) {
            for (int64_t j = 0; j < n; j++)
                for (int64_t k = 0; k < left; k++)
                    copy[k][j] = from[k * step + j * stride];
            from = copy[0], apart = TILE;
        }
        /* a largest has so little to do that reading upwards, row by row, is faster than eight at once */
        if (left == 8 && !(look->op == REACH && sizeof(WORD) == sizeof(float)))
            NAME(add_eight)[look->op](from, apart, n, look, to, first);
        else
            for (int64_t k = 0; k < left; k++)
                NAME(add_one)[look->op](from + k * apart, apart, n, look, to, first);
    }
}

static void NAME(clear)(const Look *look, NAME(Columns) *to, int64_t n)
{
    if (COUNTS(look->op))
        memset(to->hits, 0, sizeof to->hits[0] * (size_t)n);
    if (SUMS(look->op))
        memset(to->sum, 0, sizeof to->sum[0] * (size_t)n);
    if (look->op == SQUARES)
        memset(to->square, 0, sizeof to->square[0] * (size_t)n);
    if (HAS_TOP(look->op))
        for (int64_t j = 0; j < n; j++)
            to->top[j] = -(WORD)INFINITY;
}

/* Fold columns into the unit that they are of: unit u has the columns u * outer + p * inner, p < count, one of which
 * steps is 1. */
static void NAME(settle)(const Look *look, const NAME(Columns) *from, int64_t units, int64_t count, int64_t outer,
                         int64_t inner, const Out *out, int64_t first)
{
    double *top = out->top + first, *hits = NULL, *sum = NULL, *square = NULL;
    if (look->op != REACH)
        hits = out->hits + first, sum = out->sum + first, square = out->square + first;
    for (int64_t p = 0; p < (outer == 1 ? count : 0); p++) {
        const int64_t at = p * inner;
        for (int64_t u = 0; u < (COUNTS(look->op) ? units : 0); u++)
            hits[u] += from->hits[at + u];
        for (int64_t u = 0; u < (HAS_TOP(look->op) ? units : 0); u++)
            top[u] = LARGER(look->op, from->top[at + u], top[u]);
        for (int64_t u = 0; u < (SUMS(look->op) ? units : 0); u++)
            sum[u] += from->sum[at + u];
        for (int64_t u = 0; u < (look->op == SQUARES ? units : 0); u++)
            square[u] += from->square[at + u];
    }
    for (int64_t u = 0; u < (outer == 1 ? 0 : units); u++) {
        const int64_t at = u * outer;
        int64_t hits_here = 0;
        int odd_here = 0;
        WORD top_here = -(WORD)INFINITY;
        double sum_here = 0, square_here = 0;
        if (COUNTS(look->op))
#pragma omp simd reduction(+ : hits_here)
            for (int64_t p = 0; p < count; p++)
                hits_here += from->hits[at + p];
        if (HAS_TOP(look->op))
#pragma omp simd reduction(max : top_here)
            for (int64_t p = 0; p < count; p++)
                top_here = from->top[at + p] > top_here ? from->top[at + p] : top_here;
        if (look->op == REACH)
#pragma omp simd reduction(| : odd_here)
            for (int64_t p = 0; p < count; p++)
                odd_here |= from->top[at + p] != from->top[at + p];
        if (SUMS(look->op))
#pragma omp simd reduction(+ : sum_here)
            for (int64_t p = 0; p < count; p++)
                sum_here += from->sum[at + p];
        if (look->op == SQUARES)
#pragma omp simd reduction(+ : square_here)
            for (int64_t p = 0; p < count; p++)
                square_here += from->square[at + p];
        top[u] = LARGER(look->op, odd_here ? NAN : (double)top_here, top[u]);
        if (look->op == REACH) /* nothing else has room */
            continue;
        hits[u] += (double)hits_here;
        sum[u] += sum_here;
        square[u] += square_here;
    }
}

/* The rows are samples, 8 at a time, the columns units, or units and positions that lie side by side. */
static void NAME(by_samples)(const CELL *z, const Look *look, Span span, const Out *out,
                                           NAME(Columns) *to)
{
    const int64_t positions = look->positions, width = TILE / positions;
    CELL copy[8][TILE];
    for (int64_t u = span.unit; u < span.unit_end; u += width) {
        const int64_t units = span.unit_end - u < width ? span.unit_end - u : width, n = units * positions;
        const int64_t stride = positions == 1 ? look->unit_step : 1;
        /* column of a unit's positions: u * positions + p, or p * units + u where the tile holds every unit */
        const int last = look->unit_step == 1 && positions > 1;
        const int64_t outer = last ? 1 : positions, inner = last ? units : 1;
        NAME(clear)(look, to, n);
        for (int64_t s = span.sample_end - 1 - (span.sample_end - 1) % 8; s >= span.sample; s -= 8) {
            const int64_t left = span.sample_end - s < 8 ? span.sample_end - s : 8;
            const CELL *from = z + s * look->sample_step + u * look->unit_step;
            int64_t apart = look->sample_step;
            if (stride != 1 || (left < 8 && COUNTS(look->op))) { /* rows that are missing are never engaged, nor the largest */
                for (int64_t k = 0; k < 8; k++)
                    if (k < left)
                        for (int64_t j = 0; j < n; j++)
                            copy[k][j] = from[k * apart + j * stride];
                    else
                        for (int64_t j = 0; j < n; j++)
                            copy[k][j] = look->op == RECTIFIED ? LOWEST : NOTHING;
                from = copy[0], apart = TILE;
            }
            if (COUNTS(look->op)) {
                NAME(add_eight)[look->op](from, apart, n, look, to, 0);
                uint8_t *fired = out->fired + s / 8 * look->units + u;
                if (positions == 1) {
                    memcpy(fired, to->fired, (size_t)units);
                } else {
                    for (int64_t i = 0; i < units; i++) {
                        uint8_t bits = 0;
                        if (inner == 1) /* the same, told to the compiler */
                            for (int64_t p = 0; p < positions; p++)
                                bits |= to->fired[i * outer + p];
                        else
                            for (int64_t p = 0; p < positions; p++)
                                bits |= to->fired[i * outer + p * inner];
                        fired[i] = bits;
                        out->samples[u + i] += __builtin_popcount(bits);
                    }
                }
            } else if (left == 8)
                NAME(add_eight)[look->op](from, apart, n, look, to, 0);
            else
                for (int64_t k = 0; k < left; k++)
                    NAME(add_one)[look->op](from + k * apart, apart, n, look, to, 0);
        }
        NAME(settle)(look, to, units, positions, outer, inner, out, u);
        if (COUNTS(look->op) && positions == 1)
            for (int64_t i = 0; i < units; i++)
                out->samples[u + i] += (double)to->hits[i];
    }
}

/* Begin to note which samples of some units fire. */
static void NAME(begin_notes)(const Look *look, const Out *out, Span span, int64_t u, int64_t units)
{
    for (int64_t s = span.sample; s < (COUNTS(look->op) ? span.sample_end : 0); s += 8)
        memset(out->fired + s / 8 * look->units + u, 0, (size_t)units);
}

/* Note the sample s of a unit whose engaged positions were counted. */
static void NAME(note)(const Look *look, const Out *out, int64_t s, int64_t u, int64_t hits)
{
    out->fired[s / 8 * look->units + u] |= (uint8_t)((hits > 0) << s % 8);
    out->samples[u] += hits > 0;
    out->hits[u] += (double)hits;
}

/* The rows are the positions of one sample, the columns its units; few units that lie side by side several times over. */
static void NAME(by_positions)(const CELL *z, const Look *look, Span span, const Out *out, NAME(Columns) *to)
{
    const int64_t all = look->units, whole = span.unit_end - span.unit == all;
    const int dense = look->unit_step == 1 && look->position_step == all && whole && 2 * all <= TILE;
    const int64_t fold = dense ? TILE / all : 1;
    for (int64_t u = span.unit; u < span.unit_end; u += TILE) {
        const int64_t units = span.unit_end - u < TILE ? span.unit_end - u : TILE;
        const int64_t rows = look->positions / fold, rest = look->positions % fold, step = fold * look->position_step;
        NAME(clear)(look, to, fold * units);
        NAME(begin_notes)(look, out, span, u, units);
        for (int64_t s = span.sample_end - 1; s >= span.sample; s--) {
            const CELL *from = z + s * look->sample_step + u * look->unit_step;
            NAME(add)(from, rows, step, look->unit_step, fold * units, look, to, 0);
            NAME(add)(from + rows * step, rest > 0, step, look->unit_step, rest * units, look, to, 0);
            if (!COUNTS(look->op))
                continue;
            for (int64_t f = 1; f < fold; f++)
                for (int64_t i = 0; i < units; i++)
                    to->hits[i] += to->hits[f * units + i];
            for (int64_t i = 0; i < units; i++)
                NAME(note)(look, out, s, u + i, to->hits[i]);
            memset(to->hits, 0, sizeof to->hits[0] * (size_t)(fold * units));
        }
        NAME(settle)(look, to, units, fold, 1, units, out, u);
    }
}

/* The positions of one sample and unit lie side by side: they are rows of RUN, and each unit has as many columns. */
static void NAME(by_runs)(const CELL *z, const Look *look, Span span, const Out *out, NAME(Columns) *to)
{
    const int64_t rows = look->positions / RUN, rest = look->positions % RUN, width = TILE / RUN;
    for (int64_t u = span.unit; u < span.unit_end; u += width) {
        const int64_t units = span.unit_end - u < width ? span.unit_end - u : width;
        NAME(clear)(look, to, units * RUN);
        NAME(begin_notes)(look, out, span, u, units);
        for (int64_t s = span.sample_end - 1; s >= span.sample; s--)
            for (int64_t i = 0; i < units; i++) {
                const CELL *from = z + s * look->sample_step + (u + i) * look->unit_step;
                NAME(add)(from, rows, RUN, 1, RUN, look, to, i * RUN);
                NAME(add)(from + rows * RUN, rest > 0, RUN, 1, rest, look, to, i * RUN);
                if (!COUNTS(look->op))
                    continue;
                int32_t hits = 0;
                for (int64_t j = 0; j < RUN; j++)
                    hits += to->hits[i * RUN + j];
                NAME(note)(look, out, s, u + i, hits);
                memset(to->hits + i * RUN, 0, sizeof to->hits[0] * RUN);
            }
        NAME(settle)(look, to, units, RUN, RUN, 1, out, u);
    }
}

/* Return the largest of n elements side by side, NaN aside, and set `odd` if one is NaN. */
static __attribute__((noinline)) WORD NAME(largest)(const CELL *z, int64_t n, int *odd)
{
    WORD best = -(WORD)INFINITY;
    int nan = 0;
#pragma omp simd reduction(max : best) reduction(| : nan)
    for (int64_t i = 0; i < n; i++) {
        const WORD x = LOAD(z[i]);
        best = x > best ? x : best;
        nan |= x != x;
    }
    *odd |= nan;
    return best;
}

/* Return how many of n elements side by side are above `low`, and raise `top` to the largest. */
static __attribute__((noinline)) int32_t NAME(above)(const CELL *z, int64_t n, WORD low, WORD *top)
{
    WORD best = *top;
    int32_t hits = 0;
#pragma omp simd reduction(max : best) reduction(+ : hits)
    for (int64_t i = 0; i < n; i++) {
        const WORD x = LOAD(z[i]);
        best = x > best ? x : best;
        hits += x > low;
    }
    *top = best;
    return hits;
}

/* The same, and add the sum of max(x, 0): a few numbers in WORD, then in double. */
static __attribute__((noinline)) int32_t NAME(rectified)(const CELL *z, int64_t n, WORD low, WORD *top, double *sum)
{
    WORD best = *top;
    int32_t hits = 0;
    for (int64_t at = 0; at < n; at += FEW) {
        const int64_t end = at + FEW < n ? at + FEW : n;
        WORD part = 0;
#pragma omp simd reduction(max : best) reduction(+ : hits, part)
        for (int64_t i = at; i < end; i++) {
            const WORD x = LOAD(z[i]);
            best = x > best ? x : best;
            hits += x > low;
            part += x <= 0 ? 0 : x;
        }
        *sum += part;
    }
    *top = best;
    return hits;
}

/* The same, one run after the other, as memory is read fastest: chunks of samples from the last to the first, upwards
 * within each. */
static void NAME(by_lines)(const CELL *z, const Look *look, Span span, const Out *out)
{
    const int64_t n = look->positions, most = CHUNK / (n * (span.unit_end - span.unit)), chunk = most > 1 ? most : 1;
    const WORD low = (WORD)look->low[0];
    NAME(begin_notes)(look, out, span, span.unit, span.unit_end - span.unit);
    for (int64_t end = span.sample_end; end > span.sample; end -= chunk)
        for (int64_t s = end - chunk > span.sample ? end - chunk : span.sample; s < end; s++)
            for (int64_t u = span.unit; u < span.unit_end; u++) {
                const CELL *from = z + s * look->sample_step + u * look->unit_step;
                WORD best = -(WORD)INFINITY;
                int odd = 0;
                if (look->op == POSITIVE)
                    NAME(note)(look, out, s, u, NAME(above)(from, n, low, &best));
                else if (look->op == RECTIFIED)
                    NAME(note)(look, out, s, u, NAME(rectified)(from, n, low, &best, &out->sum[u]));
                else
                    best = NAME(largest)(from, n, &odd);
                out->top[u] = LARGER(look->op, odd && look->op == REACH ? NAN : (double)best, out->top[u]);
            }
}

/* What is rare, one element at a time: a unit of nothing but NaN, or whose sum left the range of WORD. */
static void NAME(mend)(const void *data, const Look *look, const Out *out)
{
    const CELL *z = data;
    const int op = (int)look->op;
    for (int64_t u = 0; u < look->units; u++) {
        int some = !HAS_TOP(op) || out->top[u] > -INFINITY;
        const int again = SUMS(op) && isinf(out->sum[u]);
        if (some && !again)
            continue;
        double sum = 0;
        for (int64_t s = 0; s < look->samples && !(some && !again); s++)
            for (int64_t p = 0; p < look->positions; p++) {
                const double x = LOAD(z[s * look->sample_step + u * look->unit_step + p * look->position_step]);
                some |= x == x;
                sum += op == RECTIFIED && x <= 0 ? 0 : fabs(x);
            }
        if (again)
            out->sum[u] = sum;
        if (!some)
            out->top[u] = NAN;
    }
}

static void NAME(span)(const void *data, const Look *look, Span span, const Out *out)
{
    NAME(Columns) to;
    const int64_t positions = look->positions, units = look->units;
    const int units_outside = look->position_step == 1 && look->unit_step == positions;
    const int units_inside = look->unit_step == 1 && look->position_step == units && units * positions <= TILE
        && span.unit_end - span.unit == units;
    const int few = positions <= TILE && span.sample_end - span.sample >= 8;
    /* what is converted first waits for that, not for memory */
    const int waits = sizeof(CELL) == sizeof(WORD) && IN_LINES(look->op);
    if (look->position_step == 1 && positions >= LINE && waits)
        NAME(by_lines)(data, look, span, out);
    else if (positions == 1 || (few && (units_outside || units_inside)))
        NAME(by_samples)(data, look, span, out, &to);
    else if (look->position_step == 1 && look->unit_step != 1 && positions >= RUN)
        NAME(by_runs)(data, look, span, out, &to);
    else
        NAME(by_positions)(data, look, span, out, &to);
}

#undef CELL
#undef WORD
#undef LOAD
#undef LOWEST
#undef NOTHING
#undef NAME
