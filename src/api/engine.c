#include "api/internal.h"

int hadal_engine_open(hadal_engine **out, hadal_model *m, const hadal_engine_options *o, hadal_error *e) {
    error why;
    (void)m;
    (void)o;
    *out = NULL;
    return api_result(fail(&why, ERR_UNSUPPORTED, "no engine yet"), &why, e);
}
void hadal_engine_close(hadal_engine *g) {
    (void)g;
}
int hadal_engine_submit(hadal_engine *g, const hadal_request *r, uint64_t *ticket, hadal_error *e) {
    error why;
    (void)g;
    (void)r;
    (void)ticket;
    return api_result(fail(&why, ERR_UNSUPPORTED, "no engine yet"), &why, e);
}
void hadal_engine_cancel(hadal_engine *g, uint64_t ticket) {
    (void)g;
    (void)ticket;
}
void hadal_engine_get_stats(hadal_engine *g, hadal_engine_stats *out) {
    (void)g;
    *out = (hadal_engine_stats){.size = sizeof *out};
}
