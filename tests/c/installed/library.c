/* SPDX-License-Identifier: MIT
 *
 * A library that uses pools on its own account: nobody's main knows of it. */
#include <string.h>
#include <tercio.h>

static int square(tercio_call *call, tercio_bytes in, void *out)
{
    int number;
    (void)call;
    memcpy(&number, in.data, sizeof number);
    number *= number;
    memcpy(out, &number, sizeof number);
    return 0;
}

static const tercio_task tasks[] = {{"square", square, sizeof(int)}};
const tercio_table squares_table = {sizeof squares_table, sizeof tasks[0], 1, tasks, NULL, NULL};

int sum_of_squares(const char *method, int n);

int sum_of_squares(const char *method, int n)
{
    char command[] = "tercio-worker", table[] = "libsquares.so:squares_table";
    char *const worker[] = {command, table, NULL};
    tercio_options options = {.size = sizeof options, .table = &squares_table, .n_workers = 2, .worker_argv = worker};
    tercio_pool *pool;
    int sum = 0, error = tercio_method_parse(method, &options.method);

    if (error == 0)
        error = tercio_open(&pool, &options);
    if (error)
        return error;
    for (int i = 1; i <= n && error == 0; i++) {
        int squared = 0;
        error = tercio_map(pool, 0, &i, sizeof i, 1, &squared, NULL, NULL);
        sum += squared;
    }
    tercio_close(pool);
    return error ? error : sum;
}
