/* SPDX-License-Identifier: MIT
 *
 * The table of start methods: a line for each of them.
 */
#include "start/starters.h"

#include "start/start.h"
#include "tercio.h"

const tercio__starter *tercio__starter_of(tercio_method method)
{
    switch (method) {
    case TERCIO_FORK:
        return &tercio__fork_starter;
    case TERCIO_SPAWN:
        return &tercio__spawn_starter;
    case TERCIO_FORKSERVER:
        return &tercio__forkserver_starter;
    case TERCIO_THREADING:
        return &tercio__threading_starter;
    default:
        return NULL;
    }
}
