#include "convert/config_file.h"

#include <stdlib.h>
#include <string.h>
#include "base/file.h"

enum { CONFIG_MAX = 16 << 20 };

static status check_quantization(const json_t *q, const char *path, error *e) {
    if (!q || json_is_null(q)) return OK;
    if (!json_is_object(q)) return fail(e, ERR_FORMAT, "%s: \"quantization_config\" should be an object", path);
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    const char *fmt = json_string_value(json_object_get(q, "fmt"));
    const char *scale = json_string_value(json_object_get(q, "scale_fmt"));
    if (!method || strcmp(method, "fp8") != 0 || (fmt && strcmp(fmt, "e4m3") != 0))
        return fail(e, ERR_UNSUPPORTED, "%s: quantization \"%.40s\" with format \"%.40s\", fp8 with e4m3 was wanted",
                    path, method ? method : "", fmt ? fmt : "");
    const json_t *block = json_object_get(q, "weight_block_size");
    for (size_t i = 0; i < 2; i++)
        if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, i)) != FP8_BLOCK)
            return fail(e, ERR_UNSUPPORTED, "%s: \"weight_block_size\" is not [%d, %d]", path, FP8_BLOCK, FP8_BLOCK);
    if (scale && strcmp(scale, "ue8m0") != 0 && strcmp(scale, "float") != 0)
        return fail(e, ERR_UNSUPPORTED, "%s: \"scale_fmt\" is \"%.40s\", only ue8m0 is known", path, scale);
    return OK;
}

status config_file_read(config_file *c, const char *folder, error *e) {
    *c = (config_file){0};
    char *path = path_join(folder, "config.json");
    status s = path ? json_read(&c->root, path, CONFIG_MAX, e) : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && !json_is_object(c->root)) s = fail(e, ERR_FORMAT, "%s: should be an object", path);
    if (s == OK && json_get_int(c->root, "num_hidden_layers", INT64_MAX, 0, INT64_MAX, &c->n_layers, e) != OK)
        s = wrap(e, "%s", path);
    if (s == OK) s = check_quantization(json_object_get(c->root, "quantization_config"), path, e);
    if (s != OK) config_file_close(c);
    free(path);
    return s;
}

void config_file_close(config_file *c) {
    json_decref(c->root);
    c->root = NULL;
}

scale_format config_file_scale(const config_file *c) {
    const char *s = json_string_value(json_object_get(json_object_get(c->root, "quantization_config"), "scale_fmt"));
    return s && strcmp(s, "ue8m0") == 0 ? SCALE_UE8M0 : SCALE_F32;
}

static int set_quantization(json_t *root, scale_format scale) {
    json_t *q = json_pack("{s:s, s:s, s:s, s:[i, i]}", "activation_scheme", "dynamic", "fmt", "e4m3", "quant_method",
                          "fp8", "weight_block_size", FP8_BLOCK, FP8_BLOCK);
    if (scale == SCALE_UE8M0) json_object_set_new(q, "scale_fmt", json_string("ue8m0"));
    return json_object_set_new(root, "quantization_config", q);
}

static int rewrite(json_t *root, bool quantized_so, const convert_options *o) {
    int bad = 0;
    if (o->to != CONVERT_FP8) json_object_del(root, "quantization_config");
    else if (!quantized_so) bad |= set_quantization(root, o->scale);

    const char *type = o->to == CONVERT_F32 ? "float32" : "bfloat16";
    const char *newer = json_object_get(root, "dtype") ? "dtype" : NULL; /* transformers 5 calls torch_dtype so */
    if (newer) bad |= json_object_set_new(root, newer, json_string(type));
    if (!newer || json_object_get(root, "torch_dtype"))
        bad |= json_object_set_new(root, "torch_dtype", json_string(type));

    if (o->mtp != CONVERT_MTP_KEEP && json_object_get(root, "num_nextn_predict_layers"))
        bad |= json_object_set_new(root, "num_nextn_predict_layers", json_integer(0));
    return bad;
}

/* Real numbers with as few digits as give the same numbers back: 1e-06 must not become 9.9999999999999995e-07. */
static char *dump(const json_t *root) {
    for (size_t digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;
        bool same = back && json_equal(back, root);
        json_decref(back);
        if (!text || same || digits == 17) return text;
        free(text);
    }
    return NULL;
}

status config_file_write(const config_file *c, const convert_options *o, error *e) {
    json_t *root = json_deep_copy(c->root);
    bool quantized_so =
        json_is_object(json_object_get(root, "quantization_config")) && config_file_scale(c) == o->scale;
    char *text = root && rewrite(root, quantized_so, o) == 0 ? dump(root) : NULL;
    char *path = path_join(o->out, "config.json");
    status s = text && path ? file_save(path, text, strlen(text), e) : fail(e, ERR_NOMEM, "memory is out");
    json_decref(root);
    free(text);
    free(path);
    return s;
}
