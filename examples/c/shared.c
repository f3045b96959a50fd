/* SPDX-License-Identifier: MIT
 * A large table that every worker reads, and none copies, also under spawn, where nothing is inherited. At the end it
 * tells how much memory the workers have for themselves.
 *
 *     shared [--method METHOD] [--megabytes N]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tercio.h>

typedef struct {
    uint32_t table; /* what tercio_share gave */
    uint32_t first, step;
} question;

typedef struct {
    uint64_t sum;
    uint64_t private_kb; /* of the worker that answered; 0: unknown */
} answer;

/* Memory that isn't a file's, nor the pool's: the heap, the stack, and copies of pages that were written to. */
static uint64_t private_memory(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long long kb, total = 0;
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Anonymous: %llu kB", &kb) == 1)
            total += kb;
    fclose(file);
    return total;
}

static int add_up(tercio_call *call, tercio_bytes in, void *out)
{
    const question *asked = in.data;
    answer *found = out;
    size_t size;
    const uint64_t *numbers = tercio_shared(call, asked->table, &size);
    if (numbers == NULL)
        return tercio_fail(call, 1, "there is no shared table number %u", (unsigned)asked->table);
    for (size_t i = asked->first; i < size / sizeof *numbers; i += asked->step)
        found->sum += numbers[i];
    found->private_kb = private_memory();
    return 0;
}

static const tercio_task tasks[] = {{"add_up", add_up, sizeof(answer)}};
static const tercio_table table = {sizeof table, sizeof tasks[0], 1, tasks, NULL, NULL};

static int share_numbers(tercio_pool *pool, size_t megabytes, uint32_t *id)
{
    size_t n = (megabytes << 20) / sizeof(uint64_t);
    uint64_t *numbers = malloc(n * sizeof *numbers);
    if (numbers == NULL)
        return TERCIO_ENOMEM;
    for (size_t i = 0; i < n; i++)
        numbers[i] = i;
    tercio_bytes bytes = {numbers, n * sizeof *numbers};
    int error = tercio_share(pool, TERCIO_READONLY, bytes, id);
    free(numbers); /* the pool has its own, one for all workers */
    return error;
}

int main(int argc, char **argv)
{
    enum { PARTS = 16 };
    tercio_options options = {.size = sizeof options, .table = &table, .method = TERCIO_SPAWN};
    tercio_result failure = {.size = sizeof failure};
    question asked[PARTS];
    answer found[PARTS] = {{0}};
    size_t megabytes = 1024;
    tercio_pool *pool;
    uint32_t id;

    tercio_worker_entry(argc, argv, &table);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--megabytes") == 0)
            megabytes = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--method") != 0 || tercio_method_parse(argv[i + 1], &options.method) != 0)
            return 2;
    }
    int error = tercio_open(&pool, &options);
    if (error) {
        fprintf(stderr, "shared: %s\n", tercio_error_text(error));
        return 1;
    }
    error = share_numbers(pool, megabytes, &id);
    for (uint32_t i = 0; i < PARTS; i++)
        asked[i] = (question){id, i, PARTS};
    if (error == 0)
        error = tercio_map(pool, 0, asked, sizeof asked[0], PARTS, found, NULL, &failure);
    tercio_close(pool);
    if (error) {
        fprintf(stderr, "shared: %s\n", error < 0 ? tercio_error_text(error) : failure.message);
        return 1;
    }

    uint64_t n = (megabytes << 20) / sizeof(uint64_t), sum = 0, most = 0;
    for (int i = 0; i < PARTS; i++) {
        sum += found[i].sum;
        most = found[i].private_kb > most ? found[i].private_kb : most;
    }
    printf("%zu MB under %s: the sum is %s; no worker has more than %llu MB of its own\n", megabytes,
           tercio_method_name(options.method), sum == n * (n - 1) / 2 ? "right" : "WRONG",
           (unsigned long long)(most + 1023) / 1024);
    return sum != n * (n - 1) / 2;
}
