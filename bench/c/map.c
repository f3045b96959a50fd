/* SPDX-License-Identifier: MIT
 *
 * tercio_map beside OpenMP's dynamic schedule: the same function over the same items, two workers each, in turn.
 * Prints a line of JSON for each run. The pools are open all the time, as OpenMP's threads are.
 *
 *     map ITEMS ROUNDS
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tercio.h"

enum { WORKERS = 2 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A call that no compiler takes away or merges with the next. */
__attribute__((noinline)) static uint64_t body(uint64_t v, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        v = v * UINT64_C(6364136223846793005) + 1442695040888963407;
        __asm__ volatile("" : "+r"(v));
    }
    return v + 1;
}

static unsigned long_turns = 500;

static int run_empty(tercio_call *call, tercio_bytes in, void *out)
{
    uint64_t v;
    (void)call;
    memcpy(&v, in.data, sizeof v);
    v = body(v, 0);
    memcpy(out, &v, sizeof v);
    return 0;
}

static int run_long(tercio_call *call, tercio_bytes in, void *out)
{
    uint64_t v;
    (void)call;
    memcpy(&v, in.data, sizeof v);
    v = body(v, long_turns);
    memcpy(out, &v, sizeof v);
    return 0;
}

static const tercio_task tasks[] = {{"empty", run_empty, 8}, {"long", run_long, 8}};
static const tercio_table table = {.size = sizeof table, .task_size = sizeof tasks[0], .n_tasks = 2, .tasks = tasks};

/* Seconds of CPU that this process and its workers have used. */
static double cpu(tercio_pool *forked)
{
    struct timespec t;
    int pids[WORKERS];
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    double total = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    int n = tercio_worker_pids(forked, pids, WORKERS);
    for (int i = 0; i < n && i < WORKERS; i++) {
        clockid_t clock;
        if (pids[i] > 0 && clock_getcpuclockid(pids[i], &clock) == 0 && clock_gettime(clock, &t) == 0)
            total += (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    return total;
}

static void with_openmp(const uint64_t *in, uint64_t *out, size_t n, unsigned turns, size_t chunk)
{
#pragma omp parallel for schedule(dynamic, chunk) num_threads(WORKERS)
    for (size_t i = 0; i < n; i++)
        out[i] = body(in[i], turns);
}

/* OpenMP gets its best, threads that look for work and never sleep (OMP_WAIT_POLICY=active): they are made before the
 * clock starts, and gone before somebody else's turn. */
static void make_openmp_threads(void)
{
#pragma omp parallel num_threads(WORKERS)
    {
        __asm__ volatile("" ::: "memory");
    }
}

static void end_openmp_threads(void)
{
    if (omp_pause_resource_all(omp_pause_hard) != 0) {
        fprintf(stderr, "OpenMP keeps its threads\n");
        exit(1);
    }
}

static void check(const uint64_t *in, const uint64_t *out, size_t n, unsigned turns, const char *who)
{
    for (size_t i = 0; i < n; i += n < 1000 || turns == 0 ? 1 : 997)
        if (out[i] != body(in[i], turns)) {
            fprintf(stderr, "%s: item %zu is wrong\n", who, i);
            exit(1);
        }
}

int main(int argc, char **argv)
{
    tercio_worker_entry(argc, argv, &table);
    size_t items = argc > 1 ? (size_t)atoll(argv[1]) : 1000000;
    int rounds = argc > 2 ? atoi(argv[2]) : 5;

    double start = now(), took;
    volatile uint64_t sink = body(1, 20 * 1000 * 1000);
    (void)sink;
    took = now() - start;
    long_turns = (unsigned)(1e-6 / (took / 20e6));

    /* Before OpenMP makes its threads: forking beside threads is refused. */
    const tercio_method methods[] = {TERCIO_FORK, TERCIO_THREADING};
    const char *names[] = {"tercio fork", "tercio threading"};
    tercio_pool *pools[2];
    for (int m = 0; m < 2; m++) {
        tercio_options options = {.size = sizeof options, .table = &table, .method = methods[m], .n_workers = WORKERS};
        int error = tercio_open(&pools[m], &options);
        if (error < 0) {
            fprintf(stderr, "tercio_open: %s\n", tercio_error_text(error));
            return 1;
        }
    }
    uint64_t *in = malloc(items * sizeof *in), *out = malloc(items * sizeof *out);
    if (in == NULL || out == NULL)
        return 1;
    for (size_t i = 0; i < items; i++)
        in[i] = i;
    memset(out, 0, items * sizeof *out);

    const size_t chunks[] = {1, 1024};
    for (int task = 0; task < 2; task++)
        for (int c = 0; c < 2; c++)
            for (int round = -1; round < rounds; round++) /* the first is for warming up */
                for (int who = 0; who < 3; who++) {
                    size_t n = task == 0 ? items : items / 10;
                    unsigned turns = task == 0 ? 0 : long_turns;
                    const char *name = who < 2 ? names[who] : "OpenMP dynamic";
                    memset(out, 0, n * sizeof *out);
                    if (who == 2)
                        make_openmp_threads();
                    double before = cpu(pools[0]);
                    start = now();
                    if (who < 2) {
                        tercio_map_options options = {.size = sizeof options, .chunk = chunks[c]};
                        int error = tercio_map(pools[who], (unsigned)task, in, 8, n, out, &options, NULL);
                        if (error != 0) {
                            fprintf(stderr, "%s: %s\n", name, error < 0 ? tercio_error_text(error) : "items failed");
                            return 1;
                        }
                    } else {
                        with_openmp(in, out, n, turns, chunks[c]);
                    }
                    took = now() - start;
                    double used = cpu(pools[0]) - before;
                    if (who == 2)
                        end_openmp_threads();
                    check(in, out, n, turns, name);
                    if (round >= 0)
                        printf("{\"group\": \"%s, chunk %zu, %zu items\", \"who\": \"%s\", \"n\": %zu, "
                               "\"seconds\": %.9f, \"cpu\": %.9f}\n",
                               task == 0 ? "empty body" : "body of 1 \302\265s", chunks[c], n, name, n, took, used);
                    fflush(stdout);
                }
    for (int m = 0; m < 2; m++)
        tercio_close(pools[m]);
    free(in);
    free(out);
    return 0;
}
