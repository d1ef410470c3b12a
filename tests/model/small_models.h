/* Small random models, one of each family, for tests of whole walks. */
#ifndef TESTS_MODEL_SMALL_MODELS_H
#define TESTS_MODEL_SMALL_MODELS_H

#include "model/model.h"

enum { SMALL_V2, SMALL_V3, SMALL_V31_FP8, SMALL_V32, SMALL_QWEN2, SMALL_LLAMA, SMALL_MODELS };
enum { SMALL_VOCAB = 211, SMALL_CONTEXT = 1536 };

/* V3.2 attends to 150 tokens. The files are gone when this returns, the weights stay mapped. */
status small_models_open(model *m[SMALL_MODELS], error *e);
/* One of a configuration's text; type: "f32", "bf16", "fp8". */
status small_model_open(model **m, const char *config, const char *type, error *e);
void small_models_close(model *m[SMALL_MODELS]);
const char *small_model_name(int i);

#endif
