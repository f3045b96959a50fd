/* SPDX-License-Identifier: MIT
 *
 * tercio_open: a table of tasks becomes the host of the pool.
 */
#include "pool/open.h"
#include "base/abi.h"
#include "face/stream.h"
#include "face/table.h"
#include "tercio.h"

int tercio_open(tercio_pool **out, const tercio_options *given)
{
    if (out == NULL)
        return TERCIO_EINVAL;
    *out = NULL;
    tercio_options options;
    int error = tercio__options_read(&options, given);
    if (error == 0 && options.table)
        error = tercio__table_check(options.table);
    if (error)
        return error;
    tercio__front front = {.host = &tercio__table_host, .explain = tercio__face_explain};
    if (options.table) {
        front.host_user = (void *)(uintptr_t)options.table;
        front.table_hash = tercio__table_hash(options.table);
    }
    return tercio__pool_open(out, given, &front);
}
