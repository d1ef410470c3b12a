/* Configurations: the real ones' sizes come out exactly; senseless ones are refused with the key's name. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "model/model.h"
#include <cmocka.h> /* last: it defines fail() */

/* parameters, active (input embedding left out, head counted), BF16 cache bytes a token: the published figures and
 * those recomputed from the configurations (deepseek-scale, section 1). -1: not given there. */
static const struct {
    const char *file;
    int64_t parameters, active, cache;
} known[] = {
    {"DeepSeek-V2-Lite", 15706484224, 2451435008, 31104},     {"DeepSeek-V2", -1, -1, 69120},
    {"DeepSeek-V3", 671026419200, 36625603584, 70272},        {"DeepSeek-R1", 671026419200, 36625603584, 70272},
    {"DeepSeek-V3.1", 671026419200, 36625603584, 70272},      {"DeepSeek-V3.2", 671877944064, 37477128448, 70272},
    {"DeepSeek-R1-Distill-Qwen-1.5B", 1777088000, -1, 28672}, {"DeepSeek-R1-Distill-Llama-8B", 8030261248, -1, 131072},
};

static void sizes_of_the_real_models(void **state) {
    (void)state;
    const char *shared = getenv("HADAL_SHARED");
    char path[1024];
    snprintf(path, sizeof path, "%s/facts/configs", shared ? shared : "../shared");
    if (!is_directory(path)) {
        printf("SKIP sizes of the real models: %s is not there\n", path);
        skip();
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        model_config c;
        model_counts n;
        error e;
        snprintf(path, sizeof path, "%s/facts/configs/%s.json", shared ? shared : "../shared", known[i].file);
        if (config_open(&c, path, &e) != OK) fail_msg("%s", e.text);
        model_count(&c, &n);
        printf("%s: %lld parameters, %lld active, %lld bytes a token\n", known[i].file, (long long)n.parameters,
               (long long)n.active, (long long)(2 * model_cache_width(&c, CACHE_ATTENTION)));
        if (known[i].parameters > 0) assert_int_equal(n.parameters, known[i].parameters);
        if (known[i].active > 0) assert_int_equal(n.active, known[i].active);
        assert_int_equal(2 * model_cache_width(&c, CACHE_ATTENTION), known[i].cache);
    }
}

/* The V3 checkpoint: 91,991 tensors; routed experts hold 653,908,770,816 parameters. */
static void tensors_of_v3(void **state) {
    (void)state;
    const char *shared = getenv("HADAL_SHARED");
    char path[1024];
    model_config c;
    model_counts n;
    snprintf(path, sizeof path, "%s/facts/configs/DeepSeek-V3.json", shared ? shared : "../shared");
    if (!file_exists(path)) skip();
    assert_int_equal(config_open(&c, path, NULL), OK);
    model_count(&c, &n);
    assert_int_equal(n.tensors, 91991);
    assert_int_equal(n.routed, 653908770816);
    snprintf(path, sizeof path, "%s/facts/configs/DeepSeek-V3.2.json", shared ? shared : "../shared");
    assert_int_equal(config_open(&c, path, NULL), OK);
    if (!c.num_nextn_predict_layers) c.num_nextn_predict_layers = 1;
    model_count(&c, &n);
    assert_int_equal(n.tensors, 92425);
}

static const char base[] =
    "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":2,\"hidden_size\":32,\"intermediate_size\":64,\"vocab_"
    "size\":100,"
    "\"num_attention_heads\":2,\"q_lora_rank\":null,\"kv_lora_rank\":16,\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":4,"
    "\"v_head_dim\":8,\"n_routed_experts\":8,\"moe_intermediate_size\":16,\"num_experts_per_tok\":2,\"n_group\":2,"
    "\"topk_group\":1}";

