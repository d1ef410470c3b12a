/* The rules of the safetensors format, one row each: what is wrong, the header, bytes of data, the expected sentence.
 */
#include "scratch.h"
#include "format/safetensors.h"

#define T(type, shape, begin, end) "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static const struct bad {
    const char *rule, *header;
    size_t data;
    status code;
    const char *says;
} bad[] = {
    {"begins_with_brace", " {}", 0, ERR_FORMAT, "'{'"},
    {"empty_header", "", 0, ERR_FORMAT, "'{'"},
    {"array", "[]", 0, ERR_FORMAT, "'{'"},
    {"not_closed", "{\"a\":" T("U8", "[1]", 0, 1), 1, ERR_FORMAT, "',' or '}'"},
    {"text_after", "{}x", 0, ERR_FORMAT, "text after"},
    {"trailing_comma", "{\"a\":" T("U8", "[1]", 0, 1) ",}", 1, ERR_FORMAT, "name in quotes"},
    {"no_colon", "{\"a\"" T("U8", "[1]", 0, 1) "}", 1, ERR_FORMAT, "':'"},
    {"bad_utf8", "{\"a\xff\":" T("U8", "[1]", 0, 1) "}", 1, ERR_FORMAT, "unable to decode byte 0xff"},
    {"nul_in_name", "{\"a\\u0000b\":" T("U8", "[1]", 0, 1) "}", 1, ERR_FORMAT, "\\u0000"},
    {"duplicate_name", "{\"a\":" T("U8", "[1]", 0, 1) ",\"a\":" T("U8", "[1]", 1, 2) "}", 2, ERR_FORMAT, "twice"},
    {"duplicate_member", "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     ERR_FORMAT, "duplicate"},
    {"duplicate_metadata", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, ERR_FORMAT, "twice"},
    {"metadata_object", "{\"__metadata__\":[]}", 0, ERR_FORMAT, "should be an object"},
    {"metadata_strings", "{\"__metadata__\":{\"k\":1}}", 0, ERR_FORMAT, "\"k\" should be a string"},
    {"metadata_duplicate_key", "{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}", 0, ERR_FORMAT, "duplicate"},
    {"entry_object", "{\"a\":3}", 0, ERR_FORMAT, "tensor \"a\": should be an object"},
    {"no_dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ERR_FORMAT, "dtype"},
    {"unknown_dtype", "{\"a\":" T("F4", "[2]", 0, 1) "}", 1, ERR_UNSUPPORTED, "tensor \"a\": element type \"F4\""},
    {"no_shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, ERR_FORMAT, "shape"},
    {"negative_shape", "{\"a\":" T("U8", "[-1]", 0, 1) "}", 1, ERR_FORMAT, "not negative"},
    {"negative_pair", "{\"a\":" T("U8", "[-1,-1]", 0, 1) "}", 1, ERR_FORMAT, "not negative"},
    {"real_shape", "{\"a\":" T("U8", "[1.0]", 0, 1) "}", 1, ERR_FORMAT, "integer"},
    {"string_shape", "{\"a\":" T("U8", "[\"1\"]", 0, 1) "}", 1, ERR_FORMAT, "integer"},
    {"shape_beyond_int64", "{\"a\":" T("U8", "[9223372036854775808]", 0, 1) "}", 1, ERR_FORMAT, "too big"},
    {"shape_overflow", "{\"a\":" T("F32", "[4294967296,4294967296]", 0, 0) "}", 0, ERR_FORMAT, "overflows"},
    {"shape_overflow_to_small", "{\"a\":" T("F32", "[4611686018427387905]", 0, 4) "}", 4, ERR_FORMAT, "overflows"},
    {"shape_overflow_with_zero", "{\"a\":" T("U8", "[4294967296,4294967296,0]", 0, 0) "}", 0, ERR_FORMAT, "overflows"},
    {"five_dimensions", "{\"a\":" T("U8", "[1,1,1,1,1]", 0, 1) "}", 1, ERR_UNSUPPORTED, "5 dimensions"},
    {"no_offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, ERR_FORMAT, "data_offsets"},
    {"three_offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, ERR_FORMAT, "two"},
    {"real_offsets", "{\"a\":" T("U8", "[1]", 0, 1.0) "}", 1, ERR_FORMAT, "two integers"},
    {"negative_offset", "{\"a\":" T("U8", "[2]", -1, 1) "}", 1, ERR_FORMAT, "not a range"},
    {"reversed_offsets", "{\"a\":" T("U8", "[1]", 1, 0) "}", 1, ERR_FORMAT, "not a range"},
    {"huge_offset", "{\"a\":" T("U8", "[1]", 0, 9223372036854775807) "}", 1, ERR_FORMAT, "the file has 1"},
    {"beyond_the_file", "{\"a\":" T("U8", "[2]", 0, 2) "}", 1, ERR_FORMAT, "the file has 1"},
    {"shape_and_range", "{\"a\":" T("F32", "[2]", 0, 4) "}", 4, ERR_FORMAT, "4 bytes, its shape and type want 8"},
    {"hole_at_start", "{\"a\":" T("U8", "[1]", 1, 2) "}", 2, ERR_FORMAT, "a hole"},
    {"hole", "{\"a\":" T("U8", "[1]", 0, 1) ",\"b\":" T("U8", "[1]", 2, 3) "}", 3, ERR_FORMAT, "a hole"},
    {"overlap", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 1, 3) "}", 3, ERR_FORMAT, "an overlap"},
    {"same_range_twice", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 0, 2) "}", 2, ERR_FORMAT, "overlap"},
    {"data_left_over", "{\"a\":" T("U8", "[1]", 0, 1) "}", 2, ERR_FORMAT, "end at byte 1"},
    {"data_without_tensors", "{}", 1, ERR_FORMAT, "end at byte 0"},
    {"empty_tensor_in_hole",
     "{\"a\":" T("U8", "[1]", 0, 1) ",\"b\":" T("U8", "[0]", 2, 2) ",\"c\":" T("U8", "[1]", 2, 3) "}", 3, ERR_FORMAT,
     "a hole"},
};

static void every_rule(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n;
        uint8_t *p = raw_file(bad[i].header, bad[i].data, &n);
        safetensors s;
        error e = {0};
        status st = safetensors_parse(&s, p, n, "file", &e);
        printf("  %-24s %s\n", bad[i].rule, e.text);
        if (st == OK) fail_msg("%s: accepted", bad[i].rule);
        assert_int_equal(st, bad[i].code);
        assert_int_equal(e.code, bad[i].code);
        assert_memory_equal(e.text, "file: ", 6);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s: \"%s\" does not say %s", bad[i].rule, e.text, bad[i].says);
        assert_null(s.entries);
        free(p);
    }
}

static void length_field(void **state) {
    (void)state;
    static const struct {
        size_t size;
        uint64_t length;
        const char *says;
    } c[] = {{0, 0, "0 bytes"},
             {7, 0, "7 bytes"},
             {8, 0, "'{'"},
             {10, 3, "header of 3 bytes in a file of 10"},
             {10, 100000000, "in a file"},
             {10, 100000001, "at most 100000000"},
             {10, 1000000000000000000u, "at most"},
             {10, UINT64_MAX, "at most"},
             {10, UINT64_MAX - 7, "at most"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        uint8_t all[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, *p = malloc(c[i].size ? c[i].size : 1);
        for (int b = 0; b < 8; b++) all[b] = (uint8_t)(c[i].length >> (8 * b));
        memcpy(p, all, c[i].size);
        safetensors s;
        error e = {0};
        assert_int_equal(safetensors_parse(&s, p, c[i].size, "file", &e), ERR_FORMAT);
        printf("  %s\n", e.text);
        assert_non_null(strstr(e.text, c[i].says));
        free(p);
    }
}

static void truncated_everywhere(void **state) {
    (void)state;
    size_t n;
    uint8_t *p = raw_file("{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T("BF16", "[2,2]", 0, 8) "}", 8, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *q = malloc(cut + 1);
        memcpy(q, p, cut);
        safetensors s;
        error e = {0};
        assert_int_equal(safetensors_parse(&s, q, cut, "file", &e), ERR_FORMAT);
        free(q);
    }
    printf("  %zu truncations refused\n", n);
    free(p);
}

/* A header filled with one thing up to n bytes ends in an error soon and without much memory. */
static void filled_headers(void **state) {
    (void)state;
    static const struct {
        const char *start, *fill, *says;
    } c[] = {{"{\"a\":", "[", "depth"},
             {"{\"a\":[", "0,", "longer than"},
             {"{\"a\":{\"dtype\":\"", "F", "longer than"},
             {"{", "\"a\":1,", "should be an object"},
             {"{\"", "a", "longer than"},
             {"{\"__metadata__\":", "{\"a\":", "depth"},
             {"{\"__metadata__\":{\"a\":\"", "\xc3\xa4", "longer than"}};
    enum { N = 20000000 };
    char *text = malloc(N + 1);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        size_t at = strlen(c[i].start), k = strlen(c[i].fill), n;
        memcpy(text, c[i].start, at);
        for (; at + k <= N; at += k) memcpy(text + at, c[i].fill, k);
        text[at] = 0;
        uint8_t *p = raw_file(text, 0, &n);
        safetensors s;
        error e = {0};
        assert_int_equal(safetensors_parse(&s, p, n, "file", &e), ERR_FORMAT);
        printf("  %s\n", e.text);
        assert_non_null(strstr(e.text, c[i].says));
        free(p);
    }
    free(text);
}

static void legal_files(void **state) {
    (void)state;
    size_t n;
    safetensors s;
    error e = {0};
    /* out of order, scalar, empty tensors at both ends, unknown member, spaces, a name outside ASCII, an escape */
    uint8_t *p = raw_file(
        "{ \"\xe6\xb7\xb1\":" T("F32", "[]", 6, 10) " ,\n\"x\\u00e4\" : " T(
            "I16", "[3]", 0, 6) ",\"__metadata__\":{\"format\":\"pt\",\"k\":\"\xc3\xa4\"},"
                                "\"first\":" T("U8", "[2,0]", 0, 0) ",\"last\":{\"more\":[{}],\"dtype\":\"BOOL\","
                                                                    "\"shape\":[0],\"data_offsets\":[10,10]}}    ",
        10, &n);
    if (safetensors_parse(&s, p, n, "file", &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(s.count, 4);
    static const char *names[] = {"first", "x\xc3\xa4", "\xe6\xb7\xb1", "last"};
    for (size_t i = 0; i < 4; i++) assert_string_equal(s.entries[i].name, names[i]);
    assert_int_equal(s.entries[0].t.ndim, 2);
    assert_int_equal(tensor_count(&s.entries[0].t), 0);
    assert_int_equal(s.entries[1].t.type, DT_I16);
    assert_int_equal(s.entries[2].t.ndim, 0);
    assert_int_equal(tensor_count(&s.entries[2].t), 1);
    assert_memory_equal(s.entries[2].t.data, ((uint8_t[]){6, 7, 8, 9}), 4);
    assert_string_equal(s.meta[0], "format");
    assert_string_equal(s.meta[1], "pt");
    assert_string_equal(s.meta[3], "\xc3\xa4");
    assert_null(s.meta[4]);
    safetensors_close(&s);
    free(p);

    p = raw_file("{}", 0, &n);
    assert_int_equal(safetensors_parse(&s, p, n, "file", &e), OK);
    assert_int_equal(s.count, 0);
    assert_null(s.meta[0]);
    safetensors_close(&s);
    free(p);
}

static void opens_files(void **state) {
    (void)state;
    scratch d = scratch_open();
    char *path = scratch_path(&d, "a.safetensors"), *none = scratch_path(&d, "none");
    scratch_raw(&d, "a.safetensors", "{\"a\":" T("U8", "[3]", 0, 3) "}", 3);
    safetensors s;
    error e = {0};
    assert_int_equal(safetensors_open(&s, path, &e), OK);
    assert_memory_equal(s.entries[0].t.data, ((uint8_t[]){0, 1, 2}), 3);
    safetensors_close(&s);
    safetensors_close(&s);
    assert_int_equal(safetensors_open(&s, none, &e), ERR_FORMAT);
    assert_int_equal(safetensors_open(&s, d.dir, &e), ERR_FORMAT);
    scratch_write(&d, "a.safetensors", "", 0);
    assert_int_equal(safetensors_open(&s, path, &e), ERR_FORMAT);
    free(path);
    free(none);
    scratch_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule),     cmocka_unit_test(length_field), cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(filled_headers), cmocka_unit_test(legal_files),  cmocka_unit_test(opens_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
