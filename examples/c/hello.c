/* SPDX-License-Identifier: MIT
 * From nothing to results: squares, computed by a pool of processes. */
#include <stdio.h>
#include <tercio.h>

static int square(tercio_call *call, tercio_bytes in, void *out)
{
    const int *number = (const int *)in.data;
    *(int *)out = *number * *number;
    (void)call;
    return 0;
}

static const tercio_task tasks[] = {{"square", square, sizeof(int)}};
static const tercio_table table = {sizeof table, sizeof tasks[0], 1, tasks, NULL, NULL};

int main(int argc, char **argv)
{
    int in[] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {0}, failed;
    tercio_options options = {.size = sizeof options, .table = &table};
    tercio_pool *pool;

    tercio_worker_entry(argc, argv, &table);
    if (argc > 1 && tercio_method_parse(argv[1], &options.method))
        return 2;
    if ((failed = tercio_open(&pool, &options)) == 0) {
        failed = tercio_map(pool, 0, in, sizeof in[0], 8, out, NULL, NULL);
        tercio_close(pool);
    }
    if (failed < 0)
        fprintf(stderr, "hello: %s\n", tercio_error_text(failed));
    for (int i = 0; failed == 0 && i < 8; i++)
        printf("%d squared is %d\n", in[i], out[i]);
    return failed != 0;
}
