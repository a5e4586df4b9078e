# netkit: headers need no building; this builds and tests what surrounds them. `make help` lists the targets.
# GNU make. CC, CXX, CFLAGS, CPPFLAGS, LDFLAGS, JOBS may be set; everything that is made goes to build/.

CC      = cc
CXX     = c++
CFLAGS  = -O2 -g
B       = build
SECONDS = 60
CLANG   = clang
PYTHON  = python3
CPUS   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WARN    = -Wall -Wextra
DEPS    = -MMD -MP -MF $@.d
SUBMAKE = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(CPUS))

HEADERS  := $(sort $(wildcard netkit_*.h))
NET      := $(sort $(wildcard tests/net_*.c))
TESTS    := $(NET) $(sort $(wildcard tests/test_*.c))
FUZZERS  := $(patsubst tests/fuzz/fuzz_%.c,%,$(filter-out tests/fuzz/fuzz_main.c,$(sort $(wildcard tests/fuzz/fuzz_*.c))))
EXAMPLES := $(sort $(wildcard examples/*.c))

export CC CXX

.PHONY: all run test examples bench hygiene test-asan test-ubsan test-tsan test-valgrind fuzz conformance interop windows size bare clean help
.PHONY: build-tests run-variant programs skipped-examples
.DELETE_ON_ERROR:

# ---- examples --------------------------------------------------------------------------------

# Which examples want a library, and is it here? Asked of the source, so a new example needs no line in this file.
wants = $(shell grep -l '<$(1)/' $(EXAMPLES) /dev/null 2>/dev/null)
HASH  := \#
links = $(shell printf '$(HASH)include <$(1)>\nint main(void) { return 0; }\n' | $(CC) $(CPPFLAGS) $(LDFLAGS) -x c - -o /dev/null $(2) >/dev/null 2>&1 && echo yes)
OPENSSL_USERS := $(call wants,openssl)
MBEDTLS_USERS := $(call wants,mbedtls)
OPENSSL_LIBS  := -lssl -lcrypto
MBEDTLS_LIBS  := -lmbedtls -lmbedx509 -lmbedcrypto
ifneq ($(OPENSSL_USERS),)
ifneq ($(call links,openssl/ssl.h,$(OPENSSL_LIBS)),yes)
MISSING += $(OPENSSL_USERS)
endif
endif
ifneq ($(MBEDTLS_USERS),)
ifneq ($(call links,mbedtls/ssl.h,$(MBEDTLS_LIBS)),yes)
MISSING += $(MBEDTLS_USERS)
endif
endif
program       = $(patsubst examples/%.c,$(B)/%,$(1))
PROGRAMS     := $(call program,$(filter-out $(MISSING),$(EXAMPLES)))
PREFACES     := $(patsubst netkit_%.h,$(B)/preface/%,$(HEADERS))

all: $(PROGRAMS) skipped-examples ## build the examples into build/ (default)

$(call program,$(OPENSSL_USERS)): LIBS = $(OPENSSL_LIBS)
$(call program,$(MBEDTLS_USERS)): LIBS = $(MBEDTLS_LIBS)
$(call program,$(EXAMPLES)): $(B)/%: examples/%.c
	@mkdir -p $(@D)
	@rm -f $@
	$(CC) -std=c99 $(WARN) $(CPPFLAGS) $(CFLAGS) -I. $(DEPS) $< -o $@ $(LDFLAGS) $(LIBS) -lpthread

skipped-examples:
	@for f in $(MISSING); do echo "skipped: $$f: its library is not installed"; done

# What the targets that talk to examples need: as many of them as can be built; one that is missing fails there, by name.
programs:
	@$(SUBMAKE) -k all || echo "some examples did not build"

run: $(B)/http_app ## start build/http_app on 127.0.0.1:8080
	@echo "open http://127.0.0.1:8080/ in a browser, or:"
	@echo "    curl -i http://127.0.0.1:8080/"
	@echo "    curl -N http://127.0.0.1:8080/events"
	@echo "stop with Ctrl-C"
	@$(B)/http_app 127.0.0.1:8080

# The program in each header's preface, taken out and built with every warning on.
examples: all $(PREFACES) ## build the examples and the program shown in each header's preface
	@echo "$(words $(PROGRAMS) $(PREFACES)) passed, 0 failed"

$(PREFACES): $(B)/preface/%: netkit_%.h tests/extract_examples.sh
	@mkdir -p $(@D)
	@rm -f $@
	sh tests/extract_examples.sh $< >$@.c
	$(CC) -std=c99 $(WARN) -Wpedantic -Werror $(CPPFLAGS) $(CFLAGS) -I. $(DEPS) $@.c -o $@ $(LDFLAGS) -lpthread

# ---- tests -----------------------------------------------------------------------------------

# One set of rules builds the tests once per variant: V is the directory, VCC and VFLAGS how.
V      = tests
VCC    = $(CC)
VFLAGS = -O1
VTESTS = $(TESTS:tests/%.c=$(B)/$(V)/%)
VFUZZ  = $(FUZZERS:%=$(B)/$(V)/fuzz_%)
VBUILD = $(VCC) -std=c99 -g $(WARN) $(CPPFLAGS) $(CFLAGS) $(VFLAGS) -I. $(DEPS)
VJOBS  = $(VTESTS) $(foreach f,$(FUZZERS),"$(B)/$(V)/fuzz_$(f) tests/fuzz/corpus/$(f)")

build-tests: $(VTESTS) $(VFUZZ)

$(VTESTS): $(B)/$(V)/%: tests/%.c
	@mkdir -p $(@D)
	@rm -f $@
	$(VBUILD) $< -o $@ $(LDFLAGS) -lpthread

$(B)/$(V)/fuzz_main.o: tests/fuzz/fuzz_main.c
	@mkdir -p $(@D)
	$(VBUILD) -c $< -o $@

$(VFUZZ): $(B)/$(V)/fuzz_%: tests/fuzz/fuzz_%.c $(B)/$(V)/fuzz_main.o
	@rm -f $@
	$(VBUILD) $(filter %.c %.o,$^) -o $@ $(LDFLAGS) -lpthread

# A test that does not compile must not hide the others: build what can be built, and let the runner count the rest as failed.
test: ## build and run all tests, replay the fuzz corpora, check the headers' form and docs/tested.md
	@$(SUBMAKE) -k build-tests || echo "some tests did not build; they count as failed"
	@sh tests/run.sh $(VJOBS) "sh tests/hygiene.sh --quick" "sh tests/docs.sh"

# $(call variant,NAME,FLAGS): probes the compiler, builds into build/NAME, runs. Where a sanitizer cannot cope with
# randomised addresses (TSan on some kernels), setarch -R helps if it exists.
define variant
	@mkdir -p $(B)/$(1); p=$(B)/$(1)/probe; wrap=; why=; \
	printf 'int main(void) { return 0; }\n' >$$p.c; \
	if ! $(CC) $(2) $$p.c -o $$p >$$p.log 2>&1; then why="$(CC) cannot build with $(2)"; \
	elif $$p >$$p.log 2>&1; then :; \
	elif setarch "$$(uname -m)" -R $$p >$$p.log 2>&1; then wrap="setarch $$(uname -m) -R"; \
	else why="a program built with $(2) does not run here"; fi; \
	if [ -n "$$why" ]; then echo "SKIPPED: test-$(1): $$why"; echo "0 passed, 0 failed"; exit 0; fi; \
	$(SUBMAKE) -k V=$(1) VFLAGS="-O1 -fno-omit-frame-pointer $(2)" build-tests || echo "some tests did not build; they count as failed"; \
	$(SUBMAKE) -s V=$(1) WRAP="$$wrap" LIMIT=300 run-variant
endef
run-variant:
	@WRAP="$(WRAP)" LIMIT=$(LIMIT) sh tests/run.sh $(VJOBS)

test-asan: ## the tests under AddressSanitizer
	$(call variant,asan,-fsanitize=address -fno-sanitize-recover=all)
test-ubsan: ## the tests under UndefinedBehaviorSanitizer
	$(call variant,ubsan,-fsanitize=undefined -fno-sanitize-recover=all)
test-tsan: ## the tests under ThreadSanitizer
	$(call variant,tsan,-fsanitize=thread -fno-sanitize-recover=all)

VALGRIND = valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible --child-silent-after-fork=yes
test-valgrind: ## the tests under valgrind
	@if ! command -v valgrind >/dev/null 2>&1; then echo "SKIPPED: test-valgrind: no valgrind"; echo "0 passed, 0 failed"; exit 0; fi; \
	$(SUBMAKE) -k build-tests || echo "some tests did not build; they count as failed"; \
	WRAP="$(VALGRIND)" LIMIT=600 sh tests/run.sh $(VJOBS)

hygiene: ## every check of the headers' form, with each compiler that is here, and proof that each check can fail
	@sh tests/hygiene.sh --both

bare: ## a fresh clone passes `make test` with nothing but cc, make, sh and the usual small tools in PATH
	@sh tests/bare.sh

# ---- more than a compiler --------------------------------------------------------------------

fuzz: ## fuzz every core for SECONDS=60 each (clang with libFuzzer)
	@CLANG="$(CLANG)" sh tests/fuzz/run.sh $(SECONDS) $(FUZZERS)

conformance: programs ## run the case tables of tests/conformance against the example servers (python3)
	@PYTHON="$(PYTHON)" B=$(B) sh tests/conformance/run.sh

interop: programs ## real clients against the example servers
	@B=$(B) LIMIT=300 sh tests/run.sh $(patsubst %,"sh %",$(sort $(wildcard tests/interop/*.sh)))

windows: ## cross-compile tests and examples with mingw, and run them under wine if it is here
	@sh tests/windows.sh $(B)/windows $(TESTS) $(EXAMPLES)

size: ## code size of netkit_http.h by slice
	@sh tests/size.sh

bench: programs ## compare speed with the floor and with installed servers (bench/README.md)
	@sh bench/run.sh

clean: ## remove build/
	rm -rf $(B)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

-include $(wildcard $(B)/*.d $(B)/preface/*.d $(B)/$(V)/*.d)
