s/^extern "C" {/namespace sample {/
# full
# also: cxx_caller
