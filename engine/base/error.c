/* SPDX-License-Identifier: MIT
 *
 * Errors in words. The list itself is TERCIO_ERRORS of tercio.h.
 */
#include "tercio.h"

const char *tercio_error_name(int error)
{
    switch (error) {
    case 0:
        return "TERCIO_OK";
#define X(number, name, text) \
    case number:              \
        return #name;
        TERCIO_ERRORS(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *tercio_error_text(int error)
{
    switch (error) {
    case 0:
        return "success";
#define X(number, name, text) \
    case number:              \
        return text;
        TERCIO_ERRORS(X)
#undef X
    default:
        return "unknown error";
    }
}

int tercio_version(void)
{
    return TERCIO_VERSION;
}
