# The declarations are C++ to C++.
# full
s/^extern "C" {/extern "C++" {/
