/* The number type of activations, gradients and F32 weights: float; double in the build that compares derivatives with
 * finite differences (tests/f64), where the parts of the model are compiled a second time. Parts call functions of
 * <tgmath.h>, which follow their argument's type. */
#ifndef HADAL_TENSOR_REAL_H
#define HADAL_TENSOR_REAL_H

#ifdef HADAL_F64
typedef double real;
#define DT_REAL DT_F64
#else
typedef float real;
#define DT_REAL DT_F32
#endif

#endif
