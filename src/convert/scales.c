#include "convert/scales.h"

#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "convert/fp8.h"

status scales_find(const weights_entry **out, const weights_file *in, const weights_entry *x, error *e) {
    const tensor *t = &x->t;
    if (t->ndim != 2)
        return fail(e, ERR_UNSUPPORTED, "%s: tensor \"%.160s\": F8_E4M3 with %d dimensions, 2 were wanted", x->file,
                    x->name, t->ndim);
    str name = {0};
    str_addf(&name, "%s" SCALE_SUFFIX, x->name);
    const weights_entry *s = name.failed ? NULL : weights_find(in, name.p);
    status st = str_check(&name, e);
    str_free(&name);
    TRY(st);
    int64_t rows = fp8_blocks(t->dim[0]), cols = fp8_blocks(t->dim[1]);
    if (!s)
        return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": F8_E4M3 without block scales \"..." SCALE_SUFFIX "\"",
                    x->file, x->name);
    if (s->t.type != DT_F32)
        return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": scales of type %s, F32 was wanted", s->file, s->name,
                    dtype_name(s->t.type));
    if (s->t.ndim != 2 || s->t.dim[0] != rows || s->t.dim[1] != cols)
        return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": %lld x %lld scales, the weight wants %lld x %lld", s->file,
                    s->name, (long long)(s->t.ndim > 0 ? s->t.dim[0] : 0), (long long)(s->t.ndim > 1 ? s->t.dim[1] : 0),
                    (long long)rows, (long long)cols);
    *out = s;
    return OK;
}

status scales_are(bool *out, const weights_file *in, const weights_entry *x, error *e) {
    *out = false;
    if (!name_ends_with(x->name, SCALE_SUFFIX)) return OK;
    char *stem = strdup(x->name);
    if (!stem) return fail(e, ERR_NOMEM, "memory is out");
    stem[strlen(stem) - strlen(SCALE_SUFFIX)] = 0;
    const weights_entry *weight = weights_find(in, stem);
    free(stem);
    if (!weight || weight->t.type != DT_E4M3)
        return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": block scales, but the weight is %s", x->file, x->name,
                    weight ? dtype_name(weight->t.type) : "missing");
    *out = true;
    return OK;
}
