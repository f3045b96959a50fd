/* SPDX-License-Identifier: MIT
 *
 * The table of start methods: a line for each of them.
 */
#ifndef TERCIO_START_STARTERS_H
#define TERCIO_START_STARTERS_H

#include "start/start.h"
#include "tercio.h"

extern const tercio__starter tercio__fork_starter, tercio__spawn_starter, tercio__forkserver_starter,
    tercio__threading_starter;

const tercio__starter *tercio__starter_of(tercio_method method);

#endif
