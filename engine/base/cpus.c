/* SPDX-License-Identifier: MIT
 *
 * tercio_usable_cpus, which asks the platform.
 */
#include "plat/plat.h"
#include "tercio.h"

unsigned tercio_usable_cpus(void)
{
    return tercio__cpus_usable();
}
