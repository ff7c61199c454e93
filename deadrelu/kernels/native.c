/* What an audit needs of a tensor, in one read of it: see native.py, which compiles and calls this.
 *
 * The tensor is (samples, units, positions) with any strides. Nothing here allocates for more than a thread's results,
 * nothing is kept between calls, and the tensor is never written.
 */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define TILE 1024 /* columns at a time: their results stay in the cache nearest to the core */
#define RUN 64    /* positions side by side that one step takes */
#define LINE 512  /* positions side by side from which on they are read run by run */
#define CHUNK (1 << 16) /* elements that are read upwards before those that were written sooner */
#define FEW 128   /* elements that are summed in their own type, in as many parts as fit side by side */
#define THREADS 64

/* What is asked for. */
enum {
    TOP,       /* the largest element, NaN aside */
    POSITIVE,  /* elements above low[0]; in which samples; the largest */
    RECTIFIED, /* the same, and the sum of max(x, 0) */
    INTERVALS, /* elements inside of one of two open intervals; in which samples; the largest */
    MAGNITUDE, /* the sum of |x| */
    SQUARES,   /* the sum of x^2, the largest |x| */
    REACH      /* the largest element, NaN if one is */
};
#define COUNTS(op) ((op) == POSITIVE || (op) == RECTIFIED || (op) == INTERVALS)
#define HAS_TOP(op) ((op) != MAGNITUDE)
#define IN_LINES(op) ((op) == TOP || (op) == POSITIVE || (op) == RECTIFIED || (op) == REACH)
#define LARGER(op, x, best) ((x) > (best) || ((op) == REACH && (x) != (x)) ? (x) : (best))
#define SUMS(op) ((op) == RECTIFIED || (op) == MAGNITUDE)

#ifdef __AVX512VPOPCNTDQ__ /* the bits of many numbers at once; elsewhere each element is counted as it comes */
#define COUNTS_BITS 1
#else
#define COUNTS_BITS 0
#endif

enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

/* One tensor, and what is asked of it; native.py fills it in. Steps are in elements. */
typedef struct {
    int64_t cell, op, samples, units, positions, sample_step, unit_step, position_step;
    double low[2], high[2];
} Look;

/* Results, one number per unit; `fired` holds a bit per sample and unit, those of 8 samples in a byte. */
typedef struct {
    double *hits, *samples, *top, *sum, *square;
    uint8_t *fired;
} Out;
enum { RESULTS = 5 };

typedef struct {
    int64_t sample, sample_end, unit, unit_end;
} Span;

