# hadal: `make` builds the program and the library, `make test` runs every test, `make help` lists the rest.
ifeq ($(origin CC),default)
CC      := gcc
endif
PREFIX  ?= /usr/local
BUILD   ?= build
WARN    := -Wall -Wextra -Wpedantic
OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
override CFLAGS += -std=c11 -D_DEFAULT_SOURCE -fPIC -fno-math-errno $(WARN) -Iinclude -Isrc -MMD -MP
LDLIBS  := -ljansson -lpcre2-8 -lutf8proc -lyaml -lz -lzstd -lm -lpthread

# make test SAN=1: address and undefined-behaviour sanitizers, in a build folder of their own
ifdef SAN
BUILD   := build/san
FAST    := -O1
override CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
override LDFLAGS += -fsanitize=address,undefined
endif

SRC     := $(sort $(wildcard src/*/*.c src/*/*/*.c src/*/*/*/*.c))
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
APPOBJ  := $(filter $(BUILD)/src/cli/% $(BUILD)/src/server/%,$(OBJ))
LIBOBJ  := $(filter-out $(APPOBJ),$(OBJ))
SRVOBJ  := $(filter $(BUILD)/src/server/%,$(OBJ))
TESTS   := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/*/test_*.c)))

all: $(BUILD)/hadal $(BUILD)/libhadal.a $(BUILD)/libhadal.so

FAST    ?= -O3
# A level folder may use its instructions anywhere in it; the level is chosen when the program starts.
CPU     := $(BUILD)/src/kernels/cpu
$(BUILD)/src/comm/%.o: ISA := $(FAST)
$(CPU)/avx2/%.o:       ISA := -mavx2 -mfma -mf16c $(FAST)
$(CPU)/avx512/%.o:     ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c $(FAST)
$(CPU)/avx512bf16/%.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16 $(FAST)
$(CPU)/amx/%.o:        ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 $(FAST)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(ISA) -c $< -o $@

# page.c takes the page in as it is.
$(BUILD)/src/server/page.o build/fuzz/src/server/page.o: $(wildcard src/server/page*.html src/server/page*.js)

$(BUILD)/internal.a: $(LIBOBJ) $(SRVOBJ)
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
	ln -sf libhadal.so $@.0

# The library shows nothing of base/, so the program brings its own copy.
$(BUILD)/hadal: $(APPOBJ) $(filter $(BUILD)/src/base/%,$(LIBOBJ)) $(BUILD)/libhadal.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lreadline -lmicrohttpd

# --- tests: one program per tests/*/test_*.c; what several share lies beside them as other .c files ----------------
SHARED  := $(filter-out tests/fuzz/% tests/f64/% tests/gold/gold.c $(wildcard tests/*/test_*.c),$(sort $(wildcard tests/*/*.c)))
TESTOBJ := $(SHARED:%.c=$(BUILD)/%.o)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TESTOBJ) $(BUILD)/internal.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS) -lmicrohttpd

