#include "eval/pass_at_k.h"

#include <math.h>

double pass_at_k(int64_t n, int64_t c, int64_t k) {
    if (n - c < k) return 1; /* k samples cannot all be wrong */
    double none = 1;
    for (int64_t i = n - c + 1; i <= n; i++) none *= 1 - (double)k / (double)i;
    return 1 - none;
}

int majority(const int *camp, int n) {
    int best = -1, most = 0;
    for (int i = 0; i < n; i++) {
        int votes = 0; /* of those behind: most where the camp appears first */
        for (int j = i; j < n && camp[i] >= 0; j++) votes += camp[j] == camp[i];
        if (votes > most) {
            most = votes;
            best = i;
        }
    }
    return best;
}

mean_error mean_of(const double *x, int64_t n) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return (mean_error){mean, n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : 0};
}

int sample_counts(int n, int *k) {
    int count = 0;
    for (int i = 2; i < n; i *= 2) k[count++] = i;
    if (n > 1) k[count++] = n;
    return count;
}
