/* Single operations against reference values: DIR/components/golden.safetensors. */
#ifndef HADAL_TESTS_GOLD_COMPONENTS_H
#define HADAL_TESTS_GOLD_COMPONENTS_H
#include "compare.h"

void gold_components(gold *g, const char *dir);

#endif
