/* SPDX-License-Identifier: MIT
 *
 * Lets a Python program tell callgrind where a count begins and ends.
 */
#include <valgrind/callgrind.h>

void mark(const char *name);

void mark(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
}
