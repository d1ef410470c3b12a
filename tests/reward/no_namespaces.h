/* Runs tests once as they are and once in a process that the kernel refuses namespaces, as most containers do. */
#ifndef TESTS_NO_NAMESPACES_H
#define TESTS_NO_NAMESPACES_H

#include <stdbool.h>

/* tests: the number of those that failed; namespaces: they are not refused (the kernel may not have them all the same).
 */
int both_ways(int (*tests)(bool namespaces));

#endif