static ALWAYS_INLINE float from_bfloat16(uint16_t cell)
{
    const uint32_t bits = (uint32_t)cell << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Without arithmetic on denormal float32, which the processor may be told to take for zero. */
static ALWAYS_INLINE float from_float16(uint16_t cell)
{
    const uint32_t sign = (uint32_t)(cell & 0x8000) << 16, rest = cell & 0x7fff;
    const float tiny = (float)(int32_t)rest * 0x1p-24f;
    uint32_t bits;
    memcpy(&bits, &tiny, sizeof bits);
    bits = rest < 0x0400 ? bits : rest < 0x7c00 ? (rest << 13) + (112u << 23) : (rest << 13) | 0x7f800000u;
    bits |= sign;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define CELL float
#define WORD float
#define LOAD(cell) (cell)
#define LOWEST (-INFINITY)
#define NOTHING NAN
#define NAME(name) name##_float32
#include "native_loops.h"

#define CELL double
#define WORD double
#define LOAD(cell) (cell)
#define LOWEST (-INFINITY)
#define NOTHING NAN
#define NAME(name) name##_float64
#include "native_loops.h"

#define CELL uint16_t
#define WORD float
#define LOAD(cell) from_bfloat16(cell)
#define LOWEST 0xff80
#define NOTHING 0x7fc0
#define NAME(name) name##_bfloat16
#include "native_loops.h"

#define CELL uint16_t
#define WORD float
#define LOAD(cell) from_float16(cell)
#define LOWEST 0xfc00
#define NOTHING 0x7e00
#define NAME(name) name##_float16
#include "native_loops.h"

typedef struct {
    const Look *look;
    const void *data;
    Span span;
    Out out;
} Part;

static Out results_at(double *numbers, uint8_t *fired, int64_t units)
{
    const Out out = {numbers, numbers + units, numbers + 2 * units, numbers + 3 * units, numbers + 4 * units, fired};
    return out;
}

static void *run_part(void *argument)
{
    const Part *part = argument;
    const Look *look = part->look;
    for (int64_t u = part->span.unit; u < part->span.unit_end; u++)
        part->out.top[u] = -INFINITY; /* the rest is zero */
    switch (look->cell) {
    case FLOAT32: span_float32(part->data, look, part->span, &part->out); break;
    case FLOAT64: span_float64(part->data, look, part->span, &part->out); break;
    case BFLOAT16: span_bfloat16(part->data, look, part->span, &part->out); break;
    case FLOAT16: span_float16(part->data, look, part->span, &part->out); break;
    }
    return NULL;
}

static void merge(const Look *look, const Out *from, const Out *to)
{
    for (int64_t u = 0; u < look->units; u++) {
        to->hits[u] += from->hits[u];
        to->samples[u] += from->samples[u];
        to->top[u] = from->top[u] > to->top[u] ? from->top[u] : to->top[u];
        to->sum[u] += from->sum[u];
        to->square[u] += from->square[u];
    }
}

/* Cut the work into `count` parts: along the samples, 8 at a time, or, if these are few, along the units. */
static void cut(Part *parts, int count, const Look *look, int by_units)
{
    const int64_t groups = by_units ? look->units : (look->samples + 7) / 8;
    for (int i = 0; i < count; i++) {
        const int64_t from = groups * i / count, to = groups * (i + 1) / count;
        Span *span = &parts[i].span;
        if (by_units) {
            span->unit = from, span->unit_end = to;
        } else {
            span->sample = 8 * from, span->sample_end = i + 1 < count ? 8 * to : look->samples;
        }
    }
}

static void mend(const Look *look, const void *data, const Out *out)
{
    switch (look->cell) {
    case FLOAT32: mend_float32(data, look, out); break;
    case FLOAT64: mend_float64(data, look, out); break;
    case BFLOAT16: mend_bfloat16(data, look, out); break;
    case FLOAT16: mend_float16(data, look, out); break;
    }
}

static void add_all(double *restrict to, const double *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* Write the largest of each unit into a row of the dtype that its window is kept in: see windows.py. */
static void write_row(const Look *look, const Out *from, void *row)
{
    if (look->cell == FLOAT64)
        memcpy(row, from->top, sizeof *from->top * (size_t)look->units);
    else
        for (int64_t u = 0; u < look->units; u++)
            ((float *)row)[u] = (float)from->top[u];
}

/* Add what was found to six rows of a number per unit: see looks.py, Sums. A largest that is NaN is none. */
static void deliver(const Look *look, const Out *from, double *sums)
{
    const int64_t n = look->units;
    double *top = sums + (look->op == SQUARES ? 5 : 2) * n;
    if (COUNTS(look->op)) {
        add_all(sums, from->hits, n);
        add_all(sums + n, from->samples, n);
    }
    if (SUMS(look->op))
        add_all(sums + 3 * n, from->sum, n);
    if (look->op == SQUARES)
        add_all(sums + 4 * n, from->square, n);
    if (HAS_TOP(look->op))
        for (int64_t u = 0; u < n; u++)
            top[u] = from->top[u] <= top[u] || from->top[u] != from->top[u] ? top[u] : from->top[u];
}

/* Write the largest of each unit into a row, by this thread: what every step of a training asks for at every site. Returns
 * 0, or 1 if there is no memory, and then nothing was written. */
int deadrelu_reach(const Look *look, const void *data, void *row)
{
    double few[TILE], *top = look->units <= TILE ? few : malloc((size_t)look->units * sizeof *top);
    if (top == NULL)
        return 1;
    Part part = {look, data, {0, look->samples, 0, look->units}, {.top = top}};
    run_part(&part);
    write_row(look, &part.out, row);
    if (top != few)
        free(top);
    return 0;
}

/* Reduce a tensor and add what was found to `sums`; `fired` has room for a byte per unit and 8 samples. Returns 0, or 1
 * if there is no memory, and then nothing was added. */
int deadrelu_add(const Look *look, const void *data, double *sums, uint8_t *fired, int threads)
{
    Part parts[THREADS];
    pthread_t handles[THREADS];
    int running[THREADS] = {0};
    const int by_units = look->samples < 16;
    const int64_t most = by_units ? look->units / 64 : (look->samples + 7) / 8;
    int count = threads < THREADS ? threads : THREADS;
    count = count > most ? (int)most : count;
    count = count < 1 ? 1 : count;
    const int sets = by_units ? 1 : count;
    double *numbers = calloc((size_t)(RESULTS * sets * look->units), sizeof *numbers);
    if (numbers == NULL)
        return 1;
    for (int i = 0; i < count; i++) {
        double *own = numbers + (by_units ? 0 : RESULTS * i * look->units);
        const Part part = {look, data, {0, look->samples, 0, look->units}, results_at(own, fired, look->units)};
        parts[i] = part;
    }
    cut(parts, count, look, by_units);
    for (int i = 1; i < count; i++)
        running[i] = pthread_create(&handles[i], NULL, run_part, &parts[i]) == 0;
    run_part(&parts[0]);
    for (int i = 1; i < count; i++) {
        if (running[i])
            pthread_join(handles[i], NULL);
        else
            run_part(&parts[i]);
        if (!by_units)
            merge(look, &parts[i].out, &parts[0].out);
    }
    mend(look, data, &parts[0].out);
    deliver(look, &parts[0].out, sums);
    free(numbers);
    return 0;
}

/* Words of a memory, `width` bytes each, one in every `step`. */
typedef struct {
    const uint8_t *data;
    int64_t width, step, count;
} Words;

/* Copy words to `held`, or find out whether they are what it says; `width` is a constant where this is inlined. */
static ALWAYS_INLINE int differ(const Words *words, size_t width, uint8_t *held, int keep)
{
    int other = 0;
    const uint8_t *from = words->data;
    for (int64_t i = 0; i < words->count; i++, from += (size_t)words->step * width, held += width) {
        if (keep)
            memcpy(held, from, width);
        else
            other |= memcmp(held, from, width) != 0;
    }
    return other;
}

static int differs(const Words *words, uint8_t *held, int keep)
{
    const size_t all = (size_t)(words->count * words->width);
    if (words->step == 1 && keep)
        memcpy(held, words->data, all);
    if (words->step == 1)
        return !keep && memcmp(held, words->data, all) != 0;
    switch (words->width) {
    case 2:
        return differ(words, 2, held, keep);
    case 4:
        return differ(words, 4, held, keep);
    case 8:
        return differ(words, 8, held, keep);
    default:
        return differ(words, (size_t)words->width, held, keep);
    }
}

/* Keep the words of some memories in `held`, one after the other; or return 1 if one of them is no longer what `held`
 * says, 0 otherwise. */
int deadrelu_words(const Words *words, int64_t memories, uint8_t *held, int keep)
{
    int other = 0;
    for (int64_t i = 0; i < memories && !other; held += words[i].count * words[i].width, i++)
        other = differs(&words[i], held, keep);
    return other;
}
