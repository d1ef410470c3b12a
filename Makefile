# hadal: `make` builds the program and the library, `make test` runs every test, `make help` lists the rest.
CC      ?= gcc
PREFIX  ?= /usr/local
BUILD   ?= build
WARN    := -Wall -Wextra -Wpedantic
OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
override CFLAGS += -std=c11 -D_DEFAULT_SOURCE -fPIC -fno-math-errno $(WARN) -Iinclude -Isrc -MMD -MP
LDLIBS  := -ljansson -lpcre2-8 -lutf8proc -ldnnl -lreadline -lm -lpthread

# make test SAN=1: address and undefined-behaviour sanitizers, in a build folder of their own
ifdef SAN
BUILD   := build/san
override CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
override LDFLAGS += -fsanitize=address,undefined
endif

SRC     := $(sort $(wildcard src/*/*.c src/*/*/*.c src/*/*/*/*.c))
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
LIBOBJ  := $(filter-out $(BUILD)/src/cli/%,$(OBJ))
CLIOBJ  := $(filter $(BUILD)/src/cli/%,$(OBJ))
TESTS   := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/*/test_*.c)))

all: $(BUILD)/hadal $(BUILD)/libhadal.a $(BUILD)/libhadal.so

# A level folder may use its instructions anywhere in it; the level is chosen when the program starts.
CPU     := $(BUILD)/src/kernels/cpu
$(CPU)/avx2/%.o:       ISA := -mavx2 -mfma -mf16c -O3
$(CPU)/avx512/%.o:     ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -O3
$(CPU)/avx512bf16/%.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16 -O3
$(CPU)/amx/%.o:        ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 -O3

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(ISA) -c $< -o $@

$(BUILD)/internal.a: $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^

# The public library shows hadal_* and nothing else, so that short internal names cannot collide with a caller's.
$(BUILD)/libhadal.a: $(LIBOBJ)
	ld -r -o $(BUILD)/libhadal.o $^
	objcopy --wildcard --keep-global-symbol='hadal_*' $(BUILD)/libhadal.o
	@rm -f $@
	ar rcs $@ $(BUILD)/libhadal.o

$(BUILD)/libhadal.so: $(BUILD)/libhadal.a
	$(CC) -shared -Wl,-soname,libhadal.so.0 $(LDFLAGS) -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive $(LDLIBS)

# The library shows nothing of base/, so the program brings its own copy.
$(BUILD)/hadal: $(CLIOBJ) $(filter $(BUILD)/src/base/%,$(LIBOBJ)) $(BUILD)/libhadal.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/internal.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

-include $(OBJ:.o=.d) $(TESTS:=.d)
.PHONY: all
.SECONDARY:
