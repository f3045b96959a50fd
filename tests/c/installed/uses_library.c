/* SPDX-License-Identifier: MIT
 *
 * A program that doesn't know that its library uses pools. */
#include <stdio.h>

int sum_of_squares(const char *method, int n);

int main(int argc, char **argv)
{
    printf("%d\n", sum_of_squares(argc > 1 ? argv[1] : "default", 8));
    return 0;
}
