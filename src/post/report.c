#include "post/report.h"

status report_write(const pipeline *p, error *e) {
    (void)p;
    (void)e;
    return OK;
}