static status read_with(const char *key, const char *value, model_config *c, error *e) {
    json_t *j = json_loads(base, 0, NULL), *v = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_non_null(j);
    if (v) json_object_set_new(j, key, v);
    else json_object_del(j, key);
    status s = config_read(c, j, e);
    json_decref(j);
    return s;
}

static void bad_values_are_named(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *says;
    } bad[] = {
        {"model_type", "\"gpt2\"", "gpt2"},
        {"model_type", NULL, "model_type"},
        {"hidden_size", "0", "hidden_size"},
        {"hidden_size", "-5", "hidden_size"},
        {"hidden_size", "1e30", "hidden_size"},
        {"hidden_size", "\"32\"", "hidden_size"},
        {"hidden_size", NULL, "hidden_size"},
        {"num_hidden_layers", "1099511627776", "num_hidden_layers"},
        {"n_routed_experts", "99999999", "n_routed_experts"},
        {"qk_rope_head_dim", "5", "qk_rope_head_dim"},
        {"num_experts_per_tok", "5", "choose 5 of 8"},
        {"n_group", "3", "groups"},
        {"topk_method", "\"magic\"", "magic"},
        {"scoring_func", "\"tanh\"", "tanh"},
        {"hidden_act", "\"gelu\"", "gelu"},
        {"rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}", "dynamic"},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":-1}", "factor"},
        {"rope_theta", "0", "rope_theta"},
        {"rms_norm_eps", "-1", "rms_norm_eps"},
        {"quantization_config", "{\"quant_method\":\"gptq\"}", "gptq"},
        {"num_nextn_predict_layers", "1000", "MTP"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        model_config c;
        error e = {0};
        status s = read_with(bad[i].key, bad[i].value, &c, &e);
        if (s == OK || !strstr(e.text, bad[i].says))
            fail_msg("%s = %s: status %d, \"%s\"", bad[i].key, bad[i].value ? bad[i].value : "(missing)", s, e.text);
    }
}

static void rope_parameters_and_rope_scaling_agree(void **state) {
    (void)state;
    model_config a, b;
    error e;
    const char *old = "{\"type\":\"yarn\",\"factor\":8,\"original_max_position_embeddings\":64,\"mscale\":1.0,\"mscale_"
                      "all_dim\":0.5}";
    const char *new =
        "{\"rope_type\":\"yarn\",\"rope_theta\":10000.0,\"factor\":8,\"original_max_position_embeddings\":64,"
        "\"mscale\":1.0,\"mscale_all_dim\":0.5}";
    assert_int_equal(read_with("rope_scaling", old, &a, &e), OK);
    assert_int_equal(read_with("rope_parameters", new, &b, &e), OK);
    assert_memory_equal(&a.rope, &b.rope, sizeof a.rope);
    /* (8 + 4)^-1/2 * (0.1 * 0.5 * ln 8 + 1)^2 */
    assert_float_equal(config_attention_scale(&a), 0.35181, 1e-4);
}

/* All tensors are enumerated once, and FP8 configurations announce scales for exactly the quantised projections. */
static void weight_table(void **state) {
    (void)state;
    model_config c;
    model_counts plain, fp8;
    error e;
    assert_int_equal(read_with("x", "1", &c, &e), OK);
    model_count(&c, &plain);
    /* outer 3; each layer: norm, q, kv_a, kv_a_norm, kv_b, o, norm, gate, bias, 8 experts * 3; no shared experts */
    assert_int_equal(plain.tensors, 3 + 2 * (9 + 24));
    c.fp8 = true;
    model_count(&c, &fp8);
    assert_int_equal(fp8.tensors - plain.tensors, 2 * (4 + 24));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes_of_the_real_models), cmocka_unit_test(tensors_of_v3),
                                       cmocka_unit_test(bad_values_are_named),
                                       cmocka_unit_test(rope_parameters_and_rope_scaling_agree),
                                       cmocka_unit_test(weight_table)};
    return cmocka_run_group_tests_name("model/config", tests, NULL, NULL);
}