# tests/f64: the parts of the model compiled with double for real, over plain loops for operations (tests/f64/ops.c).
F64     := $(wildcard src/base/*.c src/tensor/*.c src/model/attn_*.c src/model/moe_*.c) src/model/ffn.c src/model/block.c src/model/exchange.c \
           $(wildcard src/comm/*.c) \
           src/model/indexer.c src/model/rope.c src/model/config.c $(wildcard src/model/arch/*.c) \
           $(filter-out $(wildcard tests/f64/test_*.c),$(wildcard tests/f64/*.c))
$(BUILD)/f64/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -DHADAL_F64 -c $< -o $@
$(BUILD)/tests/f64/%: $(BUILD)/f64/tests/f64/%.o $(F64:%.c=$(BUILD)/f64/%.o)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

# Fuzz targets need clang's libFuzzer; `make test` runs each for a few seconds on its corpus.
FUZZ    := $(patsubst %.c,build/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
build/fuzz/lib.a: $(patsubst $(BUILD)/%,build/fuzz/%,$(LIBOBJ) $(SRVOBJ))
	@rm -f $@
	ar rcs $@ $^
build/fuzz/src/%.o: src/%.c
	@mkdir -p $(@D)
	clang $(CFLAGS) $(ISA) -fsanitize=address,undefined,fuzzer-no-link -c $< -o $@
build/fuzz/tests/%: tests/%.c build/fuzz/lib.a
	@mkdir -p $(@D)
	clang $(CFLAGS) -fsanitize=address,undefined,fuzzer -o $@ $^ $(LDLIBS) -lmicrohttpd
FCPU    := build/fuzz/src/kernels/cpu
$(FCPU)/avx2/%.o:       ISA := -mavx2 -mfma -mf16c
$(FCPU)/avx512/%.o:     ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
$(FCPU)/avx512bf16/%.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16
$(FCPU)/amx/%.o:        ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16

EXAMPLE := $(BUILD)/examples/complete
$(EXAMPLE): examples/complete.c $(BUILD)/libhadal.so
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -std=c11 $(OPT) $(WARN) -Iinclude -o $@ $< -L$(BUILD) -lhadal -Wl,-rpath,$(abspath $(BUILD))

test: all $(TESTS) $(BUILD)/tests/gold/gold $(EXAMPLE) $(if $(SAN),,$(FUZZ))
	@BUILD=$(BUILD) sh tests/run.sh $(TESTS)

house:
	@sh tests/house/run.sh $(BUILD)

# Every comparison with a folder laid out like the reference data.
GOLD    ?= ../shared/golden
gold: $(BUILD)/tests/gold/gold
	@$< $(GOLD)

demo: all
	@sh examples/demo/run.sh $(BUILD)/hadal
demo-full: all
	@sh examples/demo/full.sh $(BUILD)/hadal

bench: all
	$(BUILD)/hadal bench --machine

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

# --- install -------------------------------------------------------------------------------------------------------
DEST    := $(DESTDIR)$(PREFIX)
install: all
	install -d $(DEST)/bin $(DEST)/lib/pkgconfig $(DEST)/lib/systemd/system $(DEST)/include \
	           $(DEST)/share/bash-completion/completions $(DEST)/share/man/man1
	install -m 755 $(BUILD)/hadal $(DEST)/bin/hadal
	install -m 644 $(BUILD)/libhadal.a $(DEST)/lib/
	install -m 755 $(BUILD)/libhadal.so $(DEST)/lib/libhadal.so.0
	ln -sf libhadal.so.0 $(DEST)/lib/libhadal.so
	install -m 644 include/hadal.h include/hadal_train.h $(DEST)/include/
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBS@|$(LDLIBS)|' tools/hadal.pc.in > $(DEST)/lib/pkgconfig/hadal.pc
	sed 's|@PREFIX@|$(PREFIX)|' tools/hadal.service.in > $(DEST)/lib/systemd/system/hadal.service
	install -m 644 docs/hadal.1 $(DEST)/share/man/man1/
	$(BUILD)/hadal completion > $(DEST)/share/bash-completion/completions/hadal

clean:
	rm -rf build

help:
	@echo 'make            the program build/hadal, build/libhadal.a, build/libhadal.so'
	@echo 'make test       all tests (SAN=1: under the address and undefined-behaviour sanitizers)'
	@echo 'make gold       every comparison with the reference data in GOLD=DIR (default ../shared/golden)'
	@echo 'make house      layering, exported symbols, globals, formatting'
	@echo 'make demo       a small model answers; its predecessor learns to reason by reinforcement (demo-full: from nothing)'
	@echo 'make install    PREFIX=$(PREFIX), DESTDIR'
	@echo 'make format     clang-format over all sources'

-include $(OBJ:.o=.d) $(F64:%.c=$(BUILD)/f64/%.d) $(TESTS:=.d) $(TESTOBJ:.o=.d)
.PHONY: all test house gold demo demo-full bench format install clean help
.SECONDARY:
